//! Where addresses are on the segment, whatever their family: by ARP (RFC 826) for IPv4, by neighbour
//! discovery (RFC 4861) for IPv6.

use std::net::{IpAddr, Ipv6Addr};

use super::{Arp, EmitError, Mac, Neighbour, arp, neighbour};
use crate::Discard;

/// Bytes of the longest frame that is written here.
pub const FRAME_LEN: usize = if arp::FRAME_LEN > neighbour::FRAME_LEN {
    arp::FRAME_LEN
} else {
    neighbour::FRAME_LEN
};

/// Writes a question from `mac` to the start of `buffer`: whether anybody has `address`, without claiming
/// it. One about an IPv6 address is asked from `source`, an address of the asking interface, which an ARP
/// probe does without. Returns the frame's length.
pub fn question(
    buffer: &mut [u8],
    mac: Mac,
    source: Ipv6Addr,
    address: IpAddr,
) -> Result<usize, EmitError> {
    match address {
        IpAddr::V4(address) => Arp::probe(mac, address).emit_frame(buffer, mac, Mac::BROADCAST),
        IpAddr::V6(address) => {
            let question = Neighbour::solicitation(mac, source, address);
            question.emit_frame(buffer, mac, Mac::of_group(question.destination))
        }
    }
}

/// Writes word to all that `address` is at `mac` (RFC 9568 section 6.4.2) to the start of `buffer`, and
/// returns the frame's length.
pub fn announcement(buffer: &mut [u8], mac: Mac, address: IpAddr) -> Result<usize, EmitError> {
    match address {
        IpAddr::V4(address) => {
            Arp::gratuitous(mac, address).emit_frame(buffer, mac, Mac::BROADCAST)
        }
        IpAddr::V6(address) => {
            let all = Mac::of_group(neighbour::ALL_NODES);
            Neighbour::unsolicited(mac, address).emit_frame(buffer, mac, all)
        }
    }
}

/// Which address the sender of a frame says that it has, and where. `None`: it says nothing of the kind.
///
/// # Errors
/// If the frame is neither of ARP nor of neighbour discovery, or malformed.
pub fn claim(frame: &[u8]) -> Result<Option<(IpAddr, Mac)>, Discard> {
    match Arp::parse_frame(frame) {
        Err(Discard::NotArp) => {}
        Err(discard) => return Err(discard),
        // RFC 5227 section 1.1: a probe is sent from no address.
        Ok(arp) if arp.sender.is_unspecified() => return Ok(None),
        Ok(arp) => return Ok(Some((arp.sender.into(), arp.sender_mac))),
    }
    let said = Neighbour::parse_frame(frame)?;
    let address = match said.kind {
        neighbour::Kind::Solicitation => said.source,
        neighbour::Kind::Advertisement { .. } => said.target,
    };
    Ok(said.mac.map(|mac| (address.into(), mac)))
}
