//! The netlink thread: holds and removes addresses for the machine thread, and watches interfaces
//! and addresses for control.
//!
//! Netlink requests wait for a lock of the kernel that anyone on the host may hold for long, which
//! is why they are made here.

mod contests;
mod holding;
mod virtual_links;

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use ::vrrp::{
    Instant,
    lease::{Missing, Todo},
};
use contests::Looks;
use holding::Holding;
use virtual_links::VirtualLinks;

use super::{
    inbox::Sender,
    machine::{Bell, now},
    messages::{FromHost, LeaseAnswer, LeaseCommand, Registration, RouterId, ToHost},
    orphans::Regained,
    world::World,
};
use crate::sys::{
    netlink::{Change, Events, Requests},
    pages::Beat,
    ring::{Consumer, Producer},
    wait::{Waiter, Wake},
};

/// The beat of the shared page comes at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Whoever waits longer for the kernel's lock says so.
const SLOW: Duration = Duration::from_millis(50);

/// Virtual routers that become Active together look for unresolved neighbours once.
const ASK_ANEW_EVERY: Duration = Duration::from_millis(20);

/// What the thread is connected to.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) commands: Consumer<LeaseCommand>,
    pub(super) answers: Producer<LeaseAnswer>,
    pub(super) bell: Arc<Bell>,
    pub(super) orders: mpsc::Receiver<ToHost>,
    pub(super) wake: Arc<Wake>,
    pub(super) control: Sender,
    pub(super) regained: mpsc::Sender<Regained>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Host {
    ends: Ends,
    requests: Requests,
    events: Events,
    world: World,
    holdings: Vec<Holding>,
    links: VirtualLinks,
    /// Interface whose unresolved neighbours were forgotten last, and when.
    asked_anew: Option<(u32, Instant)>,
    looks: Looks,
    beat: &'static Beat,
    has_answer: bool,
}

impl Host {
    /// Subscribes, then dumps, so that nothing is missed in between.
    pub(super) fn open(ends: Ends, beat: &'static Beat) -> io::Result<Self> {
        let events = Events::subscribe()?;
        let mut requests = Requests::open()?;
        let world = World::of(requests.dump()?);
        ends.control.host(FromHost::World(world.clone()));
        Ok(Self {
            ends,
            requests,
            events,
            links: VirtualLinks::found(&world),
            world,
            holdings: Vec::new(),
            asked_anew: None,
            looks: Looks::default(),
            beat,
            has_answer: false,
        })
    }

