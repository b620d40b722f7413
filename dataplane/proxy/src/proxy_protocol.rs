//! The PROXY protocol, versions 1 and 2, without I/O: a header in front of a connection says between
//! whom it is (`HAProxy`'s proxy-protocol.txt; the sections named here are its).
//!
//! Strict: what does not match exactly is refused, and by the first byte that cannot belong to a
//! header. The answer does not depend on how the bytes were cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::handshake::Outcome;

/// Section 2.2: begins a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What every header of version 2 has; section 2.2.
const FIXED: usize = 16;

/// The longest header of version 2 that is taken. Section 2.2 has it shorter than a segment; a
/// certificate's name and an authority among the further values do not come near to this.
const LONGEST: usize = 4096;

/// Section 2.1: the longest line, its CRLF included.
const LINE: usize = 107;

/// Section 2.1: begins a header of version 1.
const WORD: &[u8] = b"PROXY ";

/// Version of a header that is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// The connection is the sender's own, or nothing is known of another: its own ends count.
    Local,
    /// The connection is passed on.
    Proxied {
        /// Who has connected.
        source: SocketAddr,
        /// Where it has connected to.
        destination: SocketAddr,
    },
}

/// Looks at all bytes received so far. `Done`: the header, and how many bytes it took.
pub fn parse(buf: &[u8]) -> Outcome<Header, &'static str> {
    match buf.first() {
        None => Outcome::NeedMore,
        Some(b'P') => parse_line(buf),
        Some(_) => parse_binary(buf),
    }
}

/// Whether `buf` is `start`, as far as both go.
fn begins(buf: &[u8], start: &[u8]) -> bool {
    buf.iter().zip(start).all(|(one, other)| one == other)
}

/// Section 2.1.
fn parse_line(buf: &[u8]) -> Outcome<Header, &'static str> {
    const ENDLESS: Outcome<Header, &str> = Outcome::Bad("its line does not end");
    if !begins(buf, WORD) {
        return Outcome::Bad("it begins with neither PROXY nor the signature of version 2");
    }
    let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let Some(end) = buf.iter().take(LINE - 1).position(line_end) else {
        return if buf.len() < LINE - 1 {
            Outcome::NeedMore
        } else {
            ENDLESS
        };
    };
    match (buf.get(end), buf.get(end + 1)) {
        (Some(b'\r'), None) => Outcome::NeedMore,
        (Some(b'\r'), Some(b'\n')) => match line(&buf[..end]) {
            Some(header) => Outcome::Done(header, end + 2),
            None => Outcome::Bad("its line is malformed"),
        },
        _ => Outcome::Bad("its line does not end with CRLF"),
    }
}

/// A line without its end.
fn line(line: &[u8]) -> Option<Header> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (_, family) = (parts.next()?, parts.next()?);
    // Whatever else stands there is ignored.
    if family == b"UNKNOWN" {
        return Some(Header::Local);
    }
    let mut parts = str::from_utf8(line).ok()?.split(' ').skip(2);
    let address = |text: &str| match family {
        b"TCP4" => text.parse().ok().map(IpAddr::V4),
        b"TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (from, to) = (address(parts.next()?)?, address(parts.next()?)?);
    let (from_port, to_port) = (port(parts.next()?)?, port(parts.next()?)?);
    if parts.next().is_some() {
        return None;
    }
    Some(Header::Proxied {
        source: SocketAddr::new(from, from_port),
        destination: SocketAddr::new(to, to_port),
    })
}

/// Decimal, without zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_number && is_plain)
}

/// Section 2.2.
fn parse_binary(buf: &[u8]) -> Outcome<Header, &'static str> {
    if !begins(buf, SIGNATURE) {
        return Outcome::Bad("it begins with neither PROXY nor the signature of version 2");
    }
    let is_local = match buf.get(12) {
        None => return Outcome::NeedMore,
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Outcome::Bad("its version or command is unknown"),
    };
    let family = match buf.get(13) {
        None => return Outcome::NeedMore,
        // With LOCAL the family is ignored.
        Some(family) if is_local || (family >> 4 <= 3 && family & 0xf <= 2) => *family,
        Some(_) => return Outcome::Bad("its address family or protocol is unknown"),
    };
    let Some(&[high, low]) = buf.get(14..FIXED) else {
        return Outcome::NeedMore;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Outcome::Bad("it is too long");
    }
    let Some(block) = buf.get(FIXED..FIXED + length) else {
        return Outcome::NeedMore;
    };
    let header = match family {
        _ if is_local => Some(Header::Local),
        0x11 => addresses::<4>(block),
        0x21 => addresses::<16>(block),
        // No TCP: nothing that a client here could have (section 2.2 has it taken as unspecified).
        _ => Some(Header::Local),
    };
    match header {
        Some(header) => Outcome::Done(header, FIXED + length),
        None => Outcome::Bad("it has no room for its addresses"),
    }
}

/// Both addresses, then both ports; what follows (values of further types) is skipped.
fn addresses<const N: usize>(block: &[u8]) -> Option<Header>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    let end = |address: [u8; N], port| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    Some(Header::Proxied {
        source: end(*source, *source_port),
        destination: end(*destination, *destination_port),
    })
}

/// The header for a connection that is passed on. Where one end is of IPv4 and the other is not, both
/// are written as of IPv6 (RFC 4291 section 2.5.5.2): a header has one family.
pub fn header(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let ports = [source.port(), destination.port()];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => match version {
            Version::V1 => text("TCP4", from, to, ports),
            Version::V2 => binary(0x11, from.octets(), to.octets(), ports),
        },
        (from, to) => {
            let (from, to) = (as_v6(from), as_v6(to));
            match version {
                Version::V1 => text("TCP6", from, to, ports),
                Version::V2 => binary(0x21, from.octets(), to.octets(), ports),
            }
        }
    }
}

/// The header for a connection of our own, in which nobody is passed on: as checks are.
pub const fn own(version: Version) -> &'static [u8] {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n",
        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address),
        IpAddr::V6(address) => address,
    }
}

fn text(
    family: &str,
    from: impl std::fmt::Display,
    to: impl std::fmt::Display,
    [from_port, to_port]: [u16; 2],
) -> Vec<u8> {
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

fn binary<const N: usize>(family: u8, from: [u8; N], to: [u8; N], ports: [u16; 2]) -> Vec<u8> {
    let [from_port, to_port] = ports.map(u16::to_be_bytes);
    // The longest block has 36 bytes.
    let length = u8::try_from(2 * N + 4).unwrap_or(u8::MAX);
    let mut header = Vec::with_capacity(FIXED + usize::from(length));
    header.extend_from_slice(SIGNATURE);
    header.extend_from_slice(&[0x21, family, 0, length]);
    header.extend_from_slice(&from);
    header.extend_from_slice(&to);
    header.extend_from_slice(&from_port);
    header.extend_from_slice(&to_port);
    header
}
