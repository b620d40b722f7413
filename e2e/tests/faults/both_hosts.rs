//! Both hosts are struck at once: nobody has an address then, and later each its own.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::lab::{VIP_SERVER1, VIP_SERVER2, kill_at_once, signal_all};
use e2e::testing::{Cluster, Gateway, Manifest, Part, Watch, in_cluster};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

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
fn recovers(watch: &Watch, cluster: &Cluster) -> Result<()> {
    at_home(watch, cluster)?;
    let since = Instant::now();
    watch.serves(VIP_SERVER1, since)?;
    watch.serves(VIP_SERVER2, since)?;
    watch.never_split()
}

/// Nobody is left who could remove an address: they end as leases.
fn addresses_expire(cluster: &Cluster) -> Result<()> {
    cluster.wait_holders(VIP_SERVER1, &[])?;
    cluster.wait_holders(VIP_SERVER2, &[])
}

#[test]
fn both_hosts_lose_power() -> Result<()> {
    in_cluster("both_hosts_lose_power", &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        for gateway in Gateway::BOTH {
            cluster.host(gateway).power_off()?;
        }
        for gateway in Gateway::BOTH {
            cluster.host(gateway).power_on()?;
            ensure!(
                cluster.host(gateway).addresses()? == [cluster.host(gateway).address()],
                "an address outlived the power"
            );
        }
        cluster.start_both()?;
        recovers(&watch, cluster)
    })
}

/// With no Active router to be heard, none holds back because of its past.
#[test]
fn both_proxies_killed() -> Result<()> {
    in_cluster("both_proxies_killed", &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let proxies = Gateway::BOTH.map(|gateway| cluster.pid(gateway, Part::Proxy));
        let [one, two] = proxies;
        kill_at_once(&[one?, two?]);
        let since = Instant::now();
        watch.serves(VIP_SERVER1, since)?;
        watch.serves(VIP_SERVER2, since)?;
        recovers(&watch, cluster)
    })
}

#[test]
fn both_hosts_killed() -> Result<()> {
    in_cluster("both_hosts_killed", &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        kill_at_once(&everything(cluster)?);
        addresses_expire(cluster)?;
        cluster.start_both()?;
        recovers(&watch, cluster)
    })
}

/// Both wake up at the same time, each with a past in which it was Active.
#[test]
fn both_hosts_stopped() -> Result<()> {
    in_cluster("both_hosts_stopped", &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let pids = everything(cluster)?;
        signal_all(&pids, Signal::SIGSTOP);
        addresses_expire(cluster)?;
        signal_all(&pids, Signal::SIGCONT);
        recovers(&watch, cluster)
    })
}
