//! Virtual routers with hardware addresses of their own (RFC 9568 section 7.3).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dataplane::{ipc::Router, sys::resolution::ResolutionSocket};
use nix::sys::socket::{LinkAddr, recvfrom};
use node_api::{
    MacAddress, Peering,
    RouterState::{Active, Backup, Initialize},
};
use socket2::{Domain, Protocol, Socket, Type};
use vrrp::wire::{Arp, Mac, arp::Operation};

use crate::{
    ADDRESS,
    lab::{Host, Lab},
    node::{LONG, Node, eventually, router},
    wire::Ear,
};

const MAC: Mac = Mac([0, 0, 0x5e, 0, 1, 110]);
/// Its VRID is 16.
const ADDRESS_V6: &str = "fd00:1::110";
const MAC_V6: Mac = Mac([0, 0, 0x5e, 0, 2, 0x10]);

fn with_own_mac(address: &str, priority: u8) -> Router {
    let mut router = router(address, priority);
    router.settings.mac_address = MacAddress::VirtualRouter;
    router
}

/// Accepts clients on whatever address the host has.
fn serve(host: &Host) {
    host.run(|| {
        let listener = TcpListener::bind("[::]:8020").unwrap();
        thread::spawn(move || for _client in listener.incoming() {});
    });
}

/// Whether a client on `host` gets through.
fn connects(host: &Host, address: &str) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), 8020);
    host.run(move || TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
}

/// What the kernel of `host` knows of a neighbour.
fn known(host: &Host, address: &str) -> String {
    host.ip(&format!("neighbour show to {address} dev eth0"))
}

/// The virtual routers' links of a host.
fn links(host: &Host) -> String {
    host.ip("-o link show type macvlan")
}

/// `arp_ignore` and `arp_announce` of `eth0`.
fn arp_settings(host: &Host) -> [String; 2] {
    ["arp_ignore", "arp_announce"].map(|name| {
        let path = format!("/proc/sys/net/ipv4/conf/eth0/{name}");
        let value = host.run(move || std::fs::read_to_string(path));
        value.unwrap().trim().to_owned()
    })
}

/// Frames that come in at a port of the switch.
struct Port {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    ends: Arc<AtomicBool>,
}

