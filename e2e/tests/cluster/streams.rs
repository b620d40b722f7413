//! What gateways log of their streams.

use anyhow::{Result, ensure};

use crate::stage::{NAMESPACE, Stage};

/// Names of the living pods of a component.
fn pods(stage: &Stage, component: &str) -> Result<Vec<String>> {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    let pods = stage.get(&["pods", "--namespace", NAMESPACE, &selector])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    let living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let names = living.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned));
    Ok(names.collect())
}

fn log(stage: &Stage, pod: &str) -> Result<String> {
    stage.kubectl(&["logs", "--namespace", NAMESPACE, pod, "--container=agent"])
}

/// Waits until every gateway has a stream of this version to every replica.
pub(crate) fn all_speak(stage: &Stage, protocol: &str) -> Result<()> {
    stage.wait(&format!("streams of {protocol}"), |stage| {
        let (replicas, gateways) = (pods(stage, "controller")?, pods(stage, "dataplane")?);
        ensure!(!replicas.is_empty() && !gateways.is_empty(), "no pods");
        for gateway in gateways {
            let log = log(stage, &gateway)?;
            for replica in &replicas {
                let opened = log.lines().rfind(|line| {
                    line.contains("a stream to the controller is open") && line.contains(replica)
                });
                if !opened.is_some_and(|line| line.contains(protocol)) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    })
}

/// Every gateway began with what the one before it had saved, whatever its release.
pub(crate) fn all_began_with_what_was_saved(stage: &Stage) -> Result<()> {
    for gateway in pods(stage, "dataplane")? {
        let log = log(stage, &gateway)?;
        ensure!(
            log.contains("starting with the saved state"),
            "{gateway} did not begin with what was saved:\n{log}"
        );
    }
    Ok(())
}
