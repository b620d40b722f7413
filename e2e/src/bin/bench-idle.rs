//! What idle gateways cost: CPU time and memory of wsha beside keepalived and nginx, in one run, one table.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2e::backend::Backends;
use e2e::lab::{Host, Lab, PORT};
use e2e::measure::align;
use e2e::subject::{Gateways, Router, Settings, Subject};
use e2e::testing::Session;
use e2e::{cost, tools, wait};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use node_api::{NodeReport, RouterState};

/// Sessions opened at once: a listen queue has an end.
const PORTION: usize = 100;

/// Both subjects announce an address for the last time in quick succession 5 s after its router became Active.
const ANNOUNCEMENTS: Duration = Duration::from_secs(7);

/// Measures what gateways cost that hold many addresses, or back them up, while nothing happens.
#[derive(Debug, Parser)]
struct Options {
    /// Virtual routers, a table for each number: server1 is Active for all, server2 Backup for all.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 100], value_parser = clap::value_parser!(u8).range(1..=100))]
    routers: Vec<u8>,
    /// How long CPU time is counted, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Idle sessions whose memory is measured.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Program to measure as wsha; by default the one built beside this.
    #[arg(long, env = "WSHA_DATAPLANE")]
    wsha_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark needs root: its lab is made of network namespaces");
    }
    tools::install_backend()?;
    tools::install_peers()?;
    let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed)?;
    let binary = tools::wsha_binary(options.wsha_binary.as_deref())?;
    for routers in &options.routers {
        measure(options, *routers, &binary)?;
    }
    Ok(())
}

/// One table, for so many virtual routers.
fn measure(options: &Options, routers: u8, binary: &Path) -> Result<()> {
    let begun = Instant::now();
    let router = |number| Router {
        vrid: 100 + number,
        address: Ipv4Addr::new(192, 168, 1, 100 + number),
        owner: "server1",
    };
    let settings = Settings {
        wsha_binary: Some(binary.to_owned()),
        routers: (1..=routers).map(router).collect(),
        ..Settings::default()
    };

    // Side by side, so that a busy machine is as busy for both.
    let labs = [Lab::new()?, Lab::new()?];
    let mut backends = Vec::new();
    let mut stages = Vec::new();
    for (lab, subject) in labs.iter().zip([Subject::Wsha, Subject::Best]) {
        backends.push(Backends::start(lab)?);
        let gateways = Gateways::start(lab, subject, settings.clone())?;
        stages.push(Stage { lab, gateways });
    }
    settle(&stages)?;

    let before = wsha_states(&stages[0], binary)?;
    let (spent, window) = count(&stages, Duration::from_secs(options.seconds))?;
    let after = wsha_states(&stages[0], binary)?;
    ensure!(
        before == after,
        "a virtual router of wsha changed its state while CPU time was counted"
    );
    for stage in &stages {
        let subject = stage.gateways.subject();
        ensure!(
            stage.gateways.at_home()?,
            "{subject} moved an address while CPU time was counted"
        );
    }

    let head = [
        "",
        "Active: CPU, % of a core",
        "RSS, MiB",
        "Backup: CPU, % of a core",
        "RSS, MiB",
        "bytes a session",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (stage, spent) in stages.iter().zip(spent) {
        let shares = spent.map(|parts| {
            let share = |time: Duration| 100.0 * time.as_secs_f64() / window.as_secs_f64();
            parts.into_iter().map(share).collect()
        });
        rows.extend(stage.rows(&shares, options.sessions)?);
    }
    println!("\n{}", align(&rows));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} virtual routers with an advertisement each {} ms; CPU time over {:.1} s without sessions; 100 is one core.\n\
         Bytes a session: growth of proportional memory by {} idle sessions after one echo each. Load {}. {:.0} s in all.",
        routers,
        settings.advertisement.as_millis(),
        window.as_secs_f64(),
        options.sessions,
        load.split(' ').next().unwrap_or_default(),
        begun.elapsed().as_secs_f32(),
    );
    Ok(())
}

