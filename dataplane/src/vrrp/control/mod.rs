//! Control: decides which virtual routers run where, and when they take part.
//!
//! Runs on the main thread, whose life is the process' life. Every decision is made from the whole
//! state ([`Control::settle`]), whatever event led to it.

mod config;
mod conflicts;
mod deaths;
mod isolation;
mod leaving;
mod managed;
mod pairing;
mod report;
mod residual;
mod settle;
mod succession;
mod timers;
mod tracking;

use std::{
    os::fd::AsFd,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::vrrp::Instant;
use deaths::Deaths;
use managed::{Managed, Stage};
pub(super) use pairing::spawn;
use pairing::{Pairing, Served, Usable};
use succession::Estate;

use super::{
    asking::{Heard, Orders},
    carrier::{self, Carrier},
    inbox::{Event, Sender},
    isolation::{Watched, Word},
    machine::{self, Bell, segment::SegmentId},
    messages::{FromHost, FromMachine, PairingNumber, RouterId, Snapshot, ToHost, ToMachine},
    neighbours::{Conflict, Held},
    outbox::Outbox,
    residence,
    world::World,
};
use crate::{
    ipc::{FailingCheck, FromVrrp, ProxyToVrrp, Router, ToVrrp, VrrpToProxy},
    sys::{
        pages::RouterTable,
        ring::{Consumer, Producer},
        wait::{Waiter, Wake},
    },
};

/// Reports go out at most this often.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Far more pools than a host has virtual routers for.
const MOST_POOLS: usize = 4096;

/// Upstreams of a pool.
const MOST_UPSTREAMS: usize = 16;
const SHOW_DELAY_FOR: Duration = Duration::from_mins(1);

/// What control is connected to.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) wake: Arc<Wake>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) sender: Sender,
    pub(super) machine: Producer<ToMachine>,
    pub(super) machine_news: Consumer<FromMachine>,
    pub(super) bell: Arc<Bell>,
    pub(super) host: mpsc::Sender<ToHost>,
    pub(super) host_wake: Arc<Wake>,
    pub(super) host_thread: JoinHandle<()>,
    pub(super) carrier: mpsc::Sender<carrier::Watched>,
    pub(super) neighbours: Orders<Held>,
    pub(super) isolation: Orders<Watched>,
    pub(super) outbox: Outbox,
}

/// The state of control.
#[derive(Debug)]
pub(super) struct Control {
    ends: Ends,
    table: &'static RouterTable,
    /// `None` until the netlink thread told.
    world: Option<World>,
    desired: Option<Desired>,
    routers: Vec<Managed>,
    estates: Vec<Estate>,
    pairing: Option<Pairing>,
    pairings: PairingNumber,
    served: Served,
    usable: Usable,
    deaths: Deaths,
    /// Checks that fail.
    failing: Vec<FailingCheck>,
    /// Interfaces that are tracked, and what their drivers say.
    tracked: Vec<(u32, Arc<Carrier>)>,
    /// Interfaces whose sockets the machine thread has, with what it knows of them.
    segments: Vec<(SegmentId, bool, [u8; 6])>,
    /// The addresses that others must not answer for.
    held: Vec<Held>,
    /// Who does all the same.
    conflicts: Vec<Conflict>,
    /// When others were heard, by segment.
    heard: Vec<(SegmentId, Arc<Heard>)>,
    /// Virtual routers that give up when this host is cut off.
    watched: Vec<Watched>,
    /// What is to be said of that.
    isolation: Vec<(RouterId, Word)>,
    next_id: RouterId,
    is_cleaned: bool,
    is_leaving: bool,
    warnings: Vec<String>,
    /// Whether memory is locked, or cannot be.
    is_resident: bool,
    report: ReportState,
    /// The longest delay of a timer in the last minute or so, and when it was noticed.
    delay: (Duration, Instant),
}

#[derive(Debug)]
struct Desired {
    sequence: u64,
    routers: Vec<Router>,
    /// Every virtual router of it has its place; none waits for another to be gone.
    is_adopted: bool,
    is_applied: bool,
}

#[derive(Debug, Default)]
struct ReportState {
    is_wanted: bool,
    is_under_way: bool,
    last: Option<Instant>,
}

