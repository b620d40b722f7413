//! Gateways that die, and what their clients and those of the others see.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::Node;
use e2e::lab::process::command_line;
use e2e::lab::{PORT, kill_at_once};
use e2e::testing::{Session, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::memory;
use crate::stage::{NAMESPACE, Stage};

/// The data plane's processes on a node whose command line has this word.
fn processes(node: &Node, word: &str) -> Vec<Pid> {
    node.host().processes_where(|line| {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        program.ends_with("wsha-dataplane") && words.any(|one| one == word)
    })
}

/// How often containers of a node's pod have been restarted.
fn restarts(pod: &Value) -> u64 {
    let containers = pod["status"]["containerStatuses"].as_array();
    let counts = containers.into_iter().flatten();
    counts.filter_map(|one| one["restartCount"].as_u64()).sum()
}

/// The client of the other address.
#[derive(Clone, Copy, Debug)]
enum Bystander {
    NoticesNothing,
    /// The harm is done to pods, too, and one of them may be the server of its session.
    MayLoseItsServer,
}

/// Does `harm` to the node that holds the first address, and sees the address go to the other and come back.
fn there_and_back(
    stage: &mut Stage,
    bystander: Bystander,
    harm: impl FnOnce(&mut Stage, &'static str) -> Result<()>,
    heal: impl FnOnce(&mut Stage, &'static str) -> Result<()>,
) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    stage.settle()?;
    let home = stage.holder(vip1)?.name();
    let other = stage.holder(vip2)?.name();
    let watch = stage.watch()?;
    let since = Instant::now();
    harm(stage, home)?;
    watch.reaches(stage.local()?.node(other)?.host(), vip1, since)?;
    watch.serves(vip1, Instant::now())?;
    stage.tell(&watch, vip1, since)?;
    let healed = Instant::now();
    heal(stage, home)?;
    stage.wait_holders(vip1, &[home])?;
    watch.serves(vip1, Instant::now())?;
    stage.tell(&watch, vip1, healed)?;
    match bystander {
        Bystander::NoticesNothing => watch.undisturbed(vip2, since)?,
        Bystander::MayLoseItsServer => stage.tell(&watch, vip2, since)?,
    }
    stage.settle()?;
    watch.never_split()
}

#[expect(clippy::unnecessary_wraps, reason = "stands where others may fail")]
fn nothing(_: &mut Stage, _: &'static str) -> Result<()> {
    Ok(())
}

/// The node that holds the first address once all is settled, and its pod.
fn first_holder(stage: &Stage) -> Result<(&'static str, Value)> {
    let [vip1, _] = stage.vips();
    stage.settle()?;
    let node = stage.holder(vip1)?.name();
    Ok((node, stage.gateway_pod(node)?.context("no pod")?))
}

pub(crate) fn a_killed_proxy_is_restarted_in_place(stage: &mut Stage) -> Result<()> {
    let (node, before) = first_holder(stage)?;
    there_and_back(
        stage,
        Bystander::NoticesNothing,
        |stage, node| {
            let proxy = proxy(stage.local()?.node(node)?)?;
            Ok(kill(proxy, Signal::SIGKILL)?)
        },
        nothing,
    )?;
    let after = stage.gateway_pod(node)?.context("no pod")?;
    ensure!(
        restarts(&before) == restarts(&after)
            && before["metadata"]["uid"] == after["metadata"]["uid"],
        "the kubelet restarted a container"
    );
    Ok(())
}

/// The one proxy of a node: its parent, which starts it again, has no such word.
fn proxy(node: &Node) -> Result<Pid> {
    match processes(node, "--beats")[..] {
        [proxy] => Ok(proxy),
        ref others => bail!("{} proxies on {}", others.len(), node.name()),
    }
}

pub(crate) fn a_proxy_out_of_memory_is_restarted_in_place(stage: &mut Stage) -> Result<()> {
    let [vip1, _] = stage.vips();
    let (node, before) = first_holder(stage)?;
    let Some(group) = memory::Group::of(proxy(stage.holder(vip1)?)?)? else {
        let test = "a_proxy_out_of_memory_is_restarted_in_place";
        skipped(
            test,
            "needs control groups of version 1: in others the parent is killed along",
        );
        return Ok(());
    };
    there_and_back(
        stage,
        Bystander::NoticesNothing,
        |stage, node| {
            let proxy = proxy(stage.local()?.node(node)?)?;
            group.tighten()?;
            let mut sessions = Vec::new();
            // Each session takes some, and each opened says whether that was too much.
            let killed = stage.wait("the kernel to kill the proxy", |stage| {
                sessions
                    .extend(Session::open_many(stage.client(), vip1, PORT, 50).unwrap_or_default());
                Ok((group.kills()? > 0).then_some(()))
            });
            group.loosen()?;
            killed?;
            stage.wait(
                "the proxy to be gone",
                |_| Ok((!alive(proxy)).then_some(())),
            )
        },
        nothing,
    )?;
    let after = stage.gateway_pod(node)?.context("no pod")?;
    ensure!(
        restarts(&before) == restarts(&after),
        "the kubelet restarted a container"
    );
    Ok(())
}

/// One that nobody has reaped yet has no command line.
fn alive(pid: Pid) -> bool {
    !command_line(pid).is_empty()
}

pub(crate) fn a_killed_pod_gives_its_address_up_and_takes_it_back(stage: &mut Stage) -> Result<()> {
    let (node, before) = first_holder(stage)?;
    there_and_back(
        stage,
        Bystander::NoticesNothing,
        |stage, node| {
            let node = stage.local()?.node(node)?;
            let words = ["run", "vrrp", "proxy"];
            let all: Vec<Pid> = words
                .into_iter()
                .flat_map(|word| processes(node, word))
                .collect();
            ensure!(all.len() == 4, "{} processes on {}", all.len(), node.name());
            kill_at_once(&all);
            Ok(())
        },
        nothing,
    )?;
    stage.wait(
        "the kubelet to say that it restarted a container",
        |stage| {
            let after = stage.gateway_pod(node)?.context("no pod")?;
            Ok((restarts(&after) > restarts(&before)).then_some(()))
        },
    )
}

pub(crate) fn a_deleted_pod_gives_its_address_up_and_takes_it_back(
    stage: &mut Stage,
) -> Result<()> {
    there_and_back(
        stage,
        Bystander::NoticesNothing,
        |stage, node| {
            let pod = stage.gateway_pod(node)?.context("no pod")?;
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let words = [
                "delete",
                "pod",
                name,
                "--namespace",
                NAMESPACE,
                "--wait=false",
            ];
            stage.kubectl(&words).map(drop)
        },
        nothing,
    )
}

pub(crate) fn a_node_without_power_is_replaced_and_returns(stage: &mut Stage) -> Result<()> {
    there_and_back(
        stage,
        Bystander::MayLoseItsServer,
        |stage, node| stage.local_mut()?.node_mut(node)?.power_off(),
        |stage, node| {
            stage.local_mut()?.power_on(node)?;
            stage.local()?.wait_ready(node)
        },
    )?;
    stage.status_is_true()
}
