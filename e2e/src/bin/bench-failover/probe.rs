//! The same client on a real network: somebody else makes the faults.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::control::ControlTimer;
use e2e::machine;
use e2e::measure::{Cost, Figures, align};
use e2e::probe::{Probe, Timing};
use e2e::testing::Client;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Watches an address of a real network as a client, and tells each outage.
///
/// Nothing is broken by this program: break things by hand while it watches, until Ctrl-C or for `--seconds`; or give
/// it the commands that do so, which are run in turn, `--repeat` times, each once the client is served. Behind the
/// address must be a server that repeats what it is sent, or answers as the article's does. Needs no root; with it, the
/// client has real-time priority.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Virtual address and port to talk to, `192.168.1.110:8020` or `[2001:db8::110]:8020`.
    #[arg(long)]
    address: SocketAddr,
    /// For how long to watch; by default until Ctrl-C.
    #[arg(long, conflicts_with = "fault_command")]
    seconds: Option<u64>,
    /// Command for `sh -c` that makes the fault: `ssh gw1 systemctl stop wsha-dataplane`.
    #[arg(long, requires = "heal_command")]
    fault_command: Option<String>,
    /// Command for `sh -c` that undoes it.
    #[arg(long, requires = "fault_command")]
    heal_command: Option<String>,
    /// How often both are run.
    #[arg(long, default_value_t = 20)]
    repeat: u32,
    /// Longest wait, in seconds, for the client to be served again after a command.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Seconds between "the client is served" and the next command: longer than any preemption delay.
    #[arg(long, default_value_t = 10)]
    settle: u64,
    /// A message without echo after so many ms is lost; connecting and upgrading may take as long.
    #[arg(long, default_value_t = 12)]
    lost_after: u64,
}

/// Echoes in a row that count as served.
const STEADY: usize = 40;
/// How often a watcher looks at what its client saw.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Watch {
    probe: Probe,
    control: ControlTimer,
    stop: Arc<AtomicBool>,
    limit: Duration,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let limit = Duration::from_millis(options.lost_after);
    let timing = Timing {
        lost_after: limit,
        connect_timeout: limit,
        ..Timing::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let watch = Watch {
        probe: Probe::from(Client::Here, options.address, timing)?,
        control: ControlTimer::start_real_time()?,
        stop,
        limit,
    };
    println!("{}", machine::describe());
    println!(
        "{}: a message each {} ms, lost after {} ms; an outage is what passes between two echoes; in parentheses: by \
         how much a timer beside the client woke late meanwhile",
        options.address,
        timing.send_every.as_millis(),
        options.lost_after
    );
    watch.served(Instant::now(), Duration::from_secs(options.patience))?;
    println!("served; now break something");
    if let (Some(fault), Some(heal)) = (&options.fault_command, &options.heal_command) {
        return watch.command(options, fault, heal);
    }
    watch.by_hand(options.seconds.map(Duration::from_secs));
    Ok(())
}

impl Watch {
    /// Waits until the client has echoes in a row since `since`.
    fn served(&self, since: Instant, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(at) = self.probe.steady(since, STEADY, LOOK_EVERY) {
                return Ok(at);
            }
            ensure!(
                Instant::now() < deadline,
                "the client is not served within {} s; it saw {}",
                patience.as_secs(),
                self.probe.outage(since, Instant::now()).saw()
            );
        }
        bail!("interrupted")
    }

    /// The longest silence from `from` to `to`.
    fn cost(&self, from: Instant, to: Instant) -> Cost {
        Cost::of(&self.probe.outage(from, to), &self.control, false)
    }

    /// Tells of each outage when it is over.
    fn by_hand(&self, seconds: Option<Duration>) {
        let begun = Instant::now();
        let mut costs = Vec::new();
        let mut from = begun;
        loop {
            let is_last = self.stop.load(Ordering::Relaxed)
                || seconds.is_some_and(|seconds| begun.elapsed() >= seconds);
            // A span ends where the client is served, or an outage would count twice.
            let served = self.probe.steady(from, STEADY, LOOK_EVERY);
            if let Some(to) = served.or_else(|| is_last.then(Instant::now)) {
                let cost = self.cost(from, to);
                if cost.outage_ms > self.limit.as_secs_f64() * 1000.0 {
                    println!(
                        "{:7.1} s  {:.0} ms ({:.0}): {}",
                        begun.elapsed().as_secs_f64(),
                        cost.outage_ms,
                        cost.control_ms,
                        cost.saw
                    );
                    costs.push(cost);
                }
                from = to;
                self.probe.forget(from);
                self.control.forget(from);
            }
            if is_last {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        show(&[("outages", costs)]);
    }

    /// Runs both commands in turn, and tells what each cost.
    fn command(&self, options: &Options, fault: &str, heal: &str) -> Result<()> {
        let patience = Duration::from_secs(options.patience);
        let mut outcomes = [("fault", Vec::new()), ("its fail-back", Vec::new())];
        for repeat in 1..=options.repeat {
            for ((name, costs), command) in outcomes.iter_mut().zip([fault, heal]) {
                self.pause(Duration::from_secs(options.settle))?;
                let since = Instant::now();
                self.probe.forget(since);
                self.control.forget(since);
                self.served(since, patience)?;
                let struck = Instant::now();
                execute(command)?;
                // What the command does may begin later than it ends.
                self.pause(Duration::from_secs(options.settle))?;
                let to = self.served(Instant::now(), patience)?;
                let cost = self.cost(struck, to);
                println!(
                    "#{repeat} {name}: {:.0} ms ({:.0}): {}",
                    cost.outage_ms, cost.control_ms, cost.saw
                );
                costs.push(cost);
            }
        }
        show(&outcomes);
        Ok(())
    }

    fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            thread::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

/// Runs a command of the user's to its end.
fn execute(command: &str) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    let status = shell.status().context("cannot run sh")?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

fn show(outcomes: &[(&str, Vec<Cost>)]) {
    let words = ["outage of the client, ms", "n", "median / p90 / max"];
    let mut rows = vec![words.map(str::to_owned).to_vec()];
    for (name, costs) in outcomes {
        if let Some(figures) = Figures::of(costs.iter()) {
            let count = figures.count.to_string();
            rows.push(vec![(*name).to_owned(), count, figures.shown()]);
        }
    }
    println!("\n{}", align(&rows));
}
