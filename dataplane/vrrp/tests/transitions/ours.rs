//! Rules beyond the standards, each for a failure that was seen.

use std::time::Duration;

use vrrp::{Cause, Centiseconds, Input, Instant, Preemption, Priority, State, Version};

use crate::bench::*;

const V3: Version = Version::V3;
const MS: Duration = Duration::from_millis(1);

fn delayed(delay: Duration) -> vrrp::Config {
    let mut config = config(V3);
    config.settings.preemption = Preemption::Enabled { delay };
    config
}

/// Woke late: an Active that did not run for as long as the quickest Backup waits removes first,
/// whatever woke it, and speaks only after it listened.
#[test]
fn active_that_woke_late_lets_go_first() {
    let limit = SECOND * 3 + SECOND * 2 / 256;
    let mut bench = Bench::active(V3);
    bench.pass(limit);
    assert_eq!(bench.input(Input::Timer).first(), Some(&Send(100)));
    bench.pass(limit + Duration::from_nanos(1));
    assert_eq!(
        bench.input(Input::Timer),
        [Remove, Became(State::Backup, Cause::WokeLate)]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    // The one that took over has a lower priority: it is told below its own priority, so that it
    // announces and goes on, until this one preempts it.
    bench.input(Input::AddressesRemoved);
    bench.pass(MS);
    assert_eq!(bench.hear(50, 12), [Send(1)]);
}

/// Woke late: an order to stop then finds a Backup, which is silent.
#[test]
fn stop_of_an_active_that_woke_late_is_silent() {
    let mut bench = Bench::active(V3);
    bench.pass(SECOND * 10);
    assert_eq!(
        bench.input(Input::Stop),
        [
            Remove,
            Became(State::Backup, Cause::WokeLate),
            Became(State::Initialize, Cause::Stopped)
        ]
    );
}

/// Woke late: a Backup whose timer ran out a whole active-down interval ago was not listening.
#[test]
fn backup_that_woke_late_listens_anew() {
    let mut bench = Bench::backup(V3);
    bench.hear(200, 12);
    bench.pass(ACTIVE_DOWN * 2 + Duration::from_nanos(1));
    assert_eq!(bench.input(Input::Timer), []);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    bench.pass(ACTIVE_DOWN * 2);
    bench.input(Input::Timer);
    assert_eq!(bench.router.state(), State::Active);
}

/// A router that has risen to preempt one of priority 50, and waits for the host to hold the addresses.
fn rising() -> Bench {
    let mut bench = Bench::backup(V3);
    while bench.armed() > Some(SECOND) {
        bench.pass(SECOND);
        bench.hear(50, 12);
    }
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
    assert!(!bench.router.has_advertised());
    bench
}

/// Make before break: until it speaks, the one that is preempted is not answered.
#[test]
fn rising_router_says_nothing_before_it_holds_the_addresses() {
    let mut bench = rising();
    assert_eq!(bench.router.last_advertisement(), Some(bench.now));
    bench.pass(MS);
    assert_eq!(bench.hear(50, 12), []);
    assert_eq!(bench.input(Input::AddressesAdded), [Announce, Send(100)]);
    assert!(bench.router.has_advertised());
    assert_eq!(bench.armed(), Some(MS * 10));
}

/// Make before break: a kernel that takes for ever does not keep it from the protocol.
#[test]
fn rising_router_speaks_after_one_interval() {
    let mut bench = rising();
    assert_eq!(bench.armed(), Some(SECOND));
    assert_eq!(bench.timer(), [Send(100)]);
    assert_eq!(bench.input(Input::AddressesAdded), [Announce]);
}

/// Make before break: with the other one gone meanwhile, nobody else may rise.
#[test]
fn rising_router_speaks_when_the_other_one_leaves() {
    let mut bench = rising();
    assert_eq!(bench.hear(0, 12), [Send(100)]);
}

/// Make before break: one that fell silent is not waited for.
#[test]
fn who_preempts_the_silent_speaks_first() {
    let mut bench = Bench::backup(V3);
    bench.hear(50, 12);
    assert_eq!(bench.timer().first(), Some(&Send(100)));
}

/// Make before break: nobody has let go for it, so it leaves without a priority 0, which would call
/// off the Active for all others.
#[test]
fn rising_router_leaves_silently() {
    let mut bench = rising();
    assert_eq!(
        bench.input(Input::Stop),
        [Remove, Became(State::Initialize, Cause::Stopped)]
    );
    assert!(!bench.router.is_leaving());
    assert_eq!(bench.input(Input::AddressesRemoved), [Send(1)]);

    let mut bench = rising();
    let lost = bench.input(Input::AddressesLost);
    assert_eq!(lost, [Remove, Became(State::Backup, Cause::AddressesLost)]);
}

/// Preemption delay: counts from the first lower priority heard, and is followed by the skew time, so
/// that of several routers the best rises first.
#[test]
fn preemption_delay_counts_from_the_first_lower_priority() {
    let mut bench = Bench::backup_with(delayed(SECOND * 5));
    let first = bench.now;
    for _ in 0..2 {
        bench.hear(50, 12);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        bench.pass(SECOND);
    }
    while bench.now.since(first) < SECOND * 5 {
        bench.hear(50, 12);
        assert_eq!(bench.router.poll_timeout(), Some(first + SECOND * 5 + SKEW));
        bench.pass(SECOND);
    }
    bench.hear(50, 12);
    let (source, priority) = (host(12), Priority::new(50));
    let cause = Cause::Preempted { source, priority };
    assert_eq!(bench.timer(), [Add, Became(State::Active, cause)]);
    assert_eq!(bench.now, first + SECOND * 5 + SKEW);
}

/// Preemption delay: a higher or equal priority cancels it.
#[test]
fn preemption_delay_is_cancelled_by_a_higher_priority() {
    for higher in [100, 200] {
        let mut bench = Bench::backup_with(delayed(SECOND * 5));
        for _ in 0..4 {
            bench.hear(50, 12);
            bench.pass(SECOND);
        }
        bench.hear(higher, 13);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        bench.pass(SECOND);
        bench.hear(50, 12);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        bench.pass(SECOND * 3);
        bench.hear(50, 12);
        assert_eq!(
            bench.armed(),
            Some(SECOND * 2 + SKEW),
            "three of five seconds"
        );
    }
}

/// Preemption delay: does not hold up the replacement of a silent Active.
#[test]
fn preemption_delay_does_not_delay_failover() {
    let mut bench = Bench::backup_with(delayed(SECOND * 60));
    bench.hear(50, 12);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
}

/// Preemption delay: a farewell begins none, since some hear it before the new Active and some after.
#[test]
fn preemption_delay_does_not_begin_with_a_farewell() {
    let mut bench = Bench::backup_with(delayed(SECOND * 5));
    bench.hear(200, 12);
    bench.hear(1, 13);
    bench.pass(SECOND);
    // An Active of priority 1 it may be, if it speaks again.
    bench.hear(1, 13);
    bench.pass(SECOND * 5 - SECOND / 10);
    bench.hear(1, 13);
    assert_eq!(bench.armed(), Some(SECOND / 10 + SKEW));
}

/// Hold: a lower priority is not taken over from until it ends; silence is.
#[test]
fn hold_keeps_from_preempting_but_not_from_failover() {
    let mut bench = Bench::new(V3);
    let until = bench.now + SECOND * 5;
    bench.input(Input::HoldPreemption { until });
    bench.input(Input::Start);
    while bench.now < until {
        bench.hear(50, 12);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        bench.pass(SECOND);
    }
    bench.hear(50, 12);
    assert_eq!(
        bench.armed(),
        Some(ACTIVE_DOWN - SECOND),
        "the hold is over"
    );

    let mut bench = Bench::new(V3);
    let until = bench.now + SECOND * 60;
    bench.input(Input::HoldPreemption { until });
    bench.input(Input::Start);
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
}

/// Hold: an owner whose proxy dies again and again would take the address along each time.
#[test]
fn an_owner_on_hold_listens_first() {
    let mut config = config(V3);
    config.settings.priority = Priority::OWNER;
    let mut bench = Bench::with(config);
    let until = bench.now + SECOND * 2;
    bench.input(Input::HoldPreemption { until });
    assert_eq!(
        bench.input(Input::Start),
        [Became(State::Backup, Cause::Started)]
    );
    for _ in 0..3 {
        bench.hear(50, 12);
        bench.pass(SECOND);
    }
    assert_eq!(bench.timer()[..2], [Send(255), Add]);
}

/// Hold, priority, settings: a Backup that is about to preempt does not if it no longer may.
#[test]
fn preemption_is_called_off_when_it_no_longer_may() {
    let preempting = || {
        let mut bench = Bench::backup(V3);
        bench.hear(50, 12);
        bench.pass(SECOND * 3);
        bench.hear(50, 12);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND * 3));
        bench
    };
    let mut bench = preempting();
    let until = bench.now + SECOND * 9;
    bench.input(Input::HoldPreemption { until });
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));

    let mut bench = preempting();
    bench.input(Input::EndpointUsable(false));
    assert!(bench.armed() > Some(ACTIVE_DOWN), "of priority 2");

    let mut bench = preempting();
    let mut new = settings(V3);
    new.preemption = Preemption::Disabled;
    bench.router.update(bench.now, &new).unwrap();
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));

    let mut bench = preempting();
    new = settings(V3);
    new.priority = Priority::new(90);
    bench.router.update(bench.now, &new).unwrap();
    assert_eq!(
        bench.armed(),
        Some(ACTIVE_DOWN - SECOND * 3),
        "still the higher"
    );
}

