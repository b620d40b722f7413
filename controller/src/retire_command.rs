//! `wsha-controller retire`: has the controllers retire every node, and waits for that.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    LEDGER,
    args::RetireArgs,
    recompute::LEDGER_KEY,
    retire::{ANNOTATION, Progress},
    snapshot::Ledger,
};

/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Limit for one call.
const CALL: Duration = Duration::from_secs(5);

/// How it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Every node has given up everything.
    Retired(BTreeSet<String>),
    /// These have not.
    Left(BTreeSet<String>),
    /// No controller has answered.
    Unanswered,
}

/// Asks, waits, and says what came of it.
///
/// # Errors
/// If the API server refuses; with `--strict`, if a node is left.
pub async fn run(args: &RetireArgs) -> anyhow::Result<()> {
    let client = crate::client().await?;
    let api: Api<ConfigMap> = Api::namespaced(client, &args.namespace);
    if args.cancel {
        ask(&api, None).await?;
        println!("the request to retire is withdrawn");
        return Ok(());
    }
    let request = Timestamp::now().to_string();
    ask(&api, Some(&request)).await?;
    let outcome = wait(&api, &request, args.timeout).await;
    print!("{}", text(&outcome, args.timeout));
    if args.strict && !matches!(outcome, Outcome::Retired(_)) {
        bail!("not every gateway is known to have given up its addresses");
    }
    Ok(())
}

async fn ask(api: &Api<ConfigMap>, request: Option<&str>) -> anyhow::Result<()> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION: request}}});
    let action = || format!("cannot annotate ConfigMap {LEDGER}");
    let params = PatchParams::default();
    match timeout(CALL, api.patch(LEDGER, &params, &Patch::Merge(&patch))).await {
        Ok(Ok(_)) => Ok(()),
        // Nothing was ever committed.
        Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => Ok(()),
        Ok(Err(error)) => Err(error).with_context(action),
        Err(error) => Err(error).with_context(action),
    }
}

async fn wait(api: &Api<ConfigMap>, request: &str, most: Duration) -> Outcome {
    let begun = Instant::now();
    let mut last = Outcome::Unanswered;
    loop {
        match timeout(CALL, progress(api)).await {
            Ok(Ok(Some(progress))) if progress.request == request => {
                last = outcome(progress);
                if matches!(last, Outcome::Retired(_)) {
                    return last;
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => eprintln!("cannot read ConfigMap {LEDGER}: {error}"),
            Err(_) => eprintln!("cannot read ConfigMap {LEDGER}: no answer"),
        }
        if begun.elapsed() >= most {
            return last;
        }
        sleep(LOOK.min(most)).await;
    }
}

/// By a list of one, which is what the controller's role permits.
async fn progress(api: &Api<ConfigMap>) -> Result<Option<Progress>, kube::Error> {
    let one = ListParams::default().fields(&format!("metadata.name={LEDGER}"));
    let listed = api.list(&one).await?;
    let data = listed.items.into_iter().next().and_then(|it| it.data);
    let text = data.and_then(|mut data| data.remove(LEDGER_KEY));
    let ledger: Option<Ledger> = text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(ledger.and_then(|ledger| ledger.retire))
}

fn outcome(progress: Progress) -> Outcome {
    if progress.waiting.is_empty() {
        Outcome::Retired(progress.retired)
    } else {
        Outcome::Left(progress.waiting)
    }
}

fn text(outcome: &Outcome, most: Duration) -> String {
    let names = |nodes: &BTreeSet<String>| nodes.iter().cloned().collect::<Vec<_>>().join(", ");
    match outcome {
        Outcome::Retired(nodes) if nodes.is_empty() => "no gateway has anything\n".to_owned(),
        Outcome::Retired(nodes) => format!(
            "every gateway has given up its addresses and emptied its state directory: {}\n",
            names(nodes)
        ),
        Outcome::Left(nodes) => format!(
            "WARNING: not reached within {most:?}: {}\nTheir addresses go when their pods end; what \
             is left is the state directory. On each of them, once it is back, see that no \
             wsha-dataplane runs, and remove /var/lib/wsha.\n",
            names(nodes)
        ),
        Outcome::Unanswered => format!(
            "WARNING: no controller has answered within {most:?}, so that no gateway was asked: see \
             that a pod of wsha-controller is ready, and try again. Addresses go when the gateways' \
             pods end; what is left on each is the state directory, /var/lib/wsha.\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_left_are_named() {
        let nodes = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
        let progress = |waiting: &[&str]| Progress {
            request: "1".to_owned(),
            retired: nodes(&["a"]),
            waiting: nodes(waiting),
        };
        let most = Duration::from_mins(1);
        let left = text(&outcome(progress(&["b", "c"])), most);
        assert!(
            left.starts_with("WARNING: not reached within 60s: b, c\n"),
            "{left}"
        );
        let done = text(&outcome(progress(&[])), most);
        assert!(done.ends_with("directory: a\n"), "{done}");
    }
}
