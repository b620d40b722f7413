//! The end of an installation: undone, with a node that cannot be reached, and whole.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::{Cluster, Local};
use e2e::testing::{Event, Session};

use crate::release::{chart, install, values};
use crate::stage::{BOUND, NAMESPACE, Stage};

/// Waits until no node holds an address of the pool.
fn nobody_holds(stage: &Stage) -> Result<()> {
    stage
        .vips()
        .into_iter()
        .try_for_each(|address| stage.wait_holders(address, &[]))
}

pub(crate) fn an_uninstall_given_up_after_its_hook_is_undone(stage: &mut Stage) -> Result<()> {
    stage.settle()?;
    // What `helm uninstall` begins with; then somebody ends it.
    let hooks = stage.helm(&["get", "hooks", "wsha"])?;
    let hook = hooks
        .split("\n---")
        .find(|hook| hook.contains("pre-delete"));
    stage.apply(hook.context("there is no hook")?)?;
    let job = ["job/wsha-retire", "--namespace", NAMESPACE];
    let words = ["wait", "--for=condition=Complete", "--timeout=240s"];
    stage.kubectl(&[&words[..], &job].concat())?;
    nobody_holds(stage)?;
    let words = [
        "exec",
        "deployment/wsha-controller",
        "--namespace",
        NAMESPACE,
    ];
    let command = ["--", "/wsha-controller", "retire", "--cancel"];
    let told = stage.kubectl(&[&words[..], &command].concat())?;
    ensure!(told.contains("withdrawn"), "{told}");
    stage.settle()?;
    stage.kubectl(&[&["delete"][..], &job].concat()).map(drop)
}

pub(crate) fn uninstall_names_a_node_that_cannot_be_reached(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    let chart = chart();
    let mut words = vec!["upgrade", "wsha", &chart, "--set", "retire.timeout=20s"];
    let values = values(stage);
    words.extend(values.iter().map(String::as_str));
    stage.helm(&words)?;
    stage.settle()?;
    let (lost, other) = (stage.holder(vip1)?.name(), stage.holder(vip2)?.name());
    stage.local_mut()?.node_mut(lost)?.power_off()?;
    // Before, its kubelet could be given the hook's own pod, which would wait for it.
    let node = format!("node/{lost}");
    stage.kubectl(&[
        "wait",
        "--for=condition=Ready=Unknown",
        "--timeout=240s",
        &node,
    ])?;
    let words = ["uninstall", "wsha", "--wait", "--timeout", "5m"];
    let answer = stage
        .cluster
        .console()
        .helm(&[&words[..], &["--namespace", NAMESPACE]].concat())?;
    let said = answer.stderr.clone() + &answer.success()?;
    let named = format!("not reached within 20s: {lost}");
    ensure!(said.contains(&named), "{said}");
    let clean = |stage: &Stage, node: &str| {
        let mut found = Vec::new();
        let name = node.to_owned();
        stage
            .wait(&format!("{name} to be clean"), |stage| {
                found = left(stage.local()?, &stage.vips(), &name)?;
                Ok(found.is_empty().then_some(()))
            })
            .with_context(|| found.join(", "))
    };
    for node in ["node1", "node2", "node3"] {
        if node != lost {
            clean(stage, node)?;
        }
    }
    println!("    {lost} was named, {other} is clean");

    // Once it is back nothing runs there any more, and the state directory is left, as was said.
    stage.local_mut()?.power_on(lost)?;
    stage.local()?.wait_ready(lost)?;
    stage.wait("its pods to go", |stage| {
        let pods = ["get", "pods", "--namespace", NAMESPACE, "--output=name"];
        Ok(stage.kubectl(&pods)?.is_empty().then_some(()))
    })?;
    let node = stage.local()?.node(lost)?;
    let files = node.files("/var/lib/wsha")?;
    ensure!(!files.is_empty(), "nothing is left on {lost}");
    node.remove("/var/lib/wsha")?;
    clean(stage, lost)?;
    install(stage)?;
    stage.settle()
}

pub(crate) fn uninstall_leaves_nothing(stage: &mut Stage) -> Result<()> {
    let [vip1, _] = stage.vips();
    stage.settle()?;
    let mut session = Session::open(stage.client(), vip1)?;
    session.say("before")?;
    stage.helm(&["uninstall", "wsha", "--wait", "--timeout", "5m"])?;
    let event = session.poll(BOUND)?;
    let is_told = matches!(event, Some(Event::Close(Some(1001), _)));
    ensure!(is_told, "a session of a gateway that retires got {event:?}");
    if let Cluster::Local(local) = &stage.cluster {
        let mut last = Vec::new();
        stage
            .wait("the nodes to be clean", |stage| {
                last = Vec::new();
                for node in local.nodes() {
                    last.extend(left(local, &stage.vips(), node.name())?);
                }
                Ok(last.is_empty().then_some(()))
            })
            .with_context(|| last.join(", "))?;
    }
    let mut objects = String::new();
    stage
        .wait("the namespace to be empty", |stage| {
            objects = stage.kubectl(&[
                "get",
                "all,secrets,configmaps,roles,rolebindings,serviceaccounts,leases,\
                 poddisruptionbudgets,clusterroles,clusterrolebindings",
                "--namespace",
                NAMESPACE,
                "--output=name",
            ])?;
            Ok((!objects.contains("wsha")).then_some(()))
        })
        .with_context(|| objects.clone())
}

/// What the product has left on a node.
fn left(local: &Local, addresses: &[Ipv4Addr], name: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let node = local.node(name)?;
    let host = node.host();
    for address in addresses {
        if host.holds(*address)? {
            left.push(format!("{address} on {name}"));
        }
    }
    for dir in ["/var/lib/wsha", "/run/wsha"] {
        let files = node.files(dir)?;
        left.extend(files.iter().map(|file| format!("{dir}/{file} on {name}")));
    }
    let rules = host.ip("rule show")?;
    let foreign = rules
        .lines()
        .filter(|rule| !USUAL.iter().any(|usual| rule.ends_with(usual)));
    left.extend(foreign.map(|rule| format!("rule {rule} on {name}")));
    let links = host.ip("-o link show type macvlan")?;
    left.extend(links.lines().map(|link| format!("{link} on {name}")));
    let rules = node.nft("list ruleset")?;
    let ours = |rule: &&str| {
        let names = addresses
            .iter()
            .any(|address| rule.contains(&address.to_string()));
        names || rule.contains("wsha") || rule.contains("vrrp")
    };
    left.extend(
        rules
            .lines()
            .filter(ours)
            .map(|rule| format!("{rule} on {name}")),
    );
    let processes = host.processes_where(|line| line.contains("wsha-dataplane"));
    left.extend(
        processes
            .iter()
            .map(|pid| format!("process {pid} on {name}")),
    );
    Ok(left)
}

/// How the rules end that every host has.
const USUAL: [&str; 3] = ["lookup local", "lookup main", "lookup default"];
