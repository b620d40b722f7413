//! Who does it all: faults and edits, one after another, drawn from the seed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::certificates::Certificates;
use super::crowd::Gathering;
use super::deed::{Deed, Deeds};
use super::ledger;
use super::random::Random;
use super::servers::Servers;
use super::spec::{Edit, SECURE_PORT, Spec};
use super::takeovers::Takeovers;
use super::vitals::Vitals;
use crate::lab::{VIP_SERVER1, VIP_SERVER2};
use crate::testing::{Cluster, Gateway, Part};
use crate::wait;

/// Bound against hangs: a proxy that died several times is taken back after a minute.
const SETTLE: Duration = Duration::from_mins(3);

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longer than heartbeats take to find a server that does not answer.
const FROZEN: Duration = Duration::from_secs(11);

/// How a gateway says that access records are lost with it.
const LATE: [&str; 2] = [
    "the proxy process did not stop in time",
    "its last records are lost",
];

/// What can go wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    /// A server is killed and comes back at once.
    ServerKilled,
    /// A server is stopped and refuses connections for a while.
    ServerRefuses,
    /// A server hangs for so short a time that nobody may notice.
    ServerHangs,
    /// A server hangs until heartbeats give it up.
    ServerFrozen,
    /// A gateway is stopped in order and started again: its address moves, and comes back.
    GatewayStopped,
    /// A proxy is killed.
    ProxyKilled,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::ServerKilled,
        Self::ServerRefuses,
        Self::ServerHangs,
        Self::ServerFrozen,
        Self::GatewayStopped,
        Self::ProxyKilled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ServerKilled => "server killed",
            Self::ServerRefuses => "server refuses",
            Self::ServerHangs => "server hangs",
            Self::ServerFrozen => "server frozen",
            Self::GatewayStopped => "gateway stopped",
            Self::ProxyKilled => "proxy killed",
        }
    }
}

/// A thing to do.
#[derive(Clone, Copy, Debug)]
enum Act {
    Fault(Fault),
    Edit(Edit),
}

/// Drives a cluster for as long as it takes.
#[derive(Debug)]
pub(super) struct Director<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) crowd: Gathering,
    pub(super) servers: Servers,
    pub(super) spec: Spec,
    pub(super) certificates: Certificates,
    pub(super) deeds: Deeds,
    pub(super) vitals: Vitals,
    pub(super) takeovers: Takeovers,
    pub(super) random: Random,
    /// The gateway whose processes are to live from begin to end, so that a leak has time to show.
    pub(super) steady: Gateway,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) edits: BTreeMap<&'static str, u64>,
    /// Gateways that did not stop in time, in the words of their logs.
    pub(super) late: Vec<String>,
    pub(super) pauses: [Duration; 2],
    pub(super) begun: Instant,
}

