//! What nodes say on their streams, shared by the streams and the computation.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use node_api::stream::{Hello, ToController};

use crate::{snapshot::NodeView, watch::Changed};

/// What nodes say.
#[derive(Debug)]
pub struct Registry {
    views: Mutex<BTreeMap<String, Entry>>,
    changed: Arc<Changed>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The stream that the view is of; a node that came back has a newer one.
    stream: u64,
    view: NodeView,
}

impl Registry {
    /// An empty one; `changed` is raised by whatever is said.
    pub fn new(changed: Arc<Changed>) -> Self {
        Self {
            views: Mutex::default(),
            changed,
        }
    }

    /// A node's stream begins.
    pub fn connected(&self, node: &str, stream: u64, hello: &Hello) {
        let view = NodeView {
            connected: true,
            facts: hello.facts.clone(),
            report: None,
            // What it holds it may not carry out yet: it says so once it does.
            acked: BTreeMap::new(),
            nacked: BTreeMap::new(),
        };
        let entry = Entry { stream, view };
        self.lock().insert(node.to_owned(), entry);
        self.changed.send_replace(());
    }

    /// A node's stream has ended; one that began meanwhile is not meant.
    pub fn gone(&self, node: &str, stream: u64) {
        if let Some(entry) = self.lock().get_mut(node)
            && entry.stream == stream
        {
            entry.view.connected = false;
        }
        self.changed.send_replace(());
    }

    /// A node says something.
    pub fn heard(&self, node: &str, stream: u64, message: ToController) {
        let mut views = self.lock();
        let Some(entry) = views.get_mut(node).filter(|entry| entry.stream == stream) else {
            return;
        };
        let view = &mut entry.view;
        match message {
            ToController::Hello(_) => return,
            ToController::Ack { name, revision } => {
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
                view.nacked.insert(name, (revision, reason));
            }
            ToController::Report(report) => view.report = Some(Arc::from(report)),
            ToController::Facts(facts) => view.facts = facts,
            // Nothing asks for it yet.
            ToController::Retired => tracing::info!(node, "a node has given up everything"),
        }
        drop(views);
        self.changed.send_replace(());
    }

    /// What all nodes said last.
    pub fn views(&self) -> BTreeMap<String, NodeView> {
        let views = self.lock();
        let pairs = views.iter();
        pairs
            .map(|(node, entry)| (node.clone(), entry.view.clone()))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        // Whatever panicked left a whole value: each change is one assignment.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
