//! A client's connection: a socket that is read while something waits to be written, and messages that are known
//! again byte for byte.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::random::Random;
use crate::ws::{self, Decoder, Frame, Opcode};

/// How long a connection attempt and the answer to a handshake may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that one message says itself: whose it is, and which.
const STAMP: usize = 16;

/// What all clients of the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    scratch: RefCell<Vec<u8>>,
    /// What messages are cut from: no two places are alike.
    noise: Vec<u8>,
}

/// The largest message.
pub(super) const LARGEST: usize = 1 << 20;

impl Shared {
    pub(super) fn new(mut random: Random) -> Self {
        let words = (0..LARGEST / 4).map(|_| random.next().to_le_bytes());
        Self {
            scratch: RefCell::new(vec![0; 128 << 10]),
            noise: words.flatten().collect(),
        }
    }

    fn noise(&self, from: usize, length: usize) -> &[u8] {
        &self.noise[from..from + length.saturating_sub(STAMP)]
    }
}

/// How a session ended, as its client saw it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Seen {
    /// The client ended it, in order or not.
    Own,
    /// A Close frame with this code, 0 for none.
    Close(u16),
    /// The end of the stream without a Close frame.
    Fin,
    /// A reset.
    Reset,
    /// Nothing at all, for longer than anything may take.
    Silence,
}

/// A message whose echo is still to come.
#[derive(Clone, Copy, Debug)]
struct Expected {
    number: u64,
    from: usize,
    length: usize,
}

/// An open session.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    shared: Rc<Shared>,
    decoder: Decoder,
    outbox: VecDeque<u8>,
    expected: VecDeque<Expected>,
    /// A message of several frames that is under way to here.
    partial: Option<Vec<u8>>,
    /// The last text that was no echo.
    pub(super) told: Option<String>,
    id: u64,
    sent: u64,
    /// Messages that came back as they were.
    pub(super) echoed: u64,
    pub(super) bytes: u64,
    /// Whether the client reads.
    pub(super) reads: bool,
    /// How it ended, once it has.
    pub(super) seen: Option<Seen>,
}

impl Wire {
    /// Connects and upgrades; the error says what a client was told instead.
    pub(super) async fn open(shared: &Rc<Shared>, target: SocketAddrV4, id: u64) -> Result<Self> {
        let by = (Instant::now() + PATIENCE).into();
        let connected = timeout_at(by, TcpStream::connect(target));
        let stream = connected.await.context("connecting: no answer")??;
        stream.set_nodelay(true)?;
        let request = ws::request(&target.to_string()).replacen("GET / ", &path(id), 1);
        let mut wire = Self {
            stream,
            shared: Rc::clone(shared),
            decoder: Decoder::default(),
            outbox: request.into_bytes().into(),
            expected: VecDeque::new(),
            partial: None,
            told: None,
            id,
            sent: 0,
            echoed: 0,
            bytes: 0,
            reads: true,
            seen: None,
        };
        let mut head = Vec::new();
        loop {
            let ready = timeout_at(by, wire.stream.ready(wire.interest()));
            let ready = ready.await.context("upgrading: no answer")??;
            if ready.is_writable() {
                wire.write()?;
            }
            if ready.is_readable() {
                let received = wire.receive(&mut |bytes| head.extend_from_slice(bytes))?;
                ensure!(received != Some(0), "upgrading: the connection ended");
            }
            if let Some(end) = ws::response(&head)? {
                wire.decoder.push(&head[end..]);
                return Ok(wire);
            }
        }
    }

    fn interest(&self) -> Interest {
        if self.outbox.is_empty() {
            Interest::READABLE
        } else if self.reads {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::WRITABLE
        }
    }

    /// Puts a message into what is to be sent, in frames of at most `frame` bytes.
    pub(super) fn say(&mut self, length: usize, frame: usize, random: &mut Random) {
        let length = length.clamp(STAMP, LARGEST);
        let message = Expected {
            number: self.sent,
            from: random.index(self.shared.noise.len() - LARGEST),
            length,
        };
        self.sent += 1;
        let stamp = self.stamp(message.number);
        let noise = Rc::clone(&self.shared);
        let payload = [&stamp[..], noise.noise(message.from, length)].concat();
        let mut parts = payload.chunks(frame.max(1)).peekable();
        let mut opcode = Opcode::Binary;
        while let Some(part) = parts.next() {
            self.send(parts.peek().is_none(), opcode, part, random);
            opcode = Opcode::Continuation;
        }
        self.expected.push_back(message);
    }

    /// Puts a frame into what is to be sent.
    pub(super) fn send(&mut self, last: bool, opcode: Opcode, payload: &[u8], random: &mut Random) {
        let [a, b, c, d, ..] = random.next().to_le_bytes();
        self.outbox
            .extend(ws::frame_of(last, opcode, payload, [a, b, c, d]));
    }

    /// Ends the connection without a word, by a reset or not, when this is dropped.
    pub(super) fn reset(&self) -> Result<()> {
        let linger = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        linger.context("cannot have the connection reset")
    }