impl Director<'_> {
    /// Everything once, in an order of the seed's; then whatever comes until `until`.
    pub(super) fn run(&mut self, until: Instant) -> Result<()> {
        let faults = Fault::ALL.map(Act::Fault);
        let edits = Edit::ALL.map(Act::Edit);
        let mut first: Vec<Act> = faults.into_iter().chain(edits).collect();
        while !first.is_empty() {
            let act = first.swap_remove(self.random.index(first.len()));
            self.act(act)?;
        }
        while Instant::now() < until {
            let act = self.draw();
            self.act(act)?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Act {
        match self.random.between(1, 100) {
            1..=12 => Act::Fault(Fault::ServerKilled),
            13..=22 => Act::Fault(Fault::ServerRefuses),
            23..=28 => Act::Fault(Fault::ServerHangs),
            29..=34 => Act::Fault(Fault::ServerFrozen),
            35..=40 => Act::Fault(Fault::GatewayStopped),
            41 => Act::Fault(Fault::ProxyKilled),
            _ => Act::Edit(self.random.one_of(&Edit::ALL)),
        }
    }

    fn act(&mut self, act: Act) -> Result<()> {
        let [shortest, longest] = self.pauses;
        let pause = self.random.time(shortest, longest);
        self.pause(pause);
        // Before a gateway is stopped and forgets them.
        self.takeovers.look(self.cluster);
        match act {
            Act::Fault(fault) => {
                self.say(fault.name());
                self.strike(fault).context(fault.name())?;
                *self.faults.entry(fault.name()).or_default() += 1;
            }
            Act::Edit(edit) => {
                if let Some(deeds) = self.spec.edit(edit, &mut self.random) {
                    self.say(&format!("edit: {}", edit.name()));
                    self.edit(edit, &deeds).context(edit.name())?;
                    *self.edits.entry(edit.name()).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        eprintln!(
            "{:>6.1} s  {:>5} sessions  {what}",
            self.begun.elapsed().as_secs_f32(),
            self.crowd.live()
        );
    }

    /// Lets things go on, and looks at memory meanwhile.
    fn pause(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.vitals.look(self.cluster);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn edit(&mut self, edit: Edit, deeds: &[Deed]) -> Result<()> {
        if edit == Edit::Certificate {
            let client = self.cluster.lab.client();
            return self.certificates.replace(client, SECURE_PORT);
        }
        // New sessions must not go where nobody listens any more, nor where nobody listens yet.
        if edit == Edit::ListenerRemoved {
            self.crowd.use_listeners(self.spec.listeners());
        }
        match edit {
            Edit::Limits => self.deeds.end(Deed::Limited),
            Edit::Balancing | Edit::Rebalance => self.deeds.end(Deed::Rebalanced),
            _ => {}
        }
        for deed in deeds {
            self.deeds.begin(*deed);
        }
        self.cluster.edit(&self.spec.manifest())?;
        for deed in deeds.iter().filter(|deed| !deed.stays()) {
            self.deeds.end(*deed);
        }
        self.crowd.use_listeners(self.spec.listeners());
        Ok(())
    }

    /// The spec as it was at first, and every server there.
    pub(super) fn restore(&mut self) -> Result<()> {
        let first = Spec::new(&self.cluster.lab);
        self.crowd.use_listeners(first.listeners());
        let listeners = self.spec.listeners().into_iter();
        let removed = listeners.map(|listener| Deed::ListenerRemoved(listener.port));
        let endpoints = self.cluster.lab.backends().iter();
        let removed = removed.chain(endpoints.map(|host| Deed::EndpointRemoved(host.address())));
        let removed: Vec<Deed> = removed.collect();
        for deed in &removed {
            self.deeds.begin(*deed);
        }
        self.deeds.end(Deed::Limited);
        self.deeds.end(Deed::Rebalanced);
        self.spec = first;
        self.cluster.edit(&self.spec.manifest())?;
        for deed in removed {
            self.deeds.end(deed);
        }
        Ok(())
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::ServerKilled => self.server_down(Signal::SIGKILL, Duration::ZERO),
            Fault::ServerRefuses => {
                let time = self
                    .random
                    .time(Duration::from_secs(1), Duration::from_secs(4));
                self.server_down(Signal::SIGTERM, time)
            }
            Fault::ServerHangs => self.server_hangs(Duration::from_millis(700), false),
            Fault::ServerFrozen => self.server_hangs(FROZEN, true),
            Fault::GatewayStopped => self.gateway_stopped(),
            Fault::ProxyKilled => self.proxy_killed(),
        }
    }

    fn server(&mut self) -> (usize, Ipv4Addr) {
        let index = self.random.index(self.servers.count());
        (index, self.cluster.lab.backends()[index].address())
    }

    fn server_down(&mut self, signal: Signal, time: Duration) -> Result<()> {
        let (index, address) = self.server();
        self.deeds.begin(Deed::ServerDown(address));
        self.servers.signal(index, signal)?;
        self.pause(time);
        self.servers.restart(&self.cluster.lab, index)?;
        self.deeds.end(Deed::ServerDown(address));
        Ok(())
    }

    fn server_hangs(&mut self, time: Duration, ends_sessions: bool) -> Result<()> {
        let (index, address) = self.server();
        if ends_sessions {
            self.deeds.begin(Deed::ServerFrozen(address));
        }
        self.servers.signal(index, Signal::SIGSTOP)?;
        self.pause(time);
        self.servers.signal(index, Signal::SIGCONT)?;
        self.deeds.end(Deed::ServerFrozen(address));
        Ok(())
    }

    /// The gateway that is not the steady one.
    fn other(&self) -> Gateway {
        match self.steady {
            Gateway::One => Gateway::Two,
            Gateway::Two => Gateway::One,
        }
    }

    fn gateway_stopped(&mut self) -> Result<()> {
        let gateway = self.other();
        let deed = Deed::GatewayStopped(ledger::address(gateway));
        self.deeds.begin(deed);
        self.stop(gateway)?;
        let time = self
            .random
            .time(Duration::from_millis(500), Duration::from_secs(4));
        self.pause(time);
        self.cluster.start(gateway)?;
        self.settle()?;
        self.deeds.end(deed);
        Ok(())
    }

    /// A gateway that does not get done in time is ended by itself, and its last records with it: that is no cause of a
    /// close, but the reason why none is recorded.
    fn stop(&mut self, gateway: Gateway) -> Result<()> {
        let begun = Instant::now();
        let log = self.cluster.log(gateway);
        let said_before = fs::metadata(&log)?.len();
        self.cluster.stop(gateway)?;
        let mut log = File::open(&log)?;
        log.seek(SeekFrom::Start(said_before))?;
        let mut said = Vec::new();
        log.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let is_late = |line: &&str| LATE.iter().any(|words| line.contains(words));
        for line in said.lines().filter(is_late) {
            self.say(line);
            self.deeds
                .happened(Deed::ProxyKilled(ledger::address(gateway)), begun);
            self.late.push(line.to_owned());
        }
        Ok(())
    }

    fn proxy_killed(&mut self) -> Result<()> {
        let gateway = self.other();
        let deed = Deed::ProxyKilled(ledger::address(gateway));
        let before = self.cluster.pid(gateway, Part::Proxy)?;
        self.deeds.begin(deed);
        self.cluster.signal(gateway, Part::Proxy, Signal::SIGKILL)?;
        self.cluster.wait_restarted(gateway, Part::Proxy, before)?;
        self.settle()?;
        self.deeds.end(deed);
        Ok(())
    }

    /// Waits until each address is where it belongs.
    fn settle(&mut self) -> Result<()> {
        for (address, home) in [(VIP_SERVER1, Gateway::One), (VIP_SERVER2, Gateway::Two)] {
            let what = format!("{address} to come back to {}", home.name());
            wait::until(&what, SETTLE, || {
                let holders = self.cluster.lab.holders(address)?;
                Ok((holders == [home.name()]).then_some(()))
            })?;
        }
        self.vitals.look(self.cluster);
        Ok(())
    }
}
