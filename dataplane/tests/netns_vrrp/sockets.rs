//! The sockets of a dying process are ended by hand, and nobody else's.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use dataplane::sys::netlink::Sockets;
use socket2::{Domain, Socket, Type};

use crate::lab::Lab;

/// One of a group that shares an address and a port, as the workers of a proxy do.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

/// Connects until each of a group has a client, and returns a pair of ends.
fn connect(address: SocketAddr, group: &[TcpListener]) -> (TcpStream, TcpStream) {
    for listener in group {
        listener.set_nonblocking(true).unwrap();
    }
    let client = TcpStream::connect(address).unwrap();
    let server = loop {
        if let Some((server, _)) = group.iter().find_map(|listener| listener.accept().ok()) {
            break server;
        }
    };
    server.set_nonblocking(false).unwrap();
    (client, server)
}

#[test]
fn clients_of_what_was_served_are_reset_and_others_go_on() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    host.ip("link set lo up");
    host.ip("addr add fd00::7/128 dev lo");
    host.run(|| {
        for served in ["127.0.0.7:8020", "[fd00::7]:8020"] {
            let served: SocketAddr = served.parse().unwrap();
            let group: Vec<TcpListener> = (0..5).map(|_| listen(served)).collect();
            let (mut client, _held) = connect(served, &group);
            // The same port of another address, and of all addresses, is another's.
            let other: SocketAddr = "127.0.0.8:8020".parse().unwrap();
            let others = [listen(other)];
            let (mut bystander, mut beside) = connect(other, &others);
            let mut sockets = Sockets::open().unwrap();

            sockets.end(&[served], || false).unwrap();
            drop(connect(served, &group));

            sockets.end(&[served], || true).unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            let error = TcpStream::connect(served).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

            beside.write_all(b"x").unwrap();
            bystander.read_exact(&mut [0]).unwrap();
            drop(connect(other, &others));
            // Whoever has the place by now is found again; what is gone already is no failure.
            drop(group);
            drop(listen(served));
            sockets.end(&[served], || true).unwrap();
        }
    });
}
