//! The Autobahn test suite by way of the proxy and without it, with compression, in both directions: nothing is
//! worse by way of the proxy.
//!
//! `WSHA_AUTOBAHN=all` runs all cases, `WSHA_AUTOBAHN='9.* 12.1.*'` these; else those that take long are left out.

mod report;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{Host, PORT, Process, VIP_SERVER1};
use e2e::testing::{Cluster, Endpoint, Manifest, in_lab, inside, skipped};
use e2e::{tools, wait};
use report::Report;
use serde_json::{Value, json};

/// Where the suite's server, or the server that it tries, listens. The port is the proxy's: the suite's server
/// refuses a Host with another one than its own.
const TRIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 16)), PORT);

/// Bounds against hangs for the cases of one direction: those that are run by default, and others.
const PATIENCE: Duration = Duration::from_mins(30);
const PATIENCE_OF_LONG_ONES: Duration = Duration::from_hours(3);

fn wanted() -> Option<String> {
    let wanted = std::env::var("WSHA_AUTOBAHN").ok();
    wanted.filter(|cases| !cases.is_empty())
}

/// Which cases are run, and how many they are at least.
fn cases() -> (Value, usize) {
    // Left out are messages of up to 16 MiB in up to a million pieces, and most cases of compression, which
    // have a thousand messages each.
    let quick = "1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.* 12.1.1 12.4.2 13.1.1 13.3.1 13.7.1";
    let wanted = wanted();
    let (cases, least) = match wanted.as_deref() {
        None => (quick, 240),
        Some("all") => ("*", 500),
        Some(these) => (these, 1),
    };
    (json!(cases.split_whitespace().collect::<Vec<_>>()), least)
}

#[test]
fn servers_pass_as_many_cases_behind_the_proxy() -> Result<()> {
    tried(
        "servers_pass_as_many_cases_behind_the_proxy",
        |cluster, wstest| {
            let server = backend(
                cluster,
                "serve",
                &[&TRIED.ip().to_string(), &PORT.to_string()],
            )?;
            listens(cluster, &server)?;
            let client = cluster.lab.client();
            let (cases, least) = cases();
            let servers = [("direct", TRIED), ("proxied", proxied())]
                .map(|(agent, at)| json!({"agent": agent, "url": format!("ws://{at}")}));
            let spec = json!({
                "outdir": "reports", "servers": servers,
                "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
            });
            let mut suite = Command::new(wstest);
            suite
                .args(["--mode", "fuzzingclient", "--spec"])
                .arg(written(client, &spec)?);
            let suite = client.spawn("fuzzingclient", suite)?;
            ends(&suite)?;
            Report::read(&client.dir().join("reports"))?.compare(least)
        },
    )
}

#[test]
fn clients_pass_as_many_cases_behind_the_proxy() -> Result<()> {
    tried(
        "clients_pass_as_many_cases_behind_the_proxy",
        |cluster, wstest| {
            let host = &cluster.lab.backends()[0];
            let (cases, least) = cases();
            let spec = json!({
                "outdir": "reports", "url": format!("ws://{TRIED}"),
                "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
            });
            let mut suite = Command::new(wstest);
            suite
                .args(["--mode", "fuzzingserver", "--webport", "0", "--spec"])
                .arg(written(host, &spec)?);
            let suite = host.spawn("fuzzingserver", suite)?;
            listens(cluster, &suite)?;
            for (agent, at) in [("direct", TRIED), ("proxied", proxied())] {
                let client = cluster.lab.client();
                let tried = node(client, "try", &[agent, &format!("ws://{at}")])?;
                ends(&tried)?;
            }
            Report::read(&host.dir().join("reports"))?.compare(least)
        },
    )
}

/// A lab with the suite at hand and wsha before [`TRIED`].
fn tried(test: &str, body: impl FnOnce(&Cluster, &Path) -> Result<()>) -> Result<()> {
    in_lab(test, |cluster| {
        let wstest = match tools::install_autobahn() {
            Ok(wstest) => wstest,
            Err(error) => {
                skipped(test, &format!("needs the Autobahn test suite: {error:#}"));
                return Ok(());
            }
        };
        let mut manifest = Manifest::article();
        let endpoint = Endpoint {
            port: TRIED.port(),
            ..Endpoint::backend(16)
        };
        manifest.pool().endpoints = vec![endpoint];
        cluster.apply(&manifest)?;
        cluster.start_both()?;
        body(cluster, &wstest)
    })
}

fn proxied() -> SocketAddr {
    SocketAddr::new(VIP_SERVER1.into(), PORT)
}

fn backend(cluster: &Cluster, mode: &str, words: &[&str]) -> Result<Process> {
    node(&cluster.lab.backends()[0], mode, words)
}

fn node(host: &Host, mode: &str, words: &[&str]) -> Result<Process> {
    let mut node = Command::new("node");
    node.arg(tools::backend_dir().join("autobahn.js"))
        .arg(mode)
        .args(words);
    node.env("NODE_PATH", tools::install_backend()?);
    host.spawn("autobahn", node)
}

fn written(host: &Host, spec: &Value) -> Result<PathBuf> {
    let file = host.dir().join("spec.json");
    std::fs::write(&file, spec.to_string())?;
    Ok(file)
}

fn listens(cluster: &Cluster, process: &Process) -> Result<()> {
    let patience = Duration::from_secs(30);
    wait::until("the server of the suite to listen", patience, || {
        ensure!(process.is_running(), "it ended: {}", process.log_tail());
        let connected = inside(cluster.lab.client(), || {
            Ok(TcpStream::connect(TRIED).is_ok())
        })?;
        Ok(connected.then_some(()))
    })
}

fn ends(process: &Process) -> Result<()> {
    let patience = match wanted() {
        Some(_) => PATIENCE_OF_LONG_ONES,
        None => PATIENCE,
    };
    let status = process.wait(patience)?;
    ensure!(status.success(), "{status}: {}", process.log_tail());
    Ok(())
}
