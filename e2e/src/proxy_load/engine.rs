//! One event loop that is all clients and all servers at once, so that beside the proxy one core is busy and no more.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::client::Client;
use super::conn::{Conn, Got};
use super::http2::Http2;
use super::load::Transport;
use super::server::Served;
use super::session::{Doing, Script};
use super::tls::{Identity, Tls};
use super::wire::Messages;
use crate::ws;

/// Addresses of the servers and of the clients: more than one, as a pair of addresses has 28,000 ports.
const SERVERS: u8 = 16;
const CLIENTS: u32 = 8;

const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Queue of a listener of ours.
const BACKLOG: i32 = 4096;

/// Bound against hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kinds of sockets, in the upper half of a token.
const LISTENER: u64 = 0;
const SERVED: u64 = 1;
const CLIENT: u64 = 2;

/// Sockets by the lower half of their token.
#[derive(Debug)]
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Puts in what `make` makes for its place.
    fn insert(&mut self, make: impl FnOnce(usize) -> Result<T>) -> Result<usize> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(make(at)?);
        Ok(at)
    }

    fn get(&mut self, at: usize) -> Option<&mut T> {
        self.slots.get_mut(at)?.as_mut()
    }

    fn remove(&mut self, at: usize) {
        if self.slots[at].take().is_some() {
            self.free.push(at);
        }
    }

    fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Counts since the last [`Engine::begin`].
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that came back, and sessions that opened and ended.
    pub echoes: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions that were closed in order and ended.
    pub ended: u64,
    /// From when a message was due until it came back.
    pub latencies: Vec<Duration>,
}

/// Clients and servers.
#[derive(Debug)]
pub struct Engine {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    served: Slots<Served>,
    clients: Slots<Client>,
    script: Script,
    target: SocketAddrV4,
    transport: Transport,
    /// Whom clients trust that speak TLS.
    trusted: Identity,
    request: Vec<u8>,
    dialled: u32,
    scratch: Vec<u8>,
    out: Vec<u8>,
    /// What was counted.
    pub counts: Counts,
}