/// Restart of the process within two intervals: goes on as Active, without listening.
#[test]
fn resume_in_time_goes_on() {
    let mut bench = Bench::new(V3);
    let last_advertisement_at = bench.now - SECOND * 2;
    let resume = Input::Resume {
        last_advertisement_at,
    };
    assert_eq!(
        bench.input(resume),
        [Send(100), Add, Became(State::Active, Cause::Resumed)]
    );
}

/// Restart of the process later than that, or with a time that cannot be: removes and listens.
#[test]
fn resume_too_late_removes_and_listens() {
    let mut bench = Bench::new(V3);
    let late = bench.now - SECOND * 2 - Duration::from_nanos(1);
    for last_advertisement_at in [late, Instant::ZERO, bench.now + MS] {
        let mut bench = Bench::new(V3);
        let resume = Input::Resume {
            last_advertisement_at,
        };
        assert_eq!(
            bench.input(resume),
            [Remove, Became(State::Backup, Cause::ResumedLate)]
        );
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    }
    bench.input(Input::LinkDown);
    let resume = Input::Resume {
        last_advertisement_at: bench.now,
    };
    assert_eq!(
        bench.input(resume),
        [Remove],
        "without a link nobody is Active"
    );
}

/// Endpoint lost: never leaves Active by itself, and the next advertisement says it.
#[test]
fn endpoint_lost_lowers_the_priority_and_stays_active() {
    let mut bench = Bench::active(V3);
    bench.pass(SECOND / 2);
    bench.input(Input::Timer);
    assert_eq!(bench.input(Input::EndpointUsable(false)), []);
    assert_eq!(bench.router.priority(), Priority::new(2));
    assert_eq!(bench.timer().first(), Some(&Send(2)));
    let (source, priority) = (host(9), Priority::new(50));
    assert_eq!(
        bench.hear(50, 9),
        [
            Remove,
            Became(State::Backup, Cause::HigherPriority { source, priority })
        ]
    );
    bench.input(Input::EndpointUsable(true));
    assert_eq!(bench.router.priority(), Priority::new(100));
}

