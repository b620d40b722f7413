//! What becomes of a head on its way through (RFC 9110 section 7.6): fields of the connection are
//! taken off, where the client came from is put on, all else is left as it came.

use std::net::IpAddr;

use crate::{
    client::{self, Ends},
    handshake::{Fields, Request, Response},
};

/// Fields that concern one connection only (RFC 9110 section 7.6.1), whether Connection names them
/// or not, and those of a body, which a handshake has not.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "transfer-encoding",
    "content-length",
];

/// Fields that say where a request came from. What a client says of itself is not believed; proxies
/// that are trusted add to the first two and write the others.
const FORWARDED: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Passes the fields on, but for those of this connection and those `without`.
fn pass_on(head: &mut Vec<u8>, fields: &Fields<'_>, without: impl Fn(&str) -> bool) {
    for (name, value) in fields.iter() {
        if !without(name) && !fields.is_connection_option(name) {
            put(head, name, value);
        }
    }
}

/// The request as the backend gets it. `ends` are those of the connection by which it came, from a
/// proxy that is trusted or not, by TLS or not.
pub(crate) fn request(
    request: &Request<'_>,
    ends: Ends,
    is_trusted: bool,
    is_secure: bool,
) -> Vec<u8> {
    let fields = &request.fields;
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(b"GET ");
    head.extend_from_slice(request.target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put(&mut head, "Host", request.host);
    head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    pass_on(&mut head, fields, |name| {
        name.eq_ignore_ascii_case("host")
            || is_one_of(name, &HOP_BY_HOP)
            || is_one_of(name, &FORWARDED)
    });
    let peer = ends.source.ip().to_canonical();
    let port = ends.destination.port().to_string();
    let scheme = if is_secure { "https" } else { "http" };
    // Of a proxy that is trusted these are kept even if Connection names them: RFC 9110 section 7.6.1
    // does not let it, so that it is the client who wants them off.
    let said = |name| {
        let values = fields.all(name).filter(|_| is_trusted);
        values.collect::<Vec<_>>()
    };
    let add = |head: &mut Vec<u8>, name, own: &[u8]| {
        let mut values = said(name).join(&b", "[..]);
        if !values.is_empty() {
            values.extend_from_slice(b", ");
        }
        values.extend_from_slice(own);
        put(head, name, &values);
    };
    let keep = |head: &mut Vec<u8>, name, own: Option<&[u8]>| {
        let values = said(name);
        if let Some(own) = own.filter(|_| values.is_empty()) {
            put(head, name, own);
        }
        for value in values {
            put(head, name, value);
        }
    };
    add(&mut head, "X-Forwarded-For", peer.to_string().as_bytes());
    keep(&mut head, "X-Forwarded-Proto", Some(scheme.as_bytes()));
    keep(&mut head, "X-Forwarded-Host", Some(request.host));
    keep(&mut head, "X-Forwarded-Port", Some(port.as_bytes()));
    keep(&mut head, "X-Real-IP", None);
    let own = forwarded(peer, request.host, scheme);
    // Behind quotes that do not end nothing could be added.
    if is_trusted && client::forwarded(fields).is_some() {
        add(&mut head, "Forwarded", &own);
    } else {
        put(&mut head, "Forwarded", &own);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// RFC 7239 section 4: an IPv6 address stands in brackets and quotes, a host with a port in quotes.
fn forwarded(client: IpAddr, host: &[u8], scheme: &str) -> Vec<u8> {
    let client = match client {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let mut value = format!("for={client};host=\"").into_bytes();
    value.extend_from_slice(host);
    value.extend_from_slice(b"\";proto=");
    value.extend_from_slice(scheme.as_bytes());
    value
}

/// The 101 as the client gets it.
pub(crate) fn switch(response: &Response<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    pass_on(&mut head, &response.fields, |name| {
        is_one_of(name, &HOP_BY_HOP)
    });
    head.extend_from_slice(b"\r\n");
    head
}

/// Any other answer as the client gets it. Its content follows as the backend sends it, so the
/// fields that tell where that ends stay; the connection then ends.
pub(crate) fn answer(response: &Response<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(format!("HTTP/1.1 {} ", response.status).as_bytes());
    head.extend_from_slice(response.reason);
    head.extend_from_slice(b"\r\n");
    // RFC 9110 section 15.5.22: with 426 the Upgrade field is the answer.
    let is_426 = response.status == 426;
    let connection: &[u8] = if is_426 { b"upgrade, close" } else { b"close" };
    put(&mut head, "Connection", connection);
    for (name, value) in response.fields.iter() {
        let framing = is_one_of(name, &["transfer-encoding", "content-length"]);
        let upgrade = is_426 && name.eq_ignore_ascii_case("upgrade");
        let hop_by_hop = is_one_of(name, &HOP_BY_HOP) || response.fields.is_connection_option(name);
        if framing || upgrade || !hop_by_hop {
            put(&mut head, name, value);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
