//! Neighbours that the kernel is still asking for (rtnetlink(7)).

use std::net::IpAddr;

use super::message::{self, Message, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, Request};

const NDA_DST: u16 = 1;
const NDA_IFINDEX: u16 = 8;
const NUD_INCOMPLETE: u16 = 0x01;
/// Length of `ndmsg`.
const HEADER: usize = 12;

/// A request for the neighbours of an interface, of both families.
pub(super) fn dump(index: u32) -> Request {
    let mut request = Request::new(RTM_GETNEIGH, message::DUMP);
    request.bytes(&[0; HEADER]);
    request.attribute(NDA_IFINDEX, &index.to_ne_bytes());
    request
}

/// Forgets one.
pub(super) fn remove(index: u32, address: IpAddr) -> Request {
    let mut request = Request::new(RTM_DELNEIGH, message::ACK);
    let family = message::family(address);
    request.bytes(&[family, 0, 0, 0]);
    request.bytes(&index.to_ne_bytes());
    request.bytes(&[0; 4]);
    match address {
        IpAddr::V4(address) => request.attribute(NDA_DST, &address.octets()),
        IpAddr::V6(address) => request.attribute(NDA_DST, &address.octets()),
    }
    request
}

/// The neighbour that a message is about, if nothing has answered for it yet.
pub(super) fn unresolved(message: &Message<'_>, index: u32) -> Option<IpAddr> {
    let body = message.body;
    let is_it = message.kind == RTM_NEWNEIGH
        && message::number(body, 4)? == index
        && message::short(body, 8)? & NUD_INCOMPLETE != 0;
    let family = *body.first().filter(|_| is_it)?;
    let mut attributes = message::attributes(body.get(HEADER..)?);
    let (_, value) = attributes.find(|(kind, _)| *kind == NDA_DST)?;
    message::ip(family, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(index: u32, state: u16) -> Vec<u8> {
        let mut request = Request::new(RTM_NEWNEIGH, 0);
        request.bytes(&[2, 0, 0, 0]);
        request.bytes(&index.to_ne_bytes());
        request.bytes(&state.to_ne_bytes());
        request.bytes(&[0, 1]);
        request.attribute(NDA_DST, &[192, 168, 1, 7]);
        request.finish(1)
    }

    #[test]
    fn only_those_that_are_asked_for_on_this_interface() {
        let found = |bytes: &[u8]| {
            let message = message::messages(bytes).next()?;
            unresolved(&message, 3)
        };
        let address = IpAddr::from([192, 168, 1, 7]);
        assert_eq!(found(&told(3, NUD_INCOMPLETE)), Some(address));
        assert_eq!(found(&told(4, NUD_INCOMPLETE)), None);
        for reachable_stale_failed in [0x02, 0x04, 0x20] {
            assert_eq!(found(&told(3, reachable_stale_failed)), None);
        }
        let whole = told(3, NUD_INCOMPLETE);
        for end in 0..whole.len() {
            assert_eq!(found(&whole[..end]), None);
        }
    }
}
