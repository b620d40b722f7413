//! The agent and vrrp as the proxy knows them, with one pool on two addresses.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use dataplane::{
    ipc::{FromProxy, Hello, PROXY_SOCKET, ProxyReport, ProxyToVrrp, ToProxy, UsableEndpoints},
    sys::{channel::Channel, memory::Shared, pages::PairPage, tcp},
};
use nix::sys::signal::Signal;
use node_api::{
    Balancing, Drain, Endpoint, EndpointPhase, Heartbeat, Listener, Pool, PoolRef, Preemption,
    Upstream, VirtualRouter, VrrpVersion,
};

use crate::support::{Process, SOON, WORKERS, echo};

pub(crate) const FIRST: &str = "127.0.0.1";
pub(crate) const SECOND: &str = "127.0.0.2";

/// A connection whose silence fails the test.
pub(crate) fn channel(socket: UnixStream) -> Channel {
    socket.set_read_timeout(Some(SOON)).unwrap();
    Channel::new(socket, SOON).unwrap()
}

/// The agent's side, with one pool on two addresses.
pub(crate) struct Rig {
    pub(crate) process: Option<Process>,
    pub(crate) agent: Option<Channel>,
    run_dir: PathBuf,
    pub(crate) port: u16,
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.run_dir));
    }
}

impl Rig {
    pub(crate) fn new(name: &str) -> Self {
        Self::start(name, Process::start)
    }