impl Engine {
    /// Opens the servers; clients that speak TLS trust `identity`.
    pub fn new(identity: &Identity) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut listeners: Vec<TcpListener> = Vec::new();
        for number in 1..=SERVERS {
            // One port for all.
            let port = listeners.first().map_or(Ok(0), |first| {
                first.local_addr().map(|address| address.port())
            })?;
            let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 2, number), port);
            let listener = listen(address).with_context(|| format!("cannot serve at {address}"))?;
            let token = LISTENER << 32 | listeners.len() as u64;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            listeners.push(listener);
        }
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        Ok(Self {
            epoll,
            listeners,
            served: Slots::new(),
            clients: Slots::new(),
            script: Script {
                doing: Doing::Open,
                messages: Messages::new(0),
            },
            target,
            transport: Transport::Plain,
            trusted: identity.clone(),
            request: Vec::new(),
            dialled: 0,
            scratch: vec![0; 256 << 10],
            out: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Where the servers are.
    pub fn servers(&self) -> Result<Vec<SocketAddr>> {
        let addresses = self.listeners.iter().map(TcpListener::local_addr);
        Ok(addresses.collect::<Result<_, _>>()?)
    }

    /// From now on new sessions go to `target` over `transport`, and do this with messages of so many bytes.
    pub fn begin(
        &mut self,
        target: SocketAddrV4,
        transport: Transport,
        doing: Doing,
        payload: usize,
    ) {
        self.target = target;
        self.transport = transport;
        self.request = ws::request(&target.to_string()).into_bytes();
        self.script = Script {
            doing,
            messages: Messages::new(payload),
        };
        self.counts = Counts::default();
    }

    /// Dials `count` sessions; their handshakes go on in the loop.
    pub fn dial(&mut self, count: usize) -> Result<()> {
        let share = match self.transport {
            Transport::Plain | Transport::Tls => 1,
            Transport::Http2 { share } => share,
        };
        let mut left = count;
        while left > 0 {
            let share = share.min(left);
            self.connect(share)?;
            left -= share;
        }
        Ok(())
    }

    /// Opens a connection for so many sessions.
    fn connect(&mut self, share: usize) -> Result<()> {
        let number = self.dialled;
        self.dialled = self.dialled.wrapping_add(1);
        let own = Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + number % CLIENTS);
        let stream = connect(own, self.target)
            .with_context(|| format!("cannot connect to {}", self.target))?;
        let (epoll, transport) = (&self.epoll, self.transport);
        let (request, target, trusted) = (&self.request, self.target, &self.trusted);
        self.clients.insert(|at| {
            let mut conn = Conn::new(stream, CLIENT << 32 | at as u64, epoll)?;
            let is_http2 = matches!(transport, Transport::Http2 { .. });
            if transport != Transport::Plain {
                conn = conn.over(Tls::new(trusted, is_http2)?);
            }
            if is_http2 {
                let mut first = Vec::new();
                let http2 = Http2::new(number, &target.to_string(), share, &mut first);
                conn.send(epoll, &first)?;
                return Ok(Client::http2(conn, http2));
            }
            conn.send(epoll, request)?;
            Ok(Client::asking(conn, number))
        })?;
        Ok(())
    }

    /// Dials `count` sessions in portions and waits until all are open.
    pub fn open(&mut self, count: usize) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let portion = left.min(100);
            let wanted = self.counts.opened + portion as u64;
            self.dial(portion)?;
            self.run_while("sessions to open", |engine| engine.counts.opened < wanted)?;
            left -= portion;
        }
        Ok(())
    }

    /// Sends a message in session `index` of those that are open, due at `due` if that matters.
    pub fn send(&mut self, index: usize, due: Option<Instant>) -> Result<()> {
        let Some(client) = self.clients.get(index) else {
            bail!("session {index} is not open");
        };
        self.out.clear();
        client.write(&self.script, due, &mut self.out)?;
        client.conn.send(&self.epoll, &self.out)
    }

    /// Sends a message in each session and waits for all echoes.
    pub fn send_round(&mut self) -> Result<()> {
        let wanted = self.counts.echoes + self.clients.count() as u64;
        for index in 0..self.clients.slots.len() {
            if self.clients.slots[index].is_some() {
                self.send(index, None)?;
                if index % 100 == 99 {
                    self.turn(EpollTimeout::ZERO)?;
                }
            }
        }
        self.run_while("all echoes", |engine| engine.counts.echoes < wanted)
    }

    /// Runs the loop for so long.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(EpollTimeout::try_from(10_i32)?)?;
        }
        Ok(())
    }

    /// Runs the loop for as long as `wanting` tells, which is not for ever.
    pub(super) fn run_while(&mut self, what: &str, wanting: impl Fn(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while wanting(self) {
            ensure!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
            self.turn(EpollTimeout::try_from(10_i32)?)?;
        }
        Ok(())
    }

    /// Ends all sessions and waits until the proxy has ended their other halves.
    pub fn end_all(&mut self) -> Result<()> {
        self.clients = Slots::new();
        let in_session = |engine: &Self| {
            engine
                .served
                .slots
                .iter()
                .flatten()
                .any(Served::is_upgraded)
        };
        self.run_while("the proxy to end sessions", in_session)?;
        // A proxy may keep a connection for the next client that it opened for one that went before its handshake.
        self.served = Slots::new();
        Ok(())
    }

    /// One turn of the loop.
    pub fn turn(&mut self, timeout: EpollTimeout) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(nix::Error::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            let at = usize::try_from(event.data() & 0xffff_ffff)?;
            match event.data() >> 32 {
                LISTENER => self.accept(at)?,
                SERVED => self.serve(at, event.events())?,
                _ => self.client(at, event.events())?,
            }
        }
        Ok(())
    }

    fn accept(&mut self, at: usize) -> Result<()> {
        while let Ok((stream, _)) = self.listeners[at].accept() {
            let epoll = &self.epoll;
            self.served.insert(|at| {
                Ok(Served::new(Conn::new(
                    stream,
                    SERVED << 32 | at as u64,
                    epoll,
                )?))
            })?;
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, events: EpollFlags) -> Result<()> {
        let Some(served) = self.served.get(at) else {
            return Ok(());
        };
        if events.contains(EpollFlags::EPOLLOUT) {
            served.conn.flush(&self.epoll)?;
        }
        match served.conn.read(&self.epoll, &mut self.scratch)? {
            Got::Nothing => {}
            Got::End => self.served.remove(at),
            Got::Bytes(length) => {
                self.out.clear();
                let over = served.take(&self.scratch[..length], &mut self.out)?;
                if !self.out.is_empty() {
                    served.conn.send(&self.epoll, &self.out)?;
                }
                if over {
                    // RFC 6455 section 7.1.1: the server ends the connection, and does so first.
                    self.served.remove(at);
                }
            }
        }
        Ok(())
    }

    fn client(&mut self, at: usize, events: EpollFlags) -> Result<()> {
        let Some(client) = self.clients.get(at) else {
            return Ok(());
        };
        if events.contains(EpollFlags::EPOLLOUT) {
            client.conn.flush(&self.epoll)?;
        }
        match client.conn.read(&self.epoll, &mut self.scratch)? {
            Got::Nothing => Ok(()),
            Got::End => bail!("the proxy ended a session"),
            Got::Bytes(length) => {
                self.out.clear();
                let progress = client.take(
                    &self.scratch[..length],
                    &self.script,
                    &mut self.out,
                    &mut self.counts.latencies,
                )?;
                self.counts.echoes += progress.echoes;
                self.counts.opened += progress.opened;
                self.counts.ended += progress.ended;
                if progress.is_over {
                    // Not every proxy passes the end on before the client has ended, too (Envoy waits for a second).
                    self.clients.remove(at);
                    return self.dial(1);
                }
                if !self.out.is_empty() {
                    client.conn.send(&self.epoll, &self.out)?;
                }
                Ok(())
            }
        }
    }
}

fn listen(address: SocketAddrV4) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connects from an address of ours; on loopback the kernel completes it within the call.
fn connect(from: Ipv4Addr, to: SocketAddrV4) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // The port is chosen when the target is known, so that a pair of addresses has all ports to itself.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::V4(to).into(), PATIENCE)?;
    Ok(socket.into())
}
