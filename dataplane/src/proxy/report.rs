//! From the proxy's snapshot to the report and the metrics of a node.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::UNIX_EPOCH,
};

use node_api::{EndpointReport, ListenerReport, PoolRef, PoolReport};
use proxy::{
    AttemptResult, CodeClass, Distribution, Ended, EndpointSnapshot, HandshakeResult, HealthCounts,
    ListenerCounters, ListenerProblem, PoolSnapshot, RequestResult, Snapshot, UpstreamSnapshot,
    frame::Kind,
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
            drained_at_unix_ms: endpoint.drained.map(|end| {
                let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(end.as_millis()).unwrap_or(u64::MAX)
            }),
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
        of_endpoint(endpoint, &mut samples);
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
    for listener in &snapshot.traffic {
        counters(listener, &mut samples);
    }
    let lost = snapshot.unrecorded;
    samples.push(Sample::new(Metric::ProxyUnrecorded, &[], lost));
    let rings = snapshot.rings as u64;
    samples.push(Sample::new(Metric::ProxyRings, &[], rings));
    samples
}

fn of_endpoint(endpoint: &EndpointSnapshot, samples: &mut Vec<Sample>) {
    let address = endpoint.address.to_string();
    let own = [
        ("pool", endpoint.pool.as_str()),
        ("upstream", &endpoint.upstream),
        ("endpoint", &address),
    ];
    let mut push = |metric, more: &[(&str, &str)], count| {
        samples.push(Sample::new(metric, &[&own, more].concat(), count));
    };
    push(Metric::ProxyEndpointUsable, &[], u64::from(endpoint.usable));
    push(Metric::ProxyEndpointSessions, &[], endpoint.sessions);
    if let Some(end) = endpoint.drained {
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        push(Metric::ProxyDrainingSessions, &[], endpoint.sessions);
        push(Metric::ProxyDrainDeadline, &[], end.as_secs());
    }
    // There may be thousands of endpoints, and each of most of these says nothing.
    let mut push_some = |metric, label, count| {
        if count > 0 {
            push(metric, &[label], count);
        }
    };
    let counters = &endpoint.counters;
    for result in AttemptResult::ALL {
        let count = counters.handshakes(*result);
        let label = ("result", result.label());
        push_some(Metric::ProxyEndpointHandshakes, label, count);
    }
    for by in Ended::ALL {
        let count = counters.ended_by(*by);
        push_some(
            Metric::ProxyEndpointSessionsEnded,
            ("by", by.label()),
            count,
        );
    }
    for (side, volume) in [
        ("client", counters.from_clients),
        ("backend", counters.from_backend),
    ] {
        let from = ("from", side);
        push_some(Metric::ProxyEndpointBytes, from, volume.bytes);
        push_some(Metric::ProxyEndpointMessages, from, volume.messages);
    }
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

fn counters(listener: &ListenerCounters, samples: &mut Vec<Sample>) {
    let own = [
        ("pool", listener.pool.as_str()),
        ("listener", listener.listener.as_str()),
    ];
    let counters = &listener.counters;
    let mut push = |metric, more: &[(&str, &str)], count| {
        samples.push(Sample::new(metric, &[&own, more].concat(), count));
    };
    for result in HandshakeResult::ALL {
        let count = counters.handshakes(*result);
        push(
            Metric::ProxyHandshakes,
            &[("result", result.label())],
            count,
        );
    }
    for result in RequestResult::ALL {
        let count = counters.requests(*result);
        // Few listeners proxy any.
        if count > 0 {
            push(Metric::ProxyRequests, &[("result", result.label())], count);
        }
    }
    if counters.handshakes(HandshakeResult::Plain) > 0 {
        push(Metric::ProxyRequestsUnderWay, &[], counters.live_requests);
    }
    for by in Ended::ALL {
        for code in CodeClass::ALL {
            let count = counters.ended(*by, *code);
            // Most of these pairs never come about.
            if count > 0 {
                let labels = [("by", by.label()), ("code", code.label())];
                push(Metric::ProxySessionsEnded, &labels, count);
            }
        }
    }
    for (side, traffic) in [
        ("client", &counters.from_clients),
        ("backend", &counters.from_backends),
    ] {
        let from = ("from", side);
        for kind in Kind::ALL {
            let labels = [from, ("opcode", kind.label())];
            push(Metric::ProxyReceivedFrames, &labels, traffic.frames(kind));
        }
        for (metric, count) in [
            (Metric::ProxyReceivedBytes, traffic.bytes),
            (Metric::ProxyReceivedMessages, traffic.messages),
            (Metric::ProxyFrameViolations, traffic.violations),
        ] {
            push(metric, &[from], count);
        }
    }
    for (metric, count) in [
        (Metric::ProxyConnections, counters.accepted),
        (Metric::ProxyHttp2Streams, counters.streams),
        (Metric::ProxyCutFrames, counters.resets),
        (Metric::ProxyRetries, counters.retries),
        (Metric::ProxyPings, counters.pings),
        (Metric::ProxyPongs, counters.pongs),
        (Metric::ProxyShed, counters.shed),
    ] {
        push(metric, &[], count);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use proxy::{
        Counters, EndpointCounters, EndpointProblem, Limit, LimitSnapshot, ListenerSnapshot,
        PoolTimes, UpstreamTimes,
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
                drained: None,
                counters: EndpointCounters::default(),
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
            traffic: vec![ListenerCounters {
                pool: "default/chat".to_owned(),
                listener: "ws".to_owned(),
                counters: Counters::default(),
            }],
            counters: Counters::default(),
            unrecorded: 0,
            rings: 0,
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
    fn how_far_a_drain_has_come_is_told() {
        let mut snapshot = snapshot();
        let told = |snapshot: &Snapshot| {
            let samples = samples(snapshot);
            let value = |metric| {
                let found = samples.iter().find(|sample| sample.metric == metric);
                found.map(|sample| sample.value)
            };
            let end = endpoints(snapshot, "default/chat")[0].drained_at_unix_ms;
            let left = value(Metric::ProxyDrainingSessions);
            (end, left, value(Metric::ProxyDrainDeadline))
        };
        assert_eq!(told(&snapshot), (None, None, None));
        snapshot.endpoints[0].drained = Some(UNIX_EPOCH + Duration::from_millis(7500));
        assert_eq!(told(&snapshot), (Some(7500), Some(6.0), Some(7.0)));
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
