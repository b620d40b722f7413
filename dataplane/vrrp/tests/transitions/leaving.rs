//! Leaving, with the linger and the farewell of our own.

use std::time::Duration;

use vrrp::{Cause, Centiseconds, Input, Preemption, Priority, State, Version};

use crate::bench::*;

const V3: Version = Version::V3;
const MS: Duration = Duration::from_millis(1);

/// Leaving: the addresses go as soon as the next Active is heard, without a word.
#[test]
fn leaving_ends_when_the_next_active_is_heard() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Stop);
    bench.pass(MS * 30);
    assert_eq!(bench.hear(0, 12), [], "one that leaves too is no successor");
    assert_eq!(bench.hear(50, 12), [Remove]);
    assert!(!bench.router.is_leaving());
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(1)], "farewell");
    assert_eq!(bench.input(Input::AddressesRemoved), []);
    assert_eq!(bench.armed(), None);
    assert_eq!(bench.router.last_advertisement(), None);
}

/// Leaving: it does not advertise, and a second order to leave changes nothing.
#[test]
fn leaving_is_silent() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    let until = bench.router.poll_timeout();
    bench.pass(MS * 100);
    assert_eq!(bench.input(Input::Timer), []);
    assert_eq!(bench.input(Input::Stop), []);
    assert_eq!(bench.input(Input::AddressesAdded), []);
    assert_eq!(bench.router.poll_timeout(), until);
}

/// A start while leaving lets go first and listens.
#[test]
fn start_while_leaving_listens() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.pass(MS);
    assert_eq!(
        bench.input(Input::Start),
        [Remove, Became(State::Backup, Cause::Started)]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
}

/// A restart of the proxy on a lone host: the time it listened while it took no part counts.
#[test]
fn listening_while_withdrawn_counts() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.timer();
    bench.pass(SECOND * 2);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND * 2));
    bench.input(Input::Withdraw);
    bench.pass(SECOND * 10);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(Duration::ZERO));
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
}

/// An Active heard while taking no part is not run over at the start.
#[test]
fn an_active_heard_while_withdrawn_counts_too() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.timer();
    bench.pass(SECOND * 10);
    bench.hear(50, 12);
    bench.pass(SECOND / 2);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND / 2));
}

/// Its silence is measured by the interval that it stated, also where it was about to be preempted.
#[test]
fn an_active_heard_before_a_withdrawal_counts_by_its_own_interval() {
    let mut bench = Bench::backup(V3);
    bench.hear_interval(50, 12, Centiseconds::new(200).unwrap());
    bench.pass(SECOND);
    bench.input(Input::Withdraw);
    bench.pass(SECOND * 3);
    assert_eq!(bench.input(Input::Start).len(), 1, "listens");
    let whole = ACTIVE_DOWN * 2;
    assert_eq!(bench.armed(), Some(whole - SECOND * 4));
}

/// What was heard before the process stood still is no beginning of a silence: a Backup that woke up
/// and is withdrawn before it has listened anew does not rise at its return.
#[test]
fn a_pause_before_a_withdrawal_does_not_count() {
    let mut bench = Bench::backup(V3);
    bench.hear(200, 12);
    bench.pass(SECOND * 60);
    assert_eq!(bench.input(Input::Timer), [], "listens anew");
    bench.pass(SECOND);
    bench.input(Input::Withdraw);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND));
}

/// A host that is cut off hears nobody, whoever is Active.
#[test]
fn silence_while_cut_off_does_not_count() {
    let mut bench = Bench::active(V3);
    let became = Became(State::Initialize, Cause::Isolated);
    assert_eq!(bench.input(Input::Isolated), [Send(0), became]);
    bench.timer();
    bench.pass(SECOND * 10);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    bench.input(Input::Withdraw);
    bench.pass(SECOND * 2);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND * 2), "once");
}

/// A pause of the whole host is no silence.
#[test]
fn a_pause_while_withdrawn_does_not_count() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.timer();
    bench.pass(SECOND * 10);
    assert_eq!(bench.input(Input::Paused), []);
    bench.pass(SECOND);
    bench.input(Input::Start);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND));
}

/// Farewell: a router that yielded speaks once its addresses are gone, below the winner, and once
/// more after the winner's next advertisement, to hear its answer; then never again.
#[test]
fn yielding_router_says_farewell_until_it_is_answered() {
    let mut bench = Bench::active(V3);
    bench.hear(200, 12);
    bench.pass(MS * 60);
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);
    bench.pass(MS);
    assert_eq!(
        bench.hear(200, 12),
        [],
        "perhaps an answer, perhaps its turn"
    );
    bench.pass(SECOND);
    assert_eq!(bench.hear(200, 12), [Send(100)]);
    bench.pass(MS);
    assert_eq!(bench.hear(200, 12), [], "the answer");
    for _ in 0..10 {
        bench.pass(SECOND);
        assert_eq!(bench.hear(200, 12), []);
        assert_eq!(bench.input(Input::AddressesRemoved), []);
    }
}

/// Farewell: that of another router is answered by none, which would have to say 0.
#[test]
fn a_farewell_is_not_owed_to_another_that_says_one() {
    let mut bench = Bench::active(V3);
    bench.hear(200, 12);
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);
    bench.pass(SECOND);
    assert_eq!(bench.hear(1, 13), [], "a farewell to the same winner");
    assert_eq!(bench.hear(200, 12), [Send(100)]);

    let mut bench = Bench::active(V3);
    bench.hear(200, 12);
    bench.hear(1, 13);
    assert_eq!(bench.input(Input::AddressesRemoved), []);
    bench.pass(SECOND);
    assert_eq!(bench.hear(200, 12), [Send(100)]);
}

