//! What a virtual router is told.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::Peering;
use crate::{
    Authentication,
    types::{Centiseconds, Family, Priority, Version, Vrid, skew_time},
};

/// A virtual router on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Its number.
    pub vrid: Vrid,
    /// The virtual addresses, 1 to 255 of one family, in the order in which they are advertised.
    pub addresses: Vec<IpAddr>,
    /// What may change while it runs.
    pub settings: Settings,
}

/// What may change while a virtual router keeps its state, with
/// [`VirtualRouter::update`](super::VirtualRouter::update).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Version that it speaks; packets of the other are dropped.
    pub version: Version,
    /// Primary address of the interface, of the same family: the source of advertisements, and what
    /// decides between equal priorities.
    pub source: IpAddr,
    /// Priority while the host has a usable endpoint, 1 to 255.
    pub priority: Priority,
    /// Priority while it has none, 1 to 255.
    pub priority_without_endpoint: Priority,
    /// Own advertisement interval; whole seconds in version 2. A Backup of version 3 follows the
    /// interval of the Active router it hears (RFC 9568 section 6.1).
    pub interval: Centiseconds,
    /// Whether to take over from a living router of lower priority.
    pub preemption: Preemption,
    /// How it reaches the others.
    pub peering: Peering,
    /// What its packets carry and those of others must; none in version 3.
    pub authentication: Authentication,
    /// How long the addresses stay in place after the last advertisement of a planned leave, at
    /// most; see [`default_linger`].
    pub linger: Duration,
}

/// `Preempt_Mode` of RFC 9568 section 6.1, with a delay as keepalived has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preemption {
    /// Take over from a lower priority once it was heard for `delay`.
    Enabled {
        /// Counted from the first advertisement of lower priority; one of higher or equal priority
        /// cancels it.
        delay: Duration,
    },
    /// Leave the role to whoever has it.
    Disabled,
}

/// The linger that lets any Backup take over in time: the skew time of priority 1, at least 20 ms,
/// and at most 120 ms, beyond which waiting helps nobody.
pub fn default_linger(version: Version, interval: Centiseconds) -> Duration {
    skew_time(version, Priority::new(1), interval)
        .clamp(Duration::from_millis(20), Duration::from_millis(120))
}

/// Why a configuration cannot be run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// No virtual address, or more than an advertisement can list.
    #[error("a virtual router has 1 to 255 addresses, this one {0}")]
    AddressCount(usize),
    /// Addresses of both families, or a source of the other one.
    #[error("virtual address {address} and source {source_address} are of different families")]
    MixedFamilies {
        /// The virtual address.
        address: IpAddr,
        /// The source of advertisements.
        source_address: IpAddr,
    },
    /// An address that no host can hold.
    #[error("{0} cannot be a virtual address")]
    Address(IpAddr),
    /// The source is one of the virtual addresses, but the priority is not the owner's.
    #[error(
        "source {0} is one of the virtual addresses, which only an owner (priority 255) may have"
    )]
    SourceIsVirtual(IpAddr),
    /// Version 2 on IPv6.
    #[error("version 2 has no IPv6; use version 3")]
    VersionHasNoIpv6,
    /// A unicast peer of the other family.
    #[error("peer {0} is not of the family of the virtual addresses")]
    PeerFamily(IpAddr),
    /// Version 3 has no authentication.
    #[error("version 3 has no authentication; use version 2 or remove the password")]
    VersionHasNoAuthentication,
    /// Priority 0 is a message, not a weight.
    #[error("priority 0 is only for leaving; use 1 to 255")]
    Priority,
    /// An interval that the version cannot state.
    #[error(
        "an interval of {} ms cannot be stated: version 2 takes 1 to 255 whole seconds, \
         version 3 takes 10 ms to 40.95 s",
        .0.as_duration().as_millis()
    )]
    Interval(Centiseconds),
}

impl Config {
    /// The family of the addresses; IPv4 for an empty list, which [`Self::check`] refuses.
    pub fn family(&self) -> Family {
        self.addresses
            .first()
            .copied()
            .map_or(Family::V4, Family::of)
    }

    /// Whether it can be run.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_with(&self.settings)
    }

    /// Whether it can be run with `settings` in place of its own.
    pub(super) fn check_with(&self, settings: &Settings) -> Result<(), ConfigError> {
        if self.addresses.is_empty() || self.addresses.len() > 255 {
            return Err(ConfigError::AddressCount(self.addresses.len()));
        }
        for &address in &self.addresses {
            if Family::of(address) != Family::of(settings.source) {
                return Err(ConfigError::MixedFamilies {
                    address,
                    source_address: settings.source,
                });
            }
            let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            if address.is_unspecified() || address.is_multicast() || broadcast {
                return Err(ConfigError::Address(address));
            }
        }
        if settings.version == Version::V2 && self.family() == Family::V6 {
            return Err(ConfigError::VersionHasNoIpv6);
        }
        if let Peering::Unicast(group) = &settings.peering {
            let mut members = group.members().iter();
            if let Some(other) = members.find(|peer| Family::of(**peer) != self.family()) {
                return Err(ConfigError::PeerFamily(*other));
            }
        }
        if settings.version == Version::V3 && settings.authentication != Authentication::None {
            return Err(ConfigError::VersionHasNoAuthentication);
        }
        if settings.priority.is_release() || settings.priority_without_endpoint.is_release() {
            return Err(ConfigError::Priority);
        }
        if self.addresses.contains(&settings.source) && !settings.priority.is_owner() {
            return Err(ConfigError::SourceIsVirtual(settings.source));
        }
        if !settings.interval.fits(settings.version) {
            return Err(ConfigError::Interval(settings.interval));
        }
        Ok(())
    }
}
