//! What the control plane costs and how fast it is: a real API server, the controller, and gateways that
//! speak the real stream.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::control_load::objects::Size;
use e2e::control_load::stage::Stage;
use e2e::control_load::trial::{self, Changes, Membership, percentile};
use e2e::measure::align;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Changes that are written while what was planned anew is committed.
const MEANWHILE: usize = 20;

/// Measures how long endpoints take from the API server to every gateway, and what that costs.
#[derive(Debug, Parser)]
struct Options {
    /// Sizes to measure: gateways, `x`, pools
    #[arg(long, value_name = "GATEWAYSxPOOLS", value_delimiter = ',', value_parser = size,
          default_value = "10x10,10x100,10x1000,100x10,100x100,100x1000,500x10,500x100,500x1000")]
    sizes: Vec<(usize, usize)>,
    /// Endpoints of all pools together
    #[arg(long, default_value_t = 10_000)]
    endpoints: usize,
    /// Changes that are measured at each size
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Controller to measure; by default the one built beside this
    #[arg(long)]
    controller: Option<PathBuf>,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let (gateways, pools) = text.split_once('x').ok_or("write it as 100x10")?;
    match (gateways.parse(), pools.parse()) {
        (Ok(gateways @ 1..=900), Ok(pools @ 1..=4000)) => Ok((gateways, pools)),
        _ => Err("write 1-900 gateways and 1-4000 pools, as 100x10".to_owned()),
    }
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed)?;
    let controller = controller(options.controller.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let mut changes = headed([
        "gateways",
        "pools",
        "endpoints",
        "median",
        "p99",
        "longest",
        "API server p50/p99",
        "bytes/change",
        "CPU/change",
        "API CPU/change",
        "longest computation",
        "memory",
    ]);
    let mut restarts = headed([
        "gateways",
        "pools",
        "all synced after",
        "told again",
        "bytes/gateway",
        "statuses written",
        "CPU",
        "longest computation",
        "memory",
    ]);
    let mut memberships = headed([
        "gateways",
        "pools",
        "changes",
        "median",
        "longest",
        "longest computation",
        "longest plan",
    ]);
    for (gateways, pools) in &options.sizes {
        let size = Size {
            gateways: *gateways,
            pools: *pools,
            endpoints: options.endpoints,
        };
        eprintln!("{gateways} gateways, {pools} pools");
        let (change, membership, restart) =
            runtime.block_on(measure(size, &controller, options.changes))?;
        changes.push(row(size, &change));
        eprintln!(
            "  a change {}, a restart {}",
            time(percentile(&change.whole, 50)),
            time(restart.synced)
        );
        memberships.push(vec![
            gateways.to_string(),
            pools.to_string(),
            membership.whole.len().to_string(),
            time(percentile(&membership.whole, 50)),
            time(percentile(&membership.whole, 100)),
            time(membership.stall),
            time(membership.plan),
        ]);
        restarts.push(vec![
            gateways.to_string(),
            pools.to_string(),
            time(restart.synced),
            restart.told.to_string(),
            (restart.bytes / gateways).to_string(),
            restart.statuses.to_string(),
            time(restart.cpu),
            time(restart.stall),
            mebibytes(restart.memory),
        ]);
    }
    println!("An endpoint's change, from its write to the last gateway that has it:\n");
    println!("{}", align(&changes));
    println!("\nThe same while a gateway is cordoned, and while it is uncordoned:\n");
    println!("{}", align(&memberships));
    println!("\nThe controller killed and started again:\n");
    println!("{}", align(&restarts));
    println!(
        "\n{} changes at each size, {} s in all",
        options.changes,
        begun.elapsed().as_secs()
    );
    Ok(())
}

async fn measure(
    size: Size,
    controller: &Path,
    changes: usize,
) -> Result<(Changes, Membership, trial::Restart)> {
    let begun = Instant::now();
    let mut stage = Stage::start(size, controller).await?;
    let measured = async {
        let mut fleet = stage.gateways().await?;
        eprintln!("  programmed after {} s", begun.elapsed().as_secs());
        let change = trial::changes(&stage, &mut fleet, changes).await?;
        let restart = trial::restart(&mut stage, &mut fleet).await?;
        let membership = trial::membership(&stage, &mut fleet, MEANWHILE).await?;
        anyhow::Ok((change, membership, restart))
    };
    let measured = measured.await;
    measured.with_context(|| stage.control_plane.logs())
}

/// A table with these headings.
fn headed<const N: usize>(headings: [&str; N]) -> Vec<Vec<String>> {
    vec![headings.map(str::to_owned).to_vec()]
}

fn row(size: Size, changes: &Changes) -> Vec<String> {
    let of = |times: &[Duration], percent| time(percentile(times, percent));
    vec![
        size.gateways.to_string(),
        size.pools.to_string(),
        size.endpoints.to_string(),
        of(&changes.whole, 50),
        of(&changes.whole, 99),
        of(&changes.whole, 100),
        format!(
            "{} / {}",
            of(&changes.api_server, 50),
            of(&changes.api_server, 99)
        ),
        changes.bytes.to_string(),
        time(changes.cpu.0),
        time(changes.cpu.1),
        time(changes.stall),
        mebibytes(changes.memory),
    ]
}

fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1 << 20))
}

fn controller(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("wsha-controller"),
    };
    ensure!(
        path.is_file(),
        "{} is missing: cargo build --release --package controller",
        path.display()
    );
    Ok(path)
}
