//! What is known of one socket: what came and was not read, and what the kernel was asked.
//!
//! Mostly the kernel is asked once, to read whatever comes into buffers of the ring. Where much comes at
//! once it is asked to say when something can be read, and that is read as by epoll: then the call is the
//! least of it, and to copy from a buffer costs more. So too when it has run out of buffers, which nobody
//! keeps from one turn of the worker to the next.

use std::{
    io::{self, Read, Write},
    mem::take,
    net::TcpStream,
    os::fd::RawFd,
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

use super::queues::{Completion, Filled, Op, Ring};

/// So much in one read is much.
const MUCH: usize = 4096;

/// Reads of less, one after the other, before a socket is read by buffers again.
const SHORT_READS: u8 = 8;

/// A socket.
#[derive(Debug, Default)]
pub(super) struct Socket {
    fd: RawFd,
    /// The session.
    waker: Option<Waker>,
    /// Came and was not read: a buffer, and behind it what was copied from others.
    filled: Option<Filled>,
    copied: Vec<u8>,
    /// How much was read of the first of these.
    pos: usize,
    /// What comes behind it: an error, or the end where it is 0.
    end: Option<i32>,
    /// What the kernel is to be asked, and what it was asked that is not over.
    asks: Ops,
    under_way: Ops,
    is_listed: bool,
    /// Something may be there to read without a buffer.
    is_readable: bool,
    /// More than 0: it is read without buffers.
    large: u8,
    /// It took less than it was given.
    is_full: bool,
    /// Its stream is gone.
    is_orphan: bool,
}

/// A set of operations; `cancel` is about the others that are under way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Ops {
    receive: bool,
    input: bool,
    room: bool,
    cancel: bool,
}

impl Ops {
    const NONE: Self = Self {
        receive: false,
        input: false,
        room: false,
        cancel: false,
    };
}

impl Socket {
    pub(super) fn new(fd: RawFd) -> Self {
        Self {
            fd,
            ..Self::default()
        }
    }

