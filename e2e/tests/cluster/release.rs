//! The chart: installed, tested, upgraded, rolled back, uninstalled by Helm.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::{Cluster, Local};
use e2e::image::{self, Image, Profile};
use e2e::testing::{Event, Session};

use crate::copy;
use crate::nodes::{ready, servers};
use crate::stage::{BOUND, NAMESPACE, Stage};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the build that differs in nothing else.
const NEXT: &str = "0.1.999";

fn pool(addresses: [Ipv4Addr; 2]) -> String {
    let [one, two] = addresses;
    format!(
        "
apiVersion: wsha.dev/v1alpha1
kind: WebSocketHAPool
metadata: {{name: chat, namespace: default}}
spec:
  virtualIPs: [{{address: {one}}}, {{address: {two}}}]
  gateways: {{nodeSelector: {{matchLabels: {{wsha.dev/gateway: \"true\"}}}}}}
  listeners: [{{name: ws, port: 8020}}]
  upstreams: [{{name: echo, service: {{name: ws-echo, port: 8010}}}}]
  drain: {{timeout: 5s}}
"
    )
}

/// Values beside the defaults: from no registry nothing can be pulled.
fn values(stage: &Stage) -> Vec<String> {
    let images = stage.cluster.registry().map_or_else(
        || "image.pullPolicy=Never".to_owned(),
        |registry| format!("image.registry={registry}"),
    );
    ["--wait", "--timeout", "5m", "--set", &images]
        .map(str::to_owned)
        .into()
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes an image of each program and loads it on every node.
fn load(
    stage: &Stage,
    version: &str,
    build: impl Fn(Image, &Path) -> Result<PathBuf>,
) -> Result<()> {
    let dir = stage
        .cluster
        .console()
        .dir()
        .join(format!("images-{version}"));
    for image in Image::ALL {
        let program = build(image, &dir)?;
        let archive = dir.join(format!("{}.tar", image.name()));
        fs::write(
            &archive,
            image.archive(&program, &image.reference(version))?,
        )?;
        stage.cluster.load(&archive)?;
        fs::remove_file(&archive)?;
    }
    Ok(())
}

pub(crate) fn the_chart_serves_a_pool(stage: &mut Stage) -> Result<()> {
    load(stage, VERSION, |image, dir| {
        image::build(image, Profile::Dev, dir)
    })?;
    stage.apply(&servers(stage, 3))?;
    let chart = tree().join("charts/wsha").display().to_string();
    let install = ["install", "wsha", &chart, "--create-namespace"];
    stage.helm_with(&install, &values(stage))?;
    stage.apply(&pool(stage.vips()))?;
    stage.settle()?;
    stage.status_is_true()?;
    let shown = stage.kubectl(&["get", "wshap", "chat"])?;
    ensure!(shown.contains("2/2") && shown.contains("3/3"), "{shown}");
    for address in stage.vips() {
        let server = Session::open(stage.client(), address)?.say("hello")?;
        ensure!(ready(stage)?.contains(&server), "{server} is no server");
    }
    Ok(())
}

pub(crate) fn helm_test_passes(stage: &mut Stage) -> Result<()> {
    let told = stage.helm(&["test", "wsha", "--timeout", "4m"])?;
    ensure!(told.contains("Succeeded"), "{told}");
    Ok(())
}

pub(crate) fn an_upgrade_and_its_rollback(stage: &mut Stage) -> Result<()> {
    stage.settle()?;
    // Always the same place: what did not change since the last run is not built again.
    let next = image::target_dir()?.join("next");
    copy::with_version(&tree(), &next, VERSION, NEXT)?;
    load(stage, NEXT, |image, dir| {
        image::build_from(&next, image, Profile::Dev, dir)
    })?;
    let chart = next.join("charts/wsha").display().to_string();
    let watch = stage.watch()?;
    let values = values(stage);
    for (words, version) in [
        (["upgrade", "wsha", &chart], NEXT),
        (["rollback", "wsha", "1"], VERSION),
    ] {
        let since = Instant::now();
        let more = if version == NEXT {
            &values[..]
        } else {
            &values[..3]
        };
        stage.helm_with(&words, more)?;
        for workload in ["daemonset/wsha-dataplane", "deployment/wsha-controller"] {
            stage.rolled_out(workload)?;
            let path = "-o=jsonpath={.spec.template.spec.containers[*].image}";
            let images = stage.kubectl(&["get", workload, "--namespace", NAMESPACE, path])?;
            let all = images
                .split_whitespace()
                .all(|image| image.ends_with(version));
            ensure!(all, "{workload} runs {images}, not {version}");
        }
        stage.settle()?;
        for address in stage.vips() {
            watch.serves(address, Instant::now())?;
            stage.tell(&watch, address, since)?;
        }
    }
    watch.never_split()
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
                last = left(local, &stage.vips())?;
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

/// What the product has left on nodes.
fn left(local: &Local, addresses: &[Ipv4Addr]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for node in local.nodes() {
        let (name, host) = (node.name(), node.host());
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
    }
    Ok(left)
}

/// How the rules end that every host has.
const USUAL: [&str; 3] = ["lookup local", "lookup main", "lookup default"];
