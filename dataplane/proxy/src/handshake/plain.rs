//! A request that asks for no upgrade to WebSocket, as a listener passes it on that does so (RFC 9110, RFC
//! 9112). What could be read in another way by the next server is refused, as it is in a handshake.

use super::{
    Body, Fields, Reject,
    request::{Request, Start, single, target_and_host},
};

/// Fields that say where a message ends or goes: no option of a connection (RFC 9110 section 7.6.1).
const OWN: [&str; 2] = ["content-length", "host"];

/// A request of any kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming<'a> {
    /// One for an upgrade to WebSocket.
    Upgrade(Request<'a>),
    /// Another one.
    Plain(PlainRequest<'a>),
}

/// A request that asks for no upgrade to WebSocket. One to another protocol may stand in its fields: a
/// server may ignore it (RFC 9110 section 7.8).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlainRequest<'a> {
    /// The method, which is neither CONNECT nor TRACE.
    pub method: &'a [u8],
    /// What it asks for, with all its fields.
    pub asks: Request<'a>,
    /// Where its content ends.
    pub body: Body,
    /// It is of HTTP/1.0: its client understands neither chunks nor interim answers.
    pub is_old: bool,
}

impl<'a> Incoming<'a> {
    pub(super) fn read(head: &'a [u8]) -> Result<Self, Reject> {
        let start = Start::read(head)?;
        // RFC 9110 section 7.8: in a request of HTTP/1.0 it is ignored.
        if start.minor > 0 && start.fields.lists("upgrade", "websocket") {
            Request::of(start).map(Self::Upgrade)
        } else {
            PlainRequest::of(start).map(Self::Plain)
        }
    }
}

impl<'a> PlainRequest<'a> {
    fn of(start: Start<'a>) -> Result<Self, Reject> {
        let Start {
            method,
            target,
            minor,
            host,
            fields,
        } = start;
        // A tunnel, and a look at what others add: nothing for whoever comes from outside (RFC 9110
        // sections 9.3.6 and 9.3.8).
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Reject::NotImplemented(
                "CONNECT and TRACE are not carried out here.",
            ));
        }
        let body = content(&fields, minor)?;
        if OWN.iter().any(|name| fields.is_connection_option(name)) {
            return Err(Reject::Malformed(
                "Connection names a field of the message.",
            ));
        }
        let (target, host) = target_and_host(target, host)?;
        Ok(Self {
            method,
            asks: Request {
                target,
                host,
                fields,
            },
            body,
            is_old: minor == 0,
        })
    }

    /// Whether its client's connection may carry another one behind it (RFC 9112 section 9.3). One of
    /// HTTP/1.0 would have to ask for that.
    pub fn persists(&self) -> bool {
        !self.is_old && !self.asks.fields.is_connection_option("close")
    }

    /// Whether it may be carried out twice without harm (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }
}

/// RFC 9112 section 6.3. Of what it lets a server put right nothing is.
fn content(fields: &Fields<'_>, minor: u8) -> Result<Body, Reject> {
    let length = single(
        fields,
        "content-length",
        "Content-Length is there more than once.",
    )?;
    if fields.all("transfer-encoding").next().is_none() {
        let length = length.map(Body::number).transpose();
        let length = length.map_err(Reject::Malformed)?;
        return Ok(Body::Length(length.unwrap_or(0)));
    }
    if length.is_some() {
        return Err(Reject::Malformed(
            "There are Transfer-Encoding and Content-Length.",
        ));
    }
    // RFC 9112 section 6.1.
    if minor == 0 {
        return Err(Reject::Malformed("HTTP/1.0 has no Transfer-Encoding."));
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<_> = fields.list("transfer-encoding").collect();
    match codings.split_last() {
        Some((last, [])) if is_chunked(last) => Ok(Body::chunked()),
        Some((last, others)) if is_chunked(last) && !others.iter().any(|it| is_chunked(it)) => Err(
            Reject::NotImplemented("Of transfer codings chunked alone is understood here."),
        ),
        _ => Err(Reject::Malformed(
            "Transfer-Encoding does not end with chunked.",
        )),
    }
}
