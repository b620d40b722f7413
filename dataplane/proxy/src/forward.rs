//! What becomes of a head on its way through (RFC 9110 section 7.6): fields of the connection are
//! taken off, where the client came from is put on, all else is left as it came.

use std::net::{IpAddr, SocketAddr};

use crate::handshake::{Fields, Request, Response};

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

/// Fields that say where a request came from. What a client says of itself is not believed: no
/// proxy before this one is known to be trustworthy.
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

/// The request as the backend gets it. `local` is the address that the client connected to.
pub(crate) fn request(request: &Request<'_>, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(b"GET ");
    head.extend_from_slice(request.target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put(&mut head, "Host", request.host);
    head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    pass_on(&mut head, &request.fields, |name| {
        name.eq_ignore_ascii_case("host")
            || is_one_of(name, &HOP_BY_HOP)
            || is_one_of(name, &FORWARDED)
    });
    let ip = client.ip().to_canonical();
    put(&mut head, "X-Forwarded-For", ip.to_string().as_bytes());
    put(&mut head, "X-Forwarded-Proto", b"http");
    put(&mut head, "X-Forwarded-Host", request.host);
    put(
        &mut head,
        "X-Forwarded-Port",
        local.port().to_string().as_bytes(),
    );
    put(&mut head, "Forwarded", &forwarded(ip, request.host));
    head.extend_from_slice(b"\r\n");
    head
}

/// RFC 7239 section 4: an IPv6 address stands in brackets and quotes, a host with a port in quotes.
fn forwarded(client: IpAddr, host: &[u8]) -> Vec<u8> {
    let client = match client {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let mut value = format!("for={client};host=\"").into_bytes();
    value.extend_from_slice(host);
    value.extend_from_slice(b"\";proto=http");
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
