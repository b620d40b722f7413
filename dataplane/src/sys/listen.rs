//! Listening sockets: groups of one for each worker, among which the kernel spreads new connections
//! (`SO_REUSEPORT`).

use std::{
    io,
    net::{Shutdown, SocketAddr},
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait for a worker; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens `count` sockets that share `address`, which the host need not hold yet, non-blocking. All of
/// one group must be opened by one user, else the kernel refuses the second.
pub fn open_group(address: SocketAddr, count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| open(address)).collect()
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address)?;
    // A virtual address is bound before it is held, so that no client meets a closed port.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    listen(socket, address).map(Into::into)
}

/// One of a group, not bound yet.
pub(super) fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// Binds it and listens.
pub(super) fn listen(socket: Socket, address: SocketAddr) -> io::Result<Socket> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Wakes whoever accepts on a socket of this host's own, for good.
pub fn shut(listener: &UnixListener) {
    // Fails only for what is no socket.
    drop(SockRef::from(listener).shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_address_that_the_host_does_not_hold_can_be_bound() {
        // TEST-NET-1 is never a host's own.
        let address = "192.0.2.1:8020".parse().unwrap();
        assert_eq!(open_group(address, 3).unwrap().len(), 3);
    }

    #[test]
    fn a_group_accepts_and_a_stranger_is_told_apart() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap();
        let error = open_group(address, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(stranger);
        let group = open_group(address, 2).unwrap();
        TcpStream::connect(address).unwrap();
        drop(group);
        assert!(TcpStream::connect(address).is_err(), "no copy is left");
    }
}
