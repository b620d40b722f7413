//! What the proxy costs beside nginx, `HAProxy` and Envoy, in one run: CPU time, memory, latency, and what an edit does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2e::lab::Room;
use e2e::proxy_load::change::{self, Edit};
use e2e::proxy_load::chart;
use e2e::proxy_load::engine::Engine;
use e2e::proxy_load::goal::goals;
use e2e::proxy_load::load::{Load, Transport};
use e2e::proxy_load::peer::{Peer, Running, Task};
use e2e::proxy_load::report::{Results, Rounds};
use e2e::proxy_load::tls::Identity;
use e2e::proxy_load::trial;
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
    /// Idle sessions whose memory is measured; 0: none [default: 9500, with more workers 0]
    #[arg(long)]
    sessions: Option<usize>,
    /// Live sessions during edits; 0: no edit [default: 1000, with more workers 0]
    #[arg(long)]
    live: Option<usize>,
    /// How long sessions are opened after an edit, in milliseconds
    #[arg(long, default_value_t = 3000)]
    watched: u64,
    /// Rounds of latency; 0: none [default: 9, with more workers 0]
    #[arg(long)]
    latency_rounds: Option<usize>,
    /// More than one: CPU time is measured with one thread or worker process of each proxy and with
    /// so many, in the same rounds and for what has a goal, and wsha's shares are compared
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Proxies to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "wsha,wsha-io-uring,nginx,nginx-64k,haproxy,envoy"
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

impl Options {
    /// What is measured with one worker alone, unless it is asked for.
    fn usual(&self, asked: Option<usize>, usual: usize) -> usize {
        asked.unwrap_or(if self.workers == 1 { usual } else { 0 })
    }

    fn sessions(&self) -> usize {
        self.usual(self.sessions, 9500)
    }

    fn live(&self) -> usize {
        self.usual(self.live, 1000)
    }

    fn latency_rounds(&self) -> usize {
        self.usual(self.latency_rounds, 9)
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }

    /// Whether `peer` is measured under `load`.
    fn has(&self, peer: Peer, load: Load) -> bool {
        let is_judged = || {
            let mut goals = goals().into_iter().filter(|goal| goal.load == load);
            goals.any(|goal| peer == Peer::Wsha || peer == goal.peer)
        };
        peer.takes(load.transport) && (self.workers == 1 || is_judged())
    }
}

