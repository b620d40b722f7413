//! TLS to clients and to endpoints.
//!
//! [`ServerTls`] and [`ClientTls`] are made from what the caller has read, PEM and names, and are
//! plain values of the configuration: two of the same content are equal, so that one that has not
//! changed changes nothing. Where a handshake is made with one, the connection keeps what it has
//! agreed; a new certificate or key is for those that come later.
//!
//! `hello` is what comes before it, `conn` is TLS on one connection, `names` finds the certificate for a name,
//! `tickets` is what lets clients resume at another gateway.

mod client;
mod conn;
mod hello;
mod identity;
mod names;
mod server;
mod tickets;

use std::{io, sync::Arc};

use aws_lc_rs::digest;
use rustls::crypto::{self, CryptoProvider};

pub use self::{
    client::ClientTls,
    identity::{Identity, TlsError},
    server::{MinimumVersion, ServerTls},
    tickets::TicketKeys,
};
pub(crate) use self::{
    client::Fault,
    conn::{Agreed, Tls},
    hello::{HELLO_MAX, is_whole},
};

/// What is spoken on a connection (RFC 7301, RFC 9113 section 3.2): WebSocket is agreed on in either.
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// Its defaults are the modern ones: forward secrecy and authenticated ciphers only.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::aws_lc_rs::default_provider())
}

/// The error of TLS in one of I/O, if it is that.
pub(crate) fn error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Stands for some content, so that it can be compared without being kept.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Digest([u8; digest::SHA256_OUTPUT_LEN]);

impl Digest {
    /// Of these parts, and of how they are divided.
    fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}
