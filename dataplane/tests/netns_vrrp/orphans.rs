//! What earlier sessions left of an address does not come between the host that takes it and the clients of now.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use dataplane::{ipc::Router, sys::netlink::Orphans};
use node_api::RouterState::{self, Active, Backup};
use socket2::{Domain, Socket, Type};

use crate::{
    ADDRESS, ADDRESS_V6,
    lab::{Host, Lab},
    node::{LONG, Node, eventually, router},
};

const PORT: u16 = 8020;
/// Where the client's sessions come from: of many clients behind one address soon every port was used before.
const CLIENT_PORTS: [u16; 2] = [40_000, 40_001];

/// States in `/proc/net/tcp`.
const FIN_WAIT_1: &str = "04";
const TIME_WAIT: &str = "06";

fn bound(address: IpAddr, port: u16) -> Socket {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Listens on all addresses of the family of `address`: the host need not have it yet.
fn listen(host: &Host, address: IpAddr) -> TcpListener {
    host.run(move || {
        let socket = bound(any(address), PORT);
        socket.listen(16).unwrap();
        socket.into()
    })
}

fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A session from a port of the client: its end, and that of the server.
fn session(
    client: &Host,
    port: u16,
    address: IpAddr,
    server: &TcpListener,
) -> (TcpStream, TcpStream) {
    let near: TcpStream = client.run(move || {
        let socket = bound(any(address), port);
        let server = SocketAddr::new(address, PORT);
        socket.connect_timeout(&server.into(), LONG).unwrap();
        socket.into()
    });
    near.set_read_timeout(Some(LONG)).unwrap();
    let (far, _) = server.accept().unwrap();
    (near, far)
}

/// The server closes first, so that its socket is in TIME-WAIT in the end.
fn close((mut near, far): (TcpStream, TcpStream)) {
    drop(far);
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

/// Ends one end without a word that anybody hears or answers.
fn abandon(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// How many sockets of port [`PORT`] are in this state.
fn count(host: &Host, state: &'static str) -> usize {
    host.run(move || {
        let tables = ["tcp", "tcp6"]
            .map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap());
        let own_end = format!(":{PORT:04X}");
        let is_meant = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|own| own.ends_with(&own_end)) && words.nth(1) == Some(state)
        };
        let lines = tables.iter().flat_map(|table| table.lines());
        lines.filter(is_meant).count()
    })
}

fn wait_all(node: &mut Node, state: RouterState) {
    node.wait_routers(|routers| routers.len() == 2 && routers.iter().all(|it| it.state == state));
}

fn routers(priority: u8) -> [Router; 2] {
    [ADDRESS, ADDRESS_V6].map(|address| router(address, priority))
}