/// Farewell: a winner of priority 1 is known by its second advertisement.
#[test]
fn a_winner_of_priority_one_is_told_with_priority_0() {
    let mut config = config(V3);
    config.settings.preemption = Preemption::Disabled;
    let mut bench = Bench::with(config);
    bench.input(Input::Resume {
        last_advertisement_at: bench.now - SECOND * 5,
    });
    bench.input(Input::AddressesRemoved);
    assert_eq!(bench.hear(1, 12), []);
    bench.pass(SECOND);
    assert_eq!(bench.hear(1, 12), [Send(0)]);
}

/// Farewell: a winner that never answers is told fifteen times.
#[test]
fn farewell_ends_without_an_answer() {
    let mut bench = Bench::active(V3);
    bench.hear(200, 12);
    let mut said = bench.input(Input::AddressesRemoved).len();
    for _ in 0..30 {
        bench.pass(SECOND);
        said += bench.hear(200, 12).len();
    }
    assert_eq!(said, 15);
}

/// Farewell: owed by a restarted process that came too late, too.
#[test]
fn resume_too_late_says_farewell() {
    let mut bench = Bench::new(V3);
    let resume = Input::Resume {
        last_advertisement_at: bench.now - SECOND * 5,
    };
    bench.input(resume);
    assert_eq!(bench.input(Input::AddressesRemoved), []);
    bench.pass(SECOND / 2);
    assert_eq!(bench.hear(200, 12), [Send(100)]);
}

/// Farewell: other Backups may take it for the Active's word, so it states the Active's interval.
#[test]
fn farewell_states_the_interval_of_the_winner() {
    let mut bench = Bench::active(V3);
    bench.hear_interval(200, 12, Centiseconds::new(300).unwrap());
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);
    let said = bench.router.advertisement(Priority::new(100));
    assert_eq!(said.interval, Centiseconds::new(300).unwrap());
}

/// Farewell: what it says is heard by the winner as a lower Active, which then announces; and by no
/// one as a reason to yield.
#[test]
fn farewell_makes_the_winner_announce() {
    let mut winner = Bench::active(V3);
    winner.pass(SECOND / 2);
    winner.input(Input::Timer);
    assert_eq!(winner.hear(99, 12), [Send(100), Announce]);
    let announcements: Vec<_> = (0..3).map(|_| winner.timer()).collect();
    assert_eq!(announcements, [[Announce], [Announce], [Announce]]);
}

/// Farewell: a Backup that became Active again owes none.
#[test]
fn farewell_is_forgotten_when_active_again() {
    let mut bench = Bench::active(V3);
    bench.hear(200, 12);
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(bench.input(Input::AddressesRemoved), []);
}

/// Farewell: a start before the addresses of a planned leave are gone owes one, since the host
/// answered neighbours after its last word.
#[test]
fn start_before_the_addresses_are_gone_owes_a_farewell() {
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.input(Input::Start);
    assert_eq!(bench.hear(200, 12), [], "the addresses are still there");
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);

    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    assert_eq!(bench.hear(200, 12), [Remove]);
    bench.input(Input::Start);
    bench.hear(200, 12);
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);

    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.hear(200, 12);
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)], "said");
    bench.input(Input::Start);
    bench.pass(SECOND);
    assert_eq!(bench.hear(200, 12), [], "and owed no more");
}

/// Farewell: who left while nobody was to be heard may have left clients with its hardware address, of which
/// the winner on the other side of a partition knows nothing.
#[test]
fn who_left_unheard_says_farewell_when_it_takes_part_again() {
    for cut in [Input::Isolated, Input::Withdraw] {
        let mut bench = Bench::active(V3);
        bench.input(cut);
        assert_eq!(bench.timer(), [Send(0), Remove]);
        bench.input(Input::AddressesRemoved);
        bench.pass(SECOND * 10);
        let became = Became(State::Backup, Cause::Started);
        assert_eq!(bench.input(Input::Start), [Remove, became]);
        assert_eq!(bench.hear(200, 12), []);
        assert_eq!(bench.input(Input::AddressesRemoved), [Send(100)]);
    }

    // A link that goes tells nobody either.
    let mut bench = Bench::active(V3);
    bench.input(Input::Withdraw);
    bench.timer();
    bench.input(Input::LinkDown);
    bench.input(Input::LinkUp);
    bench.input(Input::Start);
    bench.input(Input::AddressesRemoved);
    assert_eq!(bench.hear(200, 12), [Send(100)]);
}

/// Interface lost: priority 0 while there is a socket for it, and no linger.
#[test]
fn interface_lost_releases_at_once() {
    let mut bench = Bench::active(V3);
    assert_eq!(
        bench.input(Input::InterfaceLost),
        [
            Send(0),
            Remove,
            Became(State::Initialize, Cause::InterfaceLost)
        ]
    );
    assert_eq!(bench.armed(), None);
    assert_eq!(bench.input(Input::InterfaceLost), []);

    let mut bench = Bench::backup(V3);
    assert_eq!(
        bench.input(Input::InterfaceLost),
        [Became(State::Initialize, Cause::InterfaceLost)]
    );

    let mut bench = Bench::active(V3);
    bench.input(Input::Stop);
    assert_eq!(bench.input(Input::InterfaceLost), [Remove]);
}
