//! The transitions of RFC 9568 section 6.4 and RFC 3768 section 6.4, which differ in nothing here.

use std::time::Duration;

use vrrp::{Cause, Discard, Input, Preemption, Priority, State, Version};

use crate::bench::*;

/// RFC 9568 6.4.1, RFC 3768 6.4.1: Startup with a priority below 255 leads to Backup, which waits
/// for one active-down interval and has not spoken.
pub(crate) fn startup_leads_to_backup(version: Version) {
    let mut bench = Bench::new(version);
    assert_eq!(bench.armed(), None);
    assert_eq!(
        bench.input(Input::Start),
        [Became(State::Backup, Cause::Started)]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
}

/// RFC 9568 6.4.1, RFC 3768 6.4.1: the owner of the addresses (255) is Active at once: advertise,
/// hold, and announce once held.
pub(crate) fn owner_starts_as_active(version: Version) {
    let mut config = config(version);
    config.settings.priority = Priority::OWNER;
    let mut bench = Bench::with(config);
    assert_eq!(
        bench.input(Input::Start),
        [Send(255), Add, Became(State::Active, Cause::OwnerStarted)]
    );
    assert_eq!(bench.armed(), Some(SECOND));
    assert_eq!(bench.input(Input::AddressesAdded), [Announce]);
}

/// RFC 9568 6.1, RFC 3768 6.1.2 (`Preempt_Mode`): the owner preempts whatever the mode and without delay.
pub(crate) fn owner_preempts_whatever_the_mode(version: Version) {
    let delay = Duration::from_mins(1);
    for preemption in [Preemption::Disabled, Preemption::Enabled { delay }] {
        let mut config = config(version);
        config.settings.preemption = preemption;
        config.settings.priority_without_endpoint = Priority::new(2);
        config.settings.priority = Priority::OWNER;
        let mut bench = Bench::with(config);
        bench.input(Input::EndpointUsable(false));
        bench.input(Input::Start);
        assert_eq!(bench.hear(100, 12), []);
        bench.input(Input::EndpointUsable(true));
        bench.pass(SECOND);
        assert_eq!(bench.hear(100, 12), []);
        let rise = bench.timer();
        assert_eq!(rise[..2], [Send(255), Add], "{preemption:?}");
    }
}

/// RFC 9568 6.4.2 (`Active_Down_Timer` fires), RFC 3768 6.4.2: advertise, hold, and announce once
/// held, in this order; the timer is then the advertisement timer.
pub(crate) fn backup_rises_when_the_timer_fires(version: Version) {
    let mut bench = Bench::backup(version);
    assert_eq!(
        bench.timer(),
        [Send(100), Add, Became(State::Active, Cause::NoActiveHeard)]
    );
    assert_eq!(bench.armed(), Some(SECOND));
    assert_eq!(bench.input(Input::AddressesAdded), [Announce]);
}

/// RFC 9568 6.4.2: a timer that has not fired does nothing.
pub(crate) fn backup_ignores_an_early_timer(version: Version) {
    let mut bench = Bench::backup(version);
    bench.pass(ACTIVE_DOWN - Duration::from_nanos(1));
    assert_eq!(bench.input(Input::Timer), []);
    assert_eq!(bench.router.state(), State::Backup);
}

/// RFC 9568 6.4.2, RFC 3768 6.4.2: Shutdown leads to Initialize and cancels the timer; a Backup
/// says nothing.
pub(crate) fn backup_stops_silently(version: Version) {
    for (input, cause) in [
        (Input::Stop, Cause::Stopped),
        (Input::Withdraw, Cause::Withdrawn),
    ] {
        let mut bench = Bench::backup(version);
        assert_eq!(bench.input(input), [Became(State::Initialize, cause)]);
        assert_eq!(bench.armed(), None);
    }
}

/// RFC 9568 6.4.2, RFC 3768 6.4.2: priority 0 sets the timer to the skew time.
pub(crate) fn backup_waits_skew_after_priority_0(version: Version) {
    let mut bench = Bench::backup(version);
    bench.hear(200, 12);
    bench.pass(SECOND / 2);
    assert_eq!(bench.hear(0, 12), []);
    assert_eq!(bench.armed(), Some(SKEW));
    let source = host(12);
    assert_eq!(
        bench.timer(),
        [
            Send(100),
            Add,
            Became(State::Active, Cause::ActiveReleased { source })
        ]
    );
}

/// RFC 9568 6.4.2, RFC 3768 6.4.2: a higher or equal priority restarts the timer.
pub(crate) fn backup_is_held_by_higher_and_equal_priority(version: Version) {
    for priority in [100, 101, 255] {
        let mut bench = Bench::backup(version);
        bench.pass(SECOND);
        assert_eq!(bench.hear(priority, 12), []);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN), "priority {priority}");
        bench.pass(SECOND);
        assert_eq!(bench.hear(priority, 12), []);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        let source = host(12);
        let did = bench.timer();
        assert_eq!(
            did.last(),
            Some(&Became(State::Active, Cause::ActiveSilent { source }))
        );
    }
}

