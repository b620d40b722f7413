//! The netlink thread: holds and removes addresses for the machine thread, and watches interfaces
//! and addresses for control.
//!
//! Netlink requests wait for a lock of the kernel that anyone on the host may hold for long, which
//! is why they are made here.

mod lease;

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use lease::{LIFETIME_SECONDS, Lease, Todo};

use super::{
    inbox::Sender,
    machine::Bell,
    messages::{FromHost, LeaseAnswer, LeaseCommand, RouterId, ToHost},
    world::World,
};
use crate::sys::{
    clock,
    netlink::{Change, Events, Requests},
    pages::Beat,
    ring::{Consumer, Producer},
    wait::{Waiter, Wake},
};

/// The beat of the shared page comes at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

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

/// The thread's state.
#[derive(Debug)]
pub(super) struct Host {
    ends: Ends,
    requests: Requests,
    events: Events,
    world: World,
    leases: Vec<Lease>,
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
            leases: Vec::new(),
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
            for at in 0..self.leases.len() {
                self.tend(at);
            }
            if std::mem::take(&mut self.has_answer) {
                self.ends.bell.wake.wake();
            }
            waiter.wait(Some(self.timeout()))?;
        }
    }

    fn timeout(&self) -> Duration {
        let now = clock::monotonic_ns();
        self.leases
            .iter()
            .filter_map(|lease| lease.wake_at(now))
            .min()
            .map_or(LONGEST_WAIT, |at| {
                Duration::from_nanos(at.saturating_sub(now)).min(LONGEST_WAIT)
            })
    }

    // Orders.

    fn on_order(&mut self, order: ToHost) {
        match order {
            ToHost::Register(registration) => self.leases.push(Lease::new(registration)),
            ToHost::Interval(id, interval) => {
                if let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == id) {
                    lease.set_interval(interval);
                }
            }
            ToHost::Forget(id) => {
                if let Some(at) = self.leases.iter().position(|lease| lease.id == id) {
                    self.remove(at);
                    self.leases.swap_remove(at);
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
        let (LeaseCommand::Hold(id) | LeaseCommand::Remove(id)) = command;
        let Some(at) = self.leases.iter().position(|lease| lease.id == id) else {
            return;
        };
        match command {
            LeaseCommand::Hold(_) => {
                if let Some(lease) = self.leases.get_mut(at) {
                    lease.want();
                }
                self.tend(at);
            }
            LeaseCommand::Remove(_) => {
                self.remove(at);
                self.answer(LeaseAnswer::Removed(id));
            }
        }
    }

    // Addresses.

    /// Does for a lease what is due.
    fn tend(&mut self, at: usize) {
        let Some(lease) = self.leases.get(at) else {
            return;
        };
        match lease.todo(clock::monotonic_ns()) {
            Todo::Nothing => {}
            Todo::Set => self.set(at),
            Todo::Lose => self.lose(at, "was renewed too late"),
        }
    }

    fn set(&mut self, at: usize) {
        let Self {
            leases,
            requests,
            ends,
            ..
        } = self;
        let Some(lease) = leases.get_mut(at) else {
            return;
        };
        let was_held = lease.is_held();
        let began = clock::monotonic_ns();
        for address in &lease.addresses {
            if let Err(error) = requests.hold(lease.index, *address, LIFETIME_SECONDS) {
                let text = format!("the kernel refuses address {address}: {error}");
                ends.control.host(FromHost::Problem(lease.id, text));
                self.lose(at, "was refused");
                return;
            }
        }
        let id = lease.id;
        if !lease.set(began, clock::monotonic_ns()) {
            self.lose(at, "was renewed too late");
        } else if !was_held {
            self.answer(LeaseAnswer::Held(id));
            self.ends.control.host(FromHost::Held(id, true));
        }
    }

    fn lose(&mut self, at: usize, why: &str) {
        let Some(lease) = self.leases.get(at) else {
            return;
        };
        let id = lease.id;
        tracing::warn!(addresses = ?lease.addresses, "lease {why}: the addresses are given up");
        self.remove(at);
        self.answer(LeaseAnswer::Lost(id));
    }

    fn remove(&mut self, at: usize) {
        let Some(lease) = self.leases.get_mut(at) else {
            return;
        };
        for address in &lease.addresses {
            if let Err(error) = self.requests.remove(lease.index, *address) {
                // The lease ends it.
                tracing::warn!(%address, %error, "cannot remove an address");
            }
        }
        if lease.end() {
            self.ends.control.host(FromHost::Held(lease.id, false));
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
        for (id, _) in self.missing() {
            let Some(at) = self.leases.iter().position(|lease| lease.id == id) else {
                continue;
            };
            let now = clock::monotonic_ns();
            let may_restore = self.leases.get_mut(at).is_some_and(|l| l.may_restore(now));
            if may_restore {
                tracing::warn!("somebody removed an address that this host holds; it is put back");
                self.set(at);
            } else {
                self.lose(at, "ended, or an address was removed by somebody else");
            }
        }
        Ok(())
    }

    fn missing(&self) -> Vec<(RouterId, IpAddr)> {
        let mut missing: Vec<_> = self
            .leases
            .iter()
            .filter(|lease| lease.is_held())
            .flat_map(|lease| lease.addresses.iter().map(move |address| (lease, *address)))
            .filter(|(lease, address)| !self.world.has(lease.index, *address))
            .map(|(lease, address)| (lease.id, address))
            .collect();
        missing.dedup_by_key(|(id, _)| *id);
        missing
    }
}
