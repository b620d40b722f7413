//! HTTP/1.1 around the upgrade (RFC 6455 section 4, RFC 9110, RFC 9112), without I/O: bytes in; a
//! request or response, an error, or the wish for more out.
//!
//! Strict, since what two parsers on the way read differently can be used to smuggle a request: what
//! the standards let a server refuse is refused. The answer does not depend on how the bytes were cut.

mod body;
pub(crate) mod date;
mod head;
mod plain;
mod reject;
mod request;
mod response;

pub use body::{Body, BodyEnd, Chunk, Part};
pub use head::{Fields, Limits};
pub use plain::{Incoming, PlainRequest};
pub use reject::Reject;
pub use request::{Request, RequestParser};
pub(crate) use response::INTERIM_MAX;
pub use response::{BadResponse, Response, ResponseParser};

/// What a parser makes of the bytes so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome<T, E> {
    /// More bytes are needed.
    NeedMore,
    /// A head, and how many bytes it took; the rest belongs to what follows it.
    Done(T, usize),
    /// Bytes that no more bytes can make right.
    Bad(E),
}
