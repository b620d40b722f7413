//! `wsha.dev/v1alpha1`.
#![allow(
    clippy::doc_markdown,
    unreachable_pub,
    reason = "texts are for kubectl explain; KubeSchema derives a public twin of each struct inside a function"
)]

mod access_log;
mod gateways;
mod health;
mod limits;
mod mac_address;
mod peering;
mod plain_requests;
mod pool;
mod proxies;
mod rebalance;
mod routes;
mod sessions;
mod status;
mod tls;
mod tracking;
mod upstream;
mod virtual_ip;
mod vrrp;

pub use access_log::{AccessLog, AccessLogMode};
pub use gateways::{Gateways, NodeSelector};
pub use health::{
    Ejection, HealthCheck, HttpProbe, Retry, TcpProbe, WebSocketProbe, ZonePreference,
    ZonePreferenceMode,
};
pub use limits::Limits;
pub use mac_address::{MacAddress, MacAddressMode};
pub use peering::{Authentication, AuthenticationMode, Password, Peering, PeeringMode};
pub use plain_requests::{PlainRequests, PlainRequestsMode};
pub use pool::{WebSocketHAPool, WebSocketHAPoolSpec};
pub use proxies::{ProxyProtocol, ProxyProtocolMode, SentProxyProtocol};
pub use rebalance::{Rebalance, RebalanceMode};
pub use routes::Route;
pub use sessions::{Drain, Heartbeat, Listener};
pub use status::{
    Committed, CommittedPeering, ListenerStatus, Retiring, Summary, Tally, VirtualIPStatus,
    WebSocketHAPoolStatus,
};
pub use tls::{Http2, Http2Mode, ListenerTls, SecretReference, TlsVersion, UpstreamTls};
pub use tracking::{
    Check, CommandCheck, HttpCheck, TcpCheck, TrackedInterface, TrackedUpstream, Tracking,
};
pub use upstream::{
    ConsistentHash, Endpoint, HashKey, HashKeyType, LoadBalancing, LoadBalancingType,
    ServiceReference, Upstream,
};
pub use virtual_ip::{NodePriority, VirtualIP};
pub use vrrp::{Isolation, Preemption, PreemptionMode, Vrrp};
