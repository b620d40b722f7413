//! One side of a session: its socket, what it did not take yet, and how far it has come to its end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{READ_LOG_MAX, READ_LOG_MIN, READ_LOG_START, speak::Insert};
use crate::{frame::Frames, heartbeat::Pulse, stream::Stream, sys::Push};

/// What a socket did not take yet. Nothing, where all that waits is in records of TLS.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    pub(super) pos: usize,
    /// How much was acknowledged when that was looked at last, and since when no more was.
    acknowledged: Option<(u64, Instant)>,
}

/// One side of a session.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) stream: Stream,
    /// What comes from this side.
    pub(super) frames: Frames,
    pub(super) pulse: Pulse,
    pub(super) read_log: u8,
    /// Nothing more comes from it.
    pub(super) input_ended: bool,
    /// Nothing more can be sent to it.
    pub(super) output_dead: bool,
    /// A Close has been sent to it, passed on or ours: no frame may follow (section 5.5.1).
    pub(super) close_sent: bool,
    /// A FIN is to follow what is to be sent.
    pub(super) fin: bool,
    pub(super) fin_sent: bool,
    /// It is to follow at the end of this turn.
    pub(super) ends: bool,
    pub(super) insert: Option<Insert>,
    // `Box`: it is absent in nearly all sessions, so one word rather than four.
    pub(super) unsent: Option<Box<Unsent>>,
    /// The task is woken when something comes from it, by an earlier look at it.
    pub(super) watched: bool,
    /// Since when more has waited for it than may.
    pub(super) behind: Option<Instant>,
    /// The socket took no more when it was tried last, so the other side is not read.
    pub(super) blocked: bool,
    /// Bytes that were sent, and those in front of our Ping and those acknowledged when looked at last,
    /// of what the kernel was handed: tell a peer that is slow from one that is dead.
    pub(super) sent: u64,
    pub(super) ping_start: u64,
    pub(super) acknowledged: u64,
}