    pub(crate) fn start(name: &str, start: impl FnOnce(&[&str]) -> Process) -> Self {
        let run_dir = std::env::temp_dir().join(format!("wsha-{name}-{}", std::process::id()));
        fs::create_dir_all(&run_dir).unwrap();
        let listener = UnixListener::bind(run_dir.join(PROXY_SOCKET)).unwrap();
        let process = start(&["--run-dir", run_dir.to_str().unwrap()]);
        // It says this after it has connected, so that `accept` does not wait.
        process.logged("proxy started");
        let agent = channel(listener.accept().unwrap().0);
        let (hello, _) = agent.receive::<Hello>().unwrap().unwrap();
        assert_eq!(hello, Hello::Proxy { workers: WORKERS });
        Self {
            process: Some(process),
            agent: Some(agent),
            run_dir,
            port: 0,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.process.take().unwrap().ended()
    }

    pub(crate) fn send(&self, message: &ToProxy, fds: &[BorrowedFd<'_>]) {
        self.agent.as_ref().unwrap().send(message, fds).unwrap();
    }

    /// The next message that is not a report which nobody asked for.
    pub(crate) fn answer(&self) -> FromProxy {
        let agent = self.agent.as_ref().unwrap();
        loop {
            match agent.receive().unwrap().unwrap().0 {
                FromProxy::Report(_) => {}
                other => return other,
            }
        }
    }

    /// Waits for a report that fits, asking again and again.
    pub(crate) fn report(&self, fits: impl Fn(&ProxyReport) -> bool) -> ProxyReport {
        let agent = self.agent.as_ref().unwrap();
        let until = Instant::now() + SOON;
        loop {
            self.send(&ToProxy::Report, &[]);
            match agent.receive().unwrap().unwrap().0 {
                FromProxy::Report(report) if fits(&report) => return report,
                other => assert!(Instant::now() < until, "last: {other:?}"),
            }
        }
    }

    /// One pairing with the proxy; this test is vrrp.
    pub(crate) fn pair(&self) -> (Channel, Shared<PairPage>) {
        let page = PairPage::create().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        self.send(&ToProxy::Pair, &[page.fd(), theirs.as_fd()]);
        let vrrp = channel(ours);
        assert_eq!(next(&vrrp), ProxyToVrrp::Holding);
        assert_eq!(page.beats.workers(), WORKERS);
        assert_ne!(page.oldest_beat(), 0, "all workers turned before");
        (vrrp, page)
    }

    /// Has the pool served, with sockets.
    pub(crate) fn configure(&mut self) -> Vec<SocketAddr> {
        self.configure_with(|_| {})
    }

    /// The same, the pool changed by `edit`.
    pub(crate) fn configure_with(&mut self, edit: impl FnOnce(&mut Pool)) -> Vec<SocketAddr> {
        let first = tcp::listen_group(address(FIRST, 0), WORKERS).unwrap();
        self.port = first[0].local_addr().unwrap().port();
        let second = tcp::listen_group(address(SECOND, self.port), WORKERS).unwrap();
        let addresses = [FIRST, SECOND].map(|ip| address(ip, self.port)).to_vec();
        let mut pool = pool("chat", self.port, echo());
        edit(&mut pool.1);
        let message = ToProxy::Configure {
            sequence: 1,
            pools: vec![pool],
            sockets: addresses.clone(),
            keys: node_api::Keys::default(),
            refused: Vec::new(),
        };
        let fds: Vec<_> = first.iter().chain(&second).map(AsFd::as_fd).collect();
        self.send(&message, &fds);
        drop((first, second));
        assert_eq!(self.answer(), FromProxy::Applied { sequence: 1 });
        addresses
    }
}

pub(crate) fn next(vrrp: &Channel) -> ProxyToVrrp {
    vrrp.receive().unwrap().expect("the proxy ended").0
}

/// Waits for this message, whatever comes before.
pub(crate) fn expect(vrrp: &Channel, wanted: &ProxyToVrrp) {
    let mut seen = Vec::new();
    loop {
        let message = next(vrrp);
        if message == *wanted {
            return;
        }
        seen.push(message);
        assert!(seen.len() < 20, "{wanted:?} expected, seen {seen:?}");
    }
}

pub(crate) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub(crate) fn ip(ip: &str) -> Vec<IpAddr> {
    vec![ip.parse().unwrap()]
}

pub(crate) fn pool(name: &str, port: u16, backend: SocketAddr) -> (PoolRef, Pool) {
    let router = |(id, address): (u8, &str)| VirtualRouter {
        virtual_router_id: id,
        addresses: ip(address),
        interface: None,
        version: VrrpVersion::V3,
        advertisement_interval: Duration::from_millis(100),
        preemption: Preemption::Disabled,
        mac_address: node_api::MacAddress::Interface,
        nodes: Vec::new(),
        peering: node_api::Peering::Multicast,
        password: None,
        sequence: 0,
    };
    let pool = Pool {
        virtual_routers: [(1, FIRST), (2, SECOND)].map(router).to_vec(),
        listeners: vec![Listener {
            name: "ws".to_owned(),
            port,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: node_api::ProxyProtocolMode::Disabled,
            routes: Vec::new(),
            plain_requests: None,
            tls: None,
        }],
        upstreams: vec![Upstream {
            name: "echo".to_owned(),
            endpoints: vec![Endpoint {
                address: backend.ip(),
                port: backend.port(),
                weight: 1,
                phase: EndpointPhase::Ready,
                zone: None,
            }],
            balancing: Balancing::RoundRobin,
            slow_start: Duration::ZERO,
            endpoint_sessions: None,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            proxy_protocol: None,
            tls: None,
            health: node_api::Health::default(),
            zone_preference: None,
            rebalance: None,
        }],
        heartbeat: Heartbeat {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
        },
        drain: Drain {
            timeout: Duration::from_secs(30),
            sessions_per_second: None,
            close_code: 1012,
        },
        tracking: node_api::Tracking::default(),
        access_log: None,
        limits: node_api::Limits::default(),
        requires: Vec::new(),
    };
    (pool_ref(name), pool)
}

pub(crate) fn pool_ref(name: &str) -> PoolRef {
    PoolRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn usable(routed: usize) -> ProxyToVrrp {
    ProxyToVrrp::Usable {
        pool: pool_ref("chat"),
        endpoints: UsableEndpoints {
            routed,
            upstreams: [("echo".to_owned(), routed)].into(),
        },
    }
}

pub(crate) fn accepting(listeners: Vec<SocketAddr>) -> ProxyToVrrp {
    ProxyToVrrp::Accepting { listeners }
}
