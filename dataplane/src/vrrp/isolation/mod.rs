//! The thread that notices that this host is cut off: while it holds an address and nobody is heard, it
//! asks the default gateway whether it is there.
//!
//! Backups are silent, so that an Active router hears its peers only where these are Active for other
//! addresses; whether the network is there is known from the default gateway. One that has never
//! answered and one that died look alike, and then all hosts would give up one after another: a peer that
//! was heard before is asked, too, and its answer is as good.
//!
//! Without a default gateway on the interface silence tells nothing, and nothing follows from it.

mod silence;

use std::{io, net::IpAddr, os::fd::AsFd, sync::Arc, time::Duration};

use ::vrrp::{Instant, wire::Mac};
use silence::Silence;

use super::{
    asking::{self, Heard, Inbox, Segment, Sockets},
    inbox::{Event, Sender},
    machine::now,
    messages::RouterId,
};
use crate::sys::{
    netlink::{DefaultRoute, Requests},
    wait::Waiter,
};

/// How old what is known of default routes may be. A table may be long.
const ROUTES_FOR: Duration = Duration::from_secs(10);
/// Whoever did not run for so long beyond its time has not heard what was said meanwhile.
const BLIND_AFTER: Duration = Duration::from_millis(300);

/// A virtual router that holds its addresses, or gave them up for this.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) id: RouterId,
    /// Interface, and its hardware address.
    pub(super) index: u32,
    pub(super) mac: Mac,
    /// Address of the interface that its advertisements are from.
    pub(super) source: IpAddr,
    /// Another router that was heard for its VRID.
    pub(super) peer: Option<IpAddr>,
    /// When another router was heard on the segment.
    pub(super) heard: Arc<Heard>,
    pub(super) timeout: Duration,
}

impl Watched {
    /// Whether both say the same; who listens where follows from the segment.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let all = |it: &Self| (it.id, it.index, it.mac, it.source, it.peer, it.timeout);
        all(self) == all(other) && Arc::ptr_eq(&self.heard, &other.heard)
    }

    const fn segment(&self) -> Segment {
        (self.index, self.source.is_ipv6())
    }
}

/// What is to be said of a virtual router that is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Word {
    /// Nobody is heard, since then, and its default gateway does not answer.
    Isolated { gateway: IpAddr, since_unix_ms: u64 },
    /// There is no default gateway, so that silence tells nothing.
    NoGateway,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Watch {
    orders: Inbox<Watched>,
    control: Sender,
    requests: Requests,
    waiter: Waiter,
    sockets: Sockets,
    watched: Vec<(Watched, Silence)>,
    /// What was known of default routes, and when.
    routes: Option<(Vec<DefaultRoute>, Instant)>,
    /// The default gateway of each segment as it was last, since a route may go along with the network.
    gateways: Vec<(Segment, IpAddr)>,
    told: Vec<(RouterId, Word)>,
}

impl Watch {
    pub(super) fn new(orders: Inbox<Watched>, control: Sender) -> io::Result<Self> {
        let mut waiter = Waiter::new();
        waiter.watch(orders.as_fd());
        Ok(Self {
            orders,
            control,
            requests: Requests::open()?,
            waiter,
            sockets: Sockets::default(),
            watched: Vec::new(),
            routes: None,
            gateways: Vec::new(),
            told: Vec::new(),
        })
    }

