//! Ends the TCP sockets of a process that is dying (`sock_diag(7)`, `SOCK_DESTROY`).
//!
//! The kernel tears a killed process' memory down before it closes its files: with a gigabyte resident a client hears
//! nothing for tens of milliseconds, and by then the address is gone, from which it would have to be told. Ended by hand
//! it gets its reset at once, and what still knocks is refused instead of waiting for an accept that never comes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::{Requests, message, message::Request};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const IPPROTO_TCP: u8 = 6;
/// States of `tcp_states.h`, as bits: those of sockets that wait for clients, and those that clients wait for.
const LISTENING: u32 = 1 << 10;
const CONNECTED: u32 = 1 << 1 | 1 << 3 | 1 << 8;
/// Length of `inet_diag_sockid`, which follows four bytes of `inet_diag_msg`.
const ID: usize = 48;
const BEFORE_ID: usize = 4;

/// The kernel's name of one socket, its cookie included: it is never another's.
pub(super) type Id = [u8; ID];

/// A socket for requests about sockets.
#[derive(Debug)]
pub struct Sockets(Requests);

impl Sockets {
    /// Opens it, in the network namespace of the caller.
    pub fn open() -> io::Result<Self> {
        Requests::of(libc::NETLINK_SOCK_DIAG).map(Self)
    }

    /// Ends all TCP sockets whose own end is one of `served`, for as long as `is_wanted`. Listening ones come first, so
    /// that whoever was reset finds no door that leads nowhere.
    pub fn end(&mut self, served: &[SocketAddr], is_wanted: impl Fn() -> bool) -> io::Result<()> {
        let families = [libc::AF_INET, libc::AF_INET6];
        for family in families.map(|family| u8::try_from(family).unwrap_or_default()) {
            if !served.iter().any(|it| message::family(it.ip()) == family) {
                continue;
            }
            // Of several that share a port the kernel finds one at a time, whichever was named.
            while self.end_those(family, LISTENING, served, &is_wanted)? > 0 {}
            self.end_those(family, CONNECTED, served, &is_wanted)?;
        }
        Ok(())
    }

    /// Ends those in these states, each once; tells how many were found and ended.
    fn end_those(
        &mut self,
        family: u8,
        states: u32,
        served: &[SocketAddr],
        is_wanted: impl Fn() -> bool,
    ) -> io::Result<usize> {
        let mut found = Vec::new();
        self.0.exchange(list(family, states), |message| {
            let named = named(message.body).filter(|(own, _)| served.contains(own));
            found.extend(named.map(|(_, id)| id));
        })?;
        let mut ended = 0;
        for id in found {
            if !is_wanted() {
                return Ok(0);
            }
            match self.0.acknowledged(destroy(family, states, &id)) {
                Ok(()) => ended += 1,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }
}

/// For all sockets in these states.
pub(super) fn list(family: u8, states: u32) -> Request {
    request(SOCK_DIAG_BY_FAMILY, message::DUMP, family, states, &[0; ID])
}

/// For the end of one.
pub(super) fn destroy(family: u8, states: u32, id: &Id) -> Request {
    request(SOCK_DESTROY, message::ACK, family, states, id)
}

/// `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &Id) -> Request {
    let mut request = Request::new(kind, flags);
    request.bytes(&[family, IPPROTO_TCP, 0, 0]);
    request.bytes(&states.to_ne_bytes());
    request.bytes(id);
    request
}

/// Whether a socket ended by itself, or another one was found in its place, which has another cookie.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

/// The own end of the socket that a message (`inet_diag_msg`) is about, and its name.
pub(super) fn named(body: &[u8]) -> Option<(SocketAddr, Id)> {
    let id: Id = body.get(BEFORE_ID..BEFORE_ID + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes(*id.first_chunk()?);
    let family = *body.first()?;
    let source = id.get(4..20)?;
    let address: IpAddr =
        message::ip(family, source.get(..4)?).or_else(|| message::ip(family, source))?;
    Some((SocketAddr::new(address, port), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(family: u8, port: u16, source: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 1, 0, 0];
        body.extend(port.to_be_bytes());
        body.extend([0x12, 0x34]);
        body.extend(source);
        body.resize(72, 0);
        body
    }

    #[test]
    fn a_socket_is_named_by_its_own_end() {
        let served: Vec<SocketAddr> = ["192.0.2.7:8020", "[2001:db8::7]:8020"]
            .map(|it| it.parse().unwrap())
            .to_vec();
        let v6: [u8; 16] = "2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets();
        let is_named = |body: &[u8]| named(body).is_some_and(|(own, _)| served.contains(&own));
        assert!(is_named(&told(2, 8020, &[192, 0, 2, 7])));
        assert!(is_named(&told(10, 8020, &v6)));
        assert!(!is_named(&told(2, 8021, &[192, 0, 2, 7])));
        assert!(!is_named(&told(2, 8020, &[192, 0, 2, 8])));
        assert!(!is_named(&told(10, 8020, &[192, 0, 2, 7])));
        let whole = told(10, 8020, &v6);
        for end in 0..BEFORE_ID + ID {
            assert!(!is_named(&whole[..end]));
        }
    }
}
