//! A vrrp process with an agent and a proxy played by the test.

use std::{
    net::{IpAddr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dataplane::{
    ipc::{AGENT_SOCKET, FromVrrp, Hello, ProxyToVrrp, Router, ToVrrp, VrrpReport, VrrpToProxy},
    sys::{
        channel::Channel,
        memory::Shared,
        pages::{PairPage, RouterTable},
    },
};
use node_api::{
    PoolRef, Preemption, RouterReport, RouterState, Tracking, VirtualRouter, VrrpVersion,
};

use crate::lab::Host;

/// Longer than anything here takes: only a hang reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A virtual router of the pool `default/chat` on port 8020.
pub(crate) fn router(address: &str, priority: u8) -> Router {
    let address: IpAddr = address.parse().unwrap();
    let virtual_router_id = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    Router {
        pool: PoolRef {
            namespace: "default".to_owned(),
            name: "chat".to_owned(),
        },
        settings: VirtualRouter {
            virtual_router_id,
            addresses: vec![address],
            interface: None,
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(100),
            preemption: Preemption::Enabled {
                delay: Duration::ZERO,
            },
            mac_address: node_api::MacAddress::Interface,
            nodes: Vec::new(),
            peering: node_api::Peering::Multicast,
            password: None,
            sequence: 0,
        },
        priority,
        priority_without_endpoint: 10,
        ports: vec![8020],
        tracking: Tracking::default(),
    }
}

/// A proxy that the test plays.
pub(crate) struct Proxy {
    channel: Channel,
    messages: mpsc::Receiver<VrrpToProxy>,
    beats: Arc<AtomicBool>,
    life: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
    /// Whether it answers a `Leave`.
    pub(crate) answers: Arc<AtomicBool>,
}

impl Proxy {
    fn start(page: OwnedFd, socket: UnixStream, listeners: &[SocketAddr]) -> Self {
        let channel = Channel::new(socket, LONG).unwrap();
        let beats = Arc::new(AtomicBool::new(true));
        let answers = Arc::new(AtomicBool::new(true));
        let (end, wait_end) = mpsc::channel::<()>();
        let (held, wait_held) = mpsc::channel();
        let beating = Arc::clone(&beats);
        // The end of the thread that holds the mutex is what a kill looks like.
        let thread = thread::spawn(move || {
            let page = Shared::<PairPage>::from_fd(page).unwrap().leak();
            page.proxy_life.hold().unwrap();
            page.beats.begin(1);
            held.send(()).unwrap();
            let tick = Duration::from_millis(50);
            while wait_end.recv_timeout(tick) == Err(mpsc::RecvTimeoutError::Timeout) {
                if beating.load(Ordering::Acquire) {
                    page.beats.beat(0);
                }
            }
        });
        wait_held.recv().unwrap();
        let (sender, messages) = mpsc::channel();
        let reading = channel.try_clone().unwrap();
        let answering = Arc::clone(&answers);
        thread::spawn(move || {
            while let Ok(Some((message, _))) = reading.receive::<VrrpToProxy>() {
                if let VrrpToProxy::Leave { addresses } = &message
                    && answering.load(Ordering::Acquire)
                {
                    let addresses = addresses.clone();
                    drop(reading.send(&ProxyToVrrp::Left { addresses }, &[]));
                }
                drop(sender.send(message));
            }
        });
        let proxy = Self {
            channel,
            messages,
            beats,
            life: Some((end, thread)),
            answers,
        };
        proxy.say(&ProxyToVrrp::Holding);
        proxy.say(&ProxyToVrrp::Accepting {
            listeners: listeners.to_vec(),
        });
        proxy
    }

    pub(crate) fn say(&self, message: &ProxyToVrrp) {
        self.channel.send(message, &[]).unwrap();
    }

    pub(crate) fn set_beating(&self, beats: bool) {
        self.beats.store(beats, Ordering::Release);
    }

    pub(crate) fn wait_message(&self, what: impl Fn(&VrrpToProxy) -> bool) -> VrrpToProxy {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).expect("no such message");
            if what(&message) {
                return message;
            }
        }
    }

    /// All messages before the first one that `what` accepts.
    pub(crate) fn messages_up_to(&self, what: impl Fn(&VrrpToProxy) -> bool) -> Vec<VrrpToProxy> {
        let mut before = Vec::new();
        loop {
            let message = self.wait_message(|_| true);
            if what(&message) {
                return before;
            }
            before.push(message);
        }
    }

    /// As by SIGKILL: the mutex goes first, the socket stays open for a while.
    pub(crate) fn die(&mut self) {
        if let Some((end, thread)) = self.life.take() {
            drop(end);
            thread.join().unwrap();
        }
    }
}

/// A vrrp process on a host.
pub(crate) struct Node {
    pub(crate) process: Child,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) table: Shared<RouterTable>,
    directory: PathBuf,
    listener: UnixListener,
    channel: Channel,
    messages: mpsc::Receiver<FromVrrp>,
    pub(crate) report: VrrpReport,
    sequence: u64,
}

fn new_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("wsha-vrrp-test-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// `wsha-dataplane vrrp`.
fn plainly() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"))
}

/// The same where `/proc/sys` is read-only, as in a container.
fn without_sysctl() -> Command {
    let mut command = Command::new("unshare");
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_wsha-dataplane"));
    command
}

