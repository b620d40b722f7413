//! Heads of requests and answers as the other side gets them. Where their content ends is said anew: how one
//! connection frames it is no concern of the other.

use super::content::Framing;
use crate::{
    client::Ends,
    forward::{WRITTEN, pass_on, put, put_date, put_origin},
    handshake::{Body, PlainRequest, Response},
    stream::Stream,
};

/// The request as the endpoint gets it, which closes the connection behind its answer.
pub(super) fn request(
    request: &PlainRequest<'_>,
    framing: Framing,
    ends: Ends,
    is_trusted: bool,
    client: &Stream,
) -> Vec<u8> {
    let fields = &request.asks.fields;
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(request.method);
    head.push(b' ');
    head.extend_from_slice(request.asks.target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put(&mut head, "Host", request.asks.host);
    let trailers = fields.lists("te", "trailers");
    if trailers {
        // RFC 9110 section 10.1.4: it is of the connection.
        put(&mut head, "TE", b"trailers");
    }
    let connection: &[u8] = if trailers { b"close, TE" } else { b"close" };
    put(&mut head, "Connection", connection);
    let has_length = fields.all("content-length").next().is_some();
    if has_length || framing == Framing::Chunked {
        put_framing(&mut head, framing);
    }
    let mut without = WRITTEN.to_vec();
    // Of an upgrade that is not asked for any more (RFC 7540 section 3.2.1).
    without.push("http2-settings");
    if request.is_old {
        // RFC 9110 section 10.1.1.
        without.push("expect");
    }
    pass_on(&mut head, fields, &without);
    put_origin(&mut head, &request.asks, ends, is_trusted, client);
    head.extend_from_slice(b"\r\n");
    head
}

/// The answer as the client gets it; whether its connection `stays` open behind it.
pub(super) fn answer(response: &Response<'_>, framing: Framing, stays: bool) -> Vec<u8> {
    let fields = &response.fields;
    let mut head = Vec::with_capacity(512);
    put_status(&mut head, response);
    // RFC 9110 section 15.5.22: with 426 the Upgrade field is the answer.
    let upgrades = response.status == 426 && fields.all("upgrade").next().is_some();
    match (upgrades, stays) {
        (true, true) => put(&mut head, "Connection", b"upgrade"),
        (true, false) => put(&mut head, "Connection", b"upgrade, close"),
        (false, true) => {}
        (false, false) => put(&mut head, "Connection", b"close"),
    }
    if upgrades {
        for value in fields.all("upgrade") {
            put(&mut head, "Upgrade", value);
        }
    }
    if framing == Framing::Nothing && response.status != 204 {
        // Of HEAD and 304 the length that is not sent (RFC 9110 section 8.6).
        let length = fields.single("content-length").ok().flatten();
        if let Some(Ok(length)) = length.map(Body::number) {
            put_framing(&mut head, Framing::Length(length));
        }
    }
    put_framing(&mut head, framing);
    pass_on(&mut head, fields, &[]);
    put_date(&mut head, fields);
    head.extend_from_slice(b"\r\n");
    head
}

/// An interim answer.
pub(super) fn interim(response: &Response<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(128);
    put_status(&mut head, response);
    pass_on(&mut head, &response.fields, &[]);
    head.extend_from_slice(b"\r\n");
    head
}

fn put_status(head: &mut Vec<u8>, response: &Response<'_>) {
    head.extend_from_slice(format!("HTTP/1.1 {} ", response.status).as_bytes());
    head.extend_from_slice(response.reason);
    head.extend_from_slice(b"\r\n");
}

fn put_framing(head: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => put(head, "Content-Length", length.to_string().as_bytes()),
        Framing::Chunked => put(head, "Transfer-Encoding", b"chunked"),
        Framing::UntilEnd | Framing::Nothing => {}
    }
}
