//! Virtual routers on the segment that are none of ours.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Host, INTERFACE, Process};
use e2e::testing::Gateway;
use e2e::tools;
use nix::sys::signal::Signal;

use crate::stage::{Stage, VIP1, VIP2, on_stage};
use crate::{ALL, POOL, servers, serving};

/// What keepalived speaks: the VRID that VIP1 would get by its last byte.
const VRID: u8 = 110;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 200);

/// keepalived on a host of its own, Active.
fn keepalived(stage: &Stage<'_>) -> Result<(Host, Process)> {
    tools::install_peers()?;
    let host = stage.cluster.lab.add_host("router", 40)?;
    let file = host.dir().join("keepalived.conf");
    let text = format!(
        "global_defs {{\n    router_id router\n    vrrp_version 3\n}}\nvrrp_instance other {{\n    state MASTER\n    \
         interface {INTERFACE}\n    virtual_router_id {VRID}\n    priority 100\n    advert_int 1\n    \
         virtual_ipaddress {{\n        {ADDRESS}\n    }}\n}}\n"
    );
    fs::write(&file, text)?;
    let mut command = Command::new(tools::need("keepalived", "keepalived")?);
    command
        .args(["--dont-fork", "--log-console", "--vrrp", "--use-file"])
        .arg(file);
    for (flag, name) in [("--pid", "keepalived.pid"), ("--vrrp_pid", "vrrp.pid")] {
        command.arg(flag).arg(host.dir().join(name));
    }
    let process = host.spawn("keepalived", command)?;
    stage.wait("keepalived to be Active", |_| {
        ensure!(process.is_running(), "{}", process.log_tail());
        Ok(host.holds(ADDRESS)?.then_some(()))
    })?;
    Ok((host, process))
}

/// Has every gateway start anew, which listens at once.
fn restart_gateways(stage: &mut Stage<'_>) -> Result<()> {
    for gateway in Gateway::BOTH {
        stage.cluster.stop(gateway)?;
        stage.start_gateway(gateway)?;
    }
    Ok(())
}

/// The VRID that a pool has for an address.
fn vrid(stage: &Stage<'_>, pool: &str, address: Ipv4Addr) -> Result<u8> {
    let path =
        format!("jsonpath={{.status.virtualIPs[?(@.address=='{address}')].virtualRouterID}}");
    let shown = stage.kubectl(&["get", "wshap", pool, "-o", &path])?;
    shown
        .parse()
        .with_context(|| format!("{address}: {shown:?}"))
}

#[test]
fn a_stranger_s_vrid_is_left_alone_and_a_clash_is_told() -> Result<()> {
    let name = "a_stranger_s_vrid_is_left_alone_and_a_clash_is_told";
    on_stage(name, 1, |stage| {
        let (_router, stranger) = keepalived(stage)?;
        restart_gateways(stage)?;
        stage.wait("a gateway that hears it", |stage| {
            ensure!(stranger.is_running(), "{}", stranger.log_tail());
            let logs = Gateway::BOTH.map(|gateway| fs::read_to_string(stage.cluster.log(gateway)));
            let heard = |log: &String| log.contains("another host's virtual router is heard");
            Ok(logs
                .into_iter()
                .flatten()
                .any(|log| heard(&log))
                .then_some(()))
        })?;
        serving(stage)?;
        let (one, two) = (vrid(stage, "chat", VIP1)?, vrid(stage, "chat", VIP2)?);
        ensure!(one != VRID && two == 112, "VRIDs {one} and {two}");
        stage.wait_condition("chat", "Degraded", "False")?;

        // Who names it gets it, and is told who has it.
        let other = "192.168.1.113";
        let pool = POOL
            .replace("name: chat,", "name: other,")
            .replace("{address: 192.168.1.110}, {address: 192.168.1.112}", &{
                format!("{{address: {other}, virtualRouterID: {VRID}}}")
            })
            .replace("port: 8020", "port: 8021");
        stage.apply(&pool)?;
        stage.wait_condition("other", "Programmed", "True")?;
        stage.wait_condition("other", "Degraded", "True")?;
        let path = "jsonpath={.status.conditions[?(@.type=='Degraded')]['reason','message']}";
        let said = stage.kubectl(&["get", "wshap", "other", "-o", path])?;
        for words in [
            "VirtualRouterIDClaimed",
            "VRID 110 of 192.168.1.113 is also spoken by 192.168.1.40",
            "for 192.168.1.200",
            "give that one another VRID",
        ] {
            ensure!(said.contains(words), "{words}: {said}");
        }

        // It goes, and is forgotten after a while: at once by who starts anew.
        stranger.signal(Signal::SIGTERM)?;
        stage.wait("keepalived to end", |_| {
            Ok((!stranger.is_running()).then_some(()))
        })?;
        restart_gateways(stage)?;
        stage.apply(&servers(ALL))?;
        stage.wait_condition("other", "Degraded", "False")
    })
}
