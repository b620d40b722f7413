//! What is measured on a stage.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::Api;
use super::fleet::{Arrival, Fleet};
use super::objects::{self, PROBE_SLICE, change};
use super::stage::Stage;
use crate::cost;

/// Bound for one change.
const BOUND: Duration = Duration::from_secs(30);
/// What follows a change (acknowledgements, status) is over then.
const PAUSE: Duration = Duration::from_millis(100);

/// What endpoint changes took.
#[derive(Clone, Debug)]
pub struct Changes {
    /// From the write to the last gateway that has it, in order of time; the API server's part included.
    pub whole: Vec<Duration>,
    /// From the write to a watch of the API server, in order of time.
    pub api_server: Vec<Duration>,
    /// Bytes per change and gateway, without TLS.
    pub bytes: usize,
    /// CPU time per change: the controller's, and the API server's.
    pub cpu: (Duration, Duration),
    /// The longest computation, during which no stream is told anything new.
    pub stall: Duration,
    /// Resident memory of the controller in bytes.
    pub memory: u64,
}

/// Writes `count` changes one after another, each once the one before has come everywhere.
pub async fn changes(stage: &Stage, fleet: &mut Fleet, count: usize) -> Result<Changes> {
    let mut api = stage.access.connect().await?;
    let mut heard = watch(stage).await?;
    let (controller, api_server) = stage.pids()?;
    let cpu = || {
        Ok::<_, anyhow::Error>((
            cost::cpu_time(&[controller])?,
            cost::cpu_time(&[api_server])?,
        ))
    };
    let (mut whole, mut served) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    // The first two are to warm up.
    for number in 0..2 {
        api.patch(PROBE_SLICE, &change(stage.size, number)).await?;
        fleet.changed(BOUND).await?;
        heard.recv().await.context("the watch has ended")?;
    }
    let (_, log) = stage.longest(0)?;
    let before = cpu()?;
    for number in 2..count + 2 {
        let (begun, took, arrival) = one(stage, &mut api, fleet, number).await?;
        whole.push(took);
        let at = timeout(BOUND, heard.recv())
            .await?
            .context("the watch has ended")?;
        served.push(at.saturating_duration_since(begun));
        bytes += arrival.bytes;
        tokio::time::sleep(PAUSE).await;
    }
    let after = cpu()?;
    let number = u32::try_from(count)?;
    whole.sort_unstable();
    served.sort_unstable();
    Ok(Changes {
        whole,
        api_server: served,
        bytes: bytes / (count * stage.size.gateways),
        cpu: (
            after.0.saturating_sub(before.0) / number,
            after.1.saturating_sub(before.1) / number,
        ),
        stall: stage.longest(log)?.0,
        memory: cost::resident(&[controller])?,
    })
}

/// Writes one change, and waits until it has come everywhere: when it began, how long it took.
async fn one(
    stage: &Stage,
    api: &mut Api,
    fleet: &mut Fleet,
    number: usize,
) -> Result<(Instant, Duration, Arrival)> {
    let patch = change(stage.size, number);
    let begun = Instant::now();
    let written = api.patch(PROBE_SLICE, &patch);
    let (written, arrival) = tokio::join!(written, fleet.changed(BOUND));
    written?;
    let arrival = arrival?;
    let last = arrival.times.iter().max().context("no gateway")?;
    Ok((begun, last.duration_since(begun), arrival))
}

/// What it came to when a node was to be emptied, so that all was planned anew.
#[derive(Clone, Debug)]
pub struct Membership {
    /// What endpoint changes took meanwhile, as in [`Changes::whole`].
    pub whole: Vec<Duration>,
    /// The longest plan.
    pub plan: Duration,
    /// The longest computation.
    pub stall: Duration,
}

