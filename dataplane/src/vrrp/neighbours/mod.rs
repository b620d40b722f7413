//! The thread that looks for others who answer for an address which this host holds: a stranger that
//! has it configured, or another interface of this very host on the same segment.
//!
//! It asks by ARP probes (RFC 5227 section 2.1.1) and by neighbour solicitations (RFC 4861 section 7.2.2),
//! which no neighbour takes for news of the address, from the moment on when a virtual router rises, beside
//! it: a takeover waits for no answer. And it reads what is said on the segment anyway.

mod claim;

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use ::vrrp::{
    Instant,
    wire::{
        EmitError, Mac,
        resolution::{self, FRAME_LEN},
    },
};
use claim::Claim;

use super::{
    inbox::{Event, Sender},
    machine::now,
    messages::RouterId,
};
use crate::sys::{
    clock,
    pages::RouterRow,
    resolution::ResolutionSocket,
    wait::{Waiter, Wake},
};

/// Frames taken from one socket in one turn.
const FRAMES_PER_TURN: usize = 256;

/// The addresses of a virtual router that is Active.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: RouterId,
    /// Interface, and the hardware address at which the addresses are.
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// That of the interface, to which answers come back.
    pub(super) asks_from: Mac,
    /// Address of the interface that its advertisements are from.
    pub(super) source: IpAddr,
    pub(super) addresses: Vec<IpAddr>,
    /// Tells whether it still is.
    pub(super) row: &'static RouterRow,
    pub(super) interval: Duration,
}

impl Held {
    /// Whether both say the same; rows are as many as virtual routers.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let all = |it: &Self| {
            (
                it.id,
                it.index,
                it.mac,
                it.asks_from,
                it.source,
                it.interval,
            )
        };
        all(self) == all(other)
    }

    const fn segment(&self) -> Segment {
        (self.index, self.source.is_ipv6())
    }
}

/// Interface, and whether it is for IPv6: what there is a socket for.
type Segment = (u32, bool);

/// Somebody else who answers for an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Conflict {
    pub(super) id: RouterId,
    pub(super) address: IpAddr,
    /// Where it says that the address is.
    pub(super) mac: Mac,
    pub(super) since_unix_ms: u64,
}

/// Control's end.
#[derive(Debug)]
pub(super) struct Neighbours {
    orders: mpsc::Sender<Vec<Held>>,
    wake: Arc<Wake>,
}

impl Neighbours {
    pub(super) fn new() -> io::Result<(Self, Orders)> {
        let (orders, receiver) = mpsc::channel();
        let wake = Arc::new(Wake::new()?);
        let theirs = Orders {
            receiver,
            wake: Arc::clone(&wake),
        };
        Ok((Self { orders, wake }, theirs))
    }

    /// From now on these addresses are held, and no others.
    pub(super) fn look_after(&self, held: Vec<Held>) {
        // A thread that ended said why.
        drop(self.orders.send(held));
        self.wake.wake();
    }
}

