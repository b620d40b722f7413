//! Links fail: wholly, one way, or between two parts of the network.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::arp::ArpWatch;
use e2e::testing::{Cluster, Gateway, SETTLE, Watch, skipped};
use e2e::{tools, wait};
use node_api::RouterState;

use crate::at_home;
use crate::one_host::{HIT, Other, RELEASED, SILENT, Story, fault, fault_in};
use crate::wire::{Wire, in_cluster, in_cluster_with_isolation};

const LINK_LOST: Story = Story {
    heir: SILENT,
    // Both come of it, and either may be first.
    struck: &["the interface has no link", "is gone"],
};

fn link_down_at_the_host(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        LINK_LOST,
        |cluster| cluster.host(HIT).link_down(),
        |cluster| {
            cluster.host(HIT).link_up()?;
            wire.number(&[cluster.host(HIT)])
        },
    )
}
row!(link_down_at_the_host: v3, ipv6; nightly: v2, dual4, dual6);

fn link_down_at_the_switch(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        LINK_LOST,
        |cluster| cluster.host(HIT).cable_cut(),
        |cluster| cluster.host(HIT).cable_mended(),
    )
}
row!(link_down_at_the_switch: v3; nightly: v2, ipv6);

/// The new one has another number, and none of the addresses.
fn interface_removed_and_back(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        LINK_LOST,
        |cluster| cluster.host(HIT).unplug(),
        |cluster| {
            cluster.host(HIT).plug()?;
            wire.number(&[cluster.host(HIT)])
        },
    )
}
row!(interface_removed_and_back: v3; nightly: v2, ipv6);

/// After each heal the holder must be believed: a client that kept the other's MAC would be stuck for its ARP time-out.
fn silent_partition_healed_three_times(test: &str, wire: Wire) -> Result<()> {
    let address = wire.one();
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        let struck = Instant::now();
        for _ in 0..3 {
            cluster.host(HIT).silence()?;
            watch.settles(cluster, address, Gateway::Two)?;
            cluster.wait_state(Gateway::Two, address, RouterState::Active)?;
            watch.serves(address, Instant::now())?;
            cluster.host(HIT).unsilence()?;
            watch.settles(cluster, address, HIT)?;
            let (mac, client) = (cluster.host(HIT).mac().to_string(), cluster.lab.client());
            wait::until(
                "the client to know who holds the address",
                Duration::from_secs(5),
                || Ok(client.neighbour(address)?.contains(&mac).then_some(())),
            )?;
            watch.serves(address, Instant::now())?;
            at_home(&watch, cluster, wire)?;
        }
        watch.undisturbed(wire.two(), struck)?;
        watch.never_split()
    })
}
row!(silent_partition_healed_three_times: v3, ipv6; nightly: v2);

/// There is somebody in each part, and each part has both addresses once.
fn network_cut_in_two(test: &str, wire: Wire) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        let beyond = cluster.lab.add_host("beyond", 22)?;
        wire.number(&[&beyond])?;
        let watch = Watch::start(cluster, &wire.both())?;
        let struck = Instant::now();
        cluster.host(HIT).part()?;
        beyond.part()?;
        let there = ArpWatch::on(&beyond, &wire.both(), Duration::from_millis(10))?;
        for address in wire.both() {
            let mac = BTreeSet::from([cluster.host(HIT).mac()]);
            there
                .answered_by(address, &mac, 20, struck, SETTLE)
                .context("in the part of server1")?;
            watch
                .settles(cluster, address, Gateway::Two)
                .context("in the part of server2")?;
            watch.serves(address, Instant::now())?;
        }
        for host in [cluster.host(HIT), &beyond] {
            host.unsilence()?;
        }
        at_home(&watch, cluster, wire).context("after the repair")?;
        watch.serves(wire.one(), Instant::now())?;
        watch.undisturbed(wire.two(), struck)?;
        watch.never_split()
    })
}
row!(network_cut_in_two: v3; nightly: v2, ipv6);

/// Nobody hears the host, while it hears that another has its address.
fn host_that_nobody_hears(test: &str, wire: Wire) -> Result<()> {
    if !can_filter(test) {
        return Ok(());
    }
    fault(
        (test, wire),
        Other::TakesOver,
        Story::of(SILENT),
        |cluster| cluster.host(HIT).mute(),
        |cluster| cluster.host(HIT).hear_and_speak(),
    )
}
row!(host_that_nobody_hears: v3; nightly: v2, ipv6);

/// A host that hears nobody takes what is not its own, and says so to all. The other one contradicts each time, and is
/// believed: its sessions notice nothing, neither while it lasts nor when the host hears again. The host's own address is
/// out of reach as long as it lasts, since it goes on to be advertised.
fn host_that_hears_nobody(test: &str, wire: Wire) -> Result<()> {
    if !can_filter(test) {
        return Ok(());
    }
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        let risen = cluster.entered(HIT, wire.two(), RouterState::Active)?;
        let struck = Instant::now();
        cluster.host(HIT).deafen()?;
        cluster.wait_entered_again(HIT, wire.two(), RouterState::Active, risen)?;
        watch.settles(cluster, wire.two(), Gateway::Two)?;
        watch.serves(wire.two(), Instant::now())?;
        cluster.wait_state(Gateway::Two, wire.two(), RouterState::Active)?;
        cluster.host(HIT).hear_and_speak()?;
        at_home(&watch, cluster, wire).context("after the repair")?;
        watch.serves(wire.one(), Instant::now())?;
        watch.undisturbed(wire.two(), struck)?;
        keeps_its_own(cluster, wire)?;
        watch.never_split()
    })
}
row!(host_that_hears_nobody: v3, ipv6; nightly: v2);

/// The same where `vrrp.isolation` is on: nobody answers it, so it gives up what it took and what is its own, which the
/// other one then serves.
fn isolated_host_that_hears_nobody(test: &str, wire: Wire) -> Result<()> {
    if !can_filter(test) {
        return Ok(());
    }
    let timeout = if wire == Wire::V2 { "3s" } else { "1s" };
    let story = Story {
        heir: RELEASED,
        struck: &["neither another router nor the default gateway is heard"],
    };
    in_cluster_with_isolation(test, wire, timeout, |cluster| {
        fault_in(
            cluster,
            wire,
            Other::TakesOver,
            story,
            |cluster| cluster.host(HIT).deafen(),
            |cluster| {
                for address in wire.both() {
                    cluster.wait_state(HIT, address, RouterState::Initialize)?;
                }
                cluster.host(HIT).hear_and_speak()
            },
        )?;
        keeps_its_own(cluster, wire)
    })
}
row!(isolated_host_that_hears_nobody: v3, ipv6; nightly: v2);

fn keeps_its_own(cluster: &Cluster, wire: Wire) -> Result<()> {
    ensure!(
        cluster.entered(Gateway::Two, wire.two(), RouterState::Active)? == 1,
        "server2 let go of its own address"
    );
    Ok(())
}

/// Says so where the switch cannot drop one direction alone.
fn can_filter(test: &str) -> bool {
    let installed = tools::install_nft();
    if let Err(error) = &installed
        && nix::unistd::geteuid().is_root()
    {
        skipped(test, &format!("needs nft: {error:#}"));
        return false;
    }
    true
}