fn spawn(
    host: &Host,
    program: fn() -> Command,
    listener: &UnixListener,
    directory: &std::path::Path,
) -> (Child, Channel) {
    let directory = directory.to_owned();
    let process = host.run(move || {
        program()
            .args(["vrrp", "--run-dir"])
            .arg(directory)
            .spawn()
            .unwrap()
    });
    let (socket, _) = listener.accept().unwrap();
    let channel = Channel::new(socket, LONG).unwrap();
    let (hello, _) = channel.receive::<Hello>().unwrap().unwrap();
    assert_eq!(hello, Hello::Vrrp);
    (process, channel)
}

fn read(channel: &Channel) -> mpsc::Receiver<FromVrrp> {
    let (sender, messages) = mpsc::channel();
    let channel = channel.try_clone().unwrap();
    thread::spawn(move || {
        while let Ok(Some((message, _))) = channel.receive::<FromVrrp>() {
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    messages
}

impl Node {
    /// Starts the process and gives it the table, nothing more.
    pub(crate) fn start(host: &Host) -> Self {
        Self::start_as(host, plainly)
    }

    fn start_as(host: &Host, program: fn() -> Command) -> Self {
        let directory = new_directory();
        let listener = UnixListener::bind(directory.join(AGENT_SOCKET)).unwrap();
        let (process, channel) = spawn(host, program, &listener, &directory);
        let table = RouterTable::create().unwrap();
        channel.send(&ToVrrp::Table, &[table.fd()]).unwrap();
        let messages = read(&channel);
        Self {
            process,
            proxy: None,
            table,
            directory,
            listener,
            channel,
            messages,
            report: VrrpReport::default(),
            sequence: 0,
        }
    }

    /// Starts it with a proxy that accepts, and these virtual routers.
    pub(crate) fn serving(host: &Host, routers: &[Router]) -> Self {
        Self::start(host).with(routers)
    }

    /// The same where `/proc/sys` is read-only.
    pub(crate) fn serving_without_sysctl(host: &Host, routers: &[Router]) -> Self {
        Self::start_as(host, without_sysctl).with(routers)
    }

    fn with(mut self, routers: &[Router]) -> Self {
        self.pair(routers);
        self.configure(routers);
        self
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// kill -9, and another process in its place, as the agent does it.
    pub(crate) fn restart(&mut self, host: &Host) {
        self.kill();
        let (process, channel) = spawn(host, plainly, &self.listener, &self.directory);
        channel.send(&ToVrrp::Table, &[self.table.fd()]).unwrap();
        self.messages = read(&channel);
        self.process = process;
        self.channel = channel;
    }

    pub(crate) fn pair(&mut self, routers: &[Router]) {
        let page = PairPage::create().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        self.channel
            .send(
                &ToVrrp::Pair,
                &[page.fd(), std::os::fd::AsFd::as_fd(&theirs)],
            )
            .unwrap();
        drop(theirs);
        let listeners: Vec<_> = routers
            .iter()
            .flat_map(|router| router.settings.addresses.iter())
            .filter(|address| !address.to_string().starts_with("fe80:"))
            .map(|address| SocketAddr::new(*address, 8020))
            .collect();
        let page = page.fd().try_clone_to_owned().unwrap();
        self.proxy = Some(Proxy::start(page, ours, &listeners));
    }

    pub(crate) fn proxy(&mut self) -> &mut Proxy {
        self.proxy.as_mut().unwrap()
    }

    /// Configures and waits until it is applied; returns the problems.
    pub(crate) fn configure(&mut self, routers: &[Router]) -> Vec<String> {
        self.sequence += 1;
        let (sequence, routers) = (self.sequence, routers.to_vec());
        self.send(&ToVrrp::Configure { sequence, routers });
        let message = self.wait_message(|message| {
            matches!(message, FromVrrp::Applied { sequence: applied, .. } if *applied == sequence)
        });
        match message {
            FromVrrp::Applied { problems, .. } => problems,
            other => panic!("{other:?}"),
        }
    }

    /// The agent ends without a word.
    pub(crate) fn end_agent(&self) {
        self.channel.shutdown();
    }

    pub(crate) fn send(&self, message: &ToVrrp) {
        self.channel.send(message, &[]).unwrap();
    }

    pub(crate) fn wait_message(&mut self, what: impl Fn(&FromVrrp) -> bool) -> FromVrrp {
        let end = Instant::now() + LONG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|error| {
                panic!("no such message ({error}); last report: {:#?}", self.report)
            });
            if let FromVrrp::Report(report) = &message {
                self.report = report.clone();
            }
            if what(&message) {
                return message;
            }
        }
    }

    /// Asks for reports until the first virtual router is as wanted.
    pub(crate) fn wait_router(&mut self, what: impl Fn(&RouterReport) -> bool) -> RouterReport {
        let first = |routers: &[RouterReport]| routers.first().filter(|it| what(it)).cloned();
        self.wait_routers(|routers| first(routers).is_some());
        first(&self.report.routers).unwrap()
    }

    pub(crate) fn wait_routers(&mut self, what: impl Fn(&[RouterReport]) -> bool) {
        self.wait_report(|report| what(&report.routers));
    }

    pub(crate) fn wait_report(&mut self, what: impl Fn(&VrrpReport) -> bool) {
        let end = Instant::now() + LONG;
        loop {
            self.send(&ToVrrp::Report);
            self.wait_message(|message| matches!(message, FromVrrp::Report(_)));
            if what(&self.report) {
                return;
            }
            assert!(Instant::now() < end, "last report: {:#?}", self.report);
        }
    }

    pub(crate) fn wait_state(&mut self, state: RouterState) -> RouterReport {
        self.wait_router(|router| router.state == state)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// Waits until `check` holds, looking again and again: for facts of the kernel that nobody
/// announces to the test.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !check() {
        assert!(Instant::now() < end, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
