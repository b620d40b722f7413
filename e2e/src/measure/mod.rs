//! Repeats faults against a subject and tells what they cost its client.

mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arp::ArpWatch;
use crate::backend::Backends;
use crate::control::ControlTimer;
use crate::fault::Fault;
use crate::lab::{Lab, VIP_SERVER1, VIP_SERVER2};
use crate::probe::{Outage, Probe, Timing};
use crate::subject::{Gateways, Settings, Subject};
use crate::wait;

pub use self::table::{Figures, align, table};

/// Bound against hangs: no settled state takes longer to reach.
const BOUND: Duration = Duration::from_secs(20);
/// A client that hears nothing this long after a heal is stuck; the article's clients were for up to 52 s.
const STUCK: Duration = Duration::from_secs(8);
/// Echoes in a row that count as served again.
const STEADY: usize = 40;

/// What one span cost.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The longest silence, ms.
    pub outage_ms: f64,
    /// All silences beyond the loss limit together, ms.
    pub total_ms: f64,
    /// By how much the control timer woke late at worst during the longest silence, ms.
    pub control_ms: f64,
    /// What the client saw.
    pub saw: String,
    /// The client did not come back by itself within the bound: `outage_ms` is a lower limit.
    pub stuck: bool,
}

/// One fault and its heal.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was hit.
    pub subject: Subject,
    /// Interval between advertisements, ms; the article's is always 1000.
    pub advertisement_ms: u128,
    /// What happened.
    pub fault: Fault,
    /// Which repetition.
    pub repeat: u32,
    /// Cost of the fault.
    pub outage: Cost,
    /// Cost of the return, where the address had moved.
    pub fail_back: Option<Cost>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Against what.
    pub subject: Subject,
    /// With which settings.
    pub settings: Settings,
    /// Which faults, in turn.
    pub faults: Vec<Fault>,
    /// Numbers of the repetitions.
    pub repeats: std::ops::Range<u32>,
    /// Seed of the phases.
    pub seed: u64,
}

/// Runs a plan in a lab of its own and hands each sample to `report`. A repetition that fails is reported as
/// an error and the lab is built anew.
pub fn run(plan: &Plan, mut report: impl FnMut(Result<Sample>)) -> Result<()> {
    let mut phases = Phases(plan.seed | 1);
    let mut todo: Vec<(u32, Fault)> = plan
        .repeats
        .clone()
        .flat_map(|repeat| plan.faults.iter().map(move |fault| (repeat, *fault)))
        .rev()
        .collect();
    let mut failures_in_a_row = 0;
    while !todo.is_empty() {
        let lab = Lab::new()?;
        let mut stage = match Stage::set(&lab, plan) {
            Ok(stage) => stage,
            Err(error) => return Err(error.context(format!("{} does not come up", plan.subject))),
        };
        while let Some((repeat, fault)) = todo.pop() {
            match stage.repetition(plan, fault, repeat, &mut phases) {
                Ok(sample) => {
                    failures_in_a_row = 0;
                    report(Ok(sample));
                }
                Err(error) => {
                    let logs = stage.gateways.logs();
                    report(Err(error.context(format!(
                        "{}: {fault}, repetition {repeat}\n{logs}",
                        plan.subject
                    ))));
                    failures_in_a_row += 1;
                    break;
                }
            }
        }
        anyhow::ensure!(
            failures_in_a_row < 3,
            "{}: three repetitions in a row failed",
            plan.subject
        );
    }
    Ok(())
}

/// A lab with everything in it at work.
struct Stage<'lab> {
    lab: &'lab Lab,
    // In the order of their ends: nobody talks to what is gone.
    probe: Probe,
    arp: ArpWatch,
    control: ControlTimer,
    gateways: Gateways<'lab>,
    _backends: Backends,
}

impl<'lab> Stage<'lab> {
    fn set(lab: &'lab Lab, plan: &Plan) -> Result<Self> {
        let backends = Backends::start(lab)?;
        let gateways = Gateways::start(lab, plan.subject, plan.settings.clone())?;
        let arp = ArpWatch::start(lab, &[VIP_SERVER1, VIP_SERVER2], Duration::from_millis(50))?;
        let settled = gateways
            .wait_at_home(&arp, BOUND)
            .with_context(|| gateways.logs());
        settled?;
        let probe = Probe::start(lab.client(), VIP_SERVER1, Timing::default())?;
        Ok(Self {
            lab,
            probe,
            arp,
            control: ControlTimer::start()?,
            gateways,
            _backends: backends,
        })
    }

    fn repetition(
        &mut self,
        plan: &Plan,
        fault: Fault,
        repeat: u32,
        phases: &mut Phases,
    ) -> Result<Sample> {
        let start = Instant::now();
        self.probe.forget(start);
        self.arp.forget(start);
        self.control.forget(start);
        self.steady(start, STEADY).context("before the fault")?;
        std::thread::sleep(phases.up_to(self.gateways.longest_timer()));

        let hit = Instant::now();
        let victim = self.lab.server1();
        let before = self.gateways.vrrp_processes(victim);
        fault.strike(&mut self.gateways, victim)?;
        let moves = fault.moves_address(plan.subject);
        if moves {
            let heir = self.lab.server2();
            wait::until("server2 to take over", BOUND, || {
                Ok(heir.holds(VIP_SERVER1)?.then_some(()))
            })?;
            self.steady(Instant::now(), STEADY)
                .context("after the take-over")?;
        } else {
            wait::until("vrrp to come back", BOUND, || {
                let now = self.gateways.vrrp_processes(victim);
                Ok((!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(()))
            })?;
            // Long enough for a peer that had been missed to have acted.
            self.steady(Instant::now(), 4 * STEADY)
                .context("after the return of vrrp")?;
        }
        let outage = self.cost(hit, Instant::now(), false);

        let healed = Instant::now();
        fault.heal(&mut self.gateways, victim)?;
        let settled = self.gateways.wait_at_home(&self.arp, BOUND)?;
        let stuck = self.probe.steady(settled, STEADY, STUCK).is_none();
        let fail_back = moves.then(|| self.cost(healed, Instant::now(), stuck));
        if stuck {
            self.lab.client().flush_neighbours()?;
            self.steady(Instant::now(), STEADY)
                .context("after the client forgot its neighbours")?;
        }
        Ok(Sample {
            subject: plan.subject,
            advertisement_ms: if plan.subject == Subject::Article {
                1000
            } else {
                plan.settings.advertisement.as_millis()
            },
            fault,
            repeat,
            outage,
            fail_back,
        })
    }

    fn steady(&self, since: Instant, count: usize) -> Result<Instant> {
        self.probe
            .steady(since, count, BOUND)
            .with_context(|| format!("the client gets no {count} echoes in a row"))
    }

    fn cost(&self, from: Instant, to: Instant, stuck: bool) -> Cost {
        let Outage {
            longest,
            between,
            total,
            ..
        } = self.probe.outage(from, to);
        Cost {
            outage_ms: ms(longest),
            total_ms: ms(total),
            control_ms: ms(self.control.worst(between.0, between.1)),
            saw: self.probe.outage(from, to).saw(),
            stuck,
        }
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Random phases against the subject's timers; the seed makes a run repeatable (xorshift64*).
#[derive(Debug)]
struct Phases(u64);

impl Phases {
    fn up_to(&mut self, longest: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // The upper half as a fraction of 2^32.
        let nanos = longest.as_nanos().saturating_mul(u128::from(number)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
}
