//! `spec.tracking` and `spec.vrrp.isolation`, as users write them.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use node_api::{Check, Probe, TrackedInterface, TrackedUpstream, Tracking};

use super::{
    address::{endpoint_address, parse_address},
    asking::{pace, request_target, statuses, threshold},
    timing::{Timing, limit},
};
use crate::Problem;

/// Most things of one kind that are tracked.
const MOST: usize = 8;
/// The shortest isolation.
const SHORTEST_ISOLATION: Duration = Duration::from_secs(1);
/// What a priority can be lowered by at most, from 254 to 1.
const HEAVIEST: u8 = 253;

/// What nodes look at besides VRRP.
pub(super) fn tracking(
    problems: &mut Vec<Problem>,
    spec: &crds::WebSocketHAPoolSpec,
    timing: Option<Timing>,
) -> Tracking {
    let tracking = &spec.tracking;
    Tracking {
        interfaces: interfaces(problems, &tracking.interfaces),
        checks: checks(problems, &tracking.checks),
        upstreams: upstreams(problems, &tracking.upstreams, &spec.upstreams),
        isolation_timeout: isolation(problems, spec.vrrp.isolation.timeout, timing),
    }
}

fn interfaces(
    problems: &mut Vec<Problem>,
    specs: &[crds::TrackedInterface],
) -> Vec<TrackedInterface> {
    let path = "spec.tracking.interfaces";
    named_once(problems, path, specs.iter().map(|it| it.name.as_str()));
    for (index, spec) in specs.iter().enumerate() {
        weight(problems, &format!("{path}[{index}]"), spec.weight);
    }
    let tracked = specs.iter().map(|spec| TrackedInterface {
        name: spec.name.clone(),
        weight: spec.weight,
    });
    tracked.collect()
}

fn upstreams(
    problems: &mut Vec<Problem>,
    specs: &[crds::TrackedUpstream],
    known: &[crds::Upstream],
) -> Vec<TrackedUpstream> {
    let path = "spec.tracking.upstreams";
    named_once(problems, path, specs.iter().map(|it| it.name.as_str()));
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("{path}[{index}]");
        weight(problems, &path, spec.weight);
        if !known.iter().any(|upstream| upstream.name == spec.name) {
            let known: Vec<_> = known
                .iter()
                .map(|upstream| upstream.name.as_str())
                .collect();
            problems.push(Problem::new(
                format!("{path}.name"),
                format!(
                    "is {}, which is no upstream of the pool; use {}",
                    spec.name,
                    known.join(" or ")
                ),
            ));
        }
        // Of the only one a node without any is below all others as it is.
        let least = if known.len() > 1 { 1 } else { 2 };
        if !(least..=10_000).contains(&spec.min_usable_endpoints) {
            let reason = match least {
                1 => "",
                _ => {
                    ": where there is one upstream, a node that reaches none ranks below all others as it is"
                }
            };
            problems.push(Problem::new(
                format!("{path}.minUsableEndpoints"),
                format!(
                    "is {}; use a number from {least} to 10000{reason}",
                    spec.min_usable_endpoints
                ),
            ));
        }
    }
    let tracked = specs.iter().map(|spec| TrackedUpstream {
        name: spec.name.clone(),
        min_usable_endpoints: spec.min_usable_endpoints,
        weight: spec.weight,
    });
    tracked.collect()
}

fn checks(problems: &mut Vec<Problem>, specs: &[crds::Check]) -> Vec<Check> {
    let path = "spec.tracking.checks";
    named_once(problems, path, specs.iter().map(|it| it.name.as_str()));
    let checks = specs.iter().enumerate();
    let checks =
        checks.filter_map(|(index, spec)| check(problems, &format!("{path}[{index}]"), spec));
    checks.collect()
}

