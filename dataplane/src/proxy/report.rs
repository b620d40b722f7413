//! From the proxy's snapshot to the report and the metrics of a node.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use node_api::{EndpointReport, ListenerReport, PoolRef, PoolReport};
use proxy::{
    CodeClass, Counters, Distribution, Ended, HandshakeResult, HealthCounts, ListenerProblem,
    PoolSnapshot, Snapshot, Traffic, UpstreamSnapshot,
};

use crate::{
    ipc::ProxyReport,
    metrics::{Metric, Sample},
};

/// The report for `snapshot`. `refused` are listeners that the agent could not open, with the
/// reason: it knows more of them than the library, which merely lacks a socket.
pub(super) fn report(
    snapshot: &Snapshot,
    pools: &BTreeMap<String, PoolRef>,
    refused: &HashMap<SocketAddr, String>,
    warnings: Vec<String>,
) -> ProxyReport {
    let report_of = |(name, pool): (&String, &PoolRef)| PoolReport {
        pool: pool.clone(),
        listeners: listeners(snapshot, name, refused),
        endpoints: endpoints(snapshot, name),
    };
    ProxyReport {
        pools: pools.iter().map(report_of).collect(),
        warnings,
        samples: samples(snapshot),
    }
}

fn listeners(
    snapshot: &Snapshot,
    pool: &str,
    refused: &HashMap<SocketAddr, String>,
) -> Vec<ListenerReport> {
    let listeners = snapshot.listeners.iter();
    listeners
        .filter(|listener| listener.pool == pool)
        .map(|listener| ListenerReport {
            name: listener.name.clone(),
            address: listener.address,
            accepting: listener.accepting,
            problem: listener.problem.map(|problem| {
                let reason = refused
                    .get(&listener.address)
                    .filter(|_| problem == ListenerProblem::NoSocket);
                reason.cloned().unwrap_or_else(|| problem.to_string())
            }),
            sessions: listener.sessions,
        })
        .collect()
}

fn endpoints(snapshot: &Snapshot, pool: &str) -> Vec<EndpointReport> {
    let endpoints = snapshot.endpoints.iter();
    endpoints
        .filter(|endpoint| endpoint.pool == pool)
        .map(|endpoint| EndpointReport {
            upstream: endpoint.upstream.clone(),
            address: endpoint.address,
            usable: endpoint.usable,
            problem: endpoint.problem.map(|problem| problem.to_string()),
            sessions: endpoint.sessions,
        })
        .collect()
}

fn samples(snapshot: &Snapshot) -> Vec<Sample> {
    let mut samples = Vec::new();
    for listener in &snapshot.listeners {
        let address = listener.address.to_string();
        let labels = [
            ("pool", listener.pool.as_str()),
            ("listener", &listener.name),
            ("address", &address),
        ];
        let accepting = u64::from(listener.accepting);
        samples.push(Sample::new(
            Metric::ProxyListenerAccepting,
            &labels,
            accepting,
        ));
        samples.push(Sample::new(
            Metric::ProxySessions,
            &labels,
            listener.sessions,
        ));
    }
    for endpoint in &snapshot.endpoints {
        let address = endpoint.address.to_string();
        let labels = [
            ("pool", endpoint.pool.as_str()),
            ("upstream", &endpoint.upstream),
            ("endpoint", &address),
        ];
        let usable = u64::from(endpoint.usable);
        samples.push(Sample::new(Metric::ProxyEndpointUsable, &labels, usable));
        let sessions = endpoint.sessions;
        samples.push(Sample::new(
            Metric::ProxyEndpointSessions,
            &labels,
            sessions,
        ));
    }
    for upstream in &snapshot.upstreams {
        of_upstream(upstream, &mut samples);
    }
    for pool in &snapshot.pools {
        ping_times(pool, &mut samples);
    }
    for limit in &snapshot.limits {
        let labels = [
            ("pool", limit.pool.as_str()),
            ("limit", limit.limit.label()),
        ];
        samples.push(Sample::new(Metric::ProxyLimitsHit, &labels, limit.hits));
    }
    counters(&snapshot.counters, &mut samples);
    samples
}

fn of_upstream(upstream: &UpstreamSnapshot, samples: &mut Vec<Sample>) {
    let labels = [
        ("pool", upstream.pool.as_str()),
        ("upstream", &upstream.name),
    ];
    if upstream.routed {
        let usable = upstream.usable as u64;
        samples.push(Sample::new(Metric::ProxyUpstreamUsable, &labels, usable));
    }
    let times = &upstream.times;
    observed(
        Metric::ProxyHandshakeTime,
        &labels,
        &times.handshakes,
        samples,
    );
    observed(Metric::ProxyConnectTime, &labels, &times.connects, samples);
    let HealthCounts {
        checks_passed,
        checks_failed,
        ejections,
        retries_refused,
    } = upstream.health;
    let results = [("passed", checks_passed), ("failed", checks_failed)];
    for (result, count) in results {
        let labels = [labels[0], labels[1], ("result", result)];
        samples.push(Sample::new(Metric::ProxyChecks, &labels, count));
    }
    samples.push(Sample::new(Metric::ProxyEjections, &labels, ejections));
    samples.push(Sample::new(
        Metric::ProxyRetriesRefused,
        &labels,
        retries_refused,
    ));
}

fn ping_times(pool: &PoolSnapshot, samples: &mut Vec<Sample>) {
    let PoolSnapshot { name, times } = pool;
    for (side, times) in [
        ("client", &times.client_pings),
        ("backend", &times.backend_pings),
    ] {
        let labels = [("pool", name.as_str()), ("side", side)];
        observed(Metric::ProxyPingTime, &labels, times, samples);
    }
}

