//! What a proxied message, handshake and idle session cost, wsha beside its peers.
//!
//! An [`engine::Engine`] is all clients and all echo servers in one event loop on one core; a [`peer::Peer`] is a proxy,
//! alone on another. [`trial`] measures it under a [`load`], [`ratio`] and [`goal`] judge, [`report`] tells and [`chart`]
//! draws. [`change`] is apart, in a lab: what an edit does to live sessions.

pub mod change;
pub mod chart;
mod client;
mod conn;
pub mod engine;
mod envoy;
pub mod goal;
mod http2;
pub mod load;
pub mod peer;
pub mod ratio;
pub mod report;
mod server;
mod session;
pub mod tls;
pub mod trial;
mod wire;

pub use self::session::Doing;