/// Cordons a gateway and brings it back, with changes written all the while.
pub async fn membership(stage: &Stage, fleet: &mut Fleet, count: usize) -> Result<Membership> {
    let mut api = stage.access.connect().await?;
    let (_, log) = stage.longest(0)?;
    let node = format!("/api/v1/nodes/{}", objects::node(0));
    let mut whole = Vec::new();
    for unschedulable in [true, false] {
        let before = sequence(&mut api).await?;
        let patch = json!({"spec": {"unschedulable": unschedulable}});
        api.patch(&node, &patch).await?;
        // While it is planned, and then while it is committed.
        let (mut number, mut left) = (0, count);
        while left > 0 || number % 2 != 0 {
            whole.push(one(stage, &mut api, fleet, number).await?.1);
            number += 1;
            // A gateway that holds nothing moves nothing.
            let is_idle = number > count * 4;
            if is_idle || left < count || sequence(&mut api).await? > before {
                left = left.saturating_sub(1);
            }
        }
        fleet
            .quiet(Duration::from_secs(2), Duration::from_mins(1))
            .await?;
    }
    whole.sort_unstable();
    Ok(Membership {
        whole,
        plan: stage.longest_plan(log)?.0,
        stall: stage.longest(log)?.0,
    })
}

/// The highest sequence that was committed.
async fn sequence(api: &mut Api) -> Result<i64> {
    let path = "/api/v1/namespaces/wsha/configmaps/wsha-ledger";
    let ledger = api.get(path).await?;
    let text = ledger["data"]["ledger.json"].as_str();
    let ledger: Value = serde_json::from_str(text.context("no ledger")?)?;
    ledger["sequence"].as_i64().context("no sequence")
}

/// When changes of the probe's slice come out of the API server.
async fn watch(stage: &Stage) -> Result<mpsc::UnboundedReceiver<Instant>> {
    let mut api = stage.access.connect().await?;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let only = "fieldSelector=metadata.name%3Dprobe-0";
    let listed = api.get(&format!("{slices}?{only}")).await?;
    let version = listed["metadata"]["resourceVersion"]
        .as_str()
        .context("no version")?;
    let path = format!("{slices}?watch=1&{only}&resourceVersion={version}");
    let mut lines = api.watch(&path).await?;
    let (sender, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // The connection is the watch's for as long as it is read.
        let _api = api;
        while let Ok(line) = lines.next().await {
            if line["type"] == "MODIFIED" && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok(heard)
}

/// What the restart of a controller came to.
#[derive(Clone, Debug)]
pub struct Restart {
    /// From its start to the last gateway that has everything.
    pub synced: Duration,
    /// Resources told again, and removals.
    pub told: usize,
    /// Bytes told by all gateways' streams together, without TLS.
    pub bytes: usize,
    /// Statuses written within the seconds that follow.
    pub statuses: usize,
    /// The longest computation.
    pub stall: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
    /// CPU time of the controller until then.
    pub cpu: Duration,
}

/// Kills the controller, starts it again, and waits for all gateways.
pub async fn restart(stage: &mut Stage, fleet: &mut Fleet) -> Result<Restart> {
    let mut api = stage.access.connect().await?;
    let before = versions(&api.get(POOLS).await?);
    let (_, log) = stage.longest(0)?;
    stage.kill_controller()?;
    let begun = Instant::now();
    stage.start_controller()?;
    let arrival = fleet.synced(Duration::from_mins(1)).await?;
    let last = arrival.times.iter().max().context("no gateway")?;
    let synced = last.duration_since(begun);
    let after = fleet
        .quiet(Duration::from_secs(5), Duration::from_mins(1))
        .await?;
    let (controller, _) = stage.pids()?;
    let written = versions(&api.get(POOLS).await?);
    let statuses = written
        .iter()
        .zip(&before)
        .filter(|(one, other)| one != other);
    Ok(Restart {
        synced,
        told: arrival.told + arrival.other.1 + after.other.1,
        bytes: arrival.bytes + arrival.other.0 + after.other.0,
        statuses: statuses.count(),
        stall: stage.longest(log)?.0,
        memory: cost::resident(&[controller])?,
        cpu: cost::cpu_time(&[controller])?,
    })
}

const POOLS: &str = "/apis/wsha.dev/v1alpha1/namespaces/default/websockethapools";

fn versions(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    let versions = items.map(|item| item["metadata"]["resourceVersion"].to_string());
    versions.collect()
}

/// The value that so many in a hundred do not exceed.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
