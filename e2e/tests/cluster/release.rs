//! The chart: installed, tested, upgraded, rolled back, uninstalled by Helm.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::image::{self, Image, Profile};
use e2e::testing::Session;
use node_api::Protocol;

use crate::copy;
use crate::nodes::{ready, servers};
use crate::stage::{NAMESPACE, Stage};
use crate::streams;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the build that differs in this and in its protocol alone.
const NEXT: &str = "0.1.999";

/// The pool of all scenarios.
pub(crate) fn pool(addresses: [Ipv4Addr; 2]) -> String {
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
pub(crate) fn values(stage: &Stage) -> Vec<String> {
    let images = stage.cluster.registry().map_or_else(
        || "image.pullPolicy=Never".to_owned(),
        |registry| format!("image.registry={registry}"),
    );
    let tls = "tls.namespaces={default}";
    ["--wait", "--timeout", "5m", "--set", &images, "--set", tls]
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

/// The chart of this release.
pub(crate) fn chart() -> String {
    tree().join("charts/wsha").display().to_string()
}

/// `helm install` of this release.
pub(crate) fn install(stage: &Stage) -> Result<()> {
    let words = ["install", "wsha", &chart(), "--create-namespace"];
    stage.helm_with(&words, &values(stage)).map(drop)
}

pub(crate) fn the_chart_serves_a_pool(stage: &mut Stage) -> Result<()> {
    load(stage, VERSION, |image, dir| {
        image::build(image, Profile::Dev, dir)
    })?;
    stage.apply(&servers(stage, 3))?;
    install(stage)?;
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

/// Who is of which release.
struct Step {
    words: Vec<String>,
    controller: &'static str,
    dataplane: &'static str,
    replaces_gateways: bool,
}

/// From this release to the next and back, with either part ahead of the other for a while.
fn steps(stage: &Stage, chart: &str) -> [Step; 4] {
    let upgrade = |tag: &[&str]| {
        let mut words = ["upgrade", "wsha", chart].map(str::to_owned).to_vec();
        words.extend(values(stage));
        words.extend(tag.iter().map(|&word| word.to_owned()));
        words
    };
    let keep = |of: &str| format!("{of}.tag={VERSION}");
    let mut rollback = ["rollback", "wsha", "1"].map(str::to_owned).to_vec();
    rollback.extend(values(stage).into_iter().take(3));
    [
        Step {
            words: upgrade(&["--set", &keep("dataplane")]),
            controller: NEXT,
            dataplane: VERSION,
            replaces_gateways: false,
        },
        Step {
            words: upgrade(&[]),
            controller: NEXT,
            dataplane: NEXT,
            replaces_gateways: true,
        },
        Step {
            words: upgrade(&["--set", &keep("controller")]),
            controller: VERSION,
            dataplane: NEXT,
            replaces_gateways: false,
        },
        Step {
            words: rollback,
            controller: VERSION,
            dataplane: VERSION,
            replaces_gateways: true,
        },
    ]
}

/// The newest version of the stream that both speak, in the words of the log.
fn agreed(controller: &str, dataplane: &str) -> String {
    let own = Protocol::NEWEST;
    if [controller, dataplane] == [NEXT; 2] {
        let [number, next] = [0, 1].map(|more| format!("v{}.", own.number() + more));
        own.to_string().replace(&number, &next)
    } else {
        own.to_string()
    }
}

pub(crate) fn an_upgrade_and_its_rollback(stage: &mut Stage) -> Result<()> {
    stage.settle()?;
    // Always the same place: what did not change since the last run is not built again.
    let next = image::target_dir()?.join("next");
    copy::of_next_release(&tree(), &next, VERSION, NEXT)?;
    load(stage, NEXT, |image, dir| {
        image::build_from(&next, image, Profile::Dev, dir)
    })?;
    let chart = next.join("charts/wsha").display().to_string();
    let watch = stage.watch()?;
    for step in steps(stage, &chart) {
        let since = Instant::now();
        stage.helm(&step.words.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (workload, version) in [
            ("daemonset/wsha-dataplane", step.dataplane),
            ("deployment/wsha-controller", step.controller),
        ] {
            stage.rolled_out(workload)?;
            let path = "-o=jsonpath={.spec.template.spec.containers[*].image}";
            let images = stage.kubectl(&["get", workload, "--namespace", NAMESPACE, path])?;
            let all = images
                .split_whitespace()
                .all(|image| image.ends_with(version));
            ensure!(all, "{workload} runs {images}, not {version}");
        }
        stage.settle()?;
        let protocol = agreed(step.controller, step.dataplane);
        streams::all_speak(stage, &protocol)?;
        println!(
            "    controller {}, gateways {}: {protocol}",
            step.controller, step.dataplane
        );
        if step.replaces_gateways {
            streams::all_began_with_what_was_saved(stage)?;
        }
        for address in stage.vips() {
            watch.serves(address, Instant::now())?;
            stage.tell(&watch, address, since)?;
        }
    }
    watch.never_split()
}
