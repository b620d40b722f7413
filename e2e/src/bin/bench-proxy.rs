//! What the proxy costs beside nginx, `HAProxy` and Envoy, in one run: CPU time, memory, latency, and what an edit does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2e::lab::Room;
use e2e::proxy_load::engine::Engine;
use e2e::proxy_load::peer::{Peer, Running, Task};
use e2e::proxy_load::report::{Results, Rounds};
use e2e::proxy_load::tls::Identity;
use e2e::proxy_load::trial::{self, Load};
use e2e::proxy_load::{change, chart};
use e2e::subject::Settings;
use e2e::tools;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Rates of the rows of latency, messages a second.
const RATES: [u32; 2] = [5_000, 20_000];

/// Measures wsha beside its peers, each alone on a core, clients and servers together on another.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds: in each every proxy is measured once under every load
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long CPU time is counted each time, in milliseconds
    #[arg(long, default_value_t = 500)]
    window: u64,
    /// Idle sessions whose memory is measured; 0: none
    #[arg(long, default_value_t = 9500)]
    sessions: usize,
    /// Live sessions during an edit of the configuration; 0: no edit
    #[arg(long, default_value_t = 1000)]
    live: usize,
    /// Rounds of latency; 0: none
    #[arg(long, default_value_t = 9)]
    latency_rounds: usize,
    /// Threads or worker processes of each proxy
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Proxies to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "wsha,nginx,nginx-64k,haproxy,envoy"
    )]
    peers: Vec<Peer>,
    /// Only loads whose name contains this
    #[arg(long, default_value = "")]
    loads: String,
    /// Where to draw the figures
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Program to measure as wsha; by default the one built beside this
    #[arg(long, env = "WSHA_DATAPLANE")]
    wsha_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    if options.live > 0 && !nix::unistd::geteuid().is_root() {
        bail!(
            "the edit needs root, as its lab is made of network namespaces: --live 0 leaves it out"
        );
    }
    ensure!(
        options.peers.contains(&Peer::Wsha),
        "--peers needs wsha, beside which the others are put"
    );
    tools::install_proxies()?;
    let begun = Instant::now();
    let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed)?;
    let binary = tools::wsha_binary(options.wsha_binary.as_deref())?;

    let mut results = Results::default();
    // Before this thread has a core of its own, which all that it starts would have, too.
    edits(options, &binary, &mut results)?;

    let (proxies, own) = cores(options.workers)?;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    let mut engine = Engine::new()?;
    let servers = engine.servers()?;
    let room = Room::new()?;
    let identity = Identity::new(room.dir())?;
    let start = |peer: &Peer, records| {
        let task = Task {
            records,
            ..Task::new(&servers, &identity, options.workers)?
        };
        Running::start(&room, *peer, &task, &binary, &proxies)
    };
    if options.sessions > 0 {
        for (peer, tls) in options
            .peers
            .iter()
            .flat_map(|peer| [(peer, false), (peer, true)])
        {
            eprintln!(
                "{} idle sessions: {peer}{}",
                options.sessions,
                if tls { ", TLS" } else { "" }
            );
            // Each time anew: what a process had is what it takes first.
            let memory = trial::memory(&mut engine, &start(peer, true)?, tls, options.sessions)?;
            results.memory.push((*peer, tls, memory));
        }
    }
    let running: Vec<Running> = options
        .peers
        .iter()
        .map(|peer| start(peer, false))
        .collect::<Result<_>>()?;
    cpu(options, &mut engine, &running, &mut results)?;
    latency(options, &mut engine, &running, &mut results)?;

    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let footer = format!(
        "{} rounds of {} ms, workers: {}, load average {}, {} s in all",
        options.rounds,
        options.window,
        options.workers,
        load.split(' ').next().unwrap_or_default(),
        begun.elapsed().as_secs(),
    );
    println!("{}\n{footer}", results.text());
    if let Some(file) = &options.svg {
        fs::write(file, chart::svg(&results.groups(), &footer)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// An edit of each proxy's configuration.
fn edits(options: &Options, binary: &Path, results: &mut Results) -> Result<()> {
    if options.live == 0 {
        return Ok(());
    }
    tools::install_backend()?;
    let settings = Settings {
        wsha_binary: Some(binary.to_owned()),
        ..Settings::default()
    };
    // Buffers are no matter here.
    let peers = options.peers.iter();
    for peer in peers.filter(|peer| **peer != Peer::Nginx64k) {
        eprintln!("an edit with {} live sessions: {peer}", options.live);
        let edit = change::measure(*peer, options.live, settings.clone())?;
        results.edits.push(edit);
    }
    Ok(())
}

/// Rounds of every load, the proxies one after the other in each.
fn cpu(
    options: &Options,
    engine: &mut Engine,
    running: &[Running],
    results: &mut Results,
) -> Result<()> {
    let loads = Load::ALL.into_iter();
    let loads: Vec<Load> = loads
        .filter(|load| load.to_string().contains(&options.loads))
        .collect();
    let mut all: Vec<Rounds> = vec![Rounds::new(); loads.len()];
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (load, rounds) in loads.iter().zip(&mut all) {
            for proxy in running {
                let window = Duration::from_millis(options.window);
                let cost = trial::cpu(engine, proxy, *load, window)?;
                rounds.entry(proxy.peer).or_default().push(cost);
            }
        }
    }
    if options.rounds > 0 {
        results.cpu = loads.into_iter().zip(all).collect();
    }
    Ok(())
}

/// Rounds of both rates.
fn latency(
    options: &Options,
    engine: &mut Engine,
    running: &[Running],
    results: &mut Results,
) -> Result<()> {
    if options.latency_rounds == 0 {
        return Ok(());
    }
    for rate in RATES {
        eprintln!("latency at {rate}/s");
        let (mut p50, mut p99) = (Rounds::new(), Rounds::new());
        for _ in 0..options.latency_rounds {
            for proxy in running {
                let window = Duration::from_millis(options.window);
                let latency = trial::latency(engine, proxy, rate, window)?;
                p50.entry(proxy.peer).or_default().push(latency.p50);
                p99.entry(proxy.peer).or_default().push(latency.p99);
            }
        }
        results.latency.push((rate, "p50", p50));
        results.latency.push((rate, "p99", p99));
    }
    Ok(())
}

/// The cores of the proxy, one for each worker, and that of clients and servers: another, if there is one.
fn cores(workers: usize) -> Result<(CpuSet, CpuSet)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let found: Vec<usize> = (0..CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect();
    ensure!(
        (1..=found.len()).contains(&workers) && found.len() > 1,
        "two cores are needed, and one for each worker: there are {}",
        found.len()
    );
    let (mut proxies, mut own) = (CpuSet::new(), CpuSet::new());
    for core in &found[..workers] {
        proxies.set(*core)?;
    }
    own.set(found[found.len() - 1])?;
    Ok((proxies, own))
}
