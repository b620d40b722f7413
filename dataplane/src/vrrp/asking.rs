//! What the threads that ask on segments (`neighbours`, `isolation`) are made of: orders from control, what the
//! machine thread heard, and a socket for each segment.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use ::vrrp::{
    Instant,
    wire::{
        EmitError, Mac,
        resolution::{self, FRAME_LEN},
    },
};

use crate::sys::{
    clock,
    resolution::ResolutionSocket,
    wait::{Waiter, Wake},
};

/// Frames taken from one socket in one turn.
const FRAMES_PER_TURN: usize = 256;

/// Interface, and whether it is for IPv6: what there is a socket for.
pub(super) type Segment = (u32, bool);

/// When the machine thread last heard somebody.
#[derive(Debug)]
pub(super) struct Heard(AtomicU64);

impl Heard {
    /// Nobody so far.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0)))
    }

    /// Somebody, now.
    pub(super) fn note(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Release);
    }

    /// When that was; the clock's origin: never.
    pub(super) fn last(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Acquire))
    }
}

/// Control's end: each order replaces the one before.
#[derive(Debug)]
pub(super) struct Orders<T> {
    sender: mpsc::Sender<Vec<T>>,
    wake: Arc<Wake>,
}

/// The thread's end.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    receiver: mpsc::Receiver<Vec<T>>,
    wake: Arc<Wake>,
}

/// Both ends.
pub(super) fn orders<T>() -> io::Result<(Orders<T>, Inbox<T>)> {
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::new(Wake::new()?);
    let inbox = Inbox {
        receiver,
        wake: Arc::clone(&wake),
    };
    Ok((Orders { sender, wake }, inbox))
}

impl<T> Orders<T> {
    /// From now on these are meant, and no others.
    pub(super) fn give(&self, all: Vec<T>) {
        // A thread that ended said why.
        drop(self.sender.send(all));
        self.wake.wake();
    }
}

impl<T> Inbox<T> {
    /// All orders that have come; `None`: nobody can give one any more.
    pub(super) fn take(&self) -> Option<Vec<Vec<T>>> {
        self.wake.clear();
        let mut orders = Vec::new();
        loop {
            match self.receiver.try_recv() {
                Ok(order) => orders.push(order),
                Err(mpsc::TryRecvError::Empty) => return Some(orders),
                Err(mpsc::TryRecvError::Disconnected) => return None,
            }
        }
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// A socket for each segment that is meant.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<(Segment, ResolutionSocket)>);

impl Sockets {
    /// Opens what is missing of `meant` and closes the others; gives those that cannot be opened.
    pub(super) fn keep(
        &mut self,
        waiter: &mut Waiter,
        meant: impl Iterator<Item = Segment> + Clone,
    ) -> Vec<(Segment, io::Error)> {
        self.0.retain(|(segment, socket)| {
            let is_meant = meant.clone().any(|it| it == *segment);
            if !is_meant {
                waiter.forget(socket.as_fd());
            }
            is_meant
        });
        let mut failed = Vec::new();
        for segment in meant {
            if self.0.iter().any(|(of, _)| *of == segment) {
                continue;
            }
            let opened = match segment {
                (index, false) => ResolutionSocket::arp(index),
                (index, true) => ResolutionSocket::neighbour_discovery(index),
            };
            match opened {
                Ok(socket) => {
                    waiter.watch(socket.as_fd());
                    self.0.push((segment, socket));
                }
                Err(error) => failed.push((segment, error)),
            }
        }
        failed
    }

    /// Tells of each address that somebody says to have, and where it is said to be.
    pub(super) fn hear(&self, waiter: &Waiter, mut claim: impl FnMut(Segment, IpAddr, Mac)) {
        for (segment, socket) in &self.0 {
            if !waiter.is_ready(socket.as_fd()) {
                continue;
            }
            for _ in 0..FRAMES_PER_TURN {
                // An error belongs to the socket's past (interface down) and is cleared by this.
                let Ok(Some(frame)) = socket.receive_waiting() else {
                    break;
                };
                if let Ok(Some((address, mac))) = resolution::claim(&frame) {
                    claim(*segment, address, mac);
                }
            }
        }
    }

    /// Asks for `address`: an ARP probe, or a solicitation from `source`.
    pub(super) fn ask(&self, segment: Segment, mac: Mac, source: IpAddr, address: IpAddr) {
        let source = match source {
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            IpAddr::V6(source) => source,
        };
        self.send(segment, |frame| {
            resolution::question(frame, mac, source, address)
        });
    }

    /// Announces that `address` is at `mac`.
    pub(super) fn announce(&self, segment: Segment, mac: Mac, address: IpAddr) {
        self.send(segment, |frame| {
            resolution::announcement(frame, mac, address)
        });
    }

    fn send(&self, segment: Segment, write: impl FnOnce(&mut [u8]) -> Result<usize, EmitError>) {
        let mut frame = [0; FRAME_LEN];
        let socket = self.0.iter().find(|(of, _)| *of == segment);
        if let Some((_, socket)) = socket
            && let Ok(length) = write(&mut frame)
        {
            // One that is lost is followed by another.
            drop(socket.send(frame.get(..length).unwrap_or(&[])));
        }
    }
}

/// The time of day of a moment in the past.
pub(super) fn unix_ms(at: Instant, now: Instant) -> u64 {
    let age = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    clock::now_unix_ms().saturating_sub(age)
}