/// RFC 9568 6.4.2, RFC 3768 6.4.2: with preemption, a lower priority is discarded: the timer runs on,
/// and when it fires the router preempts. The other one, which lives, is told once the addresses are held.
pub(crate) fn backup_preempts_a_lower_priority(version: Version) {
    let mut bench = Bench::backup(version);
    for _ in 0..3 {
        bench.pass(SECOND);
        assert_eq!(bench.hear(99, 12), []);
    }
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND * 3));
    let (source, priority) = (host(12), Priority::new(99));
    assert_eq!(
        bench.timer(),
        [
            Add,
            Became(State::Active, Cause::Preempted { source, priority })
        ]
    );
    assert_eq!(bench.input(Input::AddressesAdded), [Announce, Send(100)]);
}

/// RFC 9568 6.4.2, RFC 3768 6.4.2: without preemption, a lower priority restarts the timer; silence
/// and priority 0 still lead to Active.
pub(crate) fn backup_without_preemption_is_held_by_a_lower_priority(version: Version) {
    let mut config = config(version);
    config.settings.preemption = Preemption::Disabled;
    let mut bench = Bench::backup_with(config);
    for _ in 0..10 {
        bench.pass(SECOND);
        assert_eq!(bench.hear(1, 12), []);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    }
    assert_eq!(bench.hear(0, 12), []);
    assert_eq!(bench.armed(), Some(SKEW));
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
}

/// RFC 9568 6.4.3 (`Adver_Timer` fires), RFC 3768 6.4.3: one advertisement per interval, in rhythm.
pub(crate) fn active_advertises_every_interval(version: Version) {
    let mut bench = Bench::active(version);
    let begin = bench.now;
    let mut sent = 0;
    while bench.now.since(begin) < SECOND * 30 {
        sent += bench
            .timer()
            .iter()
            .filter(|did| **did == Send(100))
            .count();
    }
    assert_eq!(sent, 30);
    // Late by less than it takes to be replaced: the next one is due as if nothing had happened.
    let due = bench.router.poll_timeout().unwrap();
    bench.now = due + SECOND / 4;
    assert_eq!(bench.input(Input::Timer), [Send(100)]);
    assert_eq!(bench.router.poll_timeout(), Some(due + SECOND));
}

/// RFC 9568 6.4.3, RFC 3768 6.4.3: Shutdown sends priority 0. The addresses go after the linger.
pub(crate) fn active_releases_when_stopped(version: Version) {
    for (input, cause) in [
        (Input::Stop, Cause::Stopped),
        (Input::Withdraw, Cause::Withdrawn),
    ] {
        let mut bench = Bench::active(version);
        assert_eq!(
            bench.input(input),
            [Send(0), Became(State::Initialize, cause)]
        );
        assert!(bench.router.is_leaving());
        assert_eq!(bench.armed(), Some(Duration::from_millis(120)));
        assert_eq!(bench.timer(), [Send(0), Remove]);
        assert!(!bench.router.is_leaving());
        assert_eq!(bench.armed(), None);
    }
}

/// RFC 9568 6.4.3, RFC 3768 6.4.3: priority 0 from another is answered at once, and the timer is
/// reset; the announcement is ours.
pub(crate) fn active_answers_priority_0(version: Version) {
    let mut bench = Bench::active(version);
    bench.pass(SECOND / 2);
    bench.input(Input::Timer);
    assert_eq!(bench.hear(0, 12), [Send(100), Announce]);
    assert_eq!(bench.router.state(), State::Active);
    bench.pass(SECOND / 2);
    // 10, 50 and 200 ms after: one announcement for all that are due, no advertisement yet.
    assert_eq!(bench.input(Input::Timer), [Announce]);
    assert_eq!(bench.armed(), Some(SECOND / 2));
}