impl Port {
    fn watch(lab: &Lab, number: usize) -> Self {
        let frames = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (store, end) = (Arc::clone(&frames), Arc::clone(&ends));
        lab.switch.run(move || {
            let all = Protocol::from(i32::from(3_u16.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
            let pause = Some(Duration::from_millis(50));
            socket.set_read_timeout(pause).unwrap();
            let name = format!("port{number}");
            let index = usize::try_from(nix::net::if_::if_nametoindex(&*name).unwrap()).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !end.load(Ordering::Acquire) {
                    let received = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer);
                    let Ok((length, Some(from))) = received else {
                        continue;
                    };
                    let is_in = from.pkttype() != libc::PACKET_OUTGOING;
                    if is_in && from.ifindex() == index {
                        store.lock().unwrap().push(buffer[..length].to_vec());
                    }
                }
            });
        });
        Self { frames, ends }
    }

    /// What came from this hardware address so far.
    fn from(&self, mac: Mac) -> Vec<Vec<u8>> {
        let frames = self.frames.lock().unwrap();
        let is_from = |frame: &&Vec<u8>| frame.get(6..12) == Some(&mac.0[..]);
        frames.iter().filter(is_from).cloned().collect()
    }

    /// Who has answered for `address`, or asked in its name.
    fn speakers(&self, address: &str) -> BTreeSet<(Mac, bool)> {
        let address: IpAddr = address.parse().unwrap();
        let frames = self.frames.lock().unwrap();
        let arp = frames.iter().filter_map(|it| Arp::parse_frame(it).ok());
        arp.filter(|arp| IpAddr::V4(arp.sender) == address)
            .map(|arp| (arp.sender_mac, arp.operation == Operation::Reply))
            .collect()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

/// The promise: nothing that a client knows changes, and no Backup is seen by the switch.
fn takes_over_under_one_mac(address: &'static str, mac: Mac) {
    let Some(lab) = Lab::start(3) else { return };
    lab.hosts[..2].iter().for_each(serve);
    let client = &lab.hosts[2];
    let ports = [Port::watch(&lab, 1), Port::watch(&lab, 2)];
    let routers = [with_own_mac(address, 250)];
    let mut ear = Ear::on(client);
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_state(Active);
    ear.wait_announcement(address, mac);
    let mut b = Node::serving(&lab.hosts[1], &[with_own_mac(address, 235)]);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    lab.hosts[0].wait_shown(address);
    assert!(connects(client, address));
    assert!(known(client, address).contains(&mac.to_string()));
    // Both sides ask again: the client for the address, the host for the client in its name.
    for host in &lab.hosts {
        host.ip("neighbour flush dev eth0");
    }
    assert!(connects(client, address));
    assert!(known(client, address).contains(&mac.to_string()));
    assert_eq!(
        ports[1].from(mac),
        Vec::<Vec<u8>>::new(),
        "a Backup is silent"
    );
    assert!(ports[0].from(mac).iter().any(|it| it[..3] != [0xff; 3]));

    a.kill();
    b.wait_state(Active);
    ear.wait_announcement(address, mac);
    lab.hosts[1].wait_shown(address);
    let entry = known(client, address);
    assert!(entry.contains(&mac.to_string()), "{entry}");
    assert!(connects(client, address));
    // Back again, as the better one: the other one yields without a word from that address.
    a.restart(&lab.hosts[0]);
    a.pair(&routers);
    a.configure(&routers);
    a.wait_state(Active);
    b.wait_state(Backup);
    eventually("one holder", || lab.hosts[1].shown(address).is_empty());
    let said = ports[1].from(mac).len();
    ear.wait_announcement(address, mac);
    lab.hosts[0].wait_shown(address);
    assert!(connects(client, address));
    assert_eq!(ports[1].from(mac).len(), said, "it yields in silence");
    if address == ADDRESS {
        for port in &ports {
            let speakers = port.speakers(address);
            assert!(speakers.iter().all(|(of, _)| *of == mac), "{speakers:?}");
            assert!(speakers.contains(&(mac, true)) || port.from(mac).len() > 2);
        }
    }
}

#[test]
fn another_host_takes_over_under_the_same_hardware_address() {
    takes_over_under_one_mac(ADDRESS, MAC);
}

#[test]
fn another_host_takes_over_under_the_same_hardware_address_of_ipv6() {
    takes_over_under_one_mac(ADDRESS_V6, MAC_V6);
}

/// Nothing of it stays behind, and the interface beneath is as it was.
#[test]
fn a_planned_stop_leaves_nothing_behind() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    let before = arp_settings(host);
    let routers = [with_own_mac(ADDRESS, 250), with_own_mac(ADDRESS_V6, 250)];
    let mut node = Node::serving(host, &routers);
    node.wait_routers(|routers| routers.len() == 2 && routers.iter().all(|r| r.state == Active));
    host.wait_shown(ADDRESS);
    host.wait_shown(ADDRESS_V6);
    assert_eq!(arp_settings(host), ["1", "2"]);
    // Besides the address nothing is on the link, on which nothing else is to be sent.
    let shown = host.ip("-o addr show to fe80::/10");
    assert_eq!(shown.matches("wsha").count(), 0, "{shown}");
    assert_eq!(node.configure(&routers[1..]), Vec::<String>::new());
    eventually("one is gone", || links(host).lines().count() == 1);
    assert_eq!(arp_settings(host), before);
    node.configure(&[]);
    eventually("both are gone", || links(host).is_empty());
    assert_eq!(host.shown(ADDRESS_V6), "");
}

