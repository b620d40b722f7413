//! A lab in which faults are measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use nix::unistd::Pid;

use super::phases::{Advertisements, Phases};
use super::{Cost, Plan, Sample, ms};
use crate::arp::ArpWatch;
use crate::backend::Backends;
use crate::control::ControlTimer;
use crate::fault::Fault;
use crate::lab::{Host, Lab, VIP_SERVER1, VIP_SERVER2, Vacated};
use crate::probe::{Probe, Timing};
use crate::subject::Gateways;
use crate::wait;

/// Bound against hangs: no settled state takes longer to reach.
const BOUND: Duration = Duration::from_secs(20);
/// A client that hears nothing this long after a heal is stuck; the article's clients were for up to 52 s.
const STUCK: Duration = Duration::from_secs(8);
/// Echoes in a row that count as served again.
const STEADY: usize = 40;

/// A repetition that came to no end.
#[derive(Debug)]
pub(super) struct Failed {
    /// What it had cost by then, if the fault had struck.
    pub(super) sample: Option<Box<Sample>>,
    /// Why.
    pub(super) error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            sample: None,
            error,
        }
    }
}

/// A lab with a subject at work.
#[derive(Debug)]
pub(super) struct Stage<'lab> {
    lab: &'lab Lab,
    pub(super) gateways: Gateways<'lab>,
    _backends: Backends,
}

impl<'lab> Stage<'lab> {
    /// Starts everything and waits until each address is where it belongs.
    pub(super) fn set(lab: &'lab Lab, plan: &Plan) -> Result<Self> {
        let backends = Backends::start(lab)?;
        let gateways = Gateways::start(lab, plan.subject, plan.settings.clone())?;
        let settled = gateways
            .wait_at_home(&arp(lab)?, BOUND)
            .with_context(|| gateways.logs());
        settled?;
        Ok(Self {
            lab,
            gateways,
            _backends: backends,
        })
    }

    /// Starts the client and what watches beside it. Without them a lab is idle.
    pub(super) fn watchers(&self) -> Result<Watchers> {
        Ok(Watchers {
            probe: Probe::start(self.lab.client(), VIP_SERVER1, Timing::default())?,
            arp: arp(self.lab)?,
            control: ControlTimer::start_real_time()?,
            advertisements: Advertisements::listen(self.lab.observer())?,
        })
    }

    /// Strikes, heals, and tells what either cost.
    pub(super) fn repetition(
        &mut self,
        watchers: &Watchers,
        plan: &Plan,
        fault: Fault,
        repeat: u32,
        phases: &mut Phases,
    ) -> Result<Sample, Failed> {
        let victim = self.lab.server1();
        if fault == Fault::ProxyKilledLarge {
            fault.prepare(&self.gateways, victim)?;
            self.gateways.wait_at_home(&watchers.arp, BOUND)?;
        }
        watchers.start_anew()?;
        let gone = fault.is_noticed_by_host().then(|| Vacated::watch(victim));
        let gone = gone.transpose()?;
        let before = self.gateways.vrrp_processes(victim);
        if fault.is_silence() {
            // What it costs depends on little else than how long ago the last advertisement was.
            let heard = watchers.advertisements.next_of(victim.address(), BOUND)?;
            let phase = self
                .gateways
                .advertisement()
                .mul_f64(phases.stratum(repeat));
            std::thread::sleep((heard + phase).saturating_duration_since(Instant::now()));
        } else {
            std::thread::sleep(self.gateways.longest_timer().mul_f64(phases.any()));
        }
        if fault.is_noticed_by_host() {
            // The kernel tells of this one, and for a second of no other.
            spare(self.lab, Host::cable_cut)?;
        }
        let hit = Instant::now();
        fault.strike(&mut self.gateways, victim)?;
        let vacated = gone.map(|gone| {
            let gone = gone.wait(VIP_SERVER1, BOUND)?;
            anyhow::Ok(watchers.noticed(hit, gone))
        });
        let vacated = vacated.transpose()?;
        let survived = self.survive(watchers, fault, &before);
        let mut sample = Sample {
            subject: plan.subject,
            advertisement_ms: self.gateways.advertisement().as_millis(),
            fault,
            repeat,
            outage: watchers.cost(hit, survived.is_err()),
            vacated,
            fail_back: None,
        };
        let failed = |sample: &Sample, error| Failed {
            sample: Some(Box::new(sample.clone())),
            error,
        };
        survived.map_err(|error| failed(&sample, error))?;

        if fault.is_noticed_by_host() {
            spare(self.lab, Host::cable_mended)?;
        }
        let healed = Instant::now();
        let settled = fault
            .heal(&mut self.gateways, victim)
            .and_then(|()| self.gateways.wait_at_home(&watchers.arp, BOUND));
        let stuck = !settled.as_ref().is_ok_and(|settled| {
            let served = watchers.probe.steady(*settled, STEADY, STUCK);
            served.is_some()
        });
        if fault.moves_address(plan.subject) {
            sample.fail_back = Some(watchers.cost(healed, stuck));
        }
        settled
            .and_then(|_| self.recover(watchers, fault, stuck))
            .map_err(|error| failed(&sample, error))?;
        Ok(sample)
    }

