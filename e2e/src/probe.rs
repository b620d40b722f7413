//! The client: sends a numbered message every few milliseconds, redials when an echo is late, and notes all it saw.
//!
//! One implementation for every subject. It knows nothing of who serves it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::control::real_time;
use crate::lab::{Host, PORT};
use crate::ws::{self, Decoder, Opcode};

/// The probe's own timers; they bound what it can resolve.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A message goes out this often.
    pub send_every: Duration,
    /// A message without echo after this time is lost, and so is the connection.
    pub lost_after: Duration,
    /// A connection attempt is given up after this time.
    pub connect_timeout: Duration,
    /// Pause between a failure and the next attempt.
    pub redial_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            send_every: ms(5),
            lost_after: ms(12),
            connect_timeout: ms(10),
            redial_after: ms(1),
        }
    }
}

impl Timing {
    /// A person's client: twenty messages a second and time-outs that no scheduling gap reaches.
    pub fn patient() -> Self {
        let ms = Duration::from_millis;
        Self {
            send_every: ms(50),
            lost_after: ms(200),
            connect_timeout: ms(200),
            redial_after: ms(10),
        }
    }
}

/// How an established connection ended, as the client saw it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Loss {
    /// A Close frame.
    Close(Option<u16>, String),
    /// The stream ended without a Close frame.
    Fin,
    /// The connection was reset.
    Reset,
    /// An echo did not come in time.
    Silence,
    /// Something that is no WebSocket.
    Garbled(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(Some(code), reason) if reason.is_empty() => write!(f, "Close {code}"),
            Self::Close(Some(code), reason) => write!(f, "Close {code} \"{reason}\""),
            Self::Close(None, _) => f.write_str("Close without code"),
            Self::Fin => f.write_str("FIN"),
            Self::Reset => f.write_str("RST"),
            Self::Silence => f.write_str("no echo"),
            Self::Garbled(what) => write!(f, "garbled: {what}"),
        }
    }
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DialFailure {
    /// Refused.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route, or no neighbour.
    Unreachable,
    /// Connected, but no answer to the upgrade in time.
    UpgradeTimedOut,
    /// Connected, and ended before the upgrade was answered.
    UpgradeCut,
    /// The upgrade was refused; its status line.
    Answered(String),
    /// Something else.
    Other(String),
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::TimedOut => "connect time-out",
            Self::Unreachable => "unreachable",
            Self::UpgradeTimedOut => "upgrade time-out",
            Self::UpgradeCut => "cut before the upgrade",
            Self::Answered(what) | Self::Other(what) => what,
        })
    }
}

/// One thing the probe saw.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A connection was upgraded.
    Open,
    /// An echo came back; with the backend's address as the article's server tells it.
    Echo(Option<Ipv4Addr>),
    /// The connection was lost.
    Lost(Loss),
    /// An attempt to connect failed.
    DialFailed(DialFailure),
}

#[derive(Debug, Default)]
struct Log {
    records: Mutex<Vec<(Instant, Seen)>>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Seen)>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, seen: Seen) {
        self.lock().push((Instant::now(), seen));
        self.changed.notify_all();
    }
}

/// What a span of time cost the client.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The longest time between two echoes that overlaps the span.
    pub longest: Duration,
    /// When it began and ended.
    pub between: (Instant, Instant),
    /// All time beyond the loss limit that passed without an echo.
    pub total: Duration,
    /// How connections ended, in order.
    pub losses: Vec<Loss>,
    /// Failed attempts to connect, by kind.
    pub failures: BTreeMap<DialFailure, u32>,
}

impl Outage {
    /// What the client saw, in a few words.
    pub fn saw(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut losses: BTreeMap<String, u32> = BTreeMap::new();
        for loss in &self.losses {
            *losses.entry(loss.to_string()).or_default() += 1;
        }
        let counted = |what: String, count: u32| {
            if count == 1 {
                what
            } else {
                format!("{what} x{count}")
            }
        };
        parts.extend(losses.into_iter().map(|(what, count)| counted(what, count)));
        parts.extend(
            self.failures
                .iter()
                .map(|(what, count)| counted(what.to_string(), *count)),
        );
        if parts.is_empty() {
            "nothing".into()
        } else {
            parts.join(", ")
        }
    }
}

/// A client at work in a thread of its own.
#[derive(Debug)]
pub struct Probe {
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    timing: Timing,
}

