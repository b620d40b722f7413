//! A client's connection: a socket that is read while something waits to be written, and messages that are known
//! again byte for byte.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Turn, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::FutureExt as _;
use rustls::ClientConfig;
use tokio::time::{timeout, timeout_at};

use super::http2::Connections;
use super::random::Random;
use super::stream::{Stream, Way};
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
    tls: Arc<ClientConfig>,
    pub(super) connections: Connections,
}

/// The largest message.
pub(super) const LARGEST: usize = 1 << 20;

impl Shared {
    /// `tls` is what clients of HTTP/1.1 and of HTTP/2 speak.
    pub(super) fn new(mut random: Random, tls: [Arc<ClientConfig>; 2]) -> Self {
        let words = (0..LARGEST / 4).map(|_| random.next().to_le_bytes());
        let [http1, http2] = tls;
        Self {
            scratch: RefCell::new(vec![0; 128 << 10]),
            noise: words.flatten().collect(),
            tls: http1,
            connections: Connections::new(http2),
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
    stream: Stream,
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
    /// Whether the other side takes no more. Reading tells how it ended.
    is_deaf: bool,
    /// How it ended, once it has.
    pub(super) seen: Option<Seen>,
}

impl Wire {
    /// Connects and upgrades; the error says what a client was told instead.
    pub(super) async fn open(
        shared: &Rc<Shared>,
        (target, way): (SocketAddrV4, Way),
        id: u64,
    ) -> Result<Self> {
        let path = format!("{PATH}{id}");
        let opening = async {
            let tls = match way {
                Way::Plain => None,
                Way::Tls => Some(&shared.tls),
                Way::Http2 => {
                    let stream = shared.connections.ask(target, &path).await?;
                    return Ok((Stream::Http2(Box::new(stream)), Vec::new()));
                }
            };
            Stream::upgrade(target, tls, &path).await
        };
        let opened = timeout(PATIENCE, opening).await;
        let (stream, early) = opened.context("upgrading: no answer")??;
        let mut decoder = Decoder::default();
        decoder.push(&early);
        Ok(Self {
            stream,
            shared: Rc::clone(shared),
            decoder,
            outbox: VecDeque::new(),
            expected: VecDeque::new(),
            partial: None,
            told: None,
            id,
            sent: 0,
            echoed: 0,
            bytes: 0,
            reads: true,
            is_deaf: false,
            seen: None,
        })
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

    /// Ends the session without a word, by a reset, with its whole connection, or otherwise; its drop does the rest.
    pub(super) fn leave(&mut self, random: &mut Random) -> Result<()> {
        if random.chance(50) {
            self.stream.leave();
            Ok(())
        } else if random.chance(30) && self.stream.cut() {
            Ok(())
        } else {
            self.stream.reset()
        }
    }

    /// Whether a client has cut off the connection that it shares with this one.
    pub(super) fn is_cut(&self) -> bool {
        self.stream.is_cut()
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
            let exchange = poll_fn(|cx| self.poll_exchange(cx));
            let Ok(exchanged) = timeout_at(deadline.into(), exchange).await else {
                return Ok(done(self));
            };
            if let Err(error) = exchanged {
                self.broken(&error)?;
            }
        }
    }

    fn broken(&mut self, error: &io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
                self.seen = Some(Seen::Reset);
                Ok(())
            }
            kind => bail!("session {}: {kind}: {error}", self.id),
        }
    }

    /// Sends what waits, and reads once. A client that does not read has nothing more to do once all is sent.
    fn poll_exchange(&mut self, cx: &mut Turn<'_>) -> Poll<io::Result<()>> {
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::BrokenPipe => self.is_deaf = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if !self.reads {
            return Poll::Pending;
        }
        let mut scratch = self.shared.scratch.borrow_mut();
        let length = ready!(self.stream.poll_read(cx, &mut scratch))?;
        self.bytes += length as u64;
        self.decoder.push(&scratch[..length]);
        if length == 0 {
            self.seen = Some(Seen::Fin);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Turn<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            self.outbox.clear();
            return Poll::Ready(Ok(()));
        }
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            let sent = ready!(self.stream.poll_write(cx, front))?;
            self.outbox.drain(..sent);
            if self.outbox.is_empty() {
                // A large message leaves no large buffer behind.
                self.outbox.shrink_to(4096);
            }
        }
        self.stream.poll_flush(cx)
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
                    self.outbox.extend(answer);
                    drop(poll_fn(|cx| self.poll_send(cx)).now_or_never());
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

/// Paths of the soak's sessions, their number behind it.
pub(super) const PATH: &str = "/soak/";
