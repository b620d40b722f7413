//! A connection to a server, by a source port that is free for it.
//!
//! The kernel takes source ports from `ip_local_port_range`, by default some 28,000: one server gets no more
//! connections than that from one address. Where they are used up, the other ports do as well: a port is
//! taken only for one server's address, and kept from nobody who listens with `SO_REUSEADDR`, as servers do.

use std::{
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    pin::pin,
    task::ready,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::TcpStream};

/// Ports that are tried when the kernel has none left: above those where most services listen.
const SPARE: RangeInclusive<u16> = 10_000..=65_535;
/// How many of them: at nine in ten in use one attempt in thirty fails.
const TRIES: u16 = 32;

/// Connects to `address`, where the first word is ours.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let none_left = match connect(socket(address)?, address).await {
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
        socket.set_reuse_address(true)?;
        let port = spare(random.hash_one(turn));
        let outcome = match socket.bind(&SocketAddr::new(unspecified, port).into()) {
            Ok(()) => connect(socket, address).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if has_no_port(&error) => {}
            outcome => return outcome,
        }
    }
    Err(none_left)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Messages are passed on as they come: waiting for more would only delay them.
    socket.set_tcp_nodelay(true)?;
    // What we say first goes out at once and acknowledges the server's part of TCP's handshake: a packet less for
    // each connection, and one thing less to wake the server for. From then on all is as usual (tcp(7)).
    socket.set_tcp_quickack(false)?;
    Ok(socket)
}

async fn connect(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    let ready = poll_fn(|cx| {
        ready!(stream.poll_write_ready(cx))?;
        // Made where it is not waited for: it would take room in all that waits.
        pin!(stream.ready(Interest::WRITABLE)).poll(cx)
    });
    let ready = ready.await?;
    // Whether it came about is asked of the kernel only where it may not have.
    match ready.is_write_closed().then(|| stream.take_error()) {
        Some(Ok(Some(error)) | Err(error)) => Err(error),
        _ => Ok(stream),
    }
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
