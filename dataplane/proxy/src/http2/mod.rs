//! Clients that speak HTTP/2: WebSocket in its streams (RFC 8441).
//!
//! The library `h2` speaks the protocol. Each stream is made to look like a connection of HTTP/1.1
//! (`request`, `answer`, `stream`), so that handshake, relay and limits are the same code for both;
//! `connection` accepts streams for as long as a client has any. `piece` tells what of the bytes that
//! the library was given has gone out, `turns` keeps it from taking all of a worker's time.

mod answer;
mod connection;
mod piece;
pub mod request;
mod stream;
mod turns;

pub use h2::ext::Protocol;

pub(crate) use self::{answer::status, connection::serve, stream::Http2Stream};
