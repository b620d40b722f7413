//! Hosts that have nothing to do with the group get in its way.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::lab::{Host, INTERFACE, Process};
use e2e::testing::{Gateway, SETTLE, Watch, skipped};
use e2e::{tools, wait};
use node_api::{NodeReport, RouterState};

use crate::at_home;
use crate::one_host::{HIT, stays};
use crate::wire::{Wire, in_cluster};

/// Who holds the address keeps it, and tells whose hardware address answers for it, too.
fn address_at_a_stranger(test: &str, wire: Wire) -> Result<()> {
    let address = wire.one();
    in_cluster(test, wire, |cluster| {
        let stranger = &cluster.lab.backends()[0];
        let mac = stranger.mac().to_string();
        let risen = cluster.entered(Gateway::Two, address, RouterState::Active)?;
        let conflicts = |report: &NodeReport| {
            let routers = report.virtual_routers.iter();
            let macs = routers.flat_map(|it| &it.conflicts);
            let macs = macs.map(|it| it.hardware_address.clone());
            macs.collect::<Vec<_>>()
        };
        let there = format!("{address}/{} dev {INTERFACE}", wire.prefix());
        wire.number(&[stranger])?;
        // Nothing keeps somebody else from it: IPv6 would ask first.
        let without_asking = if address.is_ipv6() { "nodad" } else { "" };
        stranger.ip(&format!("addr add {there} {without_asking}"))?;
        cluster.wait_status(HIT, "the stranger to be told of", |report| {
            (conflicts(report) == [mac.as_str()]).then_some(())
        })?;
        cluster.wait_state(HIT, address, RouterState::Active)?;
        stranger.ip(&format!("addr del {there}"))?;
        cluster.wait_status(HIT, "the stranger to be gone", |report| {
            conflicts(report).is_empty().then_some(())
        })?;
        ensure!(
            cluster.entered(Gateway::Two, address, RouterState::Active)? == risen,
            "server2 took over"
        );
        let watch = Watch::start(cluster, &[address])?;
        watch.settles(cluster, address, HIT)
    })
}
row!(address_at_a_stranger: v3; nightly: v2, ipv6);

/// keepalived on a host of its own, with a VRID that is taken, another address and the higher priority.
fn stranger(host: &Host, wire: Wire, vrid: u8) -> Result<Process> {
    let version = wire.version();
    let interval = if version == 2 { "1" } else { "0.1" };
    let file = host.dir().join("keepalived.conf");
    let text = format!(
        "global_defs {{\n    vrrp_version {version}\n}}\nvrrp_instance other {{\n    state BACKUP\n    interface \
         {INTERFACE}\n    virtual_router_id {vrid}\n    priority 254\n    advert_int {interval}\n    \
         virtual_ipaddress {{\n        {}\n    }}\n}}\n",
        wire.free()
    );
    fs::write(&file, text)?;
    let mut command = Command::new(tools::need("keepalived", "keepalived")?);
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]);
    command.arg(file);
    for option in ["--pid", "--vrrp_pid"] {
        command
            .arg(option)
            .arg(host.dir().join(format!("{option}.pid")));
    }
    host.spawn("keepalived", command)
}

/// RFC 9568 section 7.1: what lists other addresses is not of this virtual router.
fn virtual_router_id_of_strangers(test: &str, wire: Wire) -> Result<()> {
    if nix::unistd::geteuid().is_root()
        && let Err(error) = tools::install_peers()
    {
        skipped(test, &format!("needs keepalived: {error:#}"));
        return Ok(());
    }
    in_cluster(test, wire, |cluster| {
        let host = &cluster.lab.backends()[3];
        wire.number(&[host])?;
        let watch = Watch::start(cluster, &wire.both())?;
        let risen = cluster.entered(Gateway::Two, wire.one(), RouterState::Active)?;
        let struck = Instant::now();
        let vrid = cluster.router(HIT, wire.one())?.virtual_router_id;
        let keepalived = stranger(host, wire, vrid)?;
        wait::until("keepalived to have its address", SETTLE, || {
            ensure!(keepalived.is_running(), "{}", keepalived.log_tail());
            Ok(host.holds(wire.free())?.then_some(()))
        })?;
        stays(&watch, cluster, wire, risen)?;
        for gateway in Gateway::BOTH {
            let counted = cluster.count(
                gateway,
                "wsha_vrrp_discarded_advertisements",
                &[("reason", "other_addresses")],
            )?;
            ensure!(counted > 0, "{} counts no stranger", gateway.name());
        }
        at_home(&watch, cluster, wire)?;
        for address in wire.both() {
            watch.undisturbed(address, struck)?;
        }
        watch.never_split()
    })
}
row!(virtual_router_id_of_strangers: v3; nightly: v2, ipv6);
