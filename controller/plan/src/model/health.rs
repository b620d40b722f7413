//! Checks, ejection, retries and zones of an upstream, as users write them.

use std::collections::BTreeMap;

use node_api::{Ejection, Health, HealthCheck, HealthProbe, Retry, ZonePreference};

use super::{
    asking::{pace, request_target, statuses, threshold},
    timing::limit,
};
use crate::Problem;

/// The share of a zone where none is named, in percent.
const SHARE: u8 = 20;

/// `healthCheck`, `ejection` and `retry` of the upstream at `path`; `None` only together with a problem.
pub(super) fn health(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: &crds::Upstream,
) -> Option<Health> {
    let ejection = ejection(problems, &format!("{path}.ejection"), &spec.ejection);
    let retry = retry(problems, &format!("{path}.retry"), &spec.retry);
    let check = match &spec.health_check {
        None => None,
        Some(spec) => Some(check(problems, &format!("{path}.healthCheck"), spec)?),
    };
    Some(Health {
        check,
        ejection,
        retry,
    })
}

/// `None` only together with a problem.
fn check(problems: &mut Vec<Problem>, path: &str, spec: &crds::HealthCheck) -> Option<HealthCheck> {
    pace(problems, path, spec.interval, spec.timeout);
    threshold(problems, path, "failureThreshold", spec.failure_threshold);
    threshold(problems, path, "successThreshold", spec.success_threshold);
    if spec.port == Some(0) {
        problems.push(Problem::new(
            format!("{path}.port"),
            "is 0; use a number from 1 to 65535, or leave it out",
        ));
    }
    Some(HealthCheck {
        probe: probe(problems, path, spec)?,
        port: spec.port,
        interval: spec.interval.get(),
        timeout: spec.timeout.get(),
        failure_threshold: spec.failure_threshold,
        success_threshold: spec.success_threshold,
    })
}

/// `None` only together with a problem.
fn probe(problems: &mut Vec<Problem>, path: &str, spec: &crds::HealthCheck) -> Option<HealthProbe> {
    match (&spec.tcp, &spec.http, &spec.web_socket) {
        (Some(_), None, None) => Some(HealthProbe::Tcp),
        (None, Some(http), None) => {
            let path = format!("{path}.http");
            request_target(problems, &path, &http.path);
            statuses(problems, &path, &http.expected_statuses);
            Some(HealthProbe::Http {
                path: http.path.clone(),
                host: http.host.clone(),
                expected_statuses: http.expected_statuses.clone(),
            })
        }
        (None, None, Some(web_socket)) => {
            request_target(problems, &format!("{path}.webSocket"), &web_socket.path);
            Some(HealthProbe::WebSocket {
                path: web_socket.path.clone(),
                host: web_socket.host.clone(),
            })
        }
        (None, None, None) => {
            problems.push(Problem::new(
                path,
                "says nothing of what is asked; add tcp, http or webSocket",
            ));
            None
        }
        _ => {
            problems.push(Problem::new(
                path,
                "has several of tcp, http and webSocket; keep one of them",
            ));
            None
        }
    }
}

fn ejection(problems: &mut Vec<Problem>, path: &str, spec: &crds::Ejection) -> Ejection {
    threshold(
        problems,
        path,
        "consecutiveFailures",
        spec.consecutive_failures,
    );
    let most = format!("{path}.maxEjection");
    limit(
        problems,
        &format!("{path}.baseEjection"),
        spec.base_ejection,
        false,
    );
    limit(problems, &most, spec.max_ejection, false);
    if spec.max_ejection < spec.base_ejection {
        problems.push(Problem::new(
            most,
            format!(
                "is {}, which is shorter than baseEjection, {}; use at least that",
                spec.max_ejection, spec.base_ejection
            ),
        ));
    }
    percent(
        problems,
        path,
        "maxEjectedPercent",
        spec.max_ejected_percent,
    );
    Ejection {
        consecutive_failures: spec.consecutive_failures,
        base: spec.base_ejection.get(),
        most: spec.max_ejection.get(),
        max_percent: spec.max_ejected_percent,
    }
}

fn retry(problems: &mut Vec<Problem>, path: &str, spec: &crds::Retry) -> Retry {
    percent(problems, path, "budgetPercent", spec.budget_percent);
    if spec.min_per_second > 1_000_000 {
        problems.push(Problem::new(
            format!("{path}.minPerSecond"),
            format!("is {}; use a number from 0 to 1000000", spec.min_per_second),
        ));
    }
    Retry {
        budget_percent: spec.budget_percent,
        min_per_second: spec.min_per_second,
    }
}

fn percent(problems: &mut Vec<Problem>, path: &str, field: &str, value: u8) {
    if value > 100 {
        problems.push(Problem::new(
            format!("{path}.{field}"),
            format!("is {value}; use a number from 0 to 100"),
        ));
    }
}

/// `loadBalancing.zonePreference` of the upstream at `path`, without the zones of nodes.
pub(super) fn zone_preference(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: &crds::LoadBalancing,
) -> Option<ZonePreference> {
    let path = format!("{path}.loadBalancing.zonePreference");
    let preference = spec.zone_preference.as_ref()?;
    let share = preference.min_share_percent;
    if let Some(share) = share.filter(|share| !(1..=100).contains(share)) {
        problems.push(Problem::new(
            format!("{path}.minSharePercent"),
            format!("is {share}; use a number from 1 to 100, or leave it out"),
        ));
    }
    match preference.mode {
        crds::ZonePreferenceMode::Disabled => {
            if share.is_some() {
                problems.push(Problem::new(
                    format!("{path}.minSharePercent"),
                    "has no meaning unless mode is SameZone; remove it or set mode to SameZone",
                ));
            }
            None
        }
        crds::ZonePreferenceMode::SameZone => {
            if spec.type_ == crds::LoadBalancingType::ConsistentHash {
                problems.push(Problem::new(
                    format!("{path}.mode"),
                    "is SameZone, and with ConsistentHash all gateways choose the same server for a \
                     client, whatever their zone; choose another type or set mode to Disabled",
                ));
            }
            Some(ZonePreference {
                min_share_percent: share.unwrap_or(SHARE),
                nodes: BTreeMap::new(),
            })
        }
    }
}

/// The zone of a listed server at `path`.
pub(super) fn zone(problems: &mut Vec<Problem>, path: &str, zone: Option<&str>) -> Option<String> {
    let zone = zone?;
    if zone.len() > 63 || !is_label_value(zone) {
        problems.push(Problem::new(
            format!("{path}.zone"),
            format!(
                "is {zone:?}; use 1 to 63 letters, digits and signs of -._, as labels of nodes have"
            ),
        ));
    }
    Some(zone.to_owned())
}

/// What the label of a node may say, but for its length.
pub(crate) fn is_label_value(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || "-._".contains(c))
}