/// kill -9 of all there is: the leases end, what stays is quiet, and the next process clears it away.
#[test]
fn what_a_killed_process_left_is_cleared_away() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    let before = arp_settings(host);
    let routers = [with_own_mac(ADDRESS, 250), with_own_mac(ADDRESS_V6, 250)];
    let mut node = Node::serving(host, &routers);
    node.wait_routers(|routers| routers.len() == 2 && routers.iter().all(|r| r.state == Active));
    host.wait_shown(ADDRESS);
    host.wait_shown(ADDRESS_V6);
    node.kill();
    for address in [ADDRESS, ADDRESS_V6] {
        eventually("the lease ends", || host.shown(address).is_empty());
    }
    assert_eq!(links(host).lines().count(), 2);
    node.restart(host);
    node.configure(&[]);
    eventually("nothing is left", || links(host).is_empty());
    eventually("settings are back", || arp_settings(host) == before);
}

/// Within two intervals the next process goes on, with the link that is there.
#[test]
fn a_process_that_follows_goes_on_with_the_link() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    let before = arp_settings(host);
    let routers = [with_own_mac(ADDRESS, 250)];
    let mut node = Node::serving(host, &routers);
    node.wait_state(Active);
    host.wait_shown(ADDRESS);
    let number = |shown: String| shown.split(':').next().unwrap().to_owned();
    let link = number(links(host));
    node.restart(host);
    node.pair(&routers);
    node.configure(&routers);
    node.wait_state(Active);
    host.wait_shown(ADDRESS);
    assert_eq!(number(links(host)), link);
    // Somebody removes it: it is made anew, as an address is put back.
    host.ip(&format!("link del {}", "wsha4-110-2"));
    eventually("put back", || !host.shown(ADDRESS).is_empty());
    let report = node.wait_state(Active);
    assert!(report.transitions.len() <= 3, "{:?}", report.transitions);
    node.configure(&[]);
    eventually("nothing is left", || links(host).is_empty());
    assert_eq!(arp_settings(host), before);
}

/// The kernel takes addresses of IPv6 from what is switched off, the link above too.
#[test]
fn an_address_of_ipv6_comes_back_with_the_interface_beneath() {
    let Some(lab) = Lab::start(2) else { return };
    let host = &lab.hosts[0];
    let mut node = Node::serving(host, &[with_own_mac(ADDRESS_V6, 250)]);
    node.wait_state(Active);
    host.wait_shown(ADDRESS_V6);
    host.ip("link set eth0 down");
    node.wait_state(Initialize);
    eventually("address gone", || host.shown(ADDRESS_V6).is_empty());
    let mut ear = Ear::on(&lab.hosts[1]);
    host.ip("link set eth0 up");
    host.ip("addr add fd00:1::1/64 dev eth0");
    node.wait_state(Active);
    ear.wait_announcement(ADDRESS_V6, MAC_V6);
    host.wait_shown(ADDRESS_V6);
    serve(host);
    let end = std::time::Instant::now() + LONG;
    while !connects(&lab.hosts[1], ADDRESS_V6) {
        assert!(std::time::Instant::now() < end, "no client gets through");
    }
}

/// With it goes the link above.
#[test]
fn an_interface_that_comes_back_gets_the_link_again() {
    let Some(lab) = Lab::start(2) else { return };
    let host = &lab.hosts[0];
    let mut node = Node::serving(host, &[with_own_mac(ADDRESS, 250)]);
    node.wait_state(Active);
    host.wait_shown(ADDRESS);
    lab.switch.ip("link del port1");
    node.wait_state(Initialize);
    assert_eq!(links(host), "");
    let mut ear = Ear::on(&lab.hosts[1]);
    let tid = host.tid;
    lab.switch.ip(&format!(
        "link add port1 type veth peer name eth0 netns {tid}"
    ));
    lab.switch.ip("link set port1 master br0 up");
    host.ip("addr add 192.168.1.1/24 dev eth0");
    host.ip("link set eth0 up");
    node.wait_state(Active);
    ear.wait_announcement(ADDRESS, MAC);
    host.wait_shown(ADDRESS);
    assert_eq!(arp_settings(host), ["1", "2"]);
}