/// RFC 9293 section 3.10.7.4: one in TIME-WAIT, or any other, acknowledges what it does not expect.
#[test]
fn a_client_whose_port_had_a_session_here_before_is_reset() {
    let Some(lab) = Lab::start(3) else { return };
    let [one, two, client] = &lab.hosts[..] else {
        panic!("three hosts")
    };
    let addresses: [IpAddr; 2] = [ADDRESS, ADDRESS_V6].map(|it| it.parse().unwrap());
    let hold = |host: &Host| {
        host.wait_shown(ADDRESS);
        host.wait_shown(ADDRESS_V6);
    };
    let servers = [one, two].map(|host| addresses.map(|address| listen(host, address)));
    let begin = |servers: &[TcpListener; 2]| {
        let families = addresses.iter().zip(servers);
        let sessions = families.flat_map(|(address, server)| {
            CLIENT_PORTS.map(|port| session(client, port, *address, server))
        });
        sessions.collect::<Vec<_>>()
    };
    let mut a = Node::serving(one, &routers(250));
    wait_all(&mut a, Active);
    hold(one);
    let mut b = Node::serving(two, &routers(235));
    wait_all(&mut b, Backup);

    // Of each family one that ends while the address is here, and one that ends when it is not.
    let mut later = Vec::new();
    for (number, (near, far)) in begin(&servers[0]).into_iter().enumerate() {
        if number % CLIENT_PORTS.len() == 0 {
            close((near, far));
        } else {
            later.push((near, far));
        }
    }
    eventually("the client answers", || count(one, TIME_WAIT) == 2);
    a.configure(&[]);
    wait_all(&mut b, Active);
    hold(two);
    for (near, far) in later {
        drop(far);
        abandon(near);
    }
    eventually("nobody answers", || count(one, FIN_WAIT_1) == 2);

    let now = begin(&servers[1]);
    a.configure(&routers(250));
    wait_all(&mut a, Active);
    hold(one);
    wait_all(&mut b, Backup);
    for (mut near, _far) in now {
        near.write_all(b"still there?").unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(count(one, TIME_WAIT) + count(one, FIN_WAIT_1), 0);
}

/// An address that was here all the while keeps what waits for the end of a session.
#[test]
fn a_vrrp_that_goes_on_ends_nothing() {
    // On a busy machine the start may take longer than two intervals.
    for _ in 0..5 {
        let Some(went_on) = goes_on() else { return };
        if went_on {
            return;
        }
    }
    panic!("it was never started in time to go on");
}

/// Whether a vrrp that is started anew was in time to go on; `None` without network namespaces.
fn goes_on() -> Option<bool> {
    let lab = Lab::start(2)?;
    let [host, client] = &lab.hosts[..] else {
        panic!("two hosts")
    };
    let kept: IpAddr = ADDRESS.parse().unwrap();
    let taken: IpAddr = "192.168.1.111".parse().unwrap();
    let server = listen(host, kept);
    let mut node = Node::serving(host, &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    host.wait_shown(ADDRESS);
    host.ip(&format!("addr add {taken}/32 dev eth0"));
    for address in [kept, taken] {
        close(session(client, CLIENT_PORTS[0], address, &server));
    }
    eventually("the client answers", || count(host, TIME_WAIT) == 2);
    host.ip(&format!("addr del {taken}/32 dev eth0"));

    node.restart(host);
    let both = [kept, taken].map(|address| router(&address.to_string(), 250));
    node.pair(&both);
    node.configure(&both);
    node.wait_routers(|routers| routers.iter().all(|it| it.state == Active));
    if node.report.routers[0].transitions[0].to != Active {
        return Some(false);
    }
    eventually("that of the other address", || count(host, TIME_WAIT) == 1);
    let end = move |address| {
        Orphans::open()
            .and_then(|mut it| it.end(&[address]))
            .unwrap()
    };
    assert_eq!(host.run(move || (end(taken), end(kept))), (0, 1));
    Some(true)
}

#[test]
fn only_what_no_process_has_is_ended() {
    for (taken, other) in [("127.0.0.7", "127.0.0.8"), ("fd00::7", "fd00::8")] {
        let Some(lab) = Lab::start(1) else { return };
        let host = &lab.hosts[0];
        let [taken, other]: [IpAddr; 2] = [taken, other].map(|it| it.parse().unwrap());
        for address in [taken, other].iter().filter(|it| it.is_ipv6()) {
            host.ip(&format!("addr add {address}/128 dev lo"));
        }
        let server = listen(host, taken);
        close(session(host, 0, taken, &server));
        close(session(host, 0, other, &server));
        let (mut open, mut held) = session(host, 0, taken, &server);
        let (mut waiting, mut half) = session(host, 0, taken, &server);
        half.shutdown(Shutdown::Write).unwrap();
        eventually("both are closed", || count(host, TIME_WAIT) == 2);

        let end = move || Orphans::open().and_then(|mut it| it.end(&[taken])).unwrap();
        assert_eq!(host.run(move || (end(), end())), (1, 0));
        assert_eq!(count(host, TIME_WAIT), 1);
        open.write_all(b"x").unwrap();
        held.read_exact(&mut [0]).unwrap();
        waiting.write_all(b"x").unwrap();
        half.read_exact(&mut [0]).unwrap();
        drop(session(host, 0, taken, &server));
    }
}
