//! The one list of metrics: name, kind, help. Each process fills in samples of its own; the agent
//! serves them all.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};
use serde::{Deserialize, Serialize};

/// A value of a metric at the time of a report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Which metric.
    pub metric: Metric,
    /// Label names and values; names are the same for all samples of a metric.
    pub labels: Vec<(String, String)>,
    /// The value; of a histogram the sum.
    pub value: f64,
    /// Of a histogram, how many values there are in each bucket of [`proxy::BOUNDS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<u64>,
}

impl Sample {
    /// A sample of a whole number.
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact to 2^53, which no count of ours reaches"
    )]
    pub fn new(metric: Metric, labels: &[(&str, &str)], value: u64) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            metric,
            labels: labels.iter().map(owned).collect(),
            value: value as f64,
            buckets: Vec::new(),
        }
    }

    /// A sample of times.
    pub fn of_times(metric: Metric, labels: &[(&str, &str)], times: &proxy::Distribution) -> Self {
        Self {
            value: times.sum.as_secs_f64(),
            buckets: times.buckets.to_vec(),
            ..Self::new(metric, labels, 0)
        }
    }
}

/// How a value behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times, counted by how long they are.
    Histogram,
}

/// Declares [`Metric`] with everything that is said about it, in one table.
macro_rules! metrics {
    ($($variant:ident, $kind:ident, $name:literal, $help:literal;)*) => {
        /// Every metric of the data plane.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name as served, without the suffix `_total` of counters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence of help.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// How it behaves.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

metrics! {
    BuildInfo, Gauge, "wsha_build_info", "Always 1; the version is a label";
    ConfigStale, Gauge, "wsha_config_stale", "1 while the newest files are not in use, since they were refused, or while no controller is followed";
    ConfigUnsaved, Gauge, "wsha_config_unsaved", "1 while the files in use, or what a controller told, could not be saved: the next start may find older ones";
    ConfigChanges, Counter, "wsha_config_changes", "Changes of the files, by result: accepted or refused";
    ConfigAcceptedTime, Gauge, "wsha_config_accepted_timestamp_seconds", "When the files in use were accepted, seconds since the Unix epoch";
    ControllerConnected, Gauge, "wsha_controller_connected", "Replicas of the controller with which a stream is open; absent on plain hosts";
    ProcessUp, Gauge, "wsha_process_up", "1 while the process runs and is connected to the agent";
    ProcessRestarts, Counter, "wsha_process_restarts", "How often the process was started again after its end";
    ListenerProblems, Gauge, "wsha_listener_problems", "Listeners that could not be opened";
    Warnings, Gauge, "wsha_warnings", "Warnings that `status` shows now";
    CertificateNotAfter, Gauge, "wsha_certificate_not_after_seconds", "When the first certificate of a Secret in use ends, seconds since the Unix epoch";
    CheckFailing, Gauge, "wsha_check_failing", "1 while a check of a pool fails on this node, 0 while it passes";
    VrrpState, Gauge, "wsha_vrrp_state", "State of a virtual router: 0 Initialize, 1 Backup, 2 Active";
    VrrpPriority, Gauge, "wsha_vrrp_priority", "What a virtual router advertises, or would";
    VrrpLoweredBy, Gauge, "wsha_vrrp_lowered_by", "Things tracked that lower the priority of a virtual router now";
    VrrpTransitions, Counter, "wsha_vrrp_transitions", "Changes of state of a virtual router, by the state entered";
    VrrpAdvertisementsSent, Counter, "wsha_vrrp_advertisements_sent", "Advertisements sent";
    VrrpAdvertisementsFailed, Counter, "wsha_vrrp_advertisements_failed", "Advertisements that did not leave the host";
    VrrpLateAdvertisements, Counter, "wsha_vrrp_late_advertisements", "Advertisements that left more than half an interval after they were due";
    VrrpAdvertisementsReceived, Counter, "wsha_vrrp_advertisements_received", "Advertisements accepted";
    VrrpForeignAdvertisements, Counter, "wsha_vrrp_foreign_advertisements", "Advertisements of virtual routers that this host does not take part in";
    VrrpTimerDelay, Gauge, "wsha_vrrp_timer_delay_seconds", "Longest delay of a timer of the state machines in the last minute";
    VrrpAddressConflicts, Gauge, "wsha_vrrp_address_conflicts", "Others that answer for an address which this host holds";
    VrrpDiscardedAdvertisements, Counter, "wsha_vrrp_discarded_advertisements", "Packets discarded, by reason";
    ProxyListenerAccepting, Gauge, "wsha_proxy_listener_accepting", "Whether a listener accepts clients on an address: 1 or 0";
    ProxySessions, Gauge, "wsha_proxy_sessions", "Live sessions of a listener on an address";
    ProxyEndpointUsable, Gauge, "wsha_proxy_endpoint_usable", "Whether new sessions are sent to an endpoint: 1 or 0";
    ProxyEndpointSessions, Gauge, "wsha_proxy_endpoint_sessions", "Live sessions of an endpoint";
    ProxyEndpointHandshakes, Counter, "wsha_proxy_endpoint_handshakes", "Handshakes, and requests that ask for no session, brought to an endpoint, by what it made of them";
    ProxyEndpointSessionsEnded, Counter, "wsha_proxy_endpoint_sessions_ended", "Sessions of an endpoint that ended, by who or what ended them";
    ProxyEndpointBytes, Counter, "wsha_proxy_endpoint_received_bytes", "Bytes of WebSocket frames received in the sessions of an endpoint, by side";
    ProxyEndpointMessages, Counter, "wsha_proxy_endpoint_received_messages", "Messages received to their end in the sessions of an endpoint, by side";
    ProxyUpstreamUsable, Gauge, "wsha_proxy_upstream_usable_endpoints", "Endpoints of an upstream that take new sessions and were reached; of upstreams that routes lead to";
    ProxyDrainingSessions, Gauge, "wsha_proxy_draining_sessions", "Sessions left of an endpoint that is going, while they are told so";
    ProxyDrainDeadline, Gauge, "wsha_proxy_drain_deadline_timestamp_seconds", "When the last session of an endpoint that is going is told so, seconds since the Unix epoch";
    ProxyConnections, Counter, "wsha_proxy_connections", "Connections accepted from clients, by listener";
    ProxyHttp2Streams, Counter, "wsha_proxy_http2_streams", "Streams that clients have opened in connections of HTTP/2, each for a session or a request, by listener";
    ProxyHandshakes, Counter, "wsha_proxy_handshakes", "Handshakes by listener and by how they ended";
    ProxyRequests, Counter, "wsha_proxy_requests", "Requests that asked for no session where these are proxied, by listener and by how they ended";
    ProxyRequestsUnderWay, Gauge, "wsha_proxy_requests_under_way", "Requests that asked for no session and are with an endpoint, by listener";
    ProxySessionsEnded, Counter, "wsha_proxy_sessions_ended", "Sessions ended, by listener, by who or what ended them and by the first close code seen";
    ProxyReceivedBytes, Counter, "wsha_proxy_received_bytes", "Bytes of WebSocket frames received, headers included, by listener and side";
    ProxyReceivedFrames, Counter, "wsha_proxy_received_frames", "WebSocket frames received, by listener, side and opcode";
    ProxyReceivedMessages, Counter, "wsha_proxy_received_messages", "Messages received to their end, by listener and side";
    ProxyFrameViolations, Counter, "wsha_proxy_frame_violations", "Frames received that break RFC 6455 section 5 and were passed on, by listener and side";
    ProxyCutFrames, Counter, "wsha_proxy_cut_frames", "Connections reset because the loss of the other side had cut a frame, by listener";
    ProxyRetries, Counter, "wsha_proxy_retries", "Further endpoints tried for a handshake or a request after one had failed, by listener";
    ProxyRetriesRefused, Counter, "wsha_proxy_retries_refused", "Handshakes that were tried on no further endpoint after one had failed, as the retry budget of the upstream was spent";
    ProxyChecks, Counter, "wsha_proxy_checks", "Health checks of the endpoints of an upstream, by result: passed or failed";
    ProxyEjections, Counter, "wsha_proxy_ejections", "Times that an endpoint of an upstream was left out since it had failed several clients in a row";
    ProxyPings, Counter, "wsha_proxy_pings", "Pings sent to sides that had been quiet, by listener";
    ProxyPongs, Counter, "wsha_proxy_pongs", "Pongs received that answered pings of the proxy, by listener";
    ProxyHandshakeTime, Histogram, "wsha_proxy_handshake_duration_seconds", "Time from a client's first byte to the 101, by pool and upstream";
    ProxyConnectTime, Histogram, "wsha_proxy_connect_duration_seconds", "Time in which endpoints took a connection, by pool and upstream";
    ProxyPingTime, Histogram, "wsha_proxy_ping_round_trip_seconds", "Time from a Ping of the proxy to its Pong, by pool and side; not counted where other frames came between";
    ProxyUnrecorded, Counter, "wsha_proxy_access_records_lost", "Access records that were not written, as whoever reads them is too slow";
    ProxyRings, Gauge, "wsha_proxy_io_uring_workers", "Workers of the proxy that read sessions without TLS by `io_uring`; the others do so by epoll";
    ProxyLimitsHit, Counter, "wsha_proxy_limits_hit", "Times that clients of a pool ran into a limit, its own or the gateway's (gateway_*), by limit";
    ProxyOpenFiles, Gauge, "wsha_proxy_open_files", "File descriptors that listeners, clients and endpoints take in the proxy";
    ProxyOpenFilesLimit, Gauge, "wsha_proxy_open_files_limit", "File descriptors that the proxy may have";
    ProxyMemory, Gauge, "wsha_proxy_memory_bytes", "Memory of the proxy's control group, buffers of sockets included; absent without a limit";
    ProxyMemoryLimit, Gauge, "wsha_proxy_memory_limit_bytes", "Memory that the proxy's control group may have; absent without a limit";
    ProxyShed, Counter, "wsha_proxy_shed", "Clients turned away because no file descriptor was left, by listener: with 503, those of TLS without an answer";
}

/// The form in which [`encode`] writes: that of `OpenMetrics`, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All samples as text, in the order of [`Metric::ALL`].
pub fn encode(samples: Vec<Sample>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Samples(samples)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Hands samples to the encoder, one metric after another.
#[derive(Debug)]
struct Samples(Vec<Sample>);

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for &metric in Metric::ALL {
            let of_metric = || self.0.iter().filter(|sample| sample.metric == metric);
            if of_metric().next().is_none() {
                continue;
            }
            let kind = match metric.kind() {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name(), metric.help(), None, kind)?;
            for sample in of_metric() {
                if sample.labels.is_empty() {
                    encode_value(&mut family, metric.kind(), sample)?;
                } else {
                    let mut one = family.encode_family(&sample.labels)?;
                    encode_value(&mut one, metric.kind(), sample)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(
    encoder: &mut MetricEncoder<'_>,
    kind: Kind,
    sample: &Sample,
) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, u64>(&sample.value, None),
        Kind::Gauge => encoder.encode_gauge(&sample.value),
        Kind::Histogram => {
            let bounds = proxy::BOUNDS.iter().map(std::time::Duration::as_secs_f64);
            // How the encoder is told of infinity.
            let bounds = bounds.chain([f64::INFINITY]);
            let counts = sample.buckets.iter().copied();
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let count = sample.buckets.iter().sum();
            encoder.encode_histogram::<NoLabelSet>(sample.value, count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn samples_are_served_with_their_labels() {
        let text = encode(vec![
            Sample::new(
                Metric::VrrpTransitions,
                &[("vrid", "51"), ("to", "Active")],
                3,
            ),
            Sample::new(Metric::VrrpState, &[("vrid", "51")], 2),
            Sample::new(Metric::VrrpState, &[("vrid", "52")], 1),
            Sample::new(Metric::ConfigStale, &[], 0),
        ])
        .unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "wsha_config_stale 0.0",
                "wsha_vrrp_state{vrid=\"51\"} 2.0",
                "wsha_vrrp_state{vrid=\"52\"} 1.0",
                "wsha_vrrp_transitions_total{vrid=\"51\",to=\"Active\"} 3.0",
            ]
        );
        assert!(text.contains("# TYPE wsha_vrrp_transitions counter\n"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn histograms_are_served_with_all_buckets() {
        let mut times = proxy::Distribution {
            sum: std::time::Duration::from_millis(6250),
            ..Default::default()
        };
        (times.buckets[0], times.buckets[2], times.buckets[13]) = (3, 1, 1);
        let labels = [("pool", "default/chat")];
        let sample = Sample::of_times(Metric::ProxyConnectTime, &labels, &times);
        let sent = serde_json::to_string(&sample).unwrap();
        assert_eq!(serde_json::from_str::<Sample>(&sent).unwrap(), sample);
        let text = encode(vec![sample]).unwrap();
        let name = "wsha_proxy_connect_duration_seconds";
        for line in [
            format!("# TYPE {name} histogram"),
            format!("{name}_sum{{pool=\"default/chat\"}} 6.25"),
            format!("{name}_count{{pool=\"default/chat\"}} 5"),
            format!("{name}_bucket{{le=\"0.0005\",pool=\"default/chat\"}} 3"),
            format!("{name}_bucket{{le=\"0.0025\",pool=\"default/chat\"}} 4"),
            format!("{name}_bucket{{le=\"5.0\",pool=\"default/chat\"}} 4"),
            format!("{name}_bucket{{le=\"+Inf\",pool=\"default/chat\"}} 5"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for name in names {
            assert!(name.starts_with("wsha_"), "{name}");
            assert!(!name.ends_with("_total"), "the encoder adds it to {name}");
        }
    }
}