/// The proxies at work.
struct Stand {
    /// With one worker each.
    one: Vec<Running>,
    /// With more, if they are measured.
    scaled: Vec<Running>,
    /// wsha with an access record of each session.
    recorded: Option<Running>,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    if options.live() > 0 && !nix::unistd::geteuid().is_root() {
        bail!(
            "the edits need root, as their lab is made of network namespaces: --live 0 leaves them out"
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

    let (cores, own) = cores(options.workers)?;
    sched_setaffinity(Pid::from_raw(0), &set(&[own])?)?;
    let room = Room::new()?;
    let identity = Identity::new(room.dir())?;
    let mut engine = Engine::new(&identity)?;
    let servers = engine.servers()?;
    let start = |peer: Peer, workers, records| {
        let task = Task {
            records,
            ..Task::new(&servers, &identity.files, workers)?
        };
        Running::start(&room, peer, &task, &binary, &set(&cores[..workers])?)
    };
    if options.sessions() > 0 {
        for (peer, tls) in options
            .peers
            .iter()
            .flat_map(|peer| [(*peer, false), (*peer, true)])
            .filter(|(peer, tls)| !tls || peer.takes(Transport::Tls))
        {
            let count = options.sessions();
            let over = if tls { ", TLS" } else { "" };
            eprintln!("{count} idle sessions: {peer}{over}");
            // Each time anew: what a process had is what it takes first.
            let memory = trial::memory(&mut engine, &start(peer, 1, true)?, tls, count)?;
            results.memory.push((peer, tls, memory));
        }
    }
    let all = |workers| -> Result<Vec<Running>> {
        let peers = options.peers.iter();
        peers.map(|peer| start(*peer, workers, false)).collect()
    };
    let is_scaled = options.workers > 1;
    let stand = Stand {
        one: all(1)?,
        scaled: if is_scaled {
            all(options.workers)?
        } else {
            Vec::new()
        },
        recorded: if is_scaled {
            None
        } else {
            Some(start(Peer::Wsha, 1, true)?)
        },
    };
    cpu(options, &mut engine, &stand, &mut results)?;
    latency(options, &mut engine, &stand.one, &mut results)?;

    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut footer = format!(
        "{} rounds of {} ms, workers: {}, load average {}, {} s in all",
        options.rounds,
        options.window,
        if is_scaled {
            format!("1 and {}", options.workers)
        } else {
            "1".to_owned()
        },
        load.split(' ').next().unwrap_or_default(),
        begun.elapsed().as_secs(),
    );
    if cores[..options.workers].contains(&own) {
        footer += "; clients and servers share a core with a worker";
    }
    println!("{}\n{footer}", results.text());
    if let Some(file) = &options.svg {
        fs::write(file, chart::svg(&results.groups(), &footer)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Edits of each proxy's configuration.
fn edits(options: &Options, binary: &Path, results: &mut Results) -> Result<()> {
    let live = options.live();
    if live == 0 {
        return Ok(());
    }
    tools::install_backend()?;
    let watched = Duration::from_millis(options.watched);
    for edit in Edit::ALL {
        for peer in options.peers.iter().filter(|peer| !peer.is_variant()) {
            eprintln!("{edit} with {live} live sessions: {peer}");
            let changed = change::measure(*peer, edit, live, watched, binary)?;
            results.edits.push(changed);
        }
    }
    Ok(())
}

/// Rounds of every load, the proxies one after the other in each.
fn cpu(options: &Options, engine: &mut Engine, stand: &Stand, results: &mut Results) -> Result<()> {
    if options.rounds == 0 {
        return Ok(());
    }
    let mut loads = Load::ALL.to_vec();
    loads.retain(|load| load.to_string().contains(&options.loads));
    loads.retain(|load| options.has(Peer::Wsha, *load));
    let mut one: Vec<_> = loads.iter().map(|load| (*load, Rounds::new())).collect();
    let mut scaled = one.clone();
    let recorded = loads.iter().filter(|load| Load::RECORDED.contains(load));
    let mut recorded: Vec<_> = recorded.map(|load| (*load, Vec::new())).collect();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for at in 0..loads.len() {
            let load = loads[at];
            let both = [
                (&stand.one, &mut one[at].1),
                (&stand.scaled, &mut scaled[at].1),
            ];
            for (running, rounds) in both {
                let measured = running.iter().filter(|one| options.has(one.peer, load));
                for proxy in measured {
                    let cost = trial::cpu(engine, proxy, load, options.window())?;
                    rounds.entry(proxy.peer).or_default().push(cost);
                }
            }
            let costs = recorded.iter_mut().find(|(other, _)| *other == load);
            if let (Some(proxy), Some((_, costs))) = (&stand.recorded, costs) {
                costs.push(trial::cpu(engine, proxy, load, options.window())?);
            }
        }
    }
    results.cpu = one;
    if options.workers > 1 {
        results.scaled = Some((options.workers, scaled));
    } else {
        results.recorded = recorded;
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
    if options.latency_rounds() == 0 {
        return Ok(());
    }
    for rate in RATES {
        eprintln!("latency at {rate}/s");
        let (mut p50, mut p99) = (Rounds::new(), Rounds::new());
        for _ in 0..options.latency_rounds() {
            for proxy in running
                .iter()
                .filter(|proxy| proxy.peer != Peer::WshaIoUring)
            {
                let latency = trial::latency(engine, proxy, rate, options.window())?;
                p50.entry(proxy.peer).or_default().push(latency.p50);
                p99.entry(proxy.peer).or_default().push(latency.p99);
            }
        }
        results.latency.push((rate, "p50", p50));
        results.latency.push((rate, "p99", p99));
    }
    Ok(())
}

/// The cores that there are, one for each worker of a proxy, and that of clients and servers: the last, which is
/// another one where there are enough.
fn cores(workers: usize) -> Result<(Vec<usize>, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let found: Vec<usize> = (0..CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect();
    ensure!(
        (1..=found.len()).contains(&workers) && found.len() > 1,
        "two cores are needed, and one for each worker: there are {}",
        found.len()
    );
    let own = found[found.len() - 1];
    Ok((found, own))
}

fn set(cores: &[usize]) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    Ok(set)
}