/// Settings change without leaving Active, and are advertised at once.
#[test]
fn settings_change_in_place() {
    let mut bench = Bench::active(V3);
    bench.pass(SECOND / 2);
    bench.input(Input::Timer);
    let mut new = settings(V3);
    bench.router.update(bench.now, &new).unwrap();
    assert_eq!(bench.drain(), [], "nothing changed");
    new.interval = Centiseconds::new(10).unwrap();
    new.priority = Priority::new(120);
    bench.router.update(bench.now, &new).unwrap();
    assert_eq!(bench.drain(), [Send(120)]);
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(bench.armed(), Some(SECOND / 10));
    new.interval = Centiseconds::new(1000).unwrap();
    bench.pass(MS * 50);
    bench.router.update(bench.now, &new).unwrap();
    assert_eq!(bench.drain(), [Send(120)]);
    bench.pass(SECOND * 9);
    assert_eq!(bench.input(Input::LinkUp), []);
    assert_eq!(bench.router.state(), State::Active);
    new.priority = Priority::RELEASE;
    bench.router.update(bench.now, &new).unwrap_err();
    assert_eq!(bench.router.priority(), Priority::new(120));
}

/// Link down: the addresses go, nothing is sent; link up: listens as at the start, and owes a farewell.
#[test]
fn link_down_and_up() {
    let mut bench = Bench::active(V3);
    assert_eq!(
        bench.input(Input::LinkDown),
        [Remove, Became(State::Initialize, Cause::LinkDown)]
    );
    assert_eq!(bench.armed(), None);
    assert_eq!(bench.input(Input::Start), [], "started already");
    assert_eq!(
        bench.input(Input::LinkUp),
        [Remove, Became(State::Backup, Cause::LinkUp)]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    bench.input(Input::AddressesRemoved);
    assert_eq!(bench.hear(200, 12), [Send(100)]);
    assert_eq!(
        bench.input(Input::LinkDown),
        [Became(State::Initialize, Cause::LinkDown)]
    );
    assert_eq!(bench.input(Input::Stop), []);
    assert_eq!(bench.input(Input::LinkUp), [], "stopped meanwhile");

    let mut bench = Bench::active(V3);
    bench.input(Input::Stop);
    assert_eq!(bench.input(Input::LinkDown), [Remove]);
}

/// Addresses lost: releases, and does not take the role back from a living router for 5 s.
#[test]
fn addresses_lost_releases_and_holds() {
    let mut bench = Bench::active(V3);
    assert_eq!(
        bench.input(Input::AddressesLost),
        [Send(0), Remove, Became(State::Backup, Cause::AddressesLost)]
    );
    assert_eq!(bench.input(Input::AddressesLost), [], "a Backup has none");
    let until = bench.now + SECOND * 5;
    while bench.now < until {
        bench.hear(50, 12);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        bench.pass(SECOND);
    }
}

/// Addresses lost again and again: the hold doubles, and so does the wait of a host that is alone.
#[test]
fn losses_in_a_row_are_answered_more_slowly() {
    let mut bench = Bench::active(V3);
    for (hold, listens) in [
        (SECOND * 5, ACTIVE_DOWN),
        (SECOND * 10, SECOND * 5),
        (SECOND * 20, SECOND * 5),
        (SECOND * 40, SECOND * 5),
        (SECOND * 60, SECOND * 5),
        (SECOND * 60, SECOND * 5),
    ] {
        bench.input(Input::AddressesLost);
        assert_eq!(bench.armed(), Some(listens));
        let lost_at = bench.now;
        while bench.router.state() == State::Backup {
            bench.pass(SECOND);
            bench.hear(50, 12);
            bench.input(Input::Timer);
        }
        let preempts_after = bench.now.since(lost_at);
        assert!(preempts_after > hold && preempts_after < hold + SECOND * 5);
        bench.input(Input::AddressesAdded);
    }
    for _ in 0..301 {
        bench.timer();
        bench.pass(SECOND - MS * 100);
    }
    bench.input(Input::AddressesLost);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN), "forgiven");
}