impl Probe {
    /// Starts a client on `host` that talks to `address` at [`PORT`].
    pub fn start(host: &Host, address: Ipv4Addr, timing: Timing) -> Result<Self> {
        let log = Arc::new(Log::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, entered) = mpsc::channel();
        let worker = Worker {
            target: SocketAddrV4::new(address, PORT),
            timing,
            log: Arc::clone(&log),
            stop: Arc::clone(&stop),
            sent: 0,
        };
        let thread = thread::scope(|scope| {
            scope
                .spawn(|| {
                    host.enter()?;
                    // A thread inherits the namespaces of the one that made it.
                    Ok(thread::Builder::new().name("probe".into()).spawn(move || {
                        real_time();
                        ready.send(()).ok();
                        worker.run();
                    })?)
                })
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("the probe's thread panicked")))
        })?;
        entered.recv().context("the probe's thread ended")?;
        Ok(Self {
            log,
            stop,
            thread: Some(thread),
            timing,
        })
    }

    /// Waits until `count` echoes in a row have come since `since`, with no loss among them; `None` when `bound` passes first.
    pub fn steady(&self, since: Instant, count: usize, bound: Duration) -> Option<Instant> {
        let deadline = Instant::now() + bound;
        let mut records = self.log.lock();
        loop {
            let run = records
                .iter()
                .rev()
                .take_while(|(at, seen)| *at >= since && matches!(seen, Seen::Echo(_)));
            let mut run = run.take(count);
            if run.by_ref().count() == count {
                return records.last().map(|(at, _)| *at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            records = self
                .log
                .changed
                .wait_timeout(records, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The backend that sent the last echo.
    pub fn backend(&self) -> Option<Ipv4Addr> {
        self.log
            .lock()
            .iter()
            .rev()
            .find_map(|(_, seen)| match seen {
                Seen::Echo(backend) => *backend,
                _ => None,
            })
    }

    /// How many connections were lost since `since`.
    pub fn losses(&self, since: Instant) -> usize {
        self.log
            .lock()
            .iter()
            .filter(|(at, seen)| *at >= since && matches!(seen, Seen::Lost(_)))
            .count()
    }

    /// What happened between `from` and `to`. Silence is measured from echo to echo, so it may reach beyond both.
    pub fn outage(&self, from: Instant, to: Instant) -> Outage {
        let records = self.log.lock();
        let mut outage = Outage {
            longest: Duration::ZERO,
            between: (from, from),
            total: Duration::ZERO,
            losses: Vec::new(),
            failures: BTreeMap::new(),
        };
        let mut last_echo: Option<Instant> = None;
        for (at, seen) in records.iter() {
            match seen {
                Seen::Echo(_) => {
                    if let Some(before) = last_echo.replace(*at) {
                        outage.silence(before, *at, from, to, self.timing.lost_after);
                    }
                }
                Seen::Lost(loss) if *at >= from && *at <= to => outage.losses.push(loss.clone()),
                Seen::DialFailed(failure) if *at >= from && *at <= to => {
                    *outage.failures.entry(failure.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        // A silence that has not ended yet counts as far as it has come.
        if let Some(before) = last_echo.filter(|before| *before < to) {
            outage.silence(before, to, from, to, self.timing.lost_after);
        }
        outage
    }

    /// Forgets what was seen before `before`.
    pub fn forget(&self, before: Instant) {
        self.log.lock().retain(|(at, _)| *at >= before);
    }
}

impl Outage {
    fn silence(
        &mut self,
        begin: Instant,
        end: Instant,
        from: Instant,
        to: Instant,
        limit: Duration,
    ) {
        if end < from || begin > to {
            return;
        }
        let length = end - begin;
        if length > limit {
            self.total += length;
        }
        if length > self.longest {
            self.longest = length;
            self.between = (begin, end);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Worker {
    target: SocketAddrV4,
    timing: Timing,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    sent: u64,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.dial() {
                Ok((stream, decoder)) => {
                    self.log.note(Seen::Open);
                    if let Some(loss) = self.talk(stream, decoder) {
                        self.log.note(Seen::Lost(loss));
                    }
                }
                Err(failure) => self.log.note(Seen::DialFailed(failure)),
            }
            thread::sleep(self.timing.redial_after);
        }
    }

    fn dial(&self) -> Result<(TcpStream, Decoder), DialFailure> {
        let target = SocketAddr::V4(self.target);
        let mut stream = TcpStream::connect_timeout(&target, self.timing.connect_timeout)
            .map_err(|e| dial_failure(&e))?;
        let other = |error: std::io::Error| DialFailure::Other(error.to_string());
        stream.set_nodelay(true).map_err(other)?;
        stream.set_nonblocking(true).map_err(other)?;
        let request = ws::request(&self.target.to_string());
        stream
            .write_all(request.as_bytes())
            .map_err(|_| DialFailure::UpgradeCut)?;
        let deadline = Instant::now() + self.timing.lost_after;
        let mut received = Vec::new();
        let mut buffer = [0_u8; 2048];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(DialFailure::UpgradeCut),
                Ok(length) => {
                    received.extend_from_slice(&buffer[..length]);
                    let whole = ws::response(&received)
                        .map_err(|error| DialFailure::Answered(error.to_string()))?;
                    if let Some(end) = whole {
                        let mut decoder = Decoder::default();
                        decoder.push(&received[end..]);
                        return Ok((stream, decoder));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(DialFailure::UpgradeTimedOut);
                    }
                    readable(&stream, deadline);
                }
                Err(_) => return Err(DialFailure::UpgradeCut),
            }
        }
    }

    /// Talks until the connection is lost; `None` when the probe was stopped.
    fn talk(&mut self, mut stream: TcpStream, mut decoder: Decoder) -> Option<Loss> {
        let mut pending: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut next_send = Instant::now();
        let mut buffer = [0_u8; 4096];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            if now >= next_send {
                self.sent += 1;
                if let Err(loss) = send(
                    &mut stream,
                    Opcode::Text,
                    self.sent.to_string().as_bytes(),
                    self.sent,
                ) {
                    return Some(loss);
                }
                pending.push_back((self.sent, now));
                // A late timer does not send twice in a row to catch up.
                next_send =
                    (next_send + self.timing.send_every).max(now + self.timing.send_every / 2);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Some(Loss::Fin),
                Ok(length) => {
                    decoder.push(&buffer[..length]);
                    if let Err(loss) = self.frames(&mut stream, &mut decoder, &mut pending) {
                        return Some(loss);
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Some(lost(&error)),
            }
            // Only after the socket was found empty: an echo that waits there is not lost, we were late.
            let lost_at = pending
                .front()
                .map(|(_, sent)| *sent + self.timing.lost_after);
            if lost_at.is_some_and(|lost_at| Instant::now() >= lost_at) {
                return Some(Loss::Silence);
            }
            readable(
                &stream,
                lost_at.map_or(next_send, |lost_at| lost_at.min(next_send)),
            );
        }
    }

    fn frames(
        &self,
        stream: &mut TcpStream,
        decoder: &mut Decoder,
        pending: &mut VecDeque<(u64, Instant)>,
    ) -> Result<(), Loss> {
        let garbled = |error: anyhow::Error| Loss::Garbled(error.to_string());
        while let Some(frame) = decoder.next_frame().map_err(garbled)? {
            match frame.opcode {
                Opcode::Close => {
                    let (code, reason) = frame.close();
                    // The answer to a Close is a courtesy; the connection is over either way.
                    drop(send(
                        stream,
                        Opcode::Close,
                        frame.payload.get(..2).unwrap_or_default(),
                        self.sent,
                    ));
                    return Err(Loss::Close(code, reason));
                }
                Opcode::Ping => send(stream, Opcode::Pong, &frame.payload, self.sent)?,
                Opcode::Text => {
                    let (backend, number) = article_answer(&frame.payload).ok_or_else(|| {
                        Loss::Garbled(String::from_utf8_lossy(&frame.payload).into_owned())
                    })?;
                    match pending.pop_front() {
                        Some((expected, _)) if expected == number => {
                            self.log.note(Seen::Echo(backend));
                        }
                        _ => return Err(Loss::Garbled(format!("echo {number} out of order"))),
                    }
                }
                Opcode::Binary | Opcode::Continuation | Opcode::Pong => {}
            }
        }
        Ok(())
    }
}

/// Reads `Server ADDRESS  received from client: NUMBER`.
fn article_answer(payload: &[u8]) -> Option<(Option<Ipv4Addr>, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let (server, number) = text
        .strip_prefix("Server ")?
        .split_once("  received from client: ")?;
    Some((server.parse().ok(), number.parse().ok()?))
}

fn send(stream: &mut TcpStream, opcode: Opcode, payload: &[u8], number: u64) -> Result<(), Loss> {
    let mask = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let frame = ws::frame(opcode, payload, [mask[0], mask[1], mask[2], mask[3]])
        .map_err(|error| Loss::Garbled(error.to_string()))?;
    match stream.write(&frame) {
        Ok(length) if length == frame.len() => Ok(()),
        // A probe's few bytes fit unless nothing has been acknowledged for long.
        Ok(_) => Err(Loss::Silence),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Loss::Silence),
        Err(error) => Err(lost(&error)),
    }
}

fn lost(error: &std::io::Error) -> Loss {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Loss::Reset
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Loss::Silence
        }
        _ => Loss::Garbled(error.to_string()),
    }
}

fn dial_failure(error: &std::io::Error) -> DialFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialFailure::Refused,
        ErrorKind::TimedOut => DialFailure::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => DialFailure::Unreachable,
        ErrorKind::ConnectionReset => DialFailure::UpgradeCut,
        _ => DialFailure::Other(error.to_string()),
    }
}

/// Waits until the stream can be read, or `deadline`.
fn readable(stream: &TcpStream, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    // Whatever ends the wait, the caller looks again.
    ppoll(&mut wanted, Some(TimeSpec::from_duration(left)), None).ok();
}
