//! Who the client is, where proxies that are trusted stand before this one: the rightmost of those
//! named by a chain of proxies that is not such a proxy itself. What stands further left the client
//! can have written.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::handshake::Fields;

/// The two ends of a connection as the client sees it: its own address, and where it has connected
/// to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// Whether what this address says of others is believed.
pub(crate) fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The client of a request that came from `peer`; port 0: it is not known.
///
/// Proxies write one of two chains and pass on the other as it came, perhaps from the client. Where
/// both are there and speak of different clients, neither is believed.
pub(crate) fn find(trusted: &[IpNet], peer: SocketAddr, fields: &Fields<'_>) -> SocketAddr {
    if !is_trusted(trusted, peer.ip()) {
        return peer;
    }
    let has = |name| fields.all(name).next().is_some();
    let listed = || fields.list("x-forwarded-for").map(node).collect::<Vec<_>>();
    let elements = || forwarded(fields).unwrap_or_default();
    match (has("x-forwarded-for"), has("forwarded")) {
        (false, false) => peer,
        (true, false) => walk(trusted, peer, &listed()),
        (false, true) => walk(trusted, peer, &elements()),
        (true, true) => {
            let client = walk(trusted, peer, &listed());
            if client.ip() == walk(trusted, peer, &elements()).ip() {
                client
            } else {
                peer
            }
        }
    }
}

/// From the right, for as long as the one who says so is trusted and says it clearly.
fn walk(trusted: &[IpNet], peer: SocketAddr, hops: &[Option<SocketAddr>]) -> SocketAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        match hop {
            Some(hop) if is_trusted(trusted, client.ip()) => client = *hop,
            _ => break,
        }
    }
    client
}

/// An address with or without a port, as RFC 7239 section 6 and the authors of X-Forwarded-For write
/// it. `None`: anything else, as `unknown` and made-up names (sections 6.2 and 6.3).
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    let (address, port): (IpAddr, &str) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port
            .strip_prefix(':')
            .or_else(|| port.is_empty().then_some("0"));
        (IpAddr::V6(address.parse().ok()?), port?)
    } else if let Ok(address) = text.parse() {
        (address, "0")
    } else {
        let (address, port) = text.split_once(':')?;
        (IpAddr::V4(address.parse().ok()?), port)
    };
    // A port may be made up, too.
    let port = if port.starts_with('_') { "0" } else { port };
    Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
}

/// Whom the elements of Forwarded name (RFC 7239 section 4), in their order; `None`: malformed.
pub(crate) fn forwarded(fields: &Fields<'_>) -> Option<Vec<Option<SocketAddr>>> {
    let mut nodes = Vec::new();
    for value in fields.all("forwarded") {
        for element in split(value, b',')? {
            if !element.is_empty() {
                nodes.push(named(element).ok()?);
            }
        }
    }
    Some(nodes)
}

/// Not what RFC 7239 section 4 describes.
struct Malformed;

/// Whom an element names, if anybody.
fn named(element: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    let mut named = None;
    for pair in split(element, b';').ok_or(Malformed)? {
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(equals.ok_or(Malformed)?);
        let value = unquoted(&value[1..]).ok_or(Malformed)?;
        let is_for = name.eq_ignore_ascii_case(b"for");
        if is_for && named.replace(node(&value)).is_some() {
            return Err(Malformed);
        }
    }
    Ok(named.flatten())
}

/// Splits at a byte that stands in no quotes; whitespace around the parts is taken off. `None`: quotes
/// do not end.
fn split(value: &[u8], at: u8) -> Option<Vec<&[u8]>> {
    let (mut quoted, mut escaped) = (false, false);
    let is_end = |byte: &u8| {
        let is_end = !quoted && *byte == at;
        (quoted, escaped) = match byte {
            _ if escaped => (quoted, false),
            b'\\' if quoted => (true, true),
            b'"' => (!quoted, false),
            _ => (quoted, false),
        };
        is_end
    };
    let parts = value.split(is_end).map(<[u8]>::trim_ascii).collect();
    (!quoted).then_some(parts)
}

