//! Where the versions differ.

use std::time::Duration;

use vrrp::{Centiseconds, Config, Discard, Input, Priority, State, Version, VirtualRouter};

use crate::bench::*;

/// RFC 9568 section 6.4.2 (`Active_Adver_Interval`): a Backup of version 3 waits by the interval of the
/// Active router, its own skew included, and advertises at its own once it is Active.
#[test]
fn v3_backup_learns_the_interval() {
    let mut bench = Bench::backup(Version::V3);
    let tenth = Centiseconds::new(10).unwrap();
    bench.hear_interval(200, 12, tenth);
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN / 10));
    bench.hear_interval(0, 12, tenth);
    assert_eq!(bench.armed(), Some(SKEW / 10));
    bench.timer();
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(bench.armed(), Some(SECOND));
    assert_eq!(
        bench.router.advertisement(Priority::new(100)).interval,
        Centiseconds::SECOND
    );
}

/// RFC 9568 section 6.4.3: an Active that yields learns the winner's interval.
#[test]
fn v3_yielding_active_learns_the_interval() {
    let mut bench = Bench::active(Version::V3);
    bench.hear_interval(200, 12, Centiseconds::new(10).unwrap());
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN / 10));
}

/// RFC 9568 section 6.4.2: an advertisement that is ignored teaches nothing.
#[test]
fn v3_ignored_advertisement_teaches_nothing() {
    let mut bench = Bench::backup(Version::V3);
    bench.hear_interval(200, 12, Centiseconds::new(10).unwrap());
    bench.pass(Duration::from_millis(50));
    bench.hear_interval(50, 13, Centiseconds::new(1000).unwrap());
    assert_eq!(
        bench.armed(),
        Some(ACTIVE_DOWN / 10 - Duration::from_millis(50))
    );
}

/// RFC 9568 section 7.1: "SHOULD also verify that the Max Advertise Interval [...] matches": it is followed, and
/// reported until the same router states the right one.
#[test]
fn v3_other_interval_is_reported() {
    let mut bench = Bench::backup(Version::V3);
    bench.hear(200, 12);
    assert_eq!(bench.router.differing_interval_from(), None);
    let tenth = Centiseconds::new(10).unwrap();
    assert_eq!(bench.hear_interval(200, 13, tenth), []);
    let told = Some((host(13), tenth));
    assert_eq!(bench.router.differing_interval_from(), told);
    bench.hear(200, 12);
    assert_eq!(bench.router.differing_interval_from(), told);
    bench.hear(200, 13);
    assert_eq!(bench.router.differing_interval_from(), None);
}

/// RFC 3768 section 7.1: another interval than the configured one is dropped, and reported.
#[test]
fn v2_other_interval_is_dropped() {
    let mut bench = Bench::backup(Version::V2);
    bench.pass(SECOND);
    let two = Centiseconds::from_secs(2).unwrap();
    assert_eq!(
        bench.hear_interval(200, 12, two),
        [Dropped(Discard::OtherInterval)]
    );
    assert_eq!(
        bench.router.differing_interval_from(),
        Some((host(12), two))
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN - SECOND));
}

/// RFC 3768 section 7.1: a list that differs is dropped, unless the owner sent it.
#[test]
fn v2_other_addresses_are_dropped_unless_from_the_owner() {
    let second = Centiseconds::SECOND;
    let lists = [vec![host(110), host(111)], vec![host(111)]];
    for list in &lists {
        let mut bench = Bench::backup(Version::V2);
        bench.pass(SECOND);
        assert_eq!(
            bench.hear_addresses(254, 12, second, list),
            [Dropped(Discard::OtherAddresses)]
        );
        assert_eq!(bench.hear_addresses(255, 12, second, list), []);
        assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
        assert_eq!(bench.router.differing_addresses_from(), Some(host(12)));
    }
}

