//! What must hold for any bytes in front of a connection: a header of the PROXY protocol, or none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy::{
    handshake::Outcome,
    proxy_protocol::{Header, Version, header, parse},
};

/// Bytes that are read as a header, and as the addresses of one that is written.
pub fn bytes(bytes: &[u8]) {
    read(bytes);
    if let Some((addresses, rest)) = bytes.split_first_chunk::<32>()
        && let Some((ports, _)) = rest.split_first_chunk::<4>()
    {
        let [source, destination] = [&addresses[..16], &addresses[16..]].map(address);
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        written(
            SocketAddr::new(source, port(0)),
            SocketAddr::new(destination, port(2)),
        );
    }
}

/// However much of it is there, the answer is the same once there is one.
fn read(bytes: &[u8]) {
    let whole = parse(bytes);
    // Longer ones are refused before they are whole.
    let longest = bytes.len().min(5000);
    let first = (0..=longest).map(|end| parse(&bytes[..end]));
    let first = first
        .into_iter()
        .find(|outcome| *outcome != Outcome::NeedMore);
    assert_eq!(first.unwrap_or(Outcome::NeedMore), whole, "cut and whole");
    if let Outcome::Done(header, end) = whole {
        assert!(end <= bytes.len());
        if let Header::Proxied {
            source,
            destination,
        } = header
        {
            written(source, destination);
        }
    }
}

/// What is written is read as what it was.
fn written(source: SocketAddr, destination: SocketAddr) {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    let (source, destination) = (canonical(source), canonical(destination));
    // A header has one family.
    let (source, destination) = if source.is_ipv4() && destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    };
    let expected = Header::Proxied {
        source,
        destination,
    };
    for version in [Version::V1, Version::V2] {
        let written = header(version, source, destination);
        assert_eq!(parse(&written), Outcome::Done(expected, written.len()));
        let more = [&written[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more), Outcome::Done(expected, written.len()));
        let short = parse(&written[..written.len() - 1]);
        assert_eq!(short, Outcome::NeedMore);
    }
}

/// Of IPv4 if the first twelve bytes are zero.
fn address(bytes: &[u8]) -> IpAddr {
    match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Ipv4Addr::new(*a, *b, *c, *d).into(),
        bytes => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).into(),
    }
}
