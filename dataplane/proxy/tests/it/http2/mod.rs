//! Clients that speak HTTP/2.

mod connection;
mod ending;
mod handshake;
mod hostile;
mod raw;
mod sessions;
pub(crate) mod support;