/// The thread's end.
#[derive(Debug)]
pub(super) struct Orders {
    receiver: mpsc::Receiver<Vec<Held>>,
    wake: Arc<Wake>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Watch {
    orders: Orders,
    control: Sender,
    waiter: Waiter,
    sockets: Vec<(Segment, ResolutionSocket)>,
    held: Vec<Held>,
    claims: Vec<(RouterId, IpAddr, Claim)>,
    told: Vec<Conflict>,
}

impl Watch {
    pub(super) fn new(orders: Orders, control: Sender) -> Self {
        let mut waiter = Waiter::new();
        waiter.watch(orders.wake.as_fd());
        Self {
            orders,
            control,
            waiter,
            sockets: Vec::new(),
            held: Vec::new(),
            claims: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Runs until nobody can give it an order any more.
    pub(super) fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, "nobody looks for other hosts that answer for the addresses");
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.orders.wake.clear();
            loop {
                match self.orders.receiver.try_recv() {
                    Ok(held) => self.adopt(held),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.listen();
            self.ask();
            self.tell();
            let next = self.claims.iter().map(|(.., claim)| claim.wake_at()).min();
            self.waiter.wait(next.map(|at| at.since(now())))?;
        }
    }

    /// Goes on with what stays, and asks at once for what is new.
    fn adopt(&mut self, held: Vec<Held>) {
        let now = now();
        let mut before = std::mem::take(&mut self.claims);
        for one in &held {
            let is_same = self.held.iter().any(|it| it.is_like(one));
            for address in one.addresses.iter().copied() {
                let known = before
                    .iter()
                    .position(|(id, of, _)| (*id, *of) == (one.id, address));
                let known = known.map(|at| before.swap_remove(at).2);
                let claim = known.filter(|_| is_same);
                let claim = claim.unwrap_or_else(|| Claim::begin(now));
                self.claims.push((one.id, address, claim));
            }
        }
        self.held = held;
        self.open_sockets();
    }

    fn open_sockets(&mut self) {
        let Self {
            sockets,
            held,
            waiter,
            ..
        } = self;
        sockets.retain(|(segment, socket)| {
            let is_used = held.iter().any(|it| it.segment() == *segment);
            if !is_used {
                waiter.forget(socket.as_fd());
            }
            is_used
        });
        for one in held {
            let segment = one.segment();
            if sockets.iter().any(|(of, _)| *of == segment) {
                continue;
            }
            let opened = match segment {
                (index, false) => ResolutionSocket::arp(index),
                (index, true) => ResolutionSocket::neighbour_discovery(index),
            };
            match opened {
                Ok(socket) => {
                    waiter.watch(socket.as_fd());
                    sockets.push((segment, socket));
                }
                Err(error) => tracing::warn!(
                    addresses = ?one.addresses, %error,
                    "cannot look for other hosts that answer for the addresses"
                ),
            }
        }
    }

    fn listen(&mut self) {
        let mut announcements = Vec::new();
        for (segment, socket) in &self.sockets {
            if !self.waiter.is_ready(socket.as_fd()) {
                continue;
            }
            for _ in 0..FRAMES_PER_TURN {
                // An error belongs to the socket's past (interface down) and is cleared by this.
                let Ok(Some(frame)) = socket.receive_waiting() else {
                    break;
                };
                let Ok(Some((claimed, mac))) = resolution::claim(&frame) else {
                    continue;
                };
                let now = now();
                let claims = self.claims.iter_mut();
                for (id, address, claim) in claims.filter(|(_, of, _)| *of == claimed) {
                    let is_of = |it: &&Held| it.id == *id && it.segment() == *segment;
                    let Some(held) = self.held.iter().find(is_of) else {
                        continue;
                    };
                    if mac != held.mac && claim.hear(now, mac) && is_active(held, now) {
                        announcements.push((held.clone(), *address));
                    }
                }
            }
        }
        for (held, address) in announcements {
            self.send(&held, |frame| {
                resolution::announcement(frame, held.mac, address)
            });
        }
    }

    fn ask(&mut self) {
        let now = now();
        let mut questions = Vec::new();
        for (id, address, claim) in &mut self.claims {
            if !claim.ask(now) {
                continue;
            }
            if let Some(held) = self.held.iter().find(|it| it.id == *id) {
                questions.push((held.clone(), *address));
            }
        }
        for (held, address) in questions {
            let source = match held.source {
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
                IpAddr::V6(source) => source,
            };
            self.send(&held, |frame| {
                resolution::question(frame, held.asks_from, source, address)
            });
        }
    }

    fn send(&self, held: &Held, write: impl Fn(&mut [u8]) -> Result<usize, EmitError>) {
        let mut frame = [0; FRAME_LEN];
        let socket = self.sockets.iter().find(|(of, _)| *of == held.segment());
        if let Some((_, socket)) = socket
            && let Ok(length) = write(&mut frame)
        {
            // One that is lost is followed by another.
            drop(socket.send(frame.get(..length).unwrap_or(&[])));
        }
    }

    fn tell(&mut self) {
        let now = now();
        let unix_ms = |at: Instant| {
            let age = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
            clock::now_unix_ms().saturating_sub(age)
        };
        let known = |id, address, mac| {
            let mut told = self.told.iter();
            told.find(|it| (it.id, it.address, it.mac) == (id, address, mac))
        };
        let conflicts = self.claims.iter().filter_map(|(id, address, claim)| {
            let (mac, since) = claim.rival()?;
            let conflict = || Conflict {
                id: *id,
                address: *address,
                mac,
                since_unix_ms: unix_ms(since),
            };
            Some(known(*id, *address, mac).copied().unwrap_or_else(conflict))
        });
        let conflicts: Vec<_> = conflicts.collect();
        if conflicts != self.told {
            self.told.clone_from(&conflicts);
            self.control.send(Event::Conflicts(conflicts));
        }
    }
}

/// Whether the virtual router advertised a moment ago: only then is the address its own to announce.
fn is_active(held: &Held, now: Instant) -> bool {
    let last = held.row.last_advertisement().map(Instant::from_nanos);
    last.is_some_and(|last| now.since(last) <= held.interval * 2)
}