/// `None` only together with a problem.
fn check(problems: &mut Vec<Problem>, path: &str, spec: &crds::Check) -> Option<Check> {
    weight(problems, path, spec.weight);
    pace(problems, path, spec.interval, spec.timeout);
    threshold(problems, path, "failureThreshold", spec.failure_threshold);
    threshold(problems, path, "successThreshold", spec.success_threshold);
    Some(Check {
        name: spec.name.clone(),
        weight: spec.weight,
        interval: spec.interval.get(),
        timeout: spec.timeout.get(),
        failure_threshold: spec.failure_threshold,
        success_threshold: spec.success_threshold,
        probe: probe(problems, path, spec)?,
    })
}

/// `None` only together with a problem.
fn probe(problems: &mut Vec<Problem>, path: &str, spec: &crds::Check) -> Option<Probe> {
    match (&spec.tcp, &spec.http, &spec.command) {
        (Some(tcp), None, None) => {
            let path = format!("{path}.tcp");
            let address = target(problems, &path, &tcp.address, tcp.port)?;
            Some(Probe::Tcp { address })
        }
        (None, Some(http), None) => {
            let path = format!("{path}.http");
            let address = target(problems, &path, &http.address, http.port);
            request_target(problems, &path, &http.path);
            statuses(problems, &path, &http.expected_statuses);
            Some(Probe::Http {
                address: address?,
                path: http.path.clone(),
                host: http.host.clone(),
                expected_statuses: http.expected_statuses.clone(),
            })
        }
        (None, None, Some(command)) if is_file_name(&command.name) => Some(Probe::Command {
            name: command.name.clone(),
        }),
        (None, None, Some(_)) => {
            problems.push(Problem::new(
                format!("{path}.command.name"),
                "is no file name; write the name of a file in --check-dir, without its directory",
            ));
            None
        }
        (None, None, None) => {
            problems.push(Problem::new(
                path,
                "says nothing of what is asked; add tcp, http or command",
            ));
            None
        }
        _ => {
            problems.push(Problem::new(
                path,
                "has several of tcp, http and command; keep one of them",
            ));
            None
        }
    }
}

/// What is no endpoint is not asked either: a pool belongs to a namespace, and the answer shows in its
/// status. `None` only together with a problem.
fn target(problems: &mut Vec<Problem>, path: &str, address: &str, port: u16) -> Option<SocketAddr> {
    if port == 0 {
        problems.push(Problem::new(
            format!("{path}.port"),
            "is 0; use a number from 1 to 65535",
        ));
    }
    let address =
        parse_address(address).and_then(|address| endpoint_address(address).map(|()| address));
    match address {
        Ok(address) => Some(SocketAddr::new(address, port)),
        Err(error) => {
            problems.push(Problem::new(format!("{path}.address"), error.to_string()));
            None
        }
    }
}

fn isolation(
    problems: &mut Vec<Problem>,
    timeout: crds::Duration,
    timing: Option<Timing>,
) -> Duration {
    let path = "spec.vrrp.isolation.timeout";
    limit(problems, path, timeout, true);
    let interval = timing.map_or(Duration::ZERO, |timing| timing.advertisement_interval);
    let least = SHORTEST_ISOLATION.max(interval * 3);
    if !timeout.is_zero() && timeout.get() < least {
        problems.push(Problem::new(
            path,
            format!(
                "is {timeout}; use at least {}ms, which is 1s and three times advertisementInterval, \
                 or 0s for never",
                least.as_millis()
            ),
        ));
    }
    timeout.get()
}

fn weight(problems: &mut Vec<Problem>, path: &str, weight: u8) {
    if !(1..=HEAVIEST).contains(&weight) {
        problems.push(Problem::new(
            format!("{path}.weight"),
            format!("is {weight}; use a number from 1 to {HEAVIEST}"),
        ));
    }
}

fn named_once<'a>(
    problems: &mut Vec<Problem>,
    path: &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) {
    if names.len() > MOST {
        let problem = format!("has {} entries; at most {MOST} are possible", names.len());
        problems.push(Problem::new(path, problem));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            problems.push(Problem::new(
                format!("{path}[{index}].name"),
                format!("{name} names two entries; rename one of them"),
            ));
        }
    }
}

/// The name of a file beside others, not a way to one elsewhere.
pub(crate) fn is_file_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain) && text.chars().all(|c| plain(c) || "-._".contains(c))
}
