//! What earlier sessions left of an address does not come between the host that takes it and the clients of now.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use dataplane::{ipc::Router, sys::netlink::Orphans};
use node_api::RouterState::{self, Active, Backup};
use socket2::{Domain, Socket, Type};

use crate::{
    ADDRESS, ADDRESS_V6,
    filter::Filter,
    lab::{Host, Lab},
    node::{LONG, Node, eventually, router},
};

const PORT: u16 = 8020;
/// Where the client's sessions come from: of many clients behind one address soon every port was used before.
const CLIENT_PORTS: [u16; 2] = [40_000, 40_001];

/// Room of a client for what it has not read yet.
const ROOM: usize = 1 << 16;

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
        socket.set_nonblocking(true).unwrap();
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
    (near, accepted(server))
}

fn accepted(server: &TcpListener) -> TcpStream {
    let mut far = None;
    eventually("the server is reached", || {
        far = server.accept().ok();
        far.is_some()
    });
    far.unwrap().0
}

/// The server closes first, so that its socket is in TIME-WAIT in the end.
fn close((mut near, far): (TcpStream, TcpStream)) {
    drop(far);
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

/// What the client hears when it writes.
fn answer(mut near: &TcpStream) -> ErrorKind {
    near.write_all(b"still there?").unwrap();
    near.read_to_end(&mut Vec::new()).unwrap_err().kind()
}

/// Ends one end without a word that anybody hears or answers.
fn abandon(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// How many sockets of port [`PORT`] are in this state.
fn count(host: &Host, state: &'static str) -> usize {
    sockets(host, state).len()
}

/// Those sockets, each a line of the kernel's table.
fn sockets(host: &Host, state: &'static str) -> Vec<String> {
    host.run(move || {
        let tables = ["tcp", "tcp6"]
            .map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap());
        let own_end = format!(":{PORT:04X}");
        let is_meant = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|own| own.ends_with(&own_end)) && words.nth(1) == Some(state)
        };
        let lines = tables.iter().flat_map(|table| table.lines());
        lines.filter(is_meant).map(str::to_owned).collect()
    })
}

/// Leaves a session of each address, by which it is seen that the host looked when it took them.
fn leave_sessions<'a>(
    host: &Host,
    servers: impl IntoIterator<Item = (&'a IpAddr, &'a TcpListener)>,
) {
    for (before, (address, server)) in servers.into_iter().enumerate() {
        let prefix = if address.is_ipv6() { 128 } else { 32 };
        host.ip(&format!("addr add {address}/{prefix} dev lo"));
        close(session(host, 0, *address, server));
        eventually("it answers itself", || count(host, TIME_WAIT) > before);
        host.ip(&format!("addr del {address}/{prefix} dev lo"));
    }
}

/// Waits until those are ended, and nothing is looked for any more: what is left from now on stays.
fn wait_looked(host: &Host) {
    let is_looking = || {
        host.run(|| {
            let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
            table.lines().skip(1).any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                // `sock_diag(7)`, and not the kernel's own end.
                words[1] == "4" && words[2] != "0"
            })
        })
    };
    eventually("what was left is ended", || {
        count(host, TIME_WAIT) == 0 && !is_looking()
    });
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
    leave_sessions(one, addresses.iter().zip(&servers[0]));
    let mut a = Node::serving(one, &routers(250));
    wait_all(&mut a, Active);
    hold(one);
    wait_looked(one);
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
    for (near, _far) in &now {
        assert_eq!(answer(near), ErrorKind::ConnectionReset);
    }
    assert_eq!(count(one, TIME_WAIT) + count(one, FIN_WAIT_1), 0);
}

/// Whether the client sends what is for `address` to `host`, which it is made to do once more.
fn is_led_to(client: &Host, address: IpAddr, host: &Host) -> bool {
    client.run(move || {
        let socket = UdpSocket::bind(SocketAddr::new(any(address), 0)).unwrap();
        // Nobody listens; a refusal of the one before is no matter.
        drop(socket.send_to(b"?", (address, 9)));
    });
    let entry = client.ip(&format!("neighbour show {address} dev eth0"));
    entry.contains(&host.mac().to_string())
}

/// RFC 9568 section 6.4.3: an Active that hears one which has to yield goes on, and never takes the address.
#[test]
fn a_client_that_another_active_served_meanwhile_is_reset() {
    // On a busy machine the test's proxy may hang for longer than a host bears.
    for _ in 0..5 {
        let Some(is_shown) = went_as_meant() else {
            return;
        };
        if is_shown {
            return;
        }
    }
    panic!("the winner never stayed Active");
}

