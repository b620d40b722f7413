//! The WebSocket proxy: handshake, upstream choice, relay, drain.
//!
//! [`Proxy::start`] runs one thread per worker, each with an event loop, listening sockets and
//! sessions of its own. The caller opens the sockets (it may need privilege for that), says with
//! [`Proxy::apply`] what is to be served, and learns through [`Event`]s and [`Proxy::snapshot`]
//! what became of it. The proxy knows nothing of VRRP, of files or of the control plane.
//!
//! Where to look: `handshake` reads and writes HTTP without I/O, `open` brings a client to an
//! endpoint, `budget` says how often another one may be tried, `health` which endpoints are well,
//! `frame` finds frame boundaries, `relay` is the life of a session, `worker` owns
//! listeners and sessions of one thread, `leaving` is its part in a planned stop,
//! `shedding` its part in rebalancing, `reclaim` says when memory is given back, `drain` says when sessions of endpoints that go are told,
//! `limits` is what a pool allows, `routing` which requests go where, `live` is the configuration with its
//! counts, `stream` is a connection with TLS or without, `ring` has those that are read by `io_uring`, `tls`
//! is how that is agreed and spoken, `http2` is about clients whose connection carries several sessions,
//! `plain` about requests that ask for none.
#![deny(unsafe_code)]

mod balance;
mod budget;
mod client;
mod close;
mod config;
mod dial;
mod drain;
mod endpoint;
mod endpoint_stats;
mod forward;
pub mod frame;
pub mod handshake;
mod health;
mod heartbeat;
pub mod http2;
mod leaving;
mod limits;
mod listener;
mod live;
mod observe;
mod open;
mod origin;
mod plain;
mod proxy;
pub mod proxy_protocol;
mod reclaim;
mod record;
mod relay;
mod ring;
mod roster;
mod routing;
mod session;
mod shedding;
mod stats;
mod stream;
mod sys;
mod times;
pub mod tls;
mod worker;

pub use config::{
    Balancing, Config, ConfigError, ConsistentHash, Drain, Endpoint, HashKey, Heartbeat, Listener,
    Phase, PlainRequests, Pool, Rebalance, Route, Upstream,
};
pub use endpoint_stats::{AttemptResult, EndpointCounters};
pub use health::{CheckFailure, Ejection, Health, HealthCheck, HealthCounts, Probe, Retry};
pub use limits::{GatewayLimits, Limit, Limits, MessageRate};
pub use observe::{
    EndpointProblem, EndpointSnapshot, Event, LimitSnapshot, ListenerCounters, ListenerProblem,
    ListenerSnapshot, PoolSnapshot, Snapshot, UpstreamSnapshot,
};
pub use proxy::{Beat, Error, LeaveReport, Options, Patience, Proxy};
pub use record::{Record, Volume};
pub use ring::Ring;
pub use stats::{CodeClass, Counters, Ended, HandshakeResult, RequestResult, Traffic};
pub use times::{BOUNDS, BUCKETS, Distribution, PoolTimes, UpstreamTimes};
