//! The netlink thread: holds and removes addresses for the machine thread, and watches interfaces
//! and addresses for control.
//!
//! Netlink requests wait for a lock of the kernel that anyone on the host may hold for long, which
//! is why they are made here.

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use ::vrrp::{
    Instant,
    lease::{LIFETIME_SECONDS, Lease, Missing, Todo},
};

use super::{
    inbox::Sender,
    machine::{Bell, now},
    messages::{FromHost, LeaseAnswer, LeaseCommand, Registration, RouterId, Term, ToHost},
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
}

/// The addresses of one virtual router.
#[derive(Debug)]
struct Holding {
    what: Registration,
    lease: Lease,
    /// Echoed in answers.
    term: Term,
}

impl Holding {
    /// When the machine thread last advertised as Active.
    fn advertised_at(&self) -> Option<Instant> {
        self.what.row.last_advertisement().map(Instant::from_nanos)
    }

    fn todo(&self, now: Instant) -> Todo {
        self.lease.todo(now, self.advertised_at())
    }

    fn missing(&mut self, now: Instant) -> Missing {
        self.lease.missing(now, self.advertised_at())
    }
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Host {
    ends: Ends,
    requests: Requests,
    events: Events,
    world: World,
    holdings: Vec<Holding>,
    /// Interface whose unresolved neighbours were forgotten last, and when.
    asked_anew: Option<(u32, Instant)>,
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
            world,
            holdings: Vec::new(),
            asked_anew: None,
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
            ToHost::Register(what) => {
                let lease = Lease::new(what.interval);
                let term = 0;
                self.holdings.push(Holding { what, lease, term });
            }
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
            ToHost::Remove(index, address) => {
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
            ends,
            asked_anew,
            ..
        } = self;
        let Some(Holding { what, lease, term }) = holdings.get_mut(at) else {
            return;
        };
        let was_held = lease.is_held();
        for address in &what.addresses {
            if let Err(error) = requests.hold(what.index, *address, LIFETIME_SECONDS) {
                let text = format!("the kernel refuses address {address}: {error}");
                ends.control.host(FromHost::Problem(what.id, text));
                self.lose(at, "was refused");
                return;
            }
        }
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
            self.answer(LeaseAnswer::Held(id, term));
            self.ends.control.host(FromHost::Held(id, true));
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
        let Some(Holding { what, lease, .. }) = self.holdings.get_mut(at) else {
            return;
        };
        let began = now();
        for address in &what.addresses {
            if let Err(error) = self.requests.remove(what.index, *address) {
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
        let Some(Holding { what, lease, .. }) = self.holdings.get(at) else {
            return;
        };
        let is_left_behind = |address: &IpAddr| {
            let mut own = self.world.own();
            own.any(|own| own == (what.index, *address))
        };
        if lease.is_wanted() || what.addresses.iter().any(is_left_behind) {
            self.remove(at);
        }
        self.holdings.swap_remove(at);
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
            gone |= matches!(change, Change::AddressGone(_));
            matters |= world.apply(change);
        })?;
        if !complete {
            self.world = World::of(self.requests.dump()?);
            (matters, gone) = (true, true);
        }
        if gone {
            self.look_for_missing()?;
        }
        if matters {
            self.ends.control.host(FromHost::World(self.world.clone()));
        }
        Ok(())
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
        let has = |what: &Registration| {
            let mut addresses = what.addresses.iter();
            addresses.all(|address| self.world.has(what.index, *address))
        };
        self.holdings
            .iter()
            .filter(|it| it.lease.is_held() && self.world.is_up(it.what.index) && !has(&it.what))
            .map(|it| it.what.id)
            .collect()
    }
}

fn note_slow(what: &str, addresses: &[IpAddr], began: Instant) {
    let took = now().since(began);
    if took > SLOW {
        tracing::warn!(?addresses, ?took, "the kernel took long {what} addresses");
    }
}