impl Control {
    pub(super) fn new(ends: Ends, table: &'static RouterTable, warning: Option<String>) -> Self {
        Self {
            ends,
            table,
            world: None,
            desired: None,
            routers: Vec::new(),
            estates: Vec::new(),
            pairing: None,
            pairings: 0,
            served: Served::default(),
            usable: Usable::new(),
            deaths: Deaths::new(&table.deaths),
            failing: Vec::new(),
            tracked: Vec::new(),
            segments: Vec::new(),
            held: Vec::new(),
            conflicts: Vec::new(),
            heard: Vec::new(),
            watched: Vec::new(),
            isolation: Vec::new(),
            next_id: 1,
            is_cleaned: false,
            is_leaving: false,
            warnings: warning.into_iter().collect(),
            is_resident: false,
            report: ReportState::default(),
            delay: (Duration::ZERO, Instant::ZERO),
        }
    }

    /// Runs until everything has stopped in order.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let mut waiter = Waiter::new();
        waiter.watch(self.ends.wake.as_fd());
        loop {
            self.ends.wake.clear();
            while let Some(news) = self.ends.machine_news.pop() {
                self.on_machine(news);
            }
            while let Ok(event) = self.ends.events.try_recv() {
                self.on_event(event)?;
            }
            let now = machine::now();
            self.settle(now);
            if !self.is_resident && !self.routers.is_empty() {
                self.is_resident = true;
                self.warnings.extend(residence::take());
            }
            if self.is_leaving && self.routers.is_empty() {
                break;
            }
            self.send_report_request(now);
            waiter.wait(self.timeout(now))?;
        }
        self.tell_machine(ToMachine::Quit);
        self.tell_host(ToHost::Quit);
        // It may still be removing what a former process left behind.
        if self.ends.host_thread.join().is_err() {
            tracing::error!("the netlink thread panicked");
        }
        self.ends.outbox.post(FromVrrp::Left);
        self.ends.outbox.close();
        Ok(())
    }

    // Events.

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Agent(message, fds) => self.on_agent(message, fds),
            Event::AgentGone => {
                if !self.is_leaving {
                    tracing::warn!("the agent is gone; leaving in order");
                    self.leave();
                }
            }
            Event::Proxy(number, message, _place) => self.on_proxy(number, message),
            Event::ProxyGone(number) => {
                if self.pairing.as_ref().is_some_and(|p| p.number == number) {
                    tracing::warn!("the proxy is gone; every virtual router is withdrawn");
                    self.lose_proxy();
                }
            }
            Event::Host(news) => self.on_host(news)?,
            Event::Conflicts(conflicts) => self.on_conflicts(conflicts),
            Event::Isolation(words) => self.on_isolation(words),
        }
        Ok(())
    }

    fn on_agent(&mut self, message: ToVrrp, fds: Vec<std::os::fd::OwnedFd>) {
        match message {
            ToVrrp::Table => tracing::warn!("a second router table is ignored"),
            ToVrrp::Pair => self.pair(fds),
            ToVrrp::Configure { sequence, routers } => {
                if !self.is_leaving {
                    self.desired = Some(Desired {
                        sequence,
                        routers,
                        is_adopted: false,
                        is_applied: false,
                    });
                }
            }
            ToVrrp::Failing { checks } => self.failing = checks,
            ToVrrp::Report => self.report.is_wanted = true,
            ToVrrp::Leave => self.leave(),
        }
    }

    fn leave(&mut self) {
        self.is_leaving = true;
        self.desired = None;
        for router in &mut self.routers {
            router.is_leaving = true;
        }
    }

    fn lose_proxy(&mut self) {
        if self.pairing.take().is_some_and(|old| !old.is_counted) {
            self.deaths.add(machine::now());
        }
        self.report.is_wanted = true;
    }

    fn pair(&mut self, fds: Vec<std::os::fd::OwnedFd>) {
        if let Some(old) = &self.pairing {
            // Its end was not noticed yet, or the agent knows better.
            self.ends.bell.proxy_died(old.number);
            self.lose_proxy();
        }
        self.pairings += 1;
        match Pairing::begin(self.pairings, fds, &self.ends.sender, &self.ends.bell) {
            Ok(pairing) => self.pairing = Some(pairing),
            Err(error) => tracing::error!(%error, "cannot pair with the proxy"),
        }
    }

    fn on_proxy(&mut self, number: PairingNumber, message: ProxyToVrrp) {
        let Some(pairing) = self.pairing.as_mut().filter(|p| p.number == number) else {
            return;
        };
        match message {
            ProxyToVrrp::Holding => {
                if pairing.is_watched {
                    return;
                }
                if let Err(error) = pairing.watch(&self.ends.sender, &self.ends.bell, &self.served)
                {
                    tracing::error!(%error, "cannot watch the proxy");
                    return;
                }
                let page = pairing.page;
                if let Some(proxy) = page.proxy_life.holder() {
                    self.deaths.paired(proxy, machine::now());
                }
                self.tell_machine(ToMachine::Pairing(number, page));
                self.tell_all_held();
            }
            ProxyToVrrp::Accepting { listeners } => pairing.set_accepting(listeners),
            ProxyToVrrp::Usable {
                pool,
                mut endpoints,
            } => {
                while endpoints.upstreams.len() > MOST_UPSTREAMS {
                    endpoints.upstreams.pop_last();
                }
                if self.usable.len() < MOST_POOLS || self.usable.contains_key(&pool) {
                    self.usable.insert(pool, endpoints);
                }
            }
            ProxyToVrrp::Left { addresses } => {
                let now = machine::now();
                for router in &mut self.routers {
                    let own = router.addresses();
                    let is_it = addresses.iter().all(|address| own.contains(address));
                    if let Some(instance) = router.instance.as_mut().filter(|_| is_it)
                        && let Stage::AwaitProxy { until } = &mut instance.stage
                    {
                        *until = now;
                    }
                }
            }
        }
    }

    /// A new proxy learns what the host holds already, and one that had another vrrp before what the
    /// host has lost since.
    fn tell_all_held(&self) {
        for router in &self.routers {
            self.tell_held(router);
        }
    }

    fn tell_held(&self, router: &Managed) {
        if let Some(pairing) = &self.pairing {
            pairing.tell(&VrrpToProxy::Held {
                addresses: router.addresses().to_vec(),
                held: router.is_held,
            });
        }
    }

    fn on_host(&mut self, news: FromHost) -> anyhow::Result<()> {
        match news {
            FromHost::World(world) => self.world = Some(world),
            FromHost::Held(id, is_held) => {
                if let Some(at) = self.routers.iter().position(|router| router.is(id))
                    && let Some(router) = self.routers.get_mut(at)
                {
                    router.is_held = is_held;
                    if is_held {
                        router.problem = None;
                    }
                    if let Some(router) = self.routers.get(at) {
                        self.tell_held(router);
                    }
                }
            }
            FromHost::Forgotten(id) => self.on_gone(id),
            FromHost::Problem(id, text) => {
                tracing::error!("{text}");
                if let Some(router) = self.routers.iter_mut().find(|router| router.is(id)) {
                    router.problem = Some(text);
                }
            }
            FromHost::Broken(text) => anyhow::bail!(text),
        }
        self.report.is_wanted = true;
        Ok(())
    }

    fn on_machine(&mut self, news: FromMachine) {
        match news {
            FromMachine::Transition(id, transition) => self.on_transition(id, &transition),
            FromMachine::Stopped(id) => {
                let router = self.routers.iter_mut().find(|router| router.is(id));
                if let Some(instance) = router.and_then(|router| router.instance.as_mut())
                    && matches!(instance.stage, Stage::AwaitStop { .. })
                {
                    self.end_instance(id);
                }
            }
            FromMachine::Beats(number, beats) => {
                if let Some(pairing) = self.pairing.as_mut().filter(|p| p.number == number) {
                    pairing.beats = beats;
                    if !beats {
                        tracing::warn!("the proxy hangs; every virtual router is withdrawn");
                        self.deaths.add(machine::now());
                        pairing.is_counted = true;
                        // The machine has withdrawn them; without this, beats that are back by now
                        // would look as if nothing had happened.
                        for router in &mut self.routers {
                            if let Some(instance) = &mut router.instance {
                                instance.pairing = instance.pairing.filter(|p| *p != number);
                            }
                        }
                    }
                    self.report.is_wanted = true;
                }
            }
            FromMachine::Returned(slot) => {
                let id = slot.id;
                drop(slot);
                let keep_addresses = self.is_handed_over(id);
                self.tell_host(ToHost::Forget { id, keep_addresses });
            }
            FromMachine::Closed(segment) => drop(segment),
            FromMachine::Spent(settings) => drop(settings),
            FromMachine::Snapshot(snapshot) => self.on_snapshot(&snapshot),
        }
    }

    fn on_transition(&mut self, id: RouterId, transition: &::vrrp::Transition) {
        let Some(router) = self.routers.iter_mut().find(|router| router.is(id)) else {
            return;
        };
        let age = machine::now().since(transition.at);
        let transition = node_api::Transition {
            at_unix_ms: unix_ms(SystemTime::now().checked_sub(age)),
            from: machine::state(transition.from),
            to: machine::state(transition.to),
            cause: transition.cause.to_string(),
        };
        tracing::info!(
            vrid = router.spec.settings.virtual_router_id,
            addresses = ?router.addresses(),
            from = ?transition.from,
            to = ?transition.to,
            "{}", transition.cause
        );
        router.enter(transition);
        self.report.is_wanted = true;
    }

    // Reports.

    /// Asks the machine thread for its state; the report is sent when it comes.
    fn send_report_request(&mut self, now: Instant) {
        let is_due = self
            .report
            .last
            .is_none_or(|last| last + REPORT_EVERY <= now);
        if self.report.is_wanted && !self.report.is_under_way && is_due {
            self.report.is_wanted = false;
            self.report.is_under_way = true;
            self.report.last = Some(now);
            let snapshot = Snapshot {
                routers: Vec::with_capacity(self.routers.len() + 8),
                ..Snapshot::default()
            };
            self.tell_machine(ToMachine::Snapshot(Box::new(snapshot)));
        }
    }

    fn on_snapshot(&mut self, snapshot: &Snapshot) {
        self.report.is_under_way = false;
        let now = machine::now();
        self.note_delay(snapshot.latest_timer, now);
        for observed in &snapshot.routers {
            let router = self
                .routers
                .iter_mut()
                .find(|router| router.is(observed.id));
            if let (Some(router), Some(peer)) = (router, observed.last_heard) {
                router.peer = Some(peer.source);
            }
        }
        let told = self.routers.iter().map(|router| report::Told {
            reason: self.reason(router),
            conflicts: self.conflicts_of(router),
            isolation: self.isolation_of(router),
        });
        let told = told.collect();
        let mut standing = self.warnings.clone();
        standing.extend(self.foreign_addresses());
        let delay = self.delay.0;
        let routers = self.routers.iter();
        let intervals = routers.map(|router| router.spec.settings.advertisement_interval);
        standing.extend(timers::too_late(delay, intervals));
        let report = report::report(&self.routers, told, snapshot, &standing, delay, now);
        self.ends.outbox.post(FromVrrp::Report(report));
    }

    /// Keeps the longest delay for a while, so that somebody sees it.
    fn note_delay(&mut self, delay: Duration, now: Instant) {
        let (longest, since) = self.delay;
        if delay >= longest || now.since(since) > SHOW_DELAY_FOR {
            self.delay = (delay, now);
        }
    }

    /// Why a virtual router is in its state, in words.
    fn reason(&self, router: &Managed) -> String {
        if let Some(obstacle) = router.obstacle() {
            return obstacle.to_owned();
        }
        if router.is_leaving {
            return router.cause.clone();
        }
        match &self.pairing {
            None => "the proxy does not run".to_owned(),
            Some(pairing) if !pairing.is_watched => "the proxy starts".to_owned(),
            Some(pairing) if !pairing.beats => "the proxy hangs".to_owned(),
            Some(pairing) => match pairing.missing(&router.spec.settings, &router.required_ports) {
                Some(listener) => format!("the proxy does not accept on {listener}"),
                None => router.cause.clone(),
            },
        }
    }

    /// Virtual addresses that somebody configured by hand: two hosts would answer for them.
    fn foreign_addresses(&self) -> Vec<String> {
        let Some(world) = &self.world else {
            return Vec::new();
        };
        self.routers
            .iter()
            .flat_map(Managed::addresses)
            .filter_map(|address| {
                let interface = world.foreign(*address)?;
                Some(format!(
                    "{address} is configured on {interface} by somebody else: remove it there, or \
                     two hosts answer for it"
                ))
            })
            .collect()
    }

    // Sending.

    fn tell_machine(&mut self, mut command: ToMachine) {
        // Full only while the machine thread hangs, and then the agent ends the process.
        while let Err(back) = self.ends.machine.push(command) {
            command = back;
            self.ends.bell.wake.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ends.bell.wake.wake();
    }

    fn tell_host(&self, order: ToHost) {
        // A thread that ended said so, and the process ends with it.
        drop(self.ends.host.send(order));
        self.ends.host_wake.wake();
    }
}

fn unix_ms(time: Option<SystemTime>) -> u64 {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
