//! `wsha-controller check`: whether what was installed is at work, for `helm test`. It reads what the
//! controller's role lets it read, and changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crds::WebSocketHAPool;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use plan::model::pool_ref;
use tokio::time::{sleep, timeout};

use crate::{LEASE, args::CheckArgs, status::DEGRADED};

/// How often it is looked again.
const LOOK: Duration = Duration::from_secs(1);
/// Limit for one look.
const CALL: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Who writes.
    pub leader: Option<String>,
    /// Pods of the controller.
    pub controllers: Vec<Pod>,
    /// Pods of the gateways.
    pub gateways: Vec<Pod>,
    /// All pools.
    pub pools: Vec<WebSocketHAPool>,
}

/// Looks until all is well, and says what was found.
///
/// # Errors
/// What is not well when the time is over.
pub async fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let client = crate::client().await?;
    let begun = Instant::now();
    loop {
        let found = match timeout(CALL, look(&client, &args.namespace)).await {
            Ok(found) => found.context("the API server refuses"),
            Err(_) => Err(anyhow::anyhow!("the API server does not answer")),
        };
        let problems = match found {
            Ok(found) => {
                let problems = problems(&found);
                if problems.is_empty() {
                    print!("{}", summary(&found));
                    return Ok(());
                }
                problems
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if begun.elapsed() >= args.timeout {
            bail!("{}", problems.join("\n"));
        }
        sleep(LOOK).await;
    }
}

async fn look(client: &Client, namespace: &str) -> Result<Found, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of = async |component: &str| {
        let labels = format!("app.kubernetes.io/name=wsha,app.kubernetes.io/component={component}");
        let list = pods.list(&ListParams::default().labels(&labels)).await;
        list.map(|list| list.items)
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(LEASE).await?;
    let spec = lease.and_then(|lease| lease.spec);
    let pools: Api<WebSocketHAPool> = Api::all(client.clone());
    Ok(Found {
        leader: spec.and_then(|spec| spec.holder_identity),
        controllers: of("controller").await?,
        gateways: of("dataplane").await?,
        pools: pools.list(&ListParams::default()).await?.items,
    })
}

/// What is not well.
pub fn problems(found: &Found) -> Vec<String> {
    let mut problems = Vec::new();
    if found.controllers.is_empty() {
        problems.push("no pod of the controller exists".to_owned());
    }
    match &found.leader {
        Some(leader)
            if found
                .controllers
                .iter()
                .any(|pod| pod.name_any() == *leader) => {}
        Some(leader) if !leader.is_empty() => problems.push(format!(
            "the lease {LEASE} is held by {leader}, which is no pod of the controller"
        )),
        _ => problems.push(format!("nobody holds the lease {LEASE}")),
    }
    if found.gateways.is_empty() {
        problems.push(
            "no gateway pod exists: no node has the labels of dataplane.nodeSelector, or the \
             namespace does not admit pods on the host network (Pod Security: privileged)"
                .to_owned(),
        );
    }
    for pod in found.controllers.iter().chain(&found.gateways) {
        let is_going = pod.metadata.deletion_timestamp.is_some();
        if !is_going && let Some(why) = not_ready(pod) {
            let spec = pod.spec.as_ref();
            let node = spec.and_then(|spec| spec.node_name.as_deref());
            problems.push(format!(
                "pod {} on node {} is not ready: {why}",
                pod.name_any(),
                node.unwrap_or("(none yet)")
            ));
        }
    }
    for pool in &found.pools {
        let seen = pool.status.as_ref().and_then(|it| it.observed_generation);
        if seen != pool.metadata.generation {
            problems.push(format!(
                "the controller has not looked at pool {} as it stands",
                pool_ref(pool)
            ));
        }
    }
    problems
}

fn not_ready(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|it| it.type_ == "Ready"));
    match ready {
        None => Some("no kubelet has seen it".to_owned()),
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_default()),
    }
}