    /// Whether echoes are still to come.
    pub(super) fn owed(&self) -> usize {
        self.expected.len()
    }

    /// Sends and receives until `done`, the end of the session, or `deadline`; whether `done` came true.
    pub(super) async fn run(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        loop {
            while self.reads && self.seen.is_none() {
                let Some(frame) = self.decoder.next_frame()? else {
                    break;
                };
                self.take(frame)?;
            }
            if done(self) {
                return Ok(true);
            }
            if self.seen.is_some() {
                return Ok(false);
            }
            if !self.reads && self.outbox.is_empty() {
                tokio::time::sleep_until(deadline.into()).await;
                return Ok(done(self));
            }
            let ready = timeout_at(deadline.into(), self.stream.ready(self.interest()));
            let Ok(ready) = ready.await else {
                return Ok(false);
            };
            let ready = ready?;
            if ready.is_writable()
                && let Err(error) = self.write()
            {
                self.broken(&error)?;
            }
            if self.reads && self.seen.is_none() && ready.is_readable() {
                let mut decoder = std::mem::take(&mut self.decoder);
                let received = self.receive(&mut |bytes| decoder.push(bytes));
                self.decoder = decoder;
                match received {
                    Ok(Some(0)) => self.seen = Some(Seen::Fin),
                    Ok(_) => {}
                    Err(error) => self.broken(&error)?,
                }
            }
        }
    }

    fn broken(&mut self, error: &io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::BrokenPipe => {
                // Reading tells how it ended.
                self.outbox.clear();
                Ok(())
            }
            ErrorKind::ConnectionReset | ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
                self.seen = Some(Seen::Reset);
                Ok(())
            }
            kind => bail!("session {}: {kind}: {error}", self.id),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let (front, _) = self.outbox.as_slices();
        let sent = unless_blocked(self.stream.try_write(front))?.unwrap_or(0);
        self.outbox.drain(..sent);
        if self.outbox.is_empty() {
            // A large message leaves no large buffer behind.
            self.outbox.shrink_to(4096);
        }
        Ok(())
    }

    /// Reads once: 0 at the end of the stream, `None` where nothing has come.
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<Option<usize>> {
        let mut scratch = self.shared.scratch.borrow_mut();
        let received = unless_blocked(self.stream.try_read(&mut scratch))?;
        let length = received.unwrap_or(0);
        self.bytes += length as u64;
        take(&scratch[..length]);
        Ok(received)
    }

    fn take(&mut self, frame: Frame) -> Result<()> {
        match frame.opcode {
            Opcode::Close => {
                let (code, _) = frame.close();
                self.seen = Some(Seen::Close(code.unwrap_or_default()));
                // RFC 6455 section 5.5.1: the answer has the code that came. Its receiver may be gone.
                let code = frame.payload.get(..2).unwrap_or_default();
                let answer = ws::frame_of(true, Opcode::Close, code, [0; 4]);
                if self.outbox.is_empty() {
                    drop(self.stream.try_write(&answer));
                }
            }
            Opcode::Ping => {
                let pong = ws::frame_of(true, Opcode::Pong, &frame.payload, [1, 2, 3, 4]);
                self.outbox.extend(pong);
            }
            Opcode::Pong => {}
            Opcode::Text => {
                ensure!(frame.last, "session {}: a text in pieces", self.id);
                self.told = Some(String::from_utf8(frame.payload).context("a text")?);
            }
            Opcode::Binary | Opcode::Continuation => {
                let begins = frame.opcode == Opcode::Binary;
                ensure!(
                    begins == self.partial.is_none(),
                    "session {}: a {:?} frame out of place",
                    self.id,
                    frame.opcode
                );
                let mut payload = self.partial.take().unwrap_or_default();
                payload.extend(frame.payload);
                if frame.last {
                    self.check(&payload)?;
                } else {
                    self.partial = Some(payload);
                }
            }
        }
        Ok(())
    }

    /// Fails unless `payload` is the message whose echo is the next to come.
    fn check(&mut self, payload: &[u8]) -> Result<()> {
        let Some(wanted) = self.expected.pop_front() else {
            bail!("session {}: an echo of nothing", self.id);
        };
        let is_same = payload.len() == wanted.length
            && payload[..STAMP] == self.stamp(wanted.number)
            && payload[STAMP..] == *self.shared.noise(wanted.from, wanted.length);
        ensure!(
            is_same,
            "session {}: message {} of {} bytes came back changed, or another in its place ({} bytes)",
            self.id,
            wanted.number,
            wanted.length,
            payload.len()
        );
        self.echoed += 1;
        Ok(())
    }

    fn stamp(&self, number: u64) -> [u8; STAMP] {
        let mut stamp = [0; STAMP];
        stamp[..8].copy_from_slice(&self.id.to_be_bytes());
        stamp[8..].copy_from_slice(&number.to_be_bytes());
        stamp
    }
}

/// A socket may be said to be ready and not be.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

/// What a session is known by in access records.
fn path(id: u64) -> String {
    format!("GET {PATH}{id} ")
}

/// Paths of the soak's sessions, their number behind it.
pub(super) const PATH: &str = "/soak/";