/// RFC 9568 6.4.3, RFC 3768 6.4.3: a higher priority wins: the addresses go at once, and the timer is
/// the active-down timer.
pub(crate) fn active_yields_to_a_higher_priority(version: Version) {
    let mut bench = Bench::active(version);
    bench.pass(SECOND / 2);
    let (source, priority) = (host(9), Priority::new(101));
    assert_eq!(
        bench.hear(101, 9),
        [
            Remove,
            Became(State::Backup, Cause::HigherPriority { source, priority })
        ]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
}

/// RFC 9568 6.4.3, RFC 3768 6.4.3: between equal priorities the greater source address wins.
pub(crate) fn active_yields_to_the_greater_address(version: Version) {
    let mut bench = Bench::active(version);
    let (source, priority) = (host(12), Priority::new(100));
    assert_eq!(
        bench.hear(100, 12),
        [
            Remove,
            Became(State::Backup, Cause::GreaterAddress { source, priority })
        ]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
}

/// RFC 9568 6.4.3 (and keepalived in version 2): a lower priority, or an equal one with a smaller
/// address, is answered at once so that it yields; the announcement repairs what it claimed.
pub(crate) fn active_asserts_itself_against_a_lower_one(version: Version) {
    for (priority, from) in [(99, 12), (1, 200), (100, 9)] {
        let mut bench = Bench::active(version);
        bench.pass(SECOND / 2);
        bench.input(Input::Timer);
        assert_eq!(bench.hear(priority, from), [Send(100), Announce]);
        assert_eq!(bench.router.state(), State::Active);
    }
}

/// RFC 9568 6.4.1: in Initialize nothing is answered.
pub(crate) fn initialize_says_nothing(version: Version) {
    let mut bench = Bench::new(version);
    assert_eq!(bench.hear(1, 12), []);
    assert_eq!(bench.hear(0, 12), []);
    assert_eq!(bench.hear(255, 12), []);
    assert_eq!(bench.input(Input::Timer), []);
    assert_eq!(bench.input(Input::Stop), []);
    assert_eq!(bench.router.state(), State::Initialize);
}

/// RFC 9568 7.1, RFC 3768 7.1: what is not for this virtual router changes nothing.
pub(crate) fn foreign_advertisements_are_dropped(version: Version) {
    let second = vrrp::Centiseconds::SECOND;
    let mut bench = Bench::active(version);
    assert_eq!(bench.hear(200, 11), [Dropped(Discard::OwnSource)]);
    assert_eq!(
        bench.hear_addresses(200, 12, second, &[host(111)]),
        [Dropped(Discard::OtherAddresses)]
    );
    assert_eq!(bench.router.differing_addresses_from(), Some(host(12)));
    let other = match version {
        Version::V2 => Version::V3,
        Version::V3 => Version::V2,
    };
    let addresses = [host(110)];
    let mut advertisement = vrrp::Advertisement {
        version: other,
        vrid: vrrp::Vrid::new(51).unwrap(),
        priority: Priority::new(200),
        interval: second,
        authentication: vrrp::Authentication::None,
        addresses: vrrp::wire::AddressList::from_slice(&addresses),
    };
    let source = host(12);
    let input = Input::Advertisement {
        source,
        advertisement: &advertisement,
    };
    assert_eq!(bench.input(input), [Dropped(Discard::OtherVersion)]);
    advertisement.version = version;
    advertisement.vrid = vrrp::Vrid::new(52).unwrap();
    let input = Input::Advertisement {
        source,
        advertisement: &advertisement,
    };
    assert_eq!(bench.input(input), [Dropped(Discard::OtherVrid)]);
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(bench.router.last_heard(), None);
}

/// RFC 9568 6.4.3, RFC 3768 6.4.3: two routers that both say they own the addresses (255) settle it by
/// their source addresses, as any two do; the one that yields is an ordinary Backup then, and the other
/// is reported. An owner does not discard what others say (RFC 9568 7.1 as erratum 8298 has it): with the
/// sentence as it was printed, and in RFC 3768, two would stay Active for ever.
pub(crate) fn two_owners_settle_by_address(version: Version) {
    let mut owner = config(version);
    owner.settings.priority = Priority::OWNER;
    let mut bench = Bench::with(owner.clone());
    bench.input(Input::Start);
    bench.input(Input::AddressesAdded);
    assert_eq!(bench.hear(255, 10), [Send(255), Announce]);
    assert_eq!(bench.router.state(), State::Active);
    let cause = Cause::GreaterAddress {
        source: host(12),
        priority: Priority::OWNER,
    };
    assert_eq!(bench.hear(255, 12), [Remove, Became(State::Backup, cause)]);
    let twin = bench.router.equal_priority_peer();
    assert_eq!(twin.map(|peer| peer.source), Some(host(12)));
    bench.pass(SECOND);
    assert_eq!(bench.hear(255, 12), []);
    assert_eq!(bench.router.state(), State::Backup);
    let rise = bench.timer();
    assert_eq!(rise[..2], [Send(255), Add], "in its silence");
}

/// RFC 9568 7.1, RFC 3768 7.1 ("the local router is not the sender"): own packets that come back over
/// a loop in the network are dropped in every state, and no timer runs anew.
pub(crate) fn own_packets_that_come_back_are_dropped(version: Version) {
    let looped = [Dropped(Discard::OwnSource)];
    let mut bench = Bench::new(version);
    assert_eq!(bench.hear(100, 11), looped);
    let mut bench = Bench::backup(version);
    bench.pass(SECOND);
    let armed = bench.armed();
    assert_eq!(bench.hear(100, 11), looped);
    assert_eq!(bench.hear(0, 11), looped, "its own priority 0, too");
    assert_eq!(bench.armed(), armed);
    let mut bench = Bench::active(version);
    let armed = bench.armed();
    assert_eq!(bench.hear(100, 11), looped);
    assert_eq!(bench.armed(), armed);
    bench.input(Input::Stop);
    assert_eq!(bench.hear(100, 11), looped);
    assert!(bench.router.is_leaving());
    assert_eq!(bench.router.last_heard(), None);
}
