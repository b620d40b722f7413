//! Who is listened to: unicast peers, and passwords of version 2.

use std::net::IpAddr;

use vrrp::{
    Advertisement, Authentication, Centiseconds, Config, ConfigError, Discard, Group, Input,
    Password, Peering, Priority, State, Version, VirtualRouter, Vrid,
    wire::{AddressList, Ends, GROUP_V4},
};

use crate::bench::{
    Bench,
    Did::{self, Dropped},
    SECOND, config, host,
};

fn unicast(version: Version, lasts: &[u8]) -> Config {
    let members: Vec<IpAddr> = lasts.iter().copied().map(host).collect();
    let mut config = config(version);
    config.settings.peering = Peering::Unicast(Group::new(&members).unwrap());
    config
}

/// Where packets of `config` go.
fn destinations(config: &Config) -> Vec<IpAddr> {
    config.settings.ends().map(Ends::destination).collect()
}

#[test]
fn advertisements_go_to_the_group_or_to_each_peer() {
    assert_eq!(destinations(&config(Version::V3)), [IpAddr::V4(GROUP_V4)]);
    let listed = unicast(Version::V3, &[13, 11, 12]);
    assert_eq!(destinations(&listed), [host(13), host(12)]);
    let sources: Vec<_> = listed.settings.ends().map(Ends::source).collect();
    assert_eq!(sources, [host(11); 2]);
    assert!(destinations(&unicast(Version::V3, &[11])).is_empty());
}

#[test]
fn a_destination_is_of_one_way() {
    let group = IpAddr::V4(GROUP_V4);
    assert!(Peering::Multicast.is_for(group));
    assert!(!Peering::Multicast.is_for(host(11)));
    let listed = unicast(Version::V3, &[11, 12]).settings.peering;
    assert!(listed.is_for(host(11)));
    // Another address of the host, such as the virtual one.
    assert!(!listed.is_for(host(110)));
    assert!(!listed.is_for(group));
}

/// A stranger neither holds a Backup down nor makes an Active yield, and is not taken for a peer.
#[test]
fn a_stranger_changes_nothing() {
    for version in [Version::V2, Version::V3] {
        let mut bench = Bench::backup_with(unicast(version, &[11, 12]));
        let rises = bench.router.poll_timeout();
        bench.pass(SECOND);
        assert_eq!(bench.hear(200, 13), [Dropped(Discard::NotPeer)]);
        assert_eq!(bench.router.poll_timeout(), rises);
        assert_eq!(bench.router.last_heard(), None);
        assert_eq!(bench.hear(200, 12), []);
        assert_ne!(bench.router.poll_timeout(), rises);
        let mut bench = Bench::active_with(unicast(version, &[11, 12]));
        assert_eq!(bench.hear(255, 13), [Dropped(Discard::NotPeer)]);
        assert_eq!(bench.router.state(), State::Active);
        bench.hear(255, 12);
        assert_eq!(bench.router.state(), State::Backup);
    }
}

/// Without leaving the state.
#[test]
fn peers_change_while_it_runs() {
    let mut bench = Bench::active_with(unicast(Version::V3, &[11, 12]));
    let settings = unicast(Version::V3, &[11, 12, 13]).settings;
    let now = bench.now;
    bench.router.update(now, &settings).unwrap();
    assert_eq!(
        bench.drain(),
        [Did::Send(100)],
        "the new one is told at once"
    );
    bench.hear(200, 13);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn what_cannot_be_is_refused() {
    assert_eq!(Group::new(&[host(1); 33]), None);
    let refused = |config| VirtualRouter::new(config).map(drop);
    let mut config = unicast(Version::V3, &[11]);
    let other: IpAddr = "fd00::1".parse().unwrap();
    config.settings.peering = Peering::Unicast(Group::new(&[host(11), other]).unwrap());
    assert_eq!(refused(config), Err(ConfigError::PeerFamily(other)));
    assert_eq!(
        refused(with(Version::V3, "secret")),
        Err(ConfigError::VersionHasNoAuthentication)
    );
    assert_eq!(refused(with(Version::V2, "secret")), Ok(()));
}

fn with(version: Version, password: &str) -> Config {
    let mut config = config(version);
    config.settings.authentication =
        Authentication::SimplePassword(Password::new(password).unwrap());
    config
}

/// RFC 2338 section 7.1: "MUST perform authentication specified by Auth Type".
#[test]
fn rfc2338_7_1_passwords() {
    let password = |text| Authentication::SimplePassword(Password::new(text).unwrap());
    let hear = |bench: &mut Bench, authentication| {
        let addresses = [host(110)];
        let advertisement = Advertisement {
            version: Version::V2,
            vrid: Vrid::new(51).unwrap(),
            priority: Priority::new(200),
            interval: Centiseconds::SECOND,
            authentication,
            addresses: AddressList::from_slice(&addresses),
        };
        bench.input(Input::Advertisement {
            source: host(12),
            advertisement: &advertisement,
        })
    };
    let mut bench = Bench::backup_with(with(Version::V2, "secret"));
    for (wrong, discard) in [
        (Authentication::None, Discard::Authentication),
        (password("Secret"), Discard::Password),
        (password("secret1"), Discard::Password),
    ] {
        assert_eq!(hear(&mut bench, wrong), [Dropped(discard)]);
    }
    assert_eq!(hear(&mut bench, password("secret")), []);
    let sent = bench.router.advertisement(Priority::new(100));
    assert_eq!(sent.authentication, password("secret"));
    let mut bench = Bench::backup(Version::V2);
    let told = hear(&mut bench, password("secret"));
    assert_eq!(told, [Dropped(Discard::Authentication)]);
}
