//! The one list of metrics: name, kind, help. Each process fills in samples of its own; the agent
//! serves them all.

use serde::{Deserialize, Serialize};

/// A value of a metric at the time of a report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Which metric.
    pub metric: Metric,
    /// Label names and values; names are the same for all samples of a metric.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// How a value behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
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
    VrrpState, Gauge, "wsha_vrrp_state", "State of a virtual router: 0 Initialize, 1 Backup, 2 Active";
    VrrpTransitions, Counter, "wsha_vrrp_transitions", "Changes of state of a virtual router, by the state entered";
    VrrpAdvertisementsSent, Counter, "wsha_vrrp_advertisements_sent", "Advertisements sent";
    VrrpAdvertisementsReceived, Counter, "wsha_vrrp_advertisements_received", "Advertisements accepted";
    VrrpForeignAdvertisements, Counter, "wsha_vrrp_foreign_advertisements", "Advertisements of virtual routers that this host does not take part in";
    VrrpTimerDelay, Gauge, "wsha_vrrp_timer_delay_seconds", "Longest delay of a timer of the state machines since the report before";
    VrrpDiscardedAdvertisements, Counter, "wsha_vrrp_discarded_advertisements", "Packets discarded, by reason";
    ProxyListenerAccepting, Gauge, "wsha_proxy_listener_accepting", "Whether a listener accepts clients on an address: 1 or 0";
    ProxySessions, Gauge, "wsha_proxy_sessions", "Live sessions of a listener on an address";
    ProxyEndpointUsable, Gauge, "wsha_proxy_endpoint_usable", "Whether new sessions are sent to an endpoint: 1 or 0";
    ProxyEndpointSessions, Gauge, "wsha_proxy_endpoint_sessions", "Live sessions of an endpoint";
    ProxyConnections, Counter, "wsha_proxy_connections", "Connections accepted from clients";
    ProxyHandshakes, Counter, "wsha_proxy_handshakes", "Handshakes by how they ended";
    ProxySessionsEnded, Counter, "wsha_proxy_sessions_ended", "Sessions ended, by who or what ended them and by the class of the first close code seen";
    ProxyReceivedBytes, Counter, "wsha_proxy_received_bytes", "Bytes of WebSocket frames received, headers included, by side";
    ProxyReceivedFrames, Counter, "wsha_proxy_received_frames", "WebSocket frames received, control frames included, by side";
    ProxyReceivedMessages, Counter, "wsha_proxy_received_messages", "Messages received to their end, by side";
    ProxyFrameViolations, Counter, "wsha_proxy_frame_violations", "Frames received that break RFC 6455 section 5 and were passed on, by side";
    ProxyCutFrames, Counter, "wsha_proxy_cut_frames", "Connections reset because the loss of the other side had cut a frame";
    ProxyRetries, Counter, "wsha_proxy_retries", "Further endpoints tried for a handshake after one had failed";
    ProxyPings, Counter, "wsha_proxy_pings", "Pings sent to sides that had been quiet";
    ProxyPongs, Counter, "wsha_proxy_pongs", "Pongs received that answered pings of the proxy";
    ProxyShed, Counter, "wsha_proxy_shed", "Clients turned away with 503 because no file descriptor was left";
}
