//! The segment of one seed: its hosts, their settings, its weather.

use std::{net::IpAddr, time::Duration};

use vrrp::{
    Authentication, Centiseconds, Config, Family, Peering, Preemption, Priority, Settings, Version,
    Vrid, machine::default_linger,
};

use crate::{fault::Fault, random::Random};

/// Hosts of a segment at most.
pub(crate) const MOST: usize = 7;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    family: Family,
    hosts: u8,
    version: Version,
    interval: Centiseconds,
    /// Every other host's, in version 3.
    other_interval: Centiseconds,
    preemption: Preemption,
    /// All hosts have one priority: the addresses decide.
    equal: bool,
    /// Packets lost, in ten thousand.
    pub(crate) loss: usize,
    /// Packets late by 1-40 ms, which also turns their order, in ten thousand.
    pub(crate) spikes: usize,
    /// After so long a silence a host asks itself whether it is cut off.
    pub(crate) isolation: Option<Duration>,
}

impl Scenario {
    /// `weather` is of what was not always simulated: the rest of a seed stays as it was.
    pub(crate) fn draw(random: &mut Random, weather: &mut Random) -> Self {
        let centiseconds = |value| Centiseconds::new(value).unwrap();
        let (version, interval) = random.pick(&[
            (Version::V2, centiseconds(100)),
            (Version::V3, centiseconds(3)),
            (Version::V3, centiseconds(10)),
            (Version::V3, centiseconds(10)),
            (Version::V3, centiseconds(10)),
        ]);
        let enabled = |delay| Preemption::Enabled { delay };
        let preemption = random.pick(&[
            enabled(Duration::ZERO),
            enabled(Duration::ZERO),
            enabled(Duration::ZERO),
            enabled(Duration::from_secs(1)),
            Preemption::Disabled,
        ]);
        let family = match version {
            Version::V3 => random.pick(&[Family::V4, Family::V6]),
            Version::V2 => Family::V4,
        };
        Self {
            family,
            hosts: u8::try_from(2 + random.below(MOST - 1)).unwrap(),
            version,
            interval,
            other_interval: if version == Version::V3 && random.chance(2_500) {
                // No more: a router that starts must hear the Active before its own timer fires.
                centiseconds(interval.get() * 2)
            } else {
                interval
            },
            preemption,
            equal: random.chance(1_500),
            loss: random.pick(&[0, 0, 0, 50, 300]),
            spikes: random.pick(&[0, 0, 0, 20]),
            isolation: weather
                .chance(5_000)
                .then(|| Duration::from_secs(1).max(interval.as_duration() * 3)),
        }
    }

    /// Priorities as the planner gives them, ranks from the bottom for hosts without an endpoint.
    /// Every other host has the greater address for the lower priority.
    pub(crate) fn configs(&self) -> Vec<Config> {
        let ip = |text: &str, last: u8| -> IpAddr { format!("{text}{last:x}").parse().unwrap() };
        let own = |last: u8| match self.family {
            Family::V4 => IpAddr::from([192, 168, 1, last]),
            Family::V6 => ip("fe80::", last),
        };
        let addresses = match self.family {
            Family::V4 => vec![own(110)],
            Family::V6 => vec![own(110), ip("fd00:1::", 110)],
        };
        let config = |rank: u8| Config {
            vrid: Vrid::new(51).unwrap(),
            addresses: addresses.clone(),
            settings: Settings {
                version: self.version,
                source: own(11 + (rank ^ 1)),
                priority: Priority::new(if self.equal { 200 } else { 250 - 15 * rank }),
                priority_without_endpoint: Priority::new(self.hosts - rank),
                interval: self.interval(rank),
                preemption: self.preemption,
                peering: Peering::Multicast,
                authentication: Authentication::None,
                linger: default_linger(self.version, self.interval(rank)),
            },
        };
        (0..self.hosts).map(config).collect()
    }

    fn interval(&self, rank: u8) -> Centiseconds {
        if rank.is_multiple_of(2) {
            self.interval
        } else {
            self.other_interval
        }
    }

    /// When the default gateway is dead, within the first 48 seconds; empty where nobody asks it.
    pub(crate) fn gateway_deaths(&self, weather: &mut Random) -> Vec<(Duration, Duration)> {
        let mut deaths = Vec::new();
        let mut at = weather.millis(1_000, 20_000);
        while self.isolation.is_some() && at < Duration::from_secs(48) {
            let lasts = weather.millis(500, 8_000);
            deaths.push((at, lasts));
            at += lasts + weather.millis(3_000, 20_000);
        }
        deaths
    }

    /// Faults for the first 48 of 60 seconds, some on top of each other.
    pub(crate) fn faults(&self, random: &mut Random) -> Vec<(Duration, Fault)> {
        let pause = self.interval.as_duration() * 5;
        let mut at = Duration::from_secs(2) + pause;
        let mut faults = Vec::new();
        while at < Duration::from_secs(48) {
            let hosts = usize::from(self.hosts);
            faults.push((at, Fault::draw(random, hosts)));
            if random.chance(2_500) {
                let soon = random.millis(0, 400);
                faults.push((at + soon, Fault::draw(random, hosts)));
            }
            at += random.span(pause, Duration::from_secs(7) + pause);
        }
        faults
    }
}
