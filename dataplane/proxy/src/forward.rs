//! What becomes of a head on its way through (RFC 9110 section 7.6): fields of the connection are
//! taken off, where the client came from is put on, all else is left as it came.

use std::net::IpAddr;

use crate::{
    client::{self, Ends},
    handshake::{Fields, Request, Response, date},
    stream::Stream,
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

/// Fields of a request that we write: its host, and where it came from. What a client says of itself is not
/// believed; proxies that are trusted add to `Forwarded` and `X-Forwarded-For` and write the others.
pub(crate) const WRITTEN: [&str; 7] = [
    "host",
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

pub(crate) fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Passes the fields on, but for those of this connection and those `without`.
pub(crate) fn pass_on(head: &mut Vec<u8>, fields: &Fields<'_>, without: &[&str]) {
    // Nearly always it names Upgrade alone, and then there is nothing to look for.
    let is_known = |option: &[u8]| {
        let mut known = HOP_BY_HOP.iter();
        known.any(|name| option.eq_ignore_ascii_case(name.as_bytes()))
    };
    let names_others = !fields.list("connection").all(is_known);
    for (name, value) in fields.iter() {
        let is_hop_by_hop =
            is_one_of(name, &HOP_BY_HOP) || (names_others && fields.is_connection_option(name));
        if !is_hop_by_hop && !is_one_of(name, without) {
            put(head, name, value);
        }
    }
}

/// The request as the backend gets it. `ends` are those of the connection by which it came, from a
/// `client` that is a trusted proxy or not.
pub(crate) fn request(
    request: &Request<'_>,
    ends: Ends,
    is_trusted: bool,
    client: &Stream,
) -> Vec<u8> {
    let fields = &request.fields;
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(b"GET ");
    head.extend_from_slice(request.target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    put(&mut head, "Host", request.host);
    head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    pass_on(&mut head, fields, &WRITTEN);
    put_origin(&mut head, request, ends, is_trusted, client);
    head.extend_from_slice(b"\r\n");
    head
}

/// Says through whom a request went and whose it is.
pub(crate) fn put_origin(
    head: &mut Vec<u8>,
    request: &Request<'_>,
    ends: Ends,
    is_trusted: bool,
    client: &Stream,
) {
    let fields = &request.fields;
    // RFC 9110 section 7.6.3: behind those of others, with the version that was spoken to us.
    head.extend_from_slice(if client.is_http2() {
        b"Via: 2.0 wsha\r\n"
    } else {
        b"Via: 1.1 wsha\r\n"
    });
    let peer = text(ends.source.ip().to_canonical());
    let port = ends.destination.port().to_string();
    let scheme = if client.is_secure() { "https" } else { "http" };
    // Of a proxy that is trusted these are kept even if Connection names them: RFC 9110 section 7.6.1
    // does not let it, so that it is the client who wants them off.
    let nothing = Fields::default();
    let said = if is_trusted { fields } else { &nothing };
    let keep = |head: &mut Vec<u8>, name, own: Option<&[u8]>| {
        let mut values = said.all(name).peekable();
        let own = own.filter(|_| values.peek().is_none());
        for value in own.into_iter().chain(values) {
            put(head, name, value);
        }
    };
    add(head, "X-Forwarded-For", said, &[peer.as_bytes()]);
    keep(head, "X-Forwarded-Proto", Some(scheme.as_bytes()));
    keep(head, "X-Forwarded-Host", Some(request.host));
    keep(head, "X-Forwarded-Port", Some(port.as_bytes()));
    keep(head, "X-Real-IP", None);
    // RFC 7239 section 4: an IPv6 address stands in brackets and quotes, a host with a port in quotes.
    let [open, close]: [&[u8]; 2] = if peer.contains(':') {
        [b"\"[", b"]\""]
    } else {
        [b"", b""]
    };
    let own = [
        b"for=",
        open,
        peer.as_bytes(),
        close,
        b";host=\"",
        request.host,
        b"\";proto=",
        scheme.as_bytes(),
    ];
    // Behind quotes that do not end nothing could be added.
    let is_whole = is_trusted && client::forwarded(fields).is_some();
    let said = if is_whole { said } else { &nothing };
    add(head, "Forwarded", said, &own);
}

/// An address as text. Of IPv4 it is written here: what formats anything takes as long as the reading of a head.
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for place in [100, 10, 1] {
            if octet >= place || place == 1 {
                text.push(char::from(b'0' + octet / place % 10));
            }
        }
    }
    text
}

/// Adds an element of our own, which is there in pieces, to the list that others have `said`.
fn add(head: &mut Vec<u8>, name: &str, said: &Fields<'_>, own: &[&[u8]]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    for value in said.all(name) {
        head.extend_from_slice(value);
        head.extend_from_slice(b", ");
    }
    for piece in own {
        head.extend_from_slice(piece);
    }
    head.extend_from_slice(b"\r\n");
}

/// The 101 as the client gets it.
pub(crate) fn switch(response: &Response<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    pass_on(&mut head, &response.fields, &[]);
    put_date(&mut head, &response.fields);
    head.extend_from_slice(b"\r\n");
    head
}

/// Says when an answer came that does not say so itself (RFC 9110 section 6.6.1).
pub(crate) fn put_date(head: &mut Vec<u8>, fields: &Fields<'_>) {
    if fields.all("date").next().is_none() {
        put(head, "Date", date::now().as_bytes());
    }
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
    put_date(&mut head, &response.fields);
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_everywhere() {
        let ipv4 = [
            "0.0.0.0",
            "9.10.99.100",
            "199.200.249.250",
            "255.255.255.255",
        ];
        for address in ipv4.into_iter().chain(["::", "2001:db8::1"]) {
            assert_eq!(text(address.parse().unwrap()), address);
        }
    }
}
