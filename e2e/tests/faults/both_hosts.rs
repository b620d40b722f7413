//! Both hosts are struck at once: nobody has an address then, and later each its own.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::lab::{kill_at_once, signal_all};
use e2e::testing::{Cluster, Gateway, Part, Watch};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::wire::{Wire, in_cluster};
use crate::{all, at_home};

/// All processes of both hosts.
fn everything(cluster: &Cluster) -> Result<Vec<Pid>> {
    let pids: Vec<Pid> = Gateway::BOTH
        .into_iter()
        .flat_map(|gateway| all(cluster, gateway))
        .collect();
    ensure!(pids.len() == 6, "{} processes instead of six", pids.len());
    Ok(pids)
}

/// What must come of it once both are well again.
fn recovers(watch: &Watch, cluster: &Cluster, wire: Wire) -> Result<()> {
    at_home(watch, cluster, wire)?;
    let since = Instant::now();
    watch.serves(wire.one(), since)?;
    watch.serves(wire.two(), since)?;
    watch.never_split()
}

/// Nobody is left who could remove an address: they end as leases.
fn addresses_expire(cluster: &Cluster, wire: Wire) -> Result<()> {
    cluster.wait_holders(wire.one(), &[])?;
    cluster.wait_holders(wire.two(), &[])
}

fn both_hosts_lose_power(test: &str, wire: Wire) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        for gateway in Gateway::BOTH {
            cluster.host(gateway).power_off()?;
        }
        for gateway in Gateway::BOTH {
            cluster.host(gateway).power_on()?;
            ensure!(
                cluster.host(gateway).addresses()? == [cluster.host(gateway).address()],
                "an address outlived the power"
            );
            wire.number(&[cluster.host(gateway)])?;
        }
        cluster.start_both()?;
        recovers(&watch, cluster, wire)
    })
}
row!(both_hosts_lose_power: v3; nightly: v2, ipv6);

/// With no Active router to be heard, none holds back because of its past.
fn both_proxies_killed(test: &str, wire: Wire) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        let proxies = Gateway::BOTH.map(|gateway| cluster.pid(gateway, Part::Proxy));
        let [one, two] = proxies;
        kill_at_once(&[one?, two?]);
        let since = Instant::now();
        watch.serves(wire.one(), since)?;
        watch.serves(wire.two(), since)?;
        recovers(&watch, cluster, wire)
    })
}
row!(both_proxies_killed: v3; nightly: v2, ipv6);

fn both_hosts_killed(test: &str, wire: Wire) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        kill_at_once(&everything(cluster)?);
        addresses_expire(cluster, wire)?;
        cluster.start_both()?;
        recovers(&watch, cluster, wire)
    })
}
row!(both_hosts_killed: v3; nightly: v2, ipv6);

/// Both wake up at the same time, each with a past in which it was Active.
fn both_hosts_stopped(test: &str, wire: Wire) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        let pids = everything(cluster)?;
        signal_all(&pids, Signal::SIGSTOP);
        addresses_expire(cluster, wire)?;
        signal_all(&pids, Signal::SIGCONT);
        recovers(&watch, cluster, wire)
    })
}
row!(both_hosts_stopped: v3; nightly: v2, ipv6);