/// A token as it is, or what stands in a quoted string (RFC 9110 section 5.6.4).
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = value.strip_prefix(b"\"") else {
        let is_token = !value.is_empty() && !value.contains(&b'"');
        return is_token.then(|| value.to_vec());
    };
    let mut text = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
    bytes.as_slice().is_empty().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{Outcome, RequestParser};

    /// The client of a request with these fields from the proxy 10.0.0.1.
    fn client(fields: &str) -> String {
        client_from("10.0.0.1:5000", fields)
    }

    fn client_from(peer: &str, fields: &str) -> String {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             {fields}\r\n"
        );
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let mut parser = RequestParser::default();
        let Outcome::Done(request, _) = parser.parse(request.as_bytes()) else {
            panic!("{fields} refused");
        };
        find(&trusted, peer.parse().unwrap(), &request.fields).to_string()
    }

    #[test]
    fn the_rightmost_that_is_not_trusted_is_the_client() {
        for (fields, expected) in [
            ("", "10.0.0.1:5000"),
            ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0"),
            ("X-Forwarded-For: 192.0.2.7:99\r\n", "192.0.2.7:99"),
            (
                "X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.2.2.2\r\n",
                "192.0.2.7:0",
            ),
            (
                "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 192.0.2.7\r\n",
                "192.0.2.7:0",
            ),
            ("X-Forwarded-For: 10.3.3.3,,10.2.2.2\r\n", "10.3.3.3:0"),
            ("X-Forwarded-For: 192.0.2.7, unknown\r\n", "10.0.0.1:5000"),
            (
                "X-Forwarded-For: 192.0.2.7, nonsense, 10.2.2.2\r\n",
                "10.2.2.2:0",
            ),
            (
                "X-Forwarded-For: 2001:DB8::5, ::ffff:10.2.2.2\r\n",
                "[2001:db8::5]:0",
            ),
            ("X-Forwarded-For: [2002::1]:80\r\n", "[2002::1]:80"),
            ("X-Forwarded-For: [2002::1]x\r\n", "10.0.0.1:5000"),
            ("X-Forwarded-For: 192.0.2.7:port\r\n", "10.0.0.1:5000"),
            ("Forwarded: for=192.0.2.7\r\n", "192.0.2.7:0"),
            (
                "Forwarded: for=1.1.1.1, proto=https; FOR=\"192.0.2.7:4711\";by=_x,for=10.2.2.2\r\n",
                "192.0.2.7:4711",
            ),
            (
                "Forwarded: for=\"[2002::1]:_port\";host=\"a,b;c\"\r\n",
                "[2002::1]:0",
            ),
            ("Forwarded: for=\"192.0.2.\\7\"\r\n", "192.0.2.7:0"),
            ("Forwarded: for=192.0.2.7, by=10.2.2.2\r\n", "10.0.0.1:5000"),
            ("Forwarded: for=_hidden\r\n", "10.0.0.1:5000"),
            ("Forwarded: for=1.1.1.1;for=192.0.2.7\r\n", "10.0.0.1:5000"),
            ("Forwarded: for=\"192.0.2.7\r\n", "10.0.0.1:5000"),
            ("Forwarded: for=\"192.0.2.7\"x\r\n", "10.0.0.1:5000"),
        ] {
            assert_eq!(client(fields), expected, "{fields}");
        }
    }

    #[test]
    fn who_is_not_trusted_is_the_client_whatever_it_says() {
        let says = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n";
        assert_eq!(client_from("192.0.2.9:1", says), "192.0.2.9:1");
        assert_eq!(client_from("[::ffff:10.0.0.1]:1", says), "192.0.2.7:0");
        assert_eq!(client_from("[2001:db9::1]:1", says), "[2001:db9::1]:1");
    }

    #[test]
    fn of_two_chains_that_differ_neither_is_believed() {
        let same = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=\"192.0.2.7:99\"\r\n";
        assert_eq!(client(same), "192.0.2.7:0");
        for other in ["for=1.1.1.1", "for=\"", "for=unknown"] {
            let fields = format!("X-Forwarded-For: 192.0.2.7\r\nForwarded: {other}\r\n");
            assert_eq!(client(&fields), "10.0.0.1:5000", "{fields}");
        }
    }
}