    /// Runs until nobody can give it an order any more.
    pub(super) fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, "nobody notices whether this host is cut off");
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while let Some(orders) = self.orders.take() {
            for watched in orders {
                self.adopt(watched);
            }
            self.listen();
            self.ask();
            self.tell();
            let next = self.watched.iter().map(|(_, it)| it.wake_at()).min();
            let began = now();
            self.waiter.wait(next.map(|at| at.since(began)))?;
            let woke = now();
            if next.is_some_and(|at| woke.since(at.max(began)) > BLIND_AFTER) {
                for (_, silence) in &mut self.watched {
                    silence.hear(woke);
                }
            }
        }
        Ok(())
    }

    /// Goes on with what stays; what is new counts from now on.
    fn adopt(&mut self, watched: Vec<Watched>) {
        let now = now();
        let before = std::mem::take(&mut self.watched);
        self.watched = watched
            .into_iter()
            .map(|one| {
                let is_it =
                    |(it, _): &&(Watched, Silence)| (it.id, it.timeout) == (one.id, one.timeout);
                let known = before.iter().find(is_it).map(|(_, silence)| *silence);
                let silence = known.unwrap_or_else(|| Silence::begin(now, one.timeout));
                (one, silence)
            })
            .collect();
        self.open_sockets();
        let watched = &self.watched;
        self.gateways
            .retain(|(segment, _)| watched.iter().any(|(it, _)| it.segment() == *segment));
        if !self.watched.is_empty() {
            self.look_for_gateways(now);
        }
    }

    fn open_sockets(&mut self) {
        let segments = self.watched.iter().map(|(it, _)| it.segment());
        for (_, error) in self.sockets.keep(&mut self.waiter, segments) {
            tracing::warn!(%error, "cannot notice whether this host is cut off");
        }
    }

    /// Asks the kernel for default routes, unless it was asked a moment ago.
    fn look_for_gateways(&mut self, now: Instant) {
        let is_new = |at: Instant| now.since(at) < ROUTES_FOR;
        if self.routes.as_ref().is_none_or(|(_, at)| !is_new(*at)) {
            match self.requests.default_routes() {
                Ok(routes) => self.routes = Some((routes, now)),
                Err(error) => tracing::warn!(%error, "cannot ask for default routes"),
            }
        }
        let routes = self.routes.iter().flat_map(|(routes, _)| routes);
        let routes: Vec<_> = routes.copied().collect();
        for (one, _) in &self.watched {
            let segment = one.segment();
            let mut own = routes.iter();
            let own = own.find(|it| (it.index, it.gateway.is_ipv6()) == segment);
            if let Some(route) = own {
                self.gateways.retain(|(of, _)| *of != segment);
                self.gateways.push((segment, route.gateway));
            }
        }
    }

    fn listen(&mut self) {
        let now = now();
        let Self {
            sockets,
            waiter,
            watched,
            gateways,
            ..
        } = self;
        for (one, silence) in &mut *watched {
            silence.hear(one.heard.last());
        }
        sockets.hear(waiter, |segment, claimed, mac| {
            let gateway = gateway_of(gateways, segment);
            let here = watched.iter_mut();
            for (one, silence) in here.filter(|(it, _)| it.segment() == segment) {
                let is_known = Some(claimed) == gateway || Some(claimed) == one.peer;
                if is_known && mac != one.mac {
                    silence.hear(now);
                }
            }
        });
    }

    fn ask(&mut self) {
        let now = now();
        let asking = self.watched.iter_mut();
        let asking = asking.filter_map(|(one, silence)| silence.ask(now).then(|| one.clone()));
        let asking: Vec<_> = asking.collect();
        if asking.is_empty() {
            return;
        }
        self.look_for_gateways(now);
        for one in asking {
            let gateway = gateway_of(&self.gateways, one.segment());
            for address in gateway.into_iter().chain(one.peer) {
                self.sockets
                    .ask(one.segment(), one.mac, one.source, address);
            }
        }
    }

    fn tell(&mut self) {
        let now = now();
        let Self {
            watched,
            gateways,
            told,
            ..
        } = self;
        let words = watched.iter_mut().filter_map(|(one, silence)| {
            let Some(gateway) = gateway_of(gateways, one.segment()) else {
                return Some((one.id, Word::NoGateway));
            };
            if !silence.judge(now) {
                return None;
            }
            let known = told.iter().find(|(id, _)| *id == one.id);
            let word = match known {
                Some((_, word @ Word::Isolated { .. })) => *word,
                _ => Word::Isolated {
                    gateway,
                    since_unix_ms: asking::unix_ms(silence.since(), now),
                },
            };
            Some((one.id, word))
        });
        let words: Vec<_> = words.collect();
        if words != *told {
            told.clone_from(&words);
            self.control.send(Event::Isolation(words));
        }
    }
}

fn gateway_of(gateways: &[(Segment, IpAddr)], segment: Segment) -> Option<IpAddr> {
    let mut gateways = gateways.iter();
    gateways.find(|(of, _)| *of == segment).map(|(_, it)| *it)
}
