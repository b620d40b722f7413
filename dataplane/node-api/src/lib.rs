//! What a node is told to do and what it reports back: plain data, the contract between whoever
//! plans (the controller, or the planner linked into the data plane) and the data plane.
//!
//! Content only: no I/O, no clock, no defaults of its own. Values arrive here checked: the planner
//! turns objects into these types and refuses what cannot be expressed.
#![forbid(unsafe_code)]

pub mod config;
mod decode;
mod health;
mod limits;
mod mac_address;
mod peering;
mod protocol;
pub mod report;
mod resources;
mod revision;
mod routes;
pub mod stream;
mod tls;
pub mod tracking;

pub use config::{
    AccessLog, Balancing, Drain, Endpoint, EndpointPhase, HashKey, Heartbeat, Listener, NodeConfig,
    PlainRequests, Pool, PoolRef, Preemption, ProxyProtocolMode, ProxyProtocolVersion, RankedNode,
    Rebalance, Upstream, VirtualRouter, VrrpVersion, is_link_local_v6,
};
pub use decode::{DecodeError, Decoded};
pub use health::{Ejection, Health, HealthCheck, HealthProbe, Retry, ZonePreference};
pub use limits::{Limits, MessageRate};
pub use mac_address::MacAddress;
pub use peering::{Password, Peering};
pub use protocol::Protocol;
pub use report::{
    AddressConflict, EndpointReport, ListenerReport, Lowering, NodeReport, PeerReport, PoolReport,
    RouterReport, RouterState, Tracked, Transition,
};
pub use resources::{MissingEndpoints, PLAIN_REQUESTS};
pub use routes::Route;
pub use tls::{Http2, Keys, ListenerTls, Secret, TicketKeys, TlsVersion, UpstreamTls};
pub use tracking::{Check, Probe, TrackedInterface, TrackedUpstream, Tracking};