/// What was found, all being well: with what users have still to do.
pub fn summary(found: &Found) -> String {
    let mut lines = vec![format!(
        "{} replicas of the controller are ready, {} leads; {} gateways are ready",
        found.controllers.len(),
        found.leader.as_deref().unwrap_or("nobody"),
        found.gateways.len()
    )];
    for pool in &found.pools {
        let status = pool.status.as_ref();
        let mut said: Vec<_> = status
            .iter()
            .flat_map(|status| &status.conditions)
            .filter(|condition| (condition.status == "True") == (condition.type_ == DEGRADED))
            .map(|it| format!("{}={} ({})", it.type_, it.status, it.message))
            .collect();
        if said.is_empty() {
            said.push("well".to_owned());
        }
        lines.push(format!("pool {}: {}", pool_ref(pool), said.join("; ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": ready, "message": "containers with unready status: [agent]"},
            ]},
        }))
        .unwrap()
    }

    fn pool(generation: i64, observed: i64, conditions: &Value) -> WebSocketHAPool {
        serde_json::from_value(json!({
            "apiVersion": "wsha.dev/v1alpha1",
            "kind": "WebSocketHAPool",
            "metadata": {"name": "chat", "namespace": "default", "generation": generation},
            "spec": {
                "virtualIPs": [{"address": "192.168.1.110"}],
                "gateways": {"nodeSelector": {}},
                "listeners": [{"name": "ws", "port": 8020}],
                "upstreams": [{"name": "echo", "service": {"name": "ws-echo", "port": 8010}}],
            },
            "status": {"observedGeneration": observed, "conditions": conditions},
        }))
        .unwrap()
    }

    fn well() -> Found {
        Found {
            leader: Some("c1".to_owned()),
            controllers: vec![pod("c1", "True"), pod("c2", "True")],
            gateways: vec![pod("g1", "True")],
            pools: vec![pool(2, 2, &json!([]))],
        }
    }

    #[test]
    fn all_is_well() {
        assert_eq!(problems(&well()), Vec::<String>::new());
        let text = summary(&well());
        assert!(
            text.starts_with("2 replicas of the controller are ready, c1 leads; 1 gateways"),
            "{text}"
        );
        assert!(text.contains("pool default/chat: well\n"), "{text}");
    }

    #[test]
    fn what_is_not_well_is_said() {
        let said = |change: &dyn Fn(&mut Found)| {
            let mut found = well();
            change(&mut found);
            problems(&found).join("\n")
        };
        let one = said(&|found| found.leader = None);
        assert_eq!(one, "nobody holds the lease wsha-controller");
        let one = said(&|found| found.leader = Some("gone".to_owned()));
        assert!(one.contains("held by gone, which is no pod"), "{one}");
        let one = said(&|found| found.gateways.clear());
        assert!(one.contains("no gateway pod exists"), "{one}");
        let one = said(&|found| found.gateways.push(pod("g2", "False")));
        assert_eq!(
            one,
            "pod g2 on node n1 is not ready: containers with unready status: [agent]"
        );
        let one = said(&|found| found.pools.push(pool(3, 2, &json!([]))));
        assert!(one.contains("has not looked at pool default/chat"), "{one}");
        let none = said(&|found| *found = Found::default());
        assert!(none.contains("no pod of the controller exists"), "{none}");
    }

    #[test]
    fn a_pod_that_no_kubelet_has_seen_is_not_ready() {
        let mut new = pod("g1", "True");
        new.status = None;
        let mut found = well();
        found.gateways = vec![new];
        assert!(problems(&found).join("\n").contains("no kubelet"));
    }

    #[test]
    fn pools_that_are_not_well_are_no_failure_and_are_shown() {
        let conditions = json!([
            {"type": "Accepted", "status": "False", "reason": "AddressNotPermitted",
             "message": "not on a link", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Degraded", "status": "False", "reason": "AllWell", "message": "",
             "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]);
        let mut found = well();
        found.pools = vec![pool(2, 2, &conditions)];
        assert!(problems(&found).is_empty());
        let text = summary(&found);
        assert!(
            text.contains("chat: Accepted=False (not on a link)\n"),
            "{text}"
        );
    }
}
