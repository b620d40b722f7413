//! Takeovers without a reason, while every core has all it can do.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::arp::ArpWatch;
use e2e::control::ControlTimer;
use e2e::lab::{Lab, VIP_SERVER1, VIP_SERVER2};
use e2e::measure::{align, markdown};
use e2e::subject::{Gateways, Router, Settings, Subject};
use e2e::takeover::{Busy, Capture, Judge, Takeover};
use e2e::{machine, tools};

/// Counts takeovers while nothing is broken and every core is busy, for wsha and for keepalived with and without
/// real-time priority, all at the same time and under the same load.
///
/// Whether the Active router's advertisements were on the wire in time is told by the kernel's time of their arrival
/// at the switch. From 60 s on it fails if wsha took over while they were, or more often than keepalived with
/// real-time priority.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Interval between advertisements, ms.
    #[arg(long, default_value_t = 10)]
    advert: u64,
    /// Program to measure as wsha; by default the one built beside this.
    #[arg(long, env = "WSHA_DATAPLANE")]
    wsha_binary: Option<PathBuf>,
    /// File that takes the table as Markdown, with machine and date.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// What is measured: its name, and whether keepalived has real-time priority.
const STACKS: [(&str, Subject, bool); 3] = [
    ("wsha", Subject::Wsha, true),
    ("keepalived, real-time", Subject::Best, true),
    ("keepalived, without", Subject::Best, false),
];
/// Bound against hangs.
const BOUND: Duration = Duration::from_secs(20);
/// Less is too short to judge by.
const ENOUGH: u64 = 60;
/// A Backup router's priority, of all stacks.
const BACKUP: u8 = 244;
/// A gap of the control timer that is a whole interval of 10 ms.
const GAP: Duration = Duration::from_millis(10);

/// Takeovers of one stack that are told one by one.
const MOST_TOLD: usize = 50;

/// What one stack did.
struct Outcome {
    name: &'static str,
    heard: u64,
    longest: Duration,
    takeovers: Vec<Takeover>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    crate::prepare_lab(true)?;
    let interval = Duration::from_millis(options.advert);
    let binary = tools::wsha_binary(options.wsha_binary.as_deref())?;
    // No priority is raised: the load is as the other work of a host, and each stack helps itself.
    let mut labs = Vec::new();
    for (name, subject, real_time) in STACKS {
        labs.push((name, subject, real_time, Lab::new()?));
    }
    let mut stacks = Vec::new();
    for (name, subject, real_time, lab) in &labs {
        let settings = Settings {
            advertisement: interval,
            wsha_binary: Some(binary.clone()),
            real_time: *real_time,
            ..Settings::default()
        };
        stacks.push((*name, lab, Gateways::start(lab, *subject, settings)?));
    }
    for (name, lab, gateways) in &stacks {
        let period = Duration::from_millis(50);
        let arp = ArpWatch::start(lab, &[VIP_SERVER1, VIP_SERVER2], period)?;
        gateways
            .wait_at_home(&arp, BOUND)
            .with_context(|| format!("{name} does not come up: {}", gateways.logs()))?;
    }
    let control = ControlTimer::start_real_time()?;
    let captures = stacks.iter().map(|(_, lab, _)| follow(lab, interval));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    {
        let _busy = Busy::start()?;
        thread::sleep(Duration::from_secs(options.seconds));
    }
    let ended = Instant::now();
    let outcomes: Vec<Outcome> = stacks
        .iter()
        .zip(&captures)
        .map(|((name, ..), capture)| Outcome::of(name, &capture.judges()))
        .collect();
    let head = format!(
        "{}. {}.\n{} s of full load on all cores (per core a thread that computes, one that copies, one that starts \
         programs), advertisements each {} ms, two virtual routers per stack, all stacks at once.\nA real-time timer \
         beside them woke late by 10 ms or more {} times, by {:.1} ms at most.",
        machine::describe(),
        machine::peers(),
        options.seconds,
        options.advert,
        control.count(begun, GAP),
        control.worst(begun, ended).as_secs_f64() * 1000.0,
    );
    let rows = rows(&outcomes);
    println!("{head}\n\n{}", align(&rows));
    for outcome in &outcomes {
        outcome.tell();
        ensure!(outcome.heard > 0, "{} sent no advertisement", outcome.name);
    }
    if let Some(path) = &options.markdown {
        let page = format!("{head}\n\n{}", markdown(&rows));
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    verdict(options, &outcomes)
}

/// Follows both virtual routers of a lab.
fn follow(lab: &Lab, interval: Duration) -> Result<Capture> {
    let judge = |router: &Router| {
        let owner = lab
            .gateways()
            .into_iter()
            .find(|it| it.name() == router.owner)?;
        Some((
            router.address,
            Judge::new(owner.address(), interval, BACKUP),
        ))
    };
    Capture::start(lab, Router::ARTICLE.iter().filter_map(judge))
}

impl Outcome {
    fn of(name: &'static str, judges: &[Judge]) -> Self {
        let takeovers = judges.iter().flat_map(Judge::takeovers).copied();
        Self {
            name,
            heard: judges.iter().map(Judge::heard).sum(),
            longest: judges.iter().map(Judge::longest).max().unwrap_or_default(),
            takeovers: takeovers.collect(),
        }
    }

    fn count(&self, wanted: impl Fn(&Takeover) -> bool) -> usize {
        self.takeovers.iter().filter(|it| wanted(it)).count()
    }

    /// Each takeover, of a stack that had few: of hundreds the table says enough.
    fn tell(&self) {
        let few = self.takeovers.iter().take(MOST_TOLD);
        for takeover in few.filter(|_| self.takeovers.len() <= MOST_TOLD) {
            println!(
                "{}: takeover after {:.1} ms of silence on the wire{}",
                self.name,
                takeover.silence.as_secs_f64() * 1000.0,
                match (takeover.released, takeover.in_time) {
                    (true, _) => ", released with priority 0",
                    (_, true) => ", in time",
                    _ => "",
                }
            );
        }
    }
}

fn rows(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let words = [
        "full load",
        "takeovers",
        "while the Active's advertisements were on the wire in time",
        "longest silence of an Active on the wire, ms",
        "advertisements",
    ];
    let mut rows = vec![words.map(str::to_owned).to_vec()];
    rows.extend(outcomes.iter().map(|outcome| {
        vec![
            outcome.name.to_owned(),
            outcome.takeovers.len().to_string(),
            outcome.count(|it| it.in_time).to_string(),
            format!("{:.1}", outcome.longest.as_secs_f64() * 1000.0),
            outcome.heard.to_string(),
        ]
    }));
    rows
}

fn verdict(options: &Options, outcomes: &[Outcome]) -> Result<()> {
    let [ours, theirs, _] = outcomes else {
        bail!("not every stack was measured");
    };
    if options.seconds < ENOUGH {
        println!("Less than {ENOUGH} s is too short to judge by.");
        return Ok(());
    }
    let in_time = ours.count(|it| it.in_time);
    ensure!(
        in_time == 0,
        "wsha took over {in_time} times while the Active's advertisements were on the wire in time"
    );
    ensure!(
        ours.takeovers.len() <= theirs.takeovers.len(),
        "wsha took over more often than keepalived with real-time priority"
    );
    Ok(())
}
