//! wsha on plain hosts: one agent on each gateway, fed from one manifest.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::{Router, Settings};
use crate::lab::{Host, Process};
use crate::testing::{Manifest, Pool};
use crate::tools;

/// The article's set-up as one file.
const MANIFEST: &str = include_str!("../../manifests/demo.yaml");

/// Writes the manifest of `host`, replacing the last one in one step.
pub(super) fn configure(host: &Host, four_backends: bool, settings: &Settings) -> Result<()> {
    let mut text = if settings.routers == Router::ARTICLE {
        MANIFEST.to_owned()
    } else {
        in_pools_of_ten(&settings.routers).to_string()
    };
    if settings.advertisement != Settings::default().advertisement {
        text = with_interval(&text, settings).context("the manifest has no pool with a spec")?;
    }
    if four_backends {
        text = with_fourth_backend(&text).context("the manifest names no third backend to copy")?;
    }
    let file = host.dir().join("pool.yaml");
    let fresh = host.dir().join("pool.yaml.new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, file)?;
    Ok(())
}

/// Starts the agent unless it runs.
pub(super) fn start(host: &Host, running: &mut Vec<Process>, settings: &Settings) -> Result<()> {
    if running.is_empty() {
        running.push(host.spawn("wsha", command(host, settings)?)?);
    }
    Ok(())
}

/// The agent's command line on `host`.
fn command(host: &Host, settings: &Settings) -> Result<Command> {
    let dir = host.dir();
    let mut agent = Command::new(tools::wsha_binary(settings.wsha_binary.as_deref())?);
    agent
        .arg("run")
        .arg("--manifests")
        .arg(dir.join("pool.yaml"))
        .args(["--node-name", host.name()]);
    agent
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--run-dir")
        .arg("/run/wsha");
    Ok(agent)
}

/// The processes of one part: `proxy` or `vrrp`.
pub(super) fn processes(host: &Host, part: &str) -> Vec<Pid> {
    host.processes_where(|line| {
        let mut words = line.split_whitespace();
        words
            .next()
            .is_some_and(|program| program.ends_with("wsha-dataplane"))
            && words.next() == Some(part)
    })
}

/// Any number of virtual routers up to a hundred, otherwise as in [`MANIFEST`].
fn in_pools_of_ten(routers: &[Router]) -> Manifest {
    let entry = |router: &Router| {
        format!(
            "address: {}, virtualRouterID: {}, preferredNodeName: {}",
            router.address, router.vrid, router.owner
        )
    };
    let names = [
        "chat", "news", "quotes", "games", "rooms", "orders", "prices", "scores", "stocks", "trips",
    ];
    let pools = names.into_iter().zip(routers.chunks(10));
    Manifest::of(
        pools
            .map(|(name, routers)| Pool::new(name, routers.iter().map(entry).collect()))
            .collect(),
    )
}

/// Puts the interval into each pool's spec.
fn with_interval(text: &str, settings: &Settings) -> Option<String> {
    let (head, tail) = text.split_once("kind: WebSocketHAPool")?;
    let interval = format!(
        "\nspec:\n  vrrp: {{ advertisementInterval: {}ms }}\n",
        settings.advertisement.as_millis()
    );
    tail.contains("\nspec:\n").then(|| {
        format!(
            "{head}kind: WebSocketHAPool{}",
            tail.replace("\nspec:\n", &interval)
        )
    })
}

/// Copies the entry of server5, wherever and in whatever form it stands, for server6.
fn with_fourth_backend(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("192.168.1.18"))?;
    let added = line
        .replace("192.168.1.18", "192.168.1.19")
        .replace("server5", "server6");
    Some(text.replacen(line, &format!("{line}\n{added}"), 1))
}
