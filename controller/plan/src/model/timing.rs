//! Times: VRRP, heartbeats, drain.

use std::time::Duration;

use node_api::{Drain, Heartbeat, MacAddress, Preemption, VrrpVersion};

use super::{preemption, version_name};
use crate::Problem;

/// Longest time that any limit on sessions may take.
const LONGEST: Duration = Duration::from_hours(1);

/// How routers agree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Version on the wire.
    pub version: VrrpVersion,
    /// How often the Active router advertises.
    pub advertisement_interval: Duration,
    /// Whether a better node takes over.
    pub preemption: Preemption,
    /// At which hardware address it is found.
    pub mac_address: MacAddress,
}

/// `spec.vrrp`; `None` only together with a problem.
pub(super) fn timing(problems: &mut Vec<Problem>, spec: &crds::Vrrp) -> Option<Timing> {
    let path = "spec.vrrp.advertisementInterval";
    let preemption = preemption(problems, &spec.preemption);
    // Version 3: 12 bits of centiseconds (RFC 9568 section 5.2.7). Version 2: 8 bits of seconds
    // (RFC 3768 section 5.3.7).
    let (version, step, most, default) = match spec.version {
        2 => (VrrpVersion::V2, 1_000, 255_000, 1_000),
        3 => (VrrpVersion::V3, 10, 40_950, 100),
        other => {
            problems.push(Problem::new(
                "spec.vrrp.version",
                format!("is {other}; use 2 or 3"),
            ));
            return None;
        }
    };
    let millis = spec
        .advertisement_interval
        .map_or(default, |interval| interval.get().as_millis());
    if !millis.is_multiple_of(step) {
        problems.push(Problem::new(
            path,
            format!(
                "is {millis}ms; {} counts in steps of {step}ms{}",
                version_name(version),
                if version == VrrpVersion::V2 {
                    ": use whole seconds or version 3"
                } else {
                    ""
                }
            ),
        ));
        return None;
    }
    if millis < step || millis > most {
        problems.push(Problem::new(
            path,
            format!(
                "is {millis}ms; {} allows {step}ms to {most}ms",
                version_name(version)
            ),
        ));
        return None;
    }
    Some(Timing {
        version,
        advertisement_interval: Duration::from_millis(u64::try_from(millis).unwrap_or_default()),
        preemption,
        mac_address: mac_address(&spec.mac_address),
    })
}

/// Hardware address as the data plane wants it.
fn mac_address(spec: &crds::MacAddress) -> MacAddress {
    match spec.mode {
        crds::MacAddressMode::Interface => MacAddress::Interface,
        crds::MacAddressMode::VirtualRouter => MacAddress::VirtualRouter,
    }
}

pub(super) fn heartbeat(problems: &mut Vec<Problem>, spec: &crds::Heartbeat) -> Heartbeat {
    limit(problems, "spec.heartbeat.interval", spec.interval, true);
    // With heartbeats off the time-out has no meaning, and its default does no harm.
    limit(
        problems,
        "spec.heartbeat.timeout",
        spec.timeout,
        spec.interval.is_zero(),
    );
    Heartbeat {
        interval: spec.interval.get(),
        timeout: spec.timeout.get(),
    }
}

pub(super) fn drain(problems: &mut Vec<Problem>, spec: &crds::Drain) -> Drain {
    limit(problems, "spec.drain.timeout", spec.timeout, true);
    // RFC 6455 section 7.4.1: 1004 is reserved, 1005, 1006 and 1015 are never sent; section 7.4.2:
    // below 3000 only what the registry holds.
    if !matches!(spec.close_code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        problems.push(Problem::new(
            "spec.drain.closeCode",
            format!(
                "is {}, which may not be sent; use 1000-1003, 1007-1014 or 3000-4999",
                spec.close_code
            ),
        ));
    }
    if let Some(rate) = spec.sessions_per_second
        && !(1..=1_000_000).contains(&rate)
    {
        problems.push(Problem::new(
            "spec.drain.sessionsPerSecond",
            format!("is {rate}; use a number from 1 to 1000000, or leave it out"),
        ));
    }
    Drain {
        timeout: spec.timeout.get(),
        sessions_per_second: spec.sessions_per_second,
        close_code: spec.close_code,
    }
}

/// A limit is at most an hour, and zero only where that means something.
pub(super) fn limit(problems: &mut Vec<Problem>, path: &str, value: crds::Duration, zero: bool) {
    if value.get() > LONGEST {
        problems.push(Problem::new(path, format!("is {value}; use at most 1h")));
    } else if value.is_zero() && !zero {
        problems.push(Problem::new(path, "is 0s; use at least 1ms"));
    }
}
