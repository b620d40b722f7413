//! What a host keeps is lost, full, stale or changed by others.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::lab::{INTERFACE, kill_at_once};
use e2e::testing::{Cluster, Gateway, SETTLE, Watch};
use e2e::wait;

use crate::one_host::{HIT, Other, SILENT, Story, fault};
use crate::wire::{Wire, in_prepared_cluster};
use crate::{all, at_home};

/// It is put back before anybody misses it.
fn address_removed_by_hand(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::StaysBackup,
        Story::of(SILENT),
        |cluster| {
            let (address, prefix) = (wire.one(), wire.prefix());
            let words = format!("addr del {address}/{prefix} dev {INTERFACE}");
            cluster.host(HIT).ip(&words).map(drop)
        },
        |_| Ok(()),
    )
}
row!(address_removed_by_hand: v3; nightly: v2, ipv6);

/// Adds a listener to the pool on both hosts.
fn edited(cluster: &mut Cluster, wire: Wire) -> Result<()> {
    let mut manifest = wire.manifest();
    manifest.pool().listeners.push(("more", 8021));
    cluster.apply(&manifest)
}

/// Waits until a host serves what [`edited`] added.
fn serves_more(cluster: &Cluster, gateway: Gateway) -> Result<()> {
    cluster.wait_status(gateway, "the listener that was added", |report| {
        let mut listeners = report.pools.iter().flat_map(|pool| &pool.listeners);
        listeners.any(|it| it.name == "more").then_some(())
    })
}

/// Whether what a host saved knows the listener that [`edited`] added.
fn has_saved_more(cluster: &Cluster, gateway: Gateway) -> Result<bool> {
    let mut read = std::process::Command::new("cat");
    read.arg(cluster.state_dir(gateway).join("accepted.json"));
    let saved = cluster.host(gateway).output(read)?;
    Ok(String::from_utf8_lossy(&saved.stdout).contains("8021"))
}

/// It serves on and says so, also after a restart; and saves once it can.
fn disk_full(test: &str, wire: Wire) -> Result<()> {
    const FILLER: &str = "filler";
    let disk = |cluster: &Cluster| cluster.state_dir(HIT);
    in_prepared_cluster(
        test,
        wire,
        |cluster| cluster.host(HIT).small_disk(&disk(cluster), 256),
        |cluster| {
            let watch = Watch::start(cluster, &wire.both())?;
            let struck = Instant::now();
            cluster.host(HIT).fill_disk(&disk(cluster), FILLER)?;
            edited(cluster, wire)?;
            serves_more(cluster, HIT)?;
            cluster.wait_status(HIT, "a warning of what cannot be saved", |report| {
                let mut warnings = report.warnings.iter();
                warnings.any(|it| it.contains("saved")).then_some(())
            })?;
            watch.undisturbed(wire.one(), struck)?;
            // All that it knew is lost, and what it saved is old.
            kill_at_once(&all(cluster, HIT));
            watch.settles(cluster, wire.one(), Gateway::Two)?;
            watch.serves(wire.one(), Instant::now())?;
            cluster.start(HIT)?;
            at_home(&watch, cluster, wire).context("with a full disk")?;
            serves_more(cluster, HIT)?;
            ensure!(!has_saved_more(cluster, HIT)?, "the disk was not full");
            let filler = disk(cluster).join(FILLER);
            cluster.host(HIT).remove(&filler)?;
            wait::until("what is served to be saved", SETTLE, || {
                Ok(has_saved_more(cluster, HIT)?.then_some(()))
            })?;
            watch.serves(wire.one(), Instant::now())?;
            watch.undisturbed(wire.two(), struck)?;
            watch.never_split()
        },
    )
}
row!(disk_full: v3; nightly: v2, ipv6);

fn state_directory_gone(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::StaysBackup,
        Story::of(SILENT),
        |cluster| Ok(std::fs::remove_dir_all(cluster.state_dir(HIT))?),
        |cluster| {
            let file = cluster.state_dir(HIT).join("accepted.json");
            wait::until("the state directory to be back", SETTLE, || {
                Ok(file.exists().then_some(()))
            })
        },
    )
}
row!(state_directory_gone: v3; nightly: v2, ipv6);

/// The files have changed since, and everybody else follows them already.
fn reboot_with_stale_state(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        Story::of(SILENT),
        |cluster| cluster.host(HIT).power_off(),
        |cluster| {
            edited(cluster, wire)?;
            serves_more(cluster, Gateway::Two)?;
            cluster.host(HIT).power_on()?;
            wire.number(&[cluster.host(HIT)])?;
            ensure!(!has_saved_more(cluster, HIT)?, "its state is not stale");
            cluster.start(HIT)?;
            serves_more(cluster, HIT)
        },
    )
}
row!(reboot_with_stale_state: v3; nightly: v2, ipv6);
