//! The thread that looks for others who answer for an address which this host holds: a stranger that
//! has it configured, or another interface of this very host on the same segment.
//!
//! It asks by ARP probes (RFC 5227 section 2.1.1) and by neighbour solicitations (RFC 4861 section 7.2.2),
//! which no neighbour takes for news of the address, from the moment on when a virtual router rises, beside
//! it: a takeover waits for no answer. And it reads what is said on the segment anyway.

mod claim;

use std::{io, net::IpAddr, os::fd::AsFd, sync::Arc, time::Duration};

use ::vrrp::{Instant, wire::Mac};
use claim::{Claim, DEFEND_EVERY, Defence};

use super::{
    asking::{self, Heard, Inbox, Segment, Sockets},
    inbox::{Event, Sender},
    machine::now,
    messages::RouterId,
};
use crate::sys::{pages::RouterRow, wait::Waiter};

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
    /// When a router was heard that has to yield to this one.
    pub(super) contested: Arc<Heard>,
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

    /// How to answer somebody who claims an address. A router that has heard one of lower priority hears
    /// what is said, and is the true Active. One that has heard nobody may have been deaf until now and be
    /// the one that is wrong: it listens for as long as whoever is better needs to say so.
    fn defence(&self, now: Instant) -> Defence {
        if now.since(self.contested.last()) <= DEFEND_EVERY {
            Defence::AtOnce
        } else {
            Defence::After(self.interval * 2)
        }
    }

    /// Whether the virtual router advertised a moment ago: only then is the address its own to announce.
    fn is_active(&self, now: Instant) -> bool {
        let last = self.row.last_advertisement().map(Instant::from_nanos);
        last.is_some_and(|last| now.since(last) <= self.interval * 2)
    }
}

/// Somebody else who answers for an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Conflict {
    pub(super) id: RouterId,
    pub(super) address: IpAddr,
    /// Where it says that the address is.
    pub(super) mac: Mac,
    pub(super) since_unix_ms: u64,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Watch {
    orders: Inbox<Held>,
    control: Sender,
    waiter: Waiter,
    sockets: Sockets,
    held: Vec<Held>,
    claims: Vec<(RouterId, IpAddr, Claim)>,
    told: Vec<Conflict>,
}

impl Watch {
    pub(super) fn new(orders: Inbox<Held>, control: Sender) -> Self {
        let mut waiter = Waiter::new();
        waiter.watch(orders.as_fd());
        Self {
            orders,
            control,
            waiter,
            sockets: Sockets::default(),
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
        while let Some(orders) = self.orders.take() {
            for held in orders {
                self.adopt(held);
            }
            self.listen();
            self.defend();
            self.ask();
            self.tell();
            let next = self.claims.iter().map(|(.., claim)| claim.wake_at()).min();
            self.waiter.wait(next.map(|at| at.since(now())))?;
        }
        Ok(())
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
        let segments = self.held.iter().map(Held::segment);
        for (segment, error) in self.sockets.keep(&mut self.waiter, segments) {
            let held = self.held.iter().filter(|it| it.segment() == segment);
            let addresses: Vec<_> = held.flat_map(|it| &it.addresses).collect();
            tracing::warn!(
                ?addresses, %error,
                "cannot look for other hosts that answer for the addresses"
            );
        }
    }

    fn listen(&mut self) {
        let Self {
            sockets,
            waiter,
            held,
            claims,
            ..
        } = self;
        sockets.hear(waiter, |segment, claimed, mac| {
            let now = now();
            for (id, _, claim) in claims.iter_mut().filter(|(_, of, _)| *of == claimed) {
                let is_of = |it: &&Held| it.id == *id && it.segment() == segment;
                let Some(held) = held.iter().find(is_of) else {
                    continue;
                };
                if mac != held.mac {
                    claim.hear(now, mac, held.defence(now));
                }
            }
        });
    }

    /// Announces what somebody else has claimed.
    fn defend(&mut self) {
        let now = now();
        for (id, address, claim) in &mut self.claims {
            if !claim.defends(now) {
                continue;
            }
            if let Some(held) = self
                .held
                .iter()
                .find(|it| it.id == *id && it.is_active(now))
            {
                self.sockets.announce(held.segment(), held.mac, *address);
            }
        }
    }

    fn ask(&mut self) {
        let now = now();
        for (id, address, claim) in &mut self.claims {
            if !claim.ask(now) {
                continue;
            }
            if let Some(held) = self.held.iter().find(|it| it.id == *id) {
                self.sockets
                    .ask(held.segment(), held.asks_from, held.source, *address);
            }
        }
    }

    fn tell(&mut self) {
        let now = now();
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
                since_unix_ms: asking::unix_ms(since, now),
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
