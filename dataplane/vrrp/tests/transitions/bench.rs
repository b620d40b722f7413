//! One machine on a bench: a clock set by hand and its effects in short form.

use std::{net::IpAddr, time::Duration};

use vrrp::{
    Advertisement, Authentication, Cause, Centiseconds, Config, Discard, Effect, Input, Instant,
    Peering, Preemption, Priority, Settings, State, Version, VirtualRouter, Vrid,
    machine::default_linger, wire::AddressList,
};

/// An effect, or the transition it records, in short form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Did {
    Send(u8),
    Add,
    Remove,
    Announce,
    Became(State, Cause),
    Dropped(Discard),
}

pub(crate) use Did::{Add, Announce, Became, Dropped, Remove, Send};

pub(crate) struct Bench {
    pub(crate) router: VirtualRouter,
    pub(crate) now: Instant,
    version: Version,
}

pub(crate) fn host(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 1, last])
}

/// Priority 100, source .11, one second, address .110, preemption at once, linger of 120 ms.
pub(crate) fn settings(version: Version) -> Settings {
    let interval = Centiseconds::SECOND;
    Settings {
        version,
        source: host(11),
        priority: Priority::new(100),
        priority_without_endpoint: Priority::new(2),
        interval,
        preemption: Preemption::Enabled {
            delay: Duration::ZERO,
        },
        peering: Peering::Multicast,
        authentication: Authentication::None,
        linger: default_linger(version, interval),
    }
}

pub(crate) fn config(version: Version) -> Config {
    Config {
        vrid: Vrid::new(51).unwrap(),
        addresses: vec![host(110)],
        settings: settings(version),
    }
}

/// Three seconds and the skew time of priority 100; the same in both versions at one second.
pub(crate) const ACTIVE_DOWN: Duration = Duration::from_micros(3_609_375);
pub(crate) const SKEW: Duration = Duration::from_micros(609_375);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    pub(crate) fn new(version: Version) -> Self {
        Self::with(config(version))
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            version: config.settings.version,
            router: VirtualRouter::new(config).unwrap(),
            now: Instant::from_millis(1_000_000),
        }
    }

    /// A Backup that has heard nobody so far.
    pub(crate) fn backup(version: Version) -> Self {
        Self::backup_with(config(version))
    }

    pub(crate) fn backup_with(config: Config) -> Self {
        let mut bench = Self::with(config);
        bench.input(Input::Start);
        assert_eq!(bench.router.state(), State::Backup);
        bench
    }

    /// An Active that holds its addresses.
    pub(crate) fn active(version: Version) -> Self {
        Self::active_with(config(version))
    }

    pub(crate) fn active_with(config: Config) -> Self {
        let mut bench = Self::backup_with(config);
        bench.timer();
        bench.input(Input::AddressesAdded);
        assert_eq!(bench.router.state(), State::Active);
        bench
    }

    pub(crate) fn pass(&mut self, span: Duration) -> &mut Self {
        self.now = self.now + span;
        self
    }

    pub(crate) fn input(&mut self, input: Input<'_>) -> Vec<Did> {
        self.router.handle(self.now, input);
        self.drain()
    }

    /// Goes to the time that the machine asked for.
    pub(crate) fn timer(&mut self) -> Vec<Did> {
        self.now = self.router.poll_timeout().expect("a timer is armed");
        self.input(Input::Timer)
    }

    /// How long until the machine wants to be called.
    pub(crate) fn armed(&self) -> Option<Duration> {
        self.router.poll_timeout().map(|at| at.since(self.now))
    }

    pub(crate) fn hear(&mut self, priority: u8, from: u8) -> Vec<Did> {
        self.hear_interval(priority, from, Centiseconds::SECOND)
    }

    pub(crate) fn hear_interval(
        &mut self,
        priority: u8,
        from: u8,
        interval: Centiseconds,
    ) -> Vec<Did> {
        self.hear_addresses(priority, from, interval, &[host(110)])
    }

    pub(crate) fn hear_addresses(
        &mut self,
        priority: u8,
        from: u8,
        interval: Centiseconds,
        addresses: &[IpAddr],
    ) -> Vec<Did> {
        let advertisement = Advertisement {
            version: self.version,
            vrid: Vrid::new(51).unwrap(),
            priority: Priority::new(priority),
            interval,
            authentication: Authentication::None,
            addresses: AddressList::from_slice(addresses),
        };
        self.input(Input::Advertisement {
            source: host(from),
            advertisement: &advertisement,
        })
    }

    pub(crate) fn drain(&mut self) -> Vec<Did> {
        let mut did = Vec::new();
        while let Some(effect) = self.router.poll_effect() {
            did.push(match effect {
                Effect::SendAdvertisement { priority } => Send(priority.get()),
                Effect::AddAddresses => Add,
                Effect::RemoveAddresses => Remove,
                Effect::AnnounceAddresses => Announce,
                Effect::Transition(transition) => {
                    assert_eq!(transition.at, self.now);
                    assert_ne!(transition.from, transition.to);
                    assert!(!transition.cause.to_string().is_empty());
                    Became(transition.to, transition.cause)
                }
                Effect::Discarded(discard) => Dropped(discard),
            });
        }
        let last = did.iter().rev().find_map(|did| match did {
            Became(state, _) => Some(*state),
            _ => None,
        });
        assert_eq!(
            last.unwrap_or_else(|| self.router.state()),
            self.router.state()
        );
        did
    }
}