/// Waits until server1 holds all addresses and has announced them.
fn settle(stages: &[Stage<'_>]) -> Result<()> {
    for stage in stages {
        let subject = stage.gateways.subject();
        let what = format!("server1 to hold all addresses of {subject}");
        let held = wait::until(&what, Duration::from_secs(30), || {
            Ok(stage.gateways.at_home()?.then_some(()))
        });
        held.with_context(|| stage.gateways.logs())?;
    }
    eprintln!("addresses held; waiting until the announcements are over");
    thread::sleep(ANNOUNCEMENTS);
    Ok(())
}

/// CPU time that each part of each gateway took while `window` passed, and how long that was.
fn count(stages: &[Stage<'_>], window: Duration) -> Result<(Vec<[Vec<Duration>; 2]>, Duration)> {
    eprintln!("counting CPU time for {} s", window.as_secs());
    let read = || stages.iter().map(Stage::cpu).collect::<Result<Vec<_>>>();
    let before = read()?;
    let from = Instant::now();
    thread::sleep(window);
    let mut spent = read()?;
    let window = from.elapsed();
    let all = |stages: Vec<[Vec<Duration>; 2]>| stages.into_iter().flatten().flatten();
    for (spent, before) in spent.iter_mut().flatten().flatten().zip(all(before)) {
        *spent = spent.saturating_sub(before);
    }
    Ok((spent, window))
}

fn row(name: &str, figures: [f64; 4], session: String) -> Vec<String> {
    let [active, active_memory, backup, backup_memory] = figures;
    vec![
        name.to_owned(),
        format!("{active:.2}"),
        format!("{active_memory:.1}"),
        format!("{backup:.2}"),
        format!("{backup_memory:.1}"),
        session,
    ]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory sizes are far below 2^52"
)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A lab with a subject on its gateways.
#[derive(Debug)]
struct Stage<'lab> {
    lab: &'lab Lab,
    gateways: Gateways<'lab>,
}

impl Stage<'_> {
    /// A figure of each part of each gateway.
    fn each<T>(&self, figure: impl Fn(&[Pid]) -> Result<T>) -> Result<[Vec<T>; 2]> {
        let of_host = |host: &Host| {
            let parts = self.gateways.parts(host).into_iter();
            parts
                .map(|(name, pids)| {
                    ensure!(!pids.is_empty(), "{name} does not run on {}", host.name());
                    figure(&pids)
                })
                .collect::<Result<Vec<T>>>()
        };
        Ok([of_host(self.lab.server1())?, of_host(self.lab.server2())?])
    }

    /// A line of the table for each part, and one for all; `cpu` is a share of a core in percent.
    fn rows(&self, cpu: &[Vec<f64>; 2], sessions: usize) -> Result<Vec<Vec<String>>> {
        let memory = self.each(cost::resident)?;
        let subject = self.gateways.subject();
        eprintln!("opening {sessions} sessions through {subject}");
        let session = self.bytes_per_session(sessions)?;
        let mut rows = Vec::new();
        let mut sums = [0.0; 4];
        let parts = self.gateways.parts(self.lab.server1());
        for (at, (name, _)) in parts.into_iter().enumerate() {
            let [active, backup] = [0, 1].map(|host| (cpu[host][at], mebibytes(memory[host][at])));
            let figures = [active.0, active.1, backup.0, backup.1];
            for (sum, figure) in sums.iter_mut().zip(figures) {
                *sum += figure;
            }
            let faces_clients = ["proxy", "nginx"].contains(&name);
            let session = faces_clients.then(|| session.to_string());
            rows.push(row(name, figures, session.unwrap_or_default()));
        }
        rows.push(row(&format!("{subject}, all"), sums, String::new()));
        Ok(rows)
    }

    fn cpu(&self) -> Result<[Vec<Duration>; 2]> {
        self.each(cost::cpu_time)
    }

    /// By how much the part that faces the clients grows with each further session.
    fn bytes_per_session(&self, count: usize) -> Result<u64> {
        let address = Ipv4Addr::new(192, 168, 1, 101);
        let client = self.lab.client();
        let open = |count: usize| -> Result<Vec<Session>> {
            let mut sessions = Vec::new();
            while sessions.len() < count {
                let portion = PORTION.min(count - sessions.len());
                sessions.extend(Session::open_many(client, address, PORT, portion)?);
            }
            for session in &mut sessions {
                session.say("hello")?;
            }
            Ok(sessions)
        };
        let proxy = self.gateways.proxy_processes(self.lab.server1());
        // What is there once, however many sessions follow, is not theirs.
        let _first = open(PORTION)?;
        let before = cost::proportional(&proxy)?;
        let mut sessions = open(count)?;
        let after = cost::proportional(&proxy)?;
        sessions.iter_mut().try_for_each(Session::undisturbed)?;
        Ok(after.saturating_sub(before) / (count.max(1) as u64))
    }
}

/// VRID of each virtual router of wsha's gateways and since when it is in its state; an error if that is not the
/// planned one.
fn wsha_states(stage: &Stage<'_>, binary: &Path) -> Result<Vec<(u8, u64)>> {
    let planned = stage.gateways.routers().len();
    let mut found = Vec::new();
    let wanted = [RouterState::Active, RouterState::Backup];
    for (host, wanted) in stage.lab.gateways().into_iter().zip(wanted) {
        let mut status = Command::new(binary);
        status
            .args(["status", "--output", "json", "--state-dir"])
            .arg(host.dir().join("state"));
        let output = host.output(status)?;
        let report: NodeReport = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status on {} is not a report", host.name()))?;
        let routers = report.virtual_routers;
        ensure!(
            routers.len() == planned,
            "{} runs {} virtual routers",
            host.name(),
            routers.len()
        );
        for router in routers {
            let vrid = router.virtual_router_id;
            ensure!(
                router.state == wanted,
                "{} is {:?} for VRID {vrid}: {}",
                host.name(),
                router.state,
                router.reason
            );
            found.push((vrid, router.since_unix_ms));
        }
    }
    Ok(found)
}