/// Another hardware address is announced as if it were new, by whoever holds the addresses.
#[test]
fn reannounce_begins_the_schedule_anew() {
    let mut bench = Bench::active(V3);
    bench.pass(SECOND / 2);
    bench.input(Input::Timer);
    assert_eq!(bench.input(Input::Reannounce), [Announce]);
    assert_eq!(bench.armed(), Some(MS * 10));
    let mut bench = Bench::backup(V3);
    assert_eq!(bench.input(Input::Reannounce), []);
}

/// Another holds the addresses: lets go and listens.
#[test]
fn peer_took_over() {
    let mut bench = Bench::active(V3);
    assert_eq!(
        bench.input(Input::PeerTookOver),
        [Remove, Became(State::Backup, Cause::PeerTookOver)]
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
}

/// Announcements: only once the host holds the addresses, then 10, 50, 200 ms, 1 s, 5 s after, then
/// every minute together with an advertisement.
#[test]
fn announcements_follow_their_schedule() {
    let mut bench = Bench::backup(V3);
    bench.timer();
    bench.pass(MS * 40);
    assert_eq!(bench.input(Input::AddressesAdded), [Announce]);
    assert_eq!(bench.input(Input::AddressesAdded), [], "said once");
    let begin = bench.now;
    let (mut at, mut wakes) = (Vec::new(), 0);
    while bench.now.since(begin) < SECOND * 70 {
        wakes += 1;
        if bench.timer().contains(&Announce) {
            at.push(bench.now.since(begin));
        }
    }
    assert_eq!(at[..5], [MS * 10, MS * 50, MS * 200, SECOND, SECOND * 5]);
    // 65 s after, or with the advertisement that follows: those come 40 ms before each second.
    assert_eq!(at[5..], [SECOND * 66 - MS * 40]);
    assert_eq!(wakes, 5 + 70 + 1);
}

/// Permit: the time of the newest own advertisement, and none in any other state.
#[test]
fn permit_is_an_advertisement_as_active() {
    let mut bench = Bench::active(V3);
    bench.pass(SECOND);
    bench.input(Input::Timer);
    assert_eq!(bench.router.last_advertisement(), Some(bench.now));
    bench.hear(200, 12);
    assert_eq!(bench.router.last_advertisement(), None);
}

/// A farewell is not another host of the same name.
#[test]
fn a_farewell_is_no_twin() {
    let mut config = config(V3);
    config.settings.priority_without_endpoint = Priority::new(1);
    let mut bench = Bench::active_with(config);
    bench.input(Input::EndpointUsable(false));
    bench.hear(1, 12);
    assert_eq!(bench.router.equal_priority_peer(), None);
}

/// Two hosts under one name advertise one priority: seen by the one that listens and reported.
#[test]
fn equal_priority_is_reported() {
    let mut bench = Bench::backup(V3);
    bench.hear(100, 12);
    let peer = bench.router.equal_priority_peer().unwrap();
    assert_eq!((peer.source, peer.priority), (host(12), Priority::new(100)));
    bench.hear(0, 12);
    assert!(bench.router.equal_priority_peer().is_some(), "it only left");
    bench.hear(50, 13);
    assert!(bench.router.equal_priority_peer().is_some());
    bench.hear(120, 12);
    assert_eq!(bench.router.equal_priority_peer(), None);
    assert_eq!(bench.router.last_heard().unwrap().source, host(12));
}

/// A repeated priority 0 does not put off the takeover.
#[test]
fn repeated_priority_0_does_not_put_off_the_takeover() {
    let mut bench = Bench::backup(V3);
    bench.hear(0, 12);
    for _ in 0..6 {
        bench.pass(MS * 100);
        bench.hear(0, 12);
    }
    assert_eq!(bench.armed(), Some(SKEW - MS * 600));
}