/// What has taken time at least once.
fn observed(
    metric: Metric,
    labels: &[(&str, &str)],
    times: &Distribution,
    samples: &mut Vec<Sample>,
) {
    if times.buckets.iter().any(|count| *count > 0) {
        samples.push(Sample::of_times(metric, labels, times));
    }
}

fn counters(counters: &Counters, samples: &mut Vec<Sample>) {
    for result in HandshakeResult::ALL {
        let labels = [("result", result.label())];
        let count = counters.handshakes(*result);
        samples.push(Sample::new(Metric::ProxyHandshakes, &labels, count));
    }
    for by in Ended::ALL {
        for code in CodeClass::ALL {
            let count = counters.ended(*by, *code);
            // Most of these pairs never come about.
            if count > 0 {
                let labels = [("by", by.label()), ("code", code.label())];
                samples.push(Sample::new(Metric::ProxySessionsEnded, &labels, count));
            }
        }
    }
    let sides = [
        ("client", &counters.from_clients),
        ("backend", &counters.from_backends),
    ];
    for (side, traffic) in sides {
        let Traffic {
            bytes,
            frames,
            messages,
            violations,
        } = *traffic;
        for (metric, count) in [
            (Metric::ProxyReceivedBytes, bytes),
            (Metric::ProxyReceivedFrames, frames),
            (Metric::ProxyReceivedMessages, messages),
            (Metric::ProxyFrameViolations, violations),
        ] {
            samples.push(Sample::new(metric, &[("from", side)], count));
        }
    }
    for (metric, count) in [
        (Metric::ProxyConnections, counters.accepted),
        (Metric::ProxyCutFrames, counters.resets),
        (Metric::ProxyRetries, counters.retries),
        (Metric::ProxyPings, counters.pings),
        (Metric::ProxyPongs, counters.pongs),
        (Metric::ProxyShed, counters.shed),
        (Metric::ProxyUnrecorded, counters.unrecorded),
    ] {
        samples.push(Sample::new(metric, &[], count));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proxy::{
        EndpointProblem, EndpointSnapshot, Limit, LimitSnapshot, ListenerSnapshot, PoolTimes,
        UpstreamTimes,
    };

    use super::*;

    fn snapshot() -> Snapshot {
        let mut seen = Distribution::default();
        seen.buckets[3] = 7;
        Snapshot {
            listeners: vec![ListenerSnapshot {
                pool: "default/chat".to_owned(),
                name: "ws".to_owned(),
                address: "10.0.0.1:8020".parse().unwrap(),
                accepting: false,
                problem: Some(ListenerProblem::NoSocket),
                sessions: 7,
            }],
            endpoints: vec![EndpointSnapshot {
                pool: "default/chat".to_owned(),
                upstream: "echo".to_owned(),
                address: "10.1.0.1:8010".parse().unwrap(),
                usable: false,
                problem: Some(EndpointProblem::Refused),
                sessions: 6,
            }],
            pools: vec![PoolSnapshot {
                name: "default/chat".to_owned(),
                times: PoolTimes {
                    client_pings: seen,
                    backend_pings: seen,
                },
            }],
            limits: vec![LimitSnapshot {
                pool: "default/chat".to_owned(),
                limit: Limit::FrameSize,
                hits: 3,
            }],
            upstreams: vec![UpstreamSnapshot {
                pool: "default/chat".to_owned(),
                name: "echo".to_owned(),
                routed: true,
                usable: 0,
                times: UpstreamTimes {
                    handshakes: seen,
                    ..UpstreamTimes::default()
                },
                health: HealthCounts::default(),
            }],
            counters: Counters::default(),
        }
    }

    fn pools() -> BTreeMap<String, PoolRef> {
        let pool = |namespace: &str, name: &str| PoolRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        BTreeMap::from([
            ("default/chat".to_owned(), pool("default", "chat")),
            ("default/none".to_owned(), pool("default", "none")),
        ])
    }

    #[test]
    fn the_agent_s_reason_stands_where_the_library_only_lacks_a_socket() {
        let reason = "port 8020 is taken by process 7".to_owned();
        let refused = HashMap::from([("10.0.0.1:8020".parse().unwrap(), reason.clone())]);
        let report = report(&snapshot(), &pools(), &refused, Vec::new());
        assert_eq!(report.pools.len(), 2);
        let chat = &report.pools[0];
        assert_eq!(chat.listeners[0].problem, Some(reason));
        assert_eq!(chat.listeners[0].sessions, 7);
        assert_eq!(chat.endpoints[0].sessions, 6);
        assert!(chat.endpoints[0].problem.is_some());
        assert!(report.pools[1].listeners.is_empty());
    }

    #[test]
    fn label_names_are_the_same_for_all_samples_of_a_metric_and_values_differ() {
        let mut names: HashMap<Metric, Vec<String>> = HashMap::new();
        let mut seen = HashSet::new();
        for sample in samples(&snapshot()) {
            let labels: Vec<_> = sample.labels.iter().map(|(name, _)| name.clone()).collect();
            let known = names.entry(sample.metric).or_insert_with(|| labels.clone());
            assert_eq!(*known, labels, "{:?}", sample.metric);
            assert!(seen.insert((sample.metric, sample.labels)));
        }
        assert!(names.contains_key(&Metric::ProxySessions));
        assert!(names.contains_key(&Metric::ProxyPingTime));
        assert!(names.contains_key(&Metric::ProxyHandshakeTime));
        assert!(
            !names.contains_key(&Metric::ProxyConnectTime),
            "none was made"
        );
        assert!(names.contains_key(&Metric::ProxyCutFrames));
    }
}