/// Whether the winner was Active all the while, and the other one just once; `None` without network namespaces or a
/// filter.
fn went_as_meant() -> Option<bool> {
    let lab = Lab::start(3)?;
    let [one, two, client] = &lab.hosts[..] else {
        panic!("three hosts")
    };
    let filter = Filter::new(&lab.switch)?;
    let addresses: [IpAddr; 2] = [ADDRESS, ADDRESS_V6].map(|it| it.parse().unwrap());
    let servers = [one, two].map(|host| addresses.map(|address| listen(host, address)));
    let ports = || {
        addresses
            .into_iter()
            .flat_map(|it| CLIENT_PORTS.map(|port| (it, port)))
    };
    let server = |of: usize, address: IpAddr| &servers[of][usize::from(address.is_ipv6())];
    let wait_led_to = |host| {
        eventually("the client is told", || {
            addresses.iter().all(|it| is_led_to(client, *it, host))
        });
    };
    leave_sessions(one, addresses.iter().zip(&servers[0]));
    let mut a = Node::serving(one, &routers(250));
    wait_all(&mut a, Active);
    one.wait_shown(ADDRESS);
    one.wait_shown(ADDRESS_V6);
    wait_looked(one);
    let mut b = Node::serving(two, &routers(235));
    wait_all(&mut b, Backup);

    // Of each family one that ends before the partition, and one that its client does not hear the end of.
    let mut later = Vec::new();
    for (address, port) in ports() {
        let ends = session(client, port, address, server(0, address));
        if port == CLIENT_PORTS[0] {
            close(ends);
        } else {
            later.push(ends);
        }
    }
    eventually("the client answers", || count(one, TIME_WAIT) == 2);
    filter.cut();
    wait_all(&mut b, Active);
    wait_led_to(two);
    for (near, far) in later {
        abandon(near);
        drop(far);
    }
    eventually("nobody answers", || {
        let sockets = sockets(one, FIN_WAIT_1);
        let is_told_again = |line: &String| {
            let retransmits = line.split_whitespace().nth(6).unwrap();
            retransmits != "00000000"
        };
        sockets.len() == 2 && sockets.iter().all(is_told_again)
    });
    let now = ports().map(|(address, port)| session(client, port, address, server(1, address)));
    let now: Vec<_> = now.collect();

    filter.mend();
    wait_led_to(one);
    wait_all(&mut b, Backup);
    let answers: Vec<_> = now.iter().map(|(near, _far)| answer(near)).collect();
    let left = count(one, TIME_WAIT) + count(one, FIN_WAIT_1);
    wait_all(&mut a, Active);
    wait_all(&mut b, Backup);
    let has_changed = |node: &Node, times| {
        let mut routers = node.report.routers.iter();
        routers.all(|router| router.transitions.len() == times)
    };
    if !has_changed(&a, 2) || !has_changed(&b, 3) {
        return Some(false);
    }
    assert_eq!(answers, [ErrorKind::ConnectionReset; 4]);
    assert_eq!(left, 0);
    Some(true)
}

/// Its client was here all the while, and takes what it was sent as slowly as it likes.
#[test]
fn what_a_client_of_a_contested_address_still_gets_is_not_ended() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, 7));
    let server = listen(host, address);
    close(session(host, 0, address, &server));
    let mut near: TcpStream = host.run(move || {
        let socket = bound(any(address), 0);
        // Of a size that the kernel does not change, so that it promises no more room than it has.
        socket.set_recv_buffer_size(ROOM).unwrap();
        socket
            .connect(&SocketAddr::new(address, PORT).into())
            .unwrap();
        socket.into()
    });
    let mut far = accepted(&server);
    far.set_nonblocking(true).unwrap();
    let (mut sent, block) = (0, vec![0; ROOM]);
    loop {
        match far.write(&block) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    drop(far);
    eventually("the client is asked whether it takes more", || {
        let sockets = sockets(host, FIN_WAIT_1);
        let is_probed = |line: &String| line.split_whitespace().nth(5).unwrap().starts_with("04:");
        sockets.len() == 1 && sockets.iter().all(is_probed)
    });
    eventually("the other answers", || count(host, TIME_WAIT) == 1);
    let end = move || {
        Orphans::open()
            .and_then(|mut it| it.end(&[], &[address]))
            .unwrap()
    };
    assert_eq!(host.run(move || (end(), end())), (1, 0));
    let mut got = Vec::new();
    near.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), sent);
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
    leave_sessions(host, [(&kept, &server)]);
    let mut node = Node::serving(host, &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    host.wait_shown(ADDRESS);
    wait_looked(host);
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
    wait_all(&mut node, Active);
    if node.report.routers[0].transitions[0].to != Active {
        return Some(false);
    }
    eventually("that of the other address", || count(host, TIME_WAIT) == 1);
    let end = move |address| {
        Orphans::open()
            .and_then(|mut it| it.end(&[address], &[]))
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

        let end = move || {
            Orphans::open()
                .and_then(|mut it| it.end(&[taken], &[]))
                .unwrap()
        };
        assert_eq!(host.run(move || (end(), end())), (1, 0));
        assert_eq!(count(host, TIME_WAIT), 1);
        open.write_all(b"x").unwrap();
        held.read_exact(&mut [0]).unwrap();
        waiting.write_all(b"x").unwrap();
        half.read_exact(&mut [0]).unwrap();
        drop(session(host, 0, taken, &server));
    }
}
