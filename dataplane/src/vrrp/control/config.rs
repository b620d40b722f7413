//! From a configuration to what the state machine takes.

use std::{net::IpAddr, time::Duration};

use ::vrrp::{
    Authentication, Centiseconds, Config, ConfigError, Group, Password, Peering, Preemption,
    Priority, Settings, Version, Vrid,
    machine::{MOST_MEMBERS, default_linger},
    wire::Mac,
};
use node_api::{MacAddress, VrrpVersion, is_link_local_v6};

use super::timers;
use crate::{ipc::Router, sys::clock};

/// Why a virtual router cannot be run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum RouterError {
    /// VRID 0.
    #[error("virtualRouterID is 0; use 1 to 255")]
    Vrid,
    /// An interval that no version can state.
    #[error("advertisementInterval is not a whole number of hundredths of a second up to 255s")]
    Interval,
    /// An interval that this host cannot keep.
    #[error(
        "advertisementInterval is {} ms, and timers of this host's kernel are only as fine as {} ms: use \
         three times that or more, or a kernel with high-resolution timers",
        .interval.as_millis(), .resolution.as_millis()
    )]
    Resolution {
        /// As configured.
        interval: Duration,
        /// Of the clock.
        resolution: Duration,
    },
    /// More unicast peers than there is room for.
    #[error("peering.addresses are {0}; use at most {MOST_MEMBERS}")]
    Peers(usize),
    /// A password that no packet can carry.
    #[error("authentication.password is not 1 to 8 printable ASCII characters")]
    Password,
    /// What the state machine refuses.
    #[error(transparent)]
    Config(ConfigError),
}

/// What the state machine takes for `router` with `priority`, sending from `source`.
pub(super) fn config(router: &Router, priority: u8, source: IpAddr) -> Result<Config, RouterError> {
    let settings = settings(router, priority, source)?;
    let mut addresses = router.settings.addresses.clone();
    // RFC 9568 section 5.2.9: on IPv6 the first one is link-local, where there is such a one.
    addresses.sort_by_key(|address| !is_link_local_v6(*address));
    let config = Config {
        vrid: Vrid::new(router.settings.virtual_router_id).ok_or(RouterError::Vrid)?,
        addresses,
        settings,
    };
    config.check().map_err(RouterError::Config)?;
    Ok(config)
}

fn settings(router: &Router, priority: u8, source: IpAddr) -> Result<Settings, RouterError> {
    let interval = Centiseconds::from_duration(router.settings.advertisement_interval)
        .ok_or(RouterError::Interval)?;
    let resolution = clock::resolution();
    if !timers::can_keep(interval.as_duration(), resolution) {
        let interval = interval.as_duration();
        return Err(RouterError::Resolution {
            interval,
            resolution,
        });
    }
    Ok(Settings {
        version: version(router),
        source,
        priority: Priority::new(priority),
        priority_without_endpoint: Priority::new(router.priority_without_endpoint),
        interval,
        preemption: match router.settings.preemption {
            node_api::Preemption::Enabled { delay } => Preemption::Enabled { delay },
            node_api::Preemption::Disabled => Preemption::Disabled,
        },
        peering: peering(router)?,
        authentication: authentication(router)?,
        linger: default_linger(version(router), interval),
    })
}

/// The virtual router's own hardware address, if it is to have one.
pub(super) fn own_mac(router: &Router, config: &Config) -> Option<Mac> {
    match router.settings.mac_address {
        MacAddress::Interface => None,
        MacAddress::VirtualRouter => Some(Mac::of_virtual_router(config.vrid, config.family())),
    }
}

fn peering(router: &Router) -> Result<Peering, RouterError> {
    let Some(peers) = router.settings.peering.unicast() else {
        return Ok(Peering::Multicast);
    };
    let group = Group::new(peers).ok_or(RouterError::Peers(peers.len()))?;
    Ok(Peering::Unicast(group))
}

fn authentication(router: &Router) -> Result<Authentication, RouterError> {
    let Some(password) = &router.settings.password else {
        return Ok(Authentication::None);
    };
    let password = Password::new(&password.0).ok_or(RouterError::Password)?;
    Ok(Authentication::SimplePassword(password))
}

const fn version(router: &Router) -> Version {
    match router.settings.version {
        VrrpVersion::V2 => Version::V2,
        VrrpVersion::V3 => Version::V3,
    }
}