impl Leg {
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            pulse: Pulse::new(now),
            read_log: READ_LOG_START,
            input_ended: false,
            output_dead: false,
            close_sent: false,
            fin: false,
            fin_sent: false,
            ends: false,
            insert: None,
            unsent: None,
            watched: false,
            behind: None,
            blocked: false,
            sent: 0,
            ping_start: 0,
            acknowledged: 0,
        }
    }

    /// Whether frames may still be sent to it.
    pub(super) fn takes_frames(&self) -> bool {
        !self.close_sent && !self.output_dead && !self.fin
    }

    /// Whether there is something to send, bytes or a FIN.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        self.unsent.is_some() || (self.fin && !self.fin_sent)
    }

    pub(super) fn is_over(&self) -> bool {
        self.input_ended && (self.output_dead || (self.unsent.is_none() && self.fin_sent))
    }

    /// Has it begin with `bytes`.
    pub(super) fn begin(&mut self, bytes: Vec<u8>) {
        self.unsent = Some(Box::new(Unsent {
            bytes,
            ..Unsent::default()
        }));
    }

    pub(super) fn queue(&mut self, bytes: &[u8]) {
        if !self.output_dead {
            let unsent = self.unsent.get_or_insert_default();
            unsent.bytes.extend_from_slice(bytes);
        }
    }

    /// Reads what has come. Pending: nothing has, and the task is woken when it does.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // To look costs less than to be woken again, and of two sides one has something, mostly.
        if let Some(read) = self.stream.read_ready(room) {
            self.watched = false;
            return Poll::Ready(read);
        }
        if self.watched {
            return Poll::Pending;
        }
        self.poll_read_slowly(cx, room)
    }

    fn poll_read_slowly(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch(cx) {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(room);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        read.map_ok(|()| room.filled().len())
    }

    /// Has the task woken when something comes from it. `false`: only a read tells.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> bool {
        self.watched = self.stream.poll_readable(cx).is_pending();
        self.watched
    }

    /// Writes now what the kernel takes, and keeps the rest.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.write(cx, bytes, Push::Now);
    }

    /// As [`Self::send`], what nothing may follow: it goes out with the FIN, at the end of the turn.
    pub(super) fn send_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.ends = true;
        self.write(cx, bytes, Push::WithNext);
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8], push: Push) {
        if self.unsent.is_some() {
            return self.queue(bytes);
        }
        let written = match self.stream.write_ready(bytes, push) {
            Some(written) => Poll::Ready(written),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        match written {
            Poll::Ready(Ok(n)) if n == bytes.len() && !self.stream.holds() => self.sent += n as u64,
            Poll::Ready(Ok(n)) => {
                self.sent += n as u64;
                self.blocked = true;
                self.queue(&bytes[n..]);
            }
            Poll::Pending => {
                self.blocked = true;
                self.queue(bytes);
            }
            Poll::Ready(Err(_)) => self.output_fails(),
        }
    }

    /// The other half tells more: what the peer sent before it went can still be read.
    pub(super) fn output_fails(&mut self) {
        self.output_dead = true;
        self.blocked = false;
        self.unsent = None;
        self.insert = None;
    }

    /// Sends what waits, then the FIN. Pending: the socket takes no more now.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(unsent) = &mut self.unsent {
            let rest = &unsent.bytes[unsent.pos..];
            let stream = Pin::new(&mut self.stream);
            let written = if rest.is_empty() {
                stream.poll_flush(cx).map_ok(|()| 0)
            } else {
                stream.poll_write(cx, rest)
            };
            self.blocked = written.is_pending();
            match ready!(written) {
                Ok(n) => {
                    self.sent += n as u64;
                    unsent.pos += n;
                    if unsent.pos == unsent.bytes.len() {
                        if self.stream.holds() {
                            (unsent.bytes, unsent.pos) = (Vec::new(), 0);
                            continue;
                        }
                        self.unsent = None;
                        self.ping_start = self.ping_start.min(self.handed());
                    }
                }
                Err(_) => self.output_fails(),
            }
        }
        if self.fin && !self.fin_sent && !self.output_dead {
            let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
            self.blocked = ended.is_pending();
            self.output_dead = ready!(ended).is_err();
            self.fin_sent = true;
        }
        Poll::Ready(())
    }

    /// Sends the FIN that was to come with what is sent already.
    pub(super) fn end_now(&mut self, cx: &mut Context<'_>) {
        self.ends = false;
        self.fin = true;
        let _later = self.poll_flush(cx);
    }

    /// Where TLS is spoken a peer is told the end even if no more is expected of it (RFC 8446 section 6.1).
    pub(super) fn announce_end(&mut self, cx: &mut Context<'_>) {
        if self.stream.is_secure() && !self.fin_sent && !self.output_dead {
            // What does not go out now is not waited for.
            drop(Pin::new(&mut self.stream).poll_shutdown(cx));
        }
    }

    /// Since when its peer has taken nothing of what waits for it, as far as was looked: what counts
    /// is what the kernel at the other end took, since ours takes more only when much of it is gone.
    pub(super) fn stalls_since(&mut self, now: Instant) -> Option<Instant> {
        self.unsent.as_ref()?;
        let acknowledged = self.acknowledged_now();
        let unsent = self.unsent.as_mut()?;
        let before = unsent.acknowledged;
        let stalls = before.filter(|(before, _)| *before == acknowledged);
        let (_, since) = *unsent
            .acknowledged
            .insert(stalls.unwrap_or((acknowledged, now)));
        Some(since)
    }

    /// Since when more than `most` bytes have waited for it, here and in its socket, each time it was looked.
    pub(super) fn behind_since(&mut self, most: u64, now: Instant) -> Option<Instant> {
        let queued = self.taken() - self.sent;
        let is_behind = queued + self.stream.waiting() > most;
        self.behind = is_behind.then(|| self.behind.unwrap_or(now));
        self.behind
    }

    pub(super) fn acknowledged_now(&self) -> u64 {
        self.handed().saturating_sub(self.stream.untaken())
    }

    /// Bytes handed to the kernel, as it counts them.
    fn handed(&self) -> u64 {
        self.stream.sealed().unwrap_or(self.sent)
    }

    /// Bytes that the kernel is handed before what is queued now. Where TLS is spoken and something waits,
    /// that is known once all of it is gone: until then it is more than any number.
    pub(super) fn ahead(&self) -> u64 {
        match &self.unsent {
            None => self.handed(),
            Some(_) if self.stream.is_secure() => u64::MAX,
            Some(_) => self.taken(),
        }
    }

    /// Bytes that were sent to it or wait for that.
    pub(super) fn taken(&self) -> u64 {
        let waiting = self.unsent.as_ref();
        let waiting = waiting.map_or(0, |unsent| unsent.bytes.len() - unsent.pos);
        self.sent + waiting as u64
    }

    /// How much to read at once after `n` bytes, if the other side takes them or is slow to.
    pub(super) fn adapt_reads(&mut self, n: usize, slow: bool) {
        if slow {
            self.read_log = (self.read_log - 1).max(READ_LOG_MIN);
        } else if n >= 1 << self.read_log {
            self.read_log = (self.read_log + 1).min(READ_LOG_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_grow_while_they_are_filled_and_shrink_for_a_slow_reader() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let mut leg = Leg::new(stream.await.unwrap().into(), Instant::now());
        let sizes = |leg: &mut Leg, slow: bool| {
            let size = |_| {
                leg.adapt_reads(1 << leg.read_log, slow);
                1_usize << leg.read_log
            };
            (0..6).map(size).collect::<Vec<_>>()
        };
        let kib = |sizes: [usize; 6]| sizes.map(|kib| kib * 1024).to_vec();
        assert_eq!(leg.read_log, 16);
        assert_eq!(sizes(&mut leg, false), kib([128, 256, 256, 256, 256, 256]));
        leg.adapt_reads(100, false);
        assert_eq!(leg.read_log, 18, "a small message is no reason to change");
        assert_eq!(sizes(&mut leg, true), kib([128, 64, 32, 16, 16, 16]));
    }
}
