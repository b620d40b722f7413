//! What nodes say on their streams, shared by the streams and the computation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use node_api::stream::{Hello, NodeFacts, ToController};

use crate::{snapshot::NodeView, watch::Changed};

/// What nodes say.
#[derive(Debug)]
pub struct Registry {
    views: Mutex<BTreeMap<String, Entry>>,
    /// Raised by what plans depend on: networks.
    changed: Arc<Changed>,
    /// Raised by what status and retirements depend on: everything.
    said: Changed,
}

#[derive(Debug, Default)]
struct Entry {
    /// The stream that the view is of; a node that came back has a newer one.
    stream: u64,
    view: Arc<NodeView>,
}

impl Entry {
    fn view(&mut self) -> &mut NodeView {
        Arc::make_mut(&mut self.view)
    }

    /// Takes facts over; whether they are others. A node that has just started has not looked yet:
    /// then what it said before stands.
    fn facts(&mut self, facts: NodeFacts) -> bool {
        let is_new = !facts.interfaces.is_empty() && *self.view.facts != facts;
        if is_new {
            self.view().facts = Arc::new(facts);
        }
        is_new
    }
}

impl Registry {
    /// An empty one; `changed` is raised by what plans depend on.
    pub fn new(changed: Arc<Changed>) -> Self {
        Self {
            views: Mutex::default(),
            changed,
            said: Changed::new(()),
        }
    }

    /// Changes whenever a node says anything.
    pub fn said(&self) -> tokio::sync::watch::Receiver<()> {
        self.said.subscribe()
    }

    /// A node's stream begins.
    pub fn connected(&self, node: &str, stream: u64, hello: &Hello) {
        let mut views = self.lock();
        let former = views.remove(node).unwrap_or_default();
        let view = NodeView {
            connected: true,
            facts: Arc::clone(&former.view.facts),
            epoch: hello.epoch.clone(),
            sequence: hello.sequence,
            authorities: hello.authorities.clone(),
            // What it holds it may not carry out yet: it says so once it does.
            ..NodeView::default()
        };
        let mut entry = Entry {
            stream,
            view: Arc::new(view),
        };
        let plans = entry.facts(hello.facts.clone());
        views.insert(node.to_owned(), entry);
        drop(views);
        self.raise(plans);
    }

    /// A node's stream has ended; one that began meanwhile is not meant.
    pub fn gone(&self, node: &str, stream: u64) {
        if let Some(entry) = self.lock().get_mut(node)
            && entry.stream == stream
        {
            entry.view().connected = false;
        }
        self.raise(false);
    }

    /// A node says something.
    pub fn heard(&self, node: &str, stream: u64, message: ToController) {
        let mut views = self.lock();
        let Some(entry) = views.get_mut(node).filter(|entry| entry.stream == stream) else {
            return;
        };
        let mut plans = false;
        match message {
            ToController::Hello(_) => return,
            ToController::Ack { name, revision } => {
                let view = entry.view();
                view.nacked.remove(&name);
                match revision {
                    Some(revision) => view.acked.insert(name, revision),
                    None => view.acked.remove(&name),
                };
            }
            ToController::Nack {
                name,
                revision,
                reason,
            } => {
                tracing::warn!(node, resource = %name, reason, "a node refuses what it was told");
                entry.view().nacked.insert(name, (revision, reason));
            }
            ToController::Report(mut report) => {
                // So that those of a pool are found quickly, and together.
                report.virtual_routers.sort_by(|a, b| a.pool.cmp(&b.pool));
                report.pools.sort_by(|a, b| a.pool.cmp(&b.pool));
                entry.view().report = Some(Arc::from(report));
            }
            ToController::Facts(facts) => plans = entry.facts(facts),
            ToController::Trusts { authorities } => entry.view().authorities = authorities,
            ToController::Retired => {
                tracing::info!(node, "a node has given up everything");
                entry.view().retired = true;
            }
        }
        drop(views);
        self.raise(plans);
    }

    /// What all nodes said last.
    pub fn views(&self) -> BTreeMap<String, Arc<NodeView>> {
        let views = self.lock();
        let pairs = views.iter();
        pairs
            .map(|(node, entry)| (node.clone(), Arc::clone(&entry.view)))
            .collect()
    }

    /// What all nodes said of their networks last, and nothing else: what is held elsewhere is copied when
    /// it changes, and the rest changes with every acknowledgement.
    pub fn networks(&self) -> BTreeMap<String, Arc<NodeView>> {
        let views = self.lock();
        let networks = views.iter().map(|(node, entry)| {
            let view = NodeView {
                facts: Arc::clone(&entry.view.facts),
                ..NodeView::default()
            };
            (node.clone(), Arc::new(view))
        });
        networks.collect()
    }

    fn raise(&self, plans: bool) {
        if plans {
            self.changed.send_replace(());
        }
        self.said.send_replace(());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        // Whatever panicked left a whole value: each change is one assignment.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
