//! Restarts of all pods in turn.

use std::time::Instant;

use anyhow::Result;

use crate::stage::{NAMESPACE, Stage};

impl Stage {
    /// Waits until a workload's pods are all of its newest template.
    pub(crate) fn rolled_out(&self, workload: &str) -> Result<()> {
        let words = ["rollout", "status", workload, "--namespace", NAMESPACE];
        self.kubectl(&[&words[..], &["--timeout=240s"]].concat())
            .map(drop)
    }
}

fn restart(stage: &Stage, workload: &str) -> Result<()> {
    stage.kubectl(&["rollout", "restart", workload, "--namespace", NAMESPACE])?;
    stage.rolled_out(workload)
}

pub(crate) fn gateways_restart_one_after_another(stage: &mut Stage) -> Result<()> {
    stage.settle()?;
    let watch = stage.watch()?;
    let since = Instant::now();
    restart(stage, "daemonset/wsha-dataplane")?;
    stage.settle()?;
    for address in stage.vips() {
        watch.serves(address, Instant::now())?;
        stage.tell(&watch, address, since)?;
    }
    watch.never_split()
}

pub(crate) fn controllers_restart_unnoticed(stage: &mut Stage) -> Result<()> {
    stage.settle()?;
    let watch = stage.watch()?;
    let since = Instant::now();
    restart(stage, "deployment/wsha-controller")?;
    stage.settle()?;
    for address in stage.vips() {
        watch.undisturbed(address, since)?;
    }
    watch.never_split()
}