    /// Waits until the client is served in spite of the fault; `before` were the processes of vrrp.
    fn survive(&self, watchers: &Watchers, fault: Fault, before: &[Pid]) -> Result<()> {
        if fault.moves_address(self.gateways.subject()) {
            let heir = self.lab.server2();
            wait::until("server2 to take over", BOUND, || {
                Ok(heir.holds(VIP_SERVER1)?.then_some(()))
            })?;
            watchers.steady(STEADY).context("after the take-over")
        } else {
            wait::until("vrrp to come back", BOUND, || {
                let now = self.gateways.vrrp_processes(self.lab.server1());
                Ok((!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(()))
            })?;
            // Long enough for a peer that had been missed to have acted.
            watchers
                .steady(4 * STEADY)
                .context("after the return of vrrp")
        }
    }

    /// What the next repetition needs, and none measures.
    fn recover(&mut self, watchers: &Watchers, fault: Fault, stuck: bool) -> Result<()> {
        if stuck {
            self.lab.client().flush_neighbours()?;
            watchers
                .steady(STEADY)
                .context("after the client forgot its neighbours")?;
        }
        if fault.is_remembered(self.gateways.subject()) {
            self.gateways.restart_host(self.lab.server1())?;
            self.gateways.wait_at_home(&watchers.arp, BOUND)?;
        }
        Ok(())
    }
}

/// Does something to a host that nobody needs.
fn spare(lab: &Lab, what: impl Fn(&Host) -> Result<()>) -> Result<()> {
    lab.backends().last().map_or(Ok(()), what)
}

fn arp(lab: &Lab) -> Result<ArpWatch> {
    ArpWatch::start(lab, &[VIP_SERVER1, VIP_SERVER2], Duration::from_millis(50))
}

/// The client, and what is watched beside it.
#[derive(Debug)]
pub(super) struct Watchers {
    probe: Probe,
    arp: ArpWatch,
    control: ControlTimer,
    advertisements: Advertisements,
}

impl Watchers {
    /// Forgets what was, and waits until the client is served.
    fn start_anew(&self) -> Result<()> {
        let start = Instant::now();
        self.probe.forget(start);
        self.arp.forget(start);
        self.control.forget(start);
        self.steady(STEADY).context("before the fault")
    }

    fn steady(&self, count: usize) -> Result<()> {
        self.probe
            .steady(Instant::now(), count, BOUND)
            .map(drop)
            .with_context(|| format!("the client gets no {count} echoes in a row"))
    }

    /// What the host needed from `from` to `to` to notice.
    fn noticed(&self, from: Instant, to: Instant) -> Cost {
        let took = ms(to.saturating_duration_since(from));
        Cost {
            outage_ms: took,
            total_ms: took,
            control_ms: ms(self.control.worst(from, to)),
            saw: String::new(),
            stuck: false,
        }
    }

    /// What it cost from `from` to now.
    fn cost(&self, from: Instant, stuck: bool) -> Cost {
        let outage = self.probe.outage(from, Instant::now());
        Cost::of(&outage, &self.control, stuck)
    }
}