/// Advertisements to peers leave from the interface's own hardware address: each goes to an address of its own,
/// for which the kernel asks.
#[test]
fn unicast_peers_share_a_hardware_address() {
    let Some(lab) = Lab::start(3) else { return };
    lab.hosts[..2].iter().for_each(serve);
    let client = &lab.hosts[2];
    let group = |priority| {
        let mut router = with_own_mac(ADDRESS, priority);
        let peers = ["192.168.1.1", "192.168.1.2"];
        router.settings.peering = Peering::Unicast {
            addresses: peers.map(|peer| peer.parse().unwrap()).to_vec(),
        };
        [router]
    };
    let mut first = Node::serving(&lab.hosts[0], &group(250));
    first.wait_state(Active);
    let mut second = Node::serving(&lab.hosts[1], &group(235));
    second.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    assert!(connects(client, ADDRESS));
    let before = known(client, ADDRESS);
    assert!(before.contains(&MAC.to_string()), "{before}");
    first.kill();
    second.wait_state(Active);
    eventually("the heir serves", || connects(client, ADDRESS));
    let after = known(client, ADDRESS);
    assert!(after.contains(&MAC.to_string()), "{after}");
}

/// A router advertisement (RFC 4861 section 4.2) to all nodes, of a /64 for addresses that hosts make themselves.
fn advertise_prefix(router: &Host, prefix: Ipv6Addr) {
    let source: Ipv6Addr = {
        let shown = router.ip("-6 -o addr show dev eth0 scope link");
        let address = shown.split_whitespace().nth(3).unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    };
    let (mac, all) = (router.mac(), vrrp::wire::neighbour::ALL_NODES);
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08];
    message.extend([0; 8]);
    message.extend([1, 1]);
    message.extend(mac.0);
    message.extend([
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    message.extend(prefix.octets());
    let length = u16::try_from(message.len()).unwrap();
    let pseudo = [
        &source.octets()[..],
        &all.octets(),
        &[0, 0],
        &length.to_be_bytes(),
        &[0, 0, 0, 58],
    ];
    let covered = [&pseudo.concat()[..], &message].concat();
    let words = covered
        .chunks(2)
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let sum = words.fold(0, |sum, word| (sum + word) % 0xffff);
    message[2..4].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    let mut frame = [&Mac::of_group(all).0[..], &mac.0, &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(all.octets());
    frame.extend(message);
    router.run(move || {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let socket = ResolutionSocket::neighbour_discovery(index).unwrap();
        socket.send(&frame).unwrap();
    });
}

/// RFC 9568 section 7.4: no address is made of the virtual router's hardware address, also where the kernel
/// cannot be told to take none from router advertisements.
#[test]
fn nothing_is_learned_from_routers_without_sysctl() {
    let Some(lab) = Lab::start(2) else { return };
    let (host, router) = (&lab.hosts[0], &lab.hosts[1]);
    let mut node = Node::serving_without_sysctl(host, &[with_own_mac(ADDRESS_V6, 250)]);
    node.wait_state(Active);
    host.wait_shown(ADDRESS_V6);
    let name = "wsha6-16-2";
    let setting = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    let accepts = host.run(move || std::fs::read_to_string(setting).unwrap());
    assert_eq!(
        accepts.trim(),
        "1",
        "the kernel's default, which nobody could change"
    );
    let learned = |interface: &str, prefix: &str| {
        let shown = host.ip(&format!("-6 -o addr show dev {interface} to {prefix}"));
        !shown.is_empty()
    };
    // The host itself takes addresses, so that the advertisements were read; the link above reads each a
    // little later, and the first before the last.
    for number in 1..=5 {
        let prefix = format!("fd00:9:{number}::");
        advertise_prefix(router, prefix.parse().unwrap());
        eventually("the host learns the prefix", || {
            learned("eth0", &format!("{prefix}/64"))
        });
    }
    eventually("the virtual router keeps none", || {
        !learned(name, "fd00:9::/32")
    });
    assert!(!host.shown(ADDRESS_V6).is_empty());
    let report = node.wait_state(Active);
    assert_eq!(report.transitions.len(), 2, "{:?}", report.transitions);
}
