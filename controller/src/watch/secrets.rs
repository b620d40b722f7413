//! Secrets, of the namespaces that the administrator names and of no others; none where he names none.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::task::JoinSet;

use super::{Changed, lean_secret, reflect, without_annotations};
use crate::{
    args::RunArgs,
    failure::Failure,
    tls::{Look, Ring, SecretName, TICKET_KEYS},
};

/// Secrets, as far as they may be read.
#[derive(Clone, Default)]
pub struct Secrets {
    namespaces: BTreeMap<String, Store<Secret>>,
    tickets: Option<Store<Secret>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespaces: Vec<_> = self.namespaces.keys().collect();
        let mut shown = f.debug_struct("Secrets");
        shown
            .field("namespaces", &namespaces)
            .finish_non_exhaustive()
    }
}

impl Secrets {
    /// Starts to watch what the arguments name.
    pub(super) fn start(
        client: &Client,
        args: &RunArgs,
        changed: &Arc<Changed>,
        tasks: &mut JoinSet<Failure>,
    ) -> Self {
        if args.tls_namespaces.is_empty() {
            return Self::default();
        }
        let own = watcher::Config::default().fields(&format!("metadata.name={TICKET_KEYS}"));
        let api = Api::namespaced(client.clone(), &args.namespace);
        let tickets = reflect(api, own, without_annotations, changed, tasks);
        let mut namespaces = BTreeMap::new();
        for namespace in &args.tls_namespaces {
            namespaces.entry(namespace.clone()).or_insert_with(|| {
                let api = Api::namespaced(client.clone(), namespace);
                reflect(api, watcher::Config::default(), lean_secret, changed, tasks)
            });
        }
        Self {
            namespaces,
            tickets: Some(tickets),
        }
    }

    /// Waits until all have been listed once. A namespace whose Secrets are not told must not keep the others
    /// waiting for ever.
    pub async fn listed(&self) {
        for store in self.namespaces.values().chain(&self.tickets) {
            if store.wait_until_ready().await.is_err() {
                return; // a watch that has ended ends the process
            }
        }
    }

    /// What is where a Secret should be.
    pub fn look(&self, name: &SecretName) -> Look {
        let Some(store) = self.namespaces.get(&name.namespace) else {
            return Look::NotPermitted;
        };
        match store.get(&ObjectRef::new(&name.name).within(&name.namespace)) {
            Some(secret) => Look::Here(secret),
            None if store.wait_until_ready().now_or_never().is_some() => Look::Missing,
            None => Look::Pending,
        }
    }

    /// What the keys of session tickets are derived from.
    pub fn ring(&self) -> Option<Ring> {
        let kept = self.tickets.as_ref()?.state();
        Ring::read(kept.first()?)
    }

    /// The Secret of the ticket keys, where there is TLS at all.
    pub fn tickets(&self) -> Option<Store<Secret>> {
        self.tickets.clone()
    }
}