/// RFC 9568 section 7.1 leaves it open: lists that overlap take part in the election, lists with
/// nothing in common do not, and both are reported.
#[test]
fn v3_overlapping_addresses_take_part() {
    let second = Centiseconds::SECOND;
    let mut bench = Bench::backup(Version::V3);
    bench.pass(SECOND);
    assert_eq!(
        bench.hear_addresses(200, 12, second, &[host(110), host(111)]),
        []
    );
    assert_eq!(bench.armed(), Some(ACTIVE_DOWN));
    assert_eq!(bench.router.differing_addresses_from(), Some(host(12)));
    bench.hear(200, 12);
    assert_eq!(bench.router.differing_addresses_from(), None);
    assert_eq!(
        bench.hear_addresses(200, 12, second, &[host(111)]),
        [Dropped(Discard::OtherAddresses)]
    );
}

/// Another version is a change of settings: an Active speaks it at once and stays, a Backup has heard
/// nobody yet who speaks it.
#[test]
fn version_changes_in_place() {
    let mut active = Bench::active(Version::V2);
    active
        .router
        .update(active.now, &settings(Version::V3))
        .unwrap();
    assert_eq!(active.drain(), [Send(100)]);
    let version = active.router.advertisement(Priority::new(100)).version;
    assert_eq!(version, Version::V3);

    let mut backup = Bench::backup(Version::V2);
    backup.hear(50, 12);
    backup.pass(SECOND * 3);
    backup.hear(50, 12);
    assert_eq!(backup.armed(), Some(ACTIVE_DOWN - SECOND * 3), "preempting");
    backup
        .router
        .update(backup.now, &settings(Version::V3))
        .unwrap();
    assert_eq!(backup.drain(), []);
    assert_eq!(backup.armed(), Some(ACTIVE_DOWN));

    let mut withdrawn = Bench::active(Version::V2);
    withdrawn.input(Input::Withdraw);
    withdrawn.timer();
    withdrawn.pass(SECOND * 10);
    withdrawn
        .router
        .update(withdrawn.now, &settings(Version::V3))
        .unwrap();
    withdrawn.input(Input::Start);
    assert_eq!(withdrawn.armed(), Some(ACTIVE_DOWN), "it was no silence");
}

/// RFC 3768 section 6.1: the skew of version 2 is a share of one second, whatever the interval.
#[test]
fn v2_skew_does_not_grow_with_the_interval() {
    let mut config = config(Version::V2);
    config.settings.interval = Centiseconds::from_secs(10).unwrap();
    let bench = Bench::backup_with(config);
    assert_eq!(bench.armed(), Some(SECOND * 30 + SKEW));
}

/// A change that makes a configuration impossible, and what is said about it.
type Impossible = (fn(&mut Config), &'static str);

/// Every way in which a configuration cannot be run is refused with its own error.
#[test]
fn impossible_configurations_are_refused() {
    let refused = |change: fn(&mut Config), version| {
        let mut config = config(version);
        change(&mut config);
        VirtualRouter::new(config).unwrap_err().to_string()
    };
    let cases: [Impossible; 6] = [
        (|c| c.addresses.clear(), "1 to 255 addresses"),
        (
            |c| c.addresses.push("fe80::1".parse().unwrap()),
            "different families",
        ),
        (
            |c| c.addresses.push("224.0.0.18".parse().unwrap()),
            "cannot be a virtual address",
        ),
        (
            |c| c.settings.priority = Priority::RELEASE,
            "priority 0 is only for leaving",
        ),
        (
            |c| c.settings.priority_without_endpoint = Priority::RELEASE,
            "priority 0 is only for leaving",
        ),
        (|c| c.addresses.push(host(11)), "only an owner"),
    ];
    for (change, says) in cases {
        let error = refused(change, Version::V3);
        assert!(error.contains(says), "{error}");
    }
    let error = refused(
        |c| c.settings.interval = Centiseconds::new(150).unwrap(),
        Version::V2,
    );
    assert!(error.contains("1500 ms"), "{error}");
    let error = refused(
        |c| {
            c.addresses = vec!["fe80::1".parse().unwrap()];
            c.settings.source = "fe80::2".parse().unwrap();
        },
        Version::V2,
    );
    assert!(error.contains("no IPv6"), "{error}");
}
