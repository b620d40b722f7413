//! The addresses behind a name: a headless Service has one for each replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::pin,
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use super::{
    client::Client,
    connect::{Cause, Credentials, Target},
    messages::Input,
    supervise::pass_on_panic,
};
use crate::agent::chain;

/// How often a name is looked up.
const EVERY: Duration = Duration::from_secs(10);
/// How soon after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps a stream to each address of `target`, for ever.
pub(super) async fn follow(target: Target, credentials: Credentials, inputs: mpsc::Sender<Input>) {
    let label = format!("{}:{}", target.host, target.port);
    let mut clients: BTreeMap<SocketAddr, watch::Sender<bool>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut logged: Option<String> = None;
    loop {
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let found = found.map(Iterator::collect::<BTreeSet<_>>);
        let problem = match found {
            Ok(addresses) if addresses.is_empty() => Some(chain(&Cause::NoAddress)),
            Ok(addresses) => {
                clients.retain(|address, wanted| {
                    // A client that has ended by itself was told before that it is not wanted.
                    let is_wanted = addresses.contains(address);
                    if !is_wanted {
                        wanted.send_replace(false);
                    }
                    is_wanted
                });
                for address in addresses {
                    clients.entry(address).or_insert_with(|| {
                        let (wanted, is_wanted) = watch::channel(true);
                        let client = Client {
                            target: target.clone(),
                            address,
                            credentials: credentials.clone(),
                            inputs: inputs.clone(),
                        };
                        tasks.spawn(client.run(is_wanted));
                        wanted
                    });
                }
                None
            }
            // Streams that live are not touched by a name server that is away.
            Err(error) => Some(chain(&Cause::Resolve(error))),
        };
        if problem != logged {
            if let Some(problem) = &problem {
                tracing::warn!(controller = label, "{problem}");
            }
            logged.clone_from(&problem);
            let input = Input::Problem(label.clone(), problem);
            if inputs.send(input).await.is_err() {
                return;
            }
        }
        let mut wait = pin!(sleep(if logged.is_some() { AGAIN } else { EVERY }));
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => pass_on_panic(ended),
                () = &mut wait => break,
            }
        }
    }
}