    /// Runs until told to quit.
    pub(super) fn run(mut self) {
        if let Err(error) = self.serve() {
            let text = format!("netlink does not answer any more: {error}");
            self.ends.control.host(FromHost::Broken(text));
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut waiter = Waiter::new();
        waiter.watch(self.ends.wake.as_fd());
        waiter.watch(self.events.as_fd());
        let mut commands = Vec::new();
        loop {
            self.beat.beat();
            self.ends.wake.clear();
            // In this order: whoever gives a command was registered before.
            commands.clear();
            commands.extend(std::iter::from_fn(|| self.ends.commands.pop()));
            while let Ok(order) = self.ends.orders.try_recv() {
                if matches!(order, ToHost::Quit) {
                    return Ok(());
                }
                self.on_order(order);
            }
            for command in &commands {
                self.on_command(*command);
            }
            if waiter.is_ready(self.events.as_fd()) {
                self.on_events()?;
            }
            for at in 0..self.holdings.len() {
                self.tend(at);
            }
            self.tend_contested();
            if std::mem::take(&mut self.has_answer) {
                self.ends.bell.wake.wake();
            }
            waiter.wait(Some(self.timeout()))?;
        }
    }

    fn timeout(&self) -> Duration {
        let now = now();
        self.holdings
            .iter()
            .filter_map(|holding| holding.lease.wake_at(now))
            .min()
            .map_or(LONGEST_WAIT, |at| at.since(now).min(LONGEST_WAIT))
    }

    // Orders.

    fn on_order(&mut self, order: ToHost) {
        match order {
            ToHost::Register(what) => self.register(what),
            ToHost::Interval(id, interval) => {
                if let Some(holding) = self.holdings.iter_mut().find(|it| it.what.id == id) {
                    holding.lease.set_interval(interval);
                }
            }
            ToHost::Forget { id, keep_addresses } => {
                if let Some(at) = self.position(id) {
                    if keep_addresses {
                        self.holdings.swap_remove(at);
                    } else {
                        self.forget(at);
                    }
                }
                self.ends.control.host(FromHost::Forgotten(id));
            }
            ToHost::RemoveLinks => self.remove_left_links(),
            ToHost::Remove(index, address) => {
                if self.world.is_on(index) {
                    self.switch_off(index);
                }
                if let Err(error) = self.requests.remove(index, address) {
                    tracing::warn!(%address, %error, "cannot remove an address of a former process");
                }
            }
            ToHost::Quit => {}
        }
    }

    fn on_command(&mut self, command: LeaseCommand) {
        let (LeaseCommand::Hold(id, term) | LeaseCommand::Remove(id, term)) = command;
        let Some(at) = self.position(id) else {
            return;
        };
        match command {
            LeaseCommand::Hold(..) => {
                if let Some(holding) = self.holdings.get_mut(at) {
                    holding.term = term;
                    holding.lease.want();
                }
                self.tend(at);
            }
            LeaseCommand::Remove(..) => {
                self.remove(at);
                self.answer(LeaseAnswer::Removed(id, term));
            }
        }
    }

    // Links of virtual routers.

    fn register(&mut self, what: Registration) {
        let mut holding = Holding::new(what);
        // Before it is needed, so that a takeover only has to switch it on.
        if let Some(link) = &mut holding.link
            && let Err(error) = self.links.make(&mut self.requests, link)
        {
            let text = format!("cannot make the link {}: {error}", link.wanted.name());
            self.ends
                .control
                .host(FromHost::Problem(holding.what.id, text));
        }
        self.holdings.push(holding);
    }

    /// Before the addresses go, so that their end is not told to multicast routers from the virtual
    /// router's hardware address.
    fn switch_off(&mut self, index: u32) {
        match self.requests.switch_link(index, false) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                tracing::warn!(%error, "cannot switch the link of a virtual router off");
            }
            _ => {}
        }
    }

    fn remove_link(&mut self, index: u32) {
        if let Err(error) = self.requests.remove_link(index) {
            tracing::warn!(%error, "cannot remove the link of a virtual router");
        }
    }

    fn remove_left_links(&mut self) {
        let is_left = |index: &u32| !self.holdings.iter().any(|it| it.index() == Some(*index));
        let links = self.world.virtual_links().map(|(index, _)| index);
        for index in links.filter(is_left).collect::<Vec<_>>() {
            tracing::info!(
                "removing the link of a virtual router that a former process left behind"
            );
            self.remove_link(index);
        }
        self.put_settings_back();
    }

    fn put_settings_back(&mut self) {
        let links = || self.holdings.iter().filter_map(|it| it.link.as_ref());
        let is_used =
            |index: u32| links().any(|it| it.wanted.beneath == index && !it.wanted.is_ipv6);
        self.links.put_back(&mut self.requests, is_used);
    }

    // Addresses.

    fn position(&self, id: RouterId) -> Option<usize> {
        self.holdings.iter().position(|it| it.what.id == id)
    }

    /// Does for a lease what is due.
    fn tend(&mut self, at: usize) {
        let Some(holding) = self.holdings.get(at) else {
            return;
        };
        let now = now();
        match holding.todo(now) {
            Todo::Nothing => {}
            Todo::Set => self.set(at, now),
            Todo::Lose => self.lose(at, "was renewed too late"),
        }
    }

    /// Sets the lifetime. `began` is when the permit was looked at: stopped after that, the time
    /// until now counts as spent in the calls.
    fn set(&mut self, at: usize, began: Instant) {
        let Self {
            holdings,
            requests,
            links,
            ends,
            world,
            asked_anew,
            ..
        } = self;
        let Some(holding) = holdings.get_mut(at) else {
            return;
        };
        let was_held = holding.lease.is_held();
        // One that a former process, or another virtual router, had was not elsewhere.
        let was_here = holding.is_here(world);
        if let Err(text) = holding.hold(requests, links) {
            ends.control.host(FromHost::Problem(holding.what.id, text));
            self.lose(at, "was refused");
            return;
        }
        let Holding {
            what,
            lease,
            term,
            contest,
            ..
        } = holding;
        let (id, term) = (what.id, *term);
        if !was_held
            && asked_anew
                .is_none_or(|(index, at)| index != what.index || began.since(at) > ASK_ANEW_EVERY)
        {
            // Clients that wrote while the link was cut wait for no answer of ours now.
            if let Err(error) = requests.forget_unresolved(what.index) {
                tracing::warn!(%error, "cannot look for neighbours that never answered");
            }
            *asked_anew = Some((what.index, began));
        }
        note_slow("to set", &what.addresses, began);
        if !lease.set(began, now()) {
            self.lose(at, "was renewed too late");
        } else if !was_held {
            let taken = (!was_here).then(|| {
                // No further look for what was heard before.
                contest.take();
                what.addresses.clone()
            });
            self.answer(LeaseAnswer::Held(id, term));
            self.ends.control.host(FromHost::Held(id, true));
            if let Some(taken) = taken {
                // That thread runs for as long as this one.
                drop(self.ends.regained.send(Regained::Taken(taken)));
            }
        }
    }

    /// Has the thread look that ends what earlier sessions left, if another Active was heard that has to yield.
    fn tend_contested(&mut self) {
        let now = now();
        if !self.looks.may_begin(now) {
            return;
        }
        let holdings = self.holdings.iter_mut();
        let held = holdings.filter(|it| it.lease.is_held());
        let contested = held.filter_map(|it| it.contest.take().then_some(&it.what.addresses));
        let contested: Vec<IpAddr> = contested.flatten().copied().collect();
        if !contested.is_empty() {
            let contested = self.looks.begin(now, contested);
            // As above.
            drop(self.ends.regained.send(Regained::Contested(contested)));
        }
    }

    fn lose(&mut self, at: usize, why: &str) {
        let Some(Holding { what, term, .. }) = self.holdings.get(at) else {
            return;
        };
        let (id, term) = (what.id, *term);
        tracing::warn!(addresses = ?what.addresses, "lease {why}: the addresses are given up");
        self.remove(at);
        self.answer(LeaseAnswer::Lost(id, term));
    }

    fn remove(&mut self, at: usize) {
        let began = now();
        let Some(index) = self.holdings.get(at).and_then(Holding::index) else {
            return;
        };
        if self.holdings.get(at).is_some_and(|it| it.link.is_some()) {
            self.switch_off(index);
        }
        let Some(Holding { what, lease, .. }) = self.holdings.get_mut(at) else {
            return;
        };
        for address in &what.addresses {
            if let Err(error) = self.requests.remove(index, *address) {
                // The lease ends it.
                tracing::warn!(%address, %error, "cannot remove an address");
            }
        }
        note_slow("to remove", &what.addresses, began);
        if lease.end() {
            self.ends.control.host(FromHost::Held(what.id, false));
        }
    }

    /// Of what was never asked for, only what a former process left is removed: the rest somebody
    /// set by hand.
    fn forget(&mut self, at: usize) {
        let Some(holding) = self.holdings.get(at) else {
            return;
        };
        let is_left_behind = |address: &IpAddr| {
            let mut own = self.world.own();
            own.any(|(index, own)| holding.index() == Some(index) && own == *address)
        };
        let Holding { what, lease, .. } = holding;
        if lease.is_wanted() || what.addresses.iter().any(is_left_behind) {
            self.remove(at);
        }
        let link = self.holdings.swap_remove(at).link;
        if let Some(index) = link.and_then(|link| link.index) {
            self.remove_link(index);
            self.put_settings_back();
        }
    }

    fn answer(&mut self, answer: LeaseAnswer) {
        // Larger than the number of virtual routers; a machine thread that does not read it hangs
        // and is killed by the agent.
        self.has_answer |= self.ends.answers.push(answer).is_ok();
    }

    // Events.

    fn on_events(&mut self) -> io::Result<()> {
        let (mut matters, mut gone) = (false, false);
        let world = &mut self.world;
        let complete = self.events.take(|change| {
            gone |= is_loss(&change);
            matters |= world.apply(change);
        })?;
        if !complete {
            self.world = World::of(self.requests.dump()?);
            (matters, gone) = (true, true);
        }
        if gone {
            self.look_for_missing()?;
        }
        self.remove_learned();
        if matters {
            self.ends.control.host(FromHost::World(self.world.clone()));
        }
        Ok(())
    }

    /// Where `accept_ra` cannot be set, the link of a virtual router takes addresses from router advertisements.
    /// They go before the kernel has looked for duplicates, so that nothing is sent from them (RFC 9568 section
    /// 7.4).
    fn remove_learned(&mut self) {
        for learned in self.world.learned_on_virtual_links() {
            if let Err(error) = self.requests.remove_foreign(&learned) {
                tracing::warn!(address = %learned.address, %error, "cannot remove what a router advertised");
            }
        }
    }

    /// Notices addresses that somebody else removed. Events may be older than our own requests, so
    /// a suspicion is checked against a fresh dump.
    fn look_for_missing(&mut self) -> io::Result<()> {
        if self.missing().is_empty() {
            return Ok(());
        }
        self.world = World::of(self.requests.dump()?);
        for id in self.missing() {
            let Some(at) = self.position(id) else {
                continue;
            };
            let now = now();
            match self.holdings.get_mut(at).map(|it| it.missing(now)) {
                Some(Missing::Restore) => {
                    tracing::warn!(
                        "somebody removed an address that this host holds; it is put back"
                    );
                    self.set(at, now);
                }
                Some(Missing::Lose) => {
                    self.lose(at, "ended, or an address was removed by somebody else");
                }
                Some(Missing::Wait) | None => {}
            }
        }
        Ok(())
    }

    /// Virtual routers that hold addresses which the host does not have. An interface that is down
    /// has lost those of IPv6 to the kernel, and its virtual routers are about to let go.
    fn missing(&self) -> Vec<RouterId> {
        let world = &self.world;
        self.holdings
            .iter()
            .filter(|it| it.lease.is_held() && world.is_up(it.what.index) && !it.is_here(world))
            .map(|it| it.what.id)
            .collect()
    }
}

/// Whether it may have taken an address: itself, or with its link.
fn is_loss(change: &Change) -> bool {
    match change {
        Change::AddressGone(_) | Change::LinkGone(_) => true,
        Change::Link(link) => link.virtual_router.is_some_and(|link| !link.is_on),
        Change::Address(_) => false,
    }
}

fn note_slow(what: &str, addresses: &[IpAddr], began: Instant) {
    let took = now().since(began);
    if took > SLOW {
        tracing::warn!(?addresses, ?took, "the kernel took long {what} addresses");
    }
}
