//! One side of a session: its socket, what it did not take yet, and how far it has come to its end.

use std::{
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{io::AsyncWrite, net::TcpStream};

use super::{READ_LOG_START, speak::Insert};
use crate::{frame::Frames, heartbeat::Pulse, sys};

/// What a socket did not take yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    pub(super) pos: usize,
}

/// One side of a session.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) stream: TcpStream,
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
    pub(super) insert: Option<Insert>,
    // `Box`: it is absent in nearly all sessions, so one word rather than four.
    pub(super) unsent: Option<Box<Unsent>>,
    /// Bytes handed to the kernel, bytes up to the end of our Ping, bytes acknowledged when looked
    /// at last: tell a peer that is slow from one that is dead.
    pub(super) sent: u64,
    pub(super) ping_end: u64,
    pub(super) acknowledged: u64,
}

impl Leg {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
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
            insert: None,
            unsent: None,
            sent: 0,
            ping_end: 0,
            acknowledged: 0,
        }
    }

    /// Whether frames may still be sent to it.
    pub(super) fn takes_frames(&self) -> bool {
        !self.close_sent && !self.output_dead && !self.fin
    }

    pub(super) fn is_over(&self) -> bool {
        self.input_ended && (self.output_dead || (self.unsent.is_none() && self.fin_sent))
    }

    pub(super) fn queue(&mut self, bytes: &[u8]) {
        if !self.output_dead {
            let unsent = self.unsent.get_or_insert_default();
            unsent.bytes.extend_from_slice(bytes);
        }
    }

    /// Writes now what the kernel takes, and keeps the rest.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if self.unsent.is_some() {
            return self.queue(bytes);
        }
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(n)) if n == bytes.len() => self.sent += n as u64,
            Poll::Ready(Ok(n)) => {
                self.sent += n as u64;
                self.queue(&bytes[n..]);
            }
            Poll::Pending => self.queue(bytes),
            Poll::Ready(Err(_)) => self.output_fails(),
        }
    }

    /// The other half tells more: what the peer sent before it went can still be read.
    pub(super) fn output_fails(&mut self) {
        self.output_dead = true;
        self.unsent = None;
        self.insert = None;
    }

    /// Sends what waits, then the FIN. Pending: the socket takes no more now.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(unsent) = &mut self.unsent {
            let rest = &unsent.bytes[unsent.pos..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(n) => {
                    self.sent += n as u64;
                    unsent.pos += n;
                    if unsent.pos == unsent.bytes.len() {
                        self.unsent = None;
                    }
                }
                Err(_) => self.output_fails(),
            }
        }
        if self.fin && !self.fin_sent && !self.output_dead {
            self.fin_sent = true;
            if SockRef::from(&self.stream)
                .shutdown(Shutdown::Write)
                .is_err()
            {
                self.output_dead = true;
            }
        }
        Poll::Ready(())
    }

    pub(super) fn acknowledged_now(&self) -> u64 {
        let open = sys::unacknowledged(&self.stream).unwrap_or(0);
        self.sent.saturating_sub(open)
    }

    pub(super) fn reset(&self) {
        // The next close of the socket sends RST (socket(7), SO_LINGER).
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
    }
}
