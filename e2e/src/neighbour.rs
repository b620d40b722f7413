//! Neighbour discovery (RFC 4861), which is to IPv6 what ARP is to IPv4: questions and answers as frames.

use std::net::Ipv6Addr;

use crate::lab::MacAddr;

/// The Ethernet type of IPv6.
pub(crate) const ETHERTYPE: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What an advertisement tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Advertised {
    /// The address.
    pub(crate) target: Ipv6Addr,
    /// Where it is.
    pub(crate) mac: MacAddr,
    /// Whether it answers a question.
    pub(crate) is_answer: bool,
}

/// A question for `wanted` from the host with `own`, which must be answered to that host alone: one from nobody
/// would be answered to all, and cure those whose tables are wrong.
pub(crate) fn solicitation(own: MacAddr, wanted: Ipv6Addr) -> Vec<u8> {
    let octets = wanted.octets();
    // RFC 4291 section 2.7.1 and RFC 2464 section 7.
    let tail = [octets[13], octets[14], octets[15]];
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(tail[0]),
        u16::from_be_bytes([tail[1], tail[2]]),
    );
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(octets);
    message.extend([1, 1]);
    message.extend(own.0);
    let source = own.link_local();
    let sum = checksum(source, group, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0xff];
    frame.extend(tail);
    frame.extend(own.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// Reads an advertisement with its target's link-layer address as first option, which is all that hosts send.
pub(crate) fn advertised(frame: &[u8]) -> Option<Advertised> {
    let is_icmp = frame.get(12..14)? == ETHERTYPE.to_be_bytes() && *frame.get(20)? == ICMPV6;
    let message = frame.get(54..).filter(|_| is_icmp)?;
    if *message.first()? != ADVERTISEMENT || message.get(24..26)? != [2, 1] {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mac: [u8; 6] = message.get(26..32)?.try_into().ok()?;
    Some(Advertised {
        target: target.into(),
        mac: MacAddr(mac),
        is_answer: message.get(4)? & 0x40 != 0,
    })
}

/// RFC 4443 section 2.3.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let pseudo_header = [
        &source.octets()[..],
        &destination.octets(),
        &length.to_be_bytes(),
        &[0, 0, 0, ICMPV6],
    ]
    .concat();
    let words = pseudo_header.chunks(2).chain(message.chunks(2));
    let mut sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or_default()))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