    pub(super) fn poll_read(
        &mut self,
        ring: &mut Ring,
        mut tcp: &TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.take_over(ring, buf) {
            return Poll::Ready(Ok(()));
        }
        match self.end {
            Some(0) => return Poll::Ready(Ok(())),
            Some(error) => return Poll::Ready(Err(io::Error::from_raw_os_error(error))),
            None => {}
        }
        // As long as the kernel reads it, what we read might come out of order.
        while self.is_readable && !self.under_way.receive {
            let room = buf.initialize_unfilled();
            let all = room.len();
            match tcp.read(room) {
                Ok(n) => {
                    buf.advance(n);
                    self.has_read(n);
                    self.is_readable = n == all;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.under_way.receive && !self.under_way.input {
            self.asks.receive = self.large == 0;
            self.asks.input = self.large > 0;
        }
        self.attach(cx);
        Poll::Pending
    }

    /// Reads what came by buffers, if something did.
    fn take_over(&mut self, ring: &mut Ring, buf: &mut ReadBuf<'_>) -> bool {
        let bytes = match &self.filled {
            Some(filled) => ring.bytes(filled),
            None => &self.copied,
        };
        let rest = &bytes[self.pos..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.pos += n;
        if self.pos == bytes.len() {
            self.pos = 0;
            match self.filled.take() {
                Some(filled) => ring.give_back(filled),
                None if n > 0 => self.copied = Vec::new(),
                None => {}
            }
        }
        n > 0
    }

    /// Notes whether much comes at once.
    fn has_read(&mut self, n: usize) {
        if n >= MUCH {
            self.large = SHORT_READS;
        } else {
            self.large = self.large.saturating_sub(1);
        }
    }

    pub(super) fn poll_write(
        &mut self,
        mut tcp: &TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while !self.is_full {
            match tcp.write(bytes) {
                Ok(n) => {
                    self.is_full = n < bytes.len();
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if let Some(error @ 1..) = self.end {
            return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
        }
        self.asks.room = !self.under_way.room;
        self.attach(cx);
        Poll::Pending
    }

    fn attach(&mut self, cx: &Context<'_>) {
        let waker = cx.waker();
        if !self
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            self.waker = Some(waker.clone());
        }
    }

    /// Its stream is gone: what the kernel still does is to end.
    pub(super) fn leave(&mut self, ring: &mut Ring) {
        self.is_orphan = true;
        self.waker = None;
        self.copied = Vec::new();
        if let Some(filled) = self.filled.take() {
            ring.give_back(filled);
        }
        self.asks = Ops {
            cancel: !self.is_over(),
            ..Ops::NONE
        };
    }

    /// Nobody needs to know of it any more.
    pub(super) fn is_over(&self) -> bool {
        let Ops {
            receive,
            input,
            room,
            cancel: _,
        } = self.under_way;
        self.is_orphan && !(receive || input || room)
    }

    /// Whether the kernel is to be asked something, which is said once.
    pub(super) fn is_to_be_listed(&mut self) -> bool {
        let is_new = !self.is_listed && self.asks != Ops::NONE;
        self.is_listed |= is_new;
        is_new
    }

    /// Asks the kernel.
    pub(super) fn ask(&mut self, number: u32, ring: &mut Ring) -> io::Result<()> {
        self.is_listed = false;
        let asks = take(&mut self.asks);
        if asks.cancel {
            for (op, is_under_way) in [
                (Op::Receive, self.under_way.receive),
                (Op::AwaitInput, self.under_way.input),
                (Op::AwaitRoom, self.under_way.room && self.is_orphan),
            ] {
                if is_under_way {
                    ring.cancel(number, op)?;
                    self.under_way.cancel = true;
                }
            }
        }
        if asks.receive {
            ring.receive(number, self.fd)?;
            self.under_way.receive = true;
            self.under_way.cancel = false;
        }
        if asks.input {
            ring.poll(number, self.fd, Op::AwaitInput)?;
            self.under_way.input = true;
        }
        if asks.room {
            ring.poll(number, self.fd, Op::AwaitRoom)?;
            self.under_way.room = true;
        }
        Ok(())
    }

    /// Takes note of what the kernel has done.
    pub(super) fn completed(&mut self, completion: Completion, ring: &mut Ring) {
        let Completion {
            op, outcome, more, ..
        } = completion;
        match op {
            Op::Receive => {
                self.under_way.receive = more;
                self.under_way.cancel &= more;
                self.received(outcome, ring);
            }
            Op::AwaitInput => {
                self.under_way.input = false;
                self.is_readable = true;
            }
            Op::AwaitRoom => {
                self.under_way.room = false;
                self.is_full = false;
            }
            Op::Cancel => return,
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn received(&mut self, outcome: io::Result<Option<Filled>>, ring: &mut Ring) {
        match outcome {
            Ok(Some(filled)) if self.is_orphan => ring.give_back(filled),
            Ok(Some(filled)) if filled.len() > 0 => {
                self.has_read(filled.len());
                self.is_readable |= self.large > 0;
                // Nobody holds more than one buffer, and gets more before that was read.
                let is_behind = self.filled.is_some() || !self.copied.is_empty();
                if self.under_way.receive && (is_behind || self.large > 0) {
                    self.asks.cancel = !self.under_way.cancel;
                }
                if is_behind {
                    self.copied.extend_from_slice(ring.bytes(&filled));
                    ring.give_back(filled);
                } else {
                    self.filled = Some(filled);
                }
            }
            Ok(filled) => {
                self.end = Some(0);
                if let Some(filled) = filled {
                    ring.give_back(filled);
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    self.is_readable = true;
                    self.large = self.large.max(1);
                }
                // Not the socket's word: it is asked again when more is wanted.
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
                error => self.end = Some(error.unwrap_or(libc::EIO)),
            },
        }
    }

    /// The ring is of no use any more.
    pub(super) fn fails(&mut self, error: i32) {
        self.end.get_or_insert(error);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
impl Socket {
    /// Whether the kernel was asked to read it.
    pub(super) fn is_asked(&self) -> bool {
        self.under_way.receive
    }

    pub(super) fn has_something(&self) -> bool {
        self.is_readable || self.unread() > 0
    }

    pub(super) fn holds(&self) -> bool {
        self.filled.is_some()
    }

    pub(super) fn unread(&self) -> usize {
        self.copied.len() + self.filled.as_ref().map_or(0, Filled::len)
    }
}
