//! A connection to a server, by a source port that is free for it.
//!
//! The kernel takes source ports from `ip_local_port_range`, by default some 28,000: one server gets no more
//! connections than that from one address. Where they are used up, the other ports do as well: a port is
//! taken only for one server's address, and kept from nobody who listens with `SO_REUSEADDR`, as servers do.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use tokio::net::{TcpSocket, TcpStream};

/// Ports that are tried when the kernel has none left: above those where most services listen.
const SPARE: RangeInclusive<u16> = 10_000..=65_535;
/// How many of them: at nine in ten in use one attempt in thirty fails.
const TRIES: u16 = 32;

/// Connects to `address`.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let none_left = match socket(address)?.connect(address).await {
        Err(error) if has_no_port(&error) => error,
        outcome => return outcome,
    };
    let unspecified = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let random = RandomState::new();
    for turn in 0..TRIES {
        let socket = socket(address)?;
        // Several connections to different servers may have one port, as the kernel's own choices do.
        socket.set_reuseaddr(true)?;
        let port = spare(random.hash_one(turn));
        let outcome = match socket.bind(SocketAddr::new(unspecified, port)) {
            Ok(()) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if has_no_port(&error) => {}
            outcome => return outcome,
        }
    }
    Err(none_left)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Messages are passed on as they come: waiting for more would only delay them.
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Whether the port, or all of them, are taken: by a connection to this server, or by a listener.
fn has_no_port(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE)
    )
}

fn spare(random: u64) -> u16 {
    let count = u64::from(SPARE.end() - SPARE.start()) + 1;
    SPARE.start() + u16::try_from(random % count).unwrap_or(0)
}
