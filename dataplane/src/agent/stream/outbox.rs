//! What waits to be told on one stream. The newest of each kind only, so a replica that does not read
//! costs a bounded amount of memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use node_api::{
    NodeReport,
    stream::{Hello, NodeFacts, ResourceName, Revision, ToController},
};
use tokio::sync::Notify;

use super::content::Refusal;

/// Filled by the hub, emptied by the stream.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    hello: Option<Box<Hello>>,
    answers: BTreeMap<ResourceName, Answer>,
    facts: Option<NodeFacts>,
    authorities: Option<Vec<String>>,
    report: Option<Arc<NodeReport>>,
    is_retired: bool,
}

#[derive(Debug)]
enum Answer {
    Ack(Option<Revision>),
    Nack(Revision, String),
}

impl Outbox {
    /// Comes before everything else.
    pub(super) fn hello(&self, hello: Hello) {
        self.lock().hello = Some(Box::new(hello));
        self.filled.notify_one();
    }

    /// Resources that are carried out.
    pub(super) fn acks(&self, acks: Vec<(ResourceName, Option<Revision>)>) {
        if acks.is_empty() {
            return;
        }
        let acks = acks
            .into_iter()
            .map(|(name, revision)| (name, Answer::Ack(revision)));
        self.lock().answers.extend(acks);
        self.filled.notify_one();
    }

    /// A resource that is refused.
    pub(super) fn nack(&self, refusal: Refusal) {
        let Refusal {
            name,
            revision,
            reason,
        } = refusal;
        let answer = Answer::Nack(revision, reason);
        self.lock().answers.insert(name, answer);
        self.filled.notify_one();
    }

    /// What the node observes.
    pub(super) fn report(&self, report: Arc<NodeReport>) {
        self.lock().report = Some(report);
        self.filled.notify_one();
    }

    /// The network of the node.
    pub(super) fn facts(&self, facts: NodeFacts) {
        self.lock().facts = Some(facts);
        self.filled.notify_one();
    }

    /// The authorities that the node trusts.
    pub(super) fn authorities(&self, authorities: Vec<String>) {
        self.lock().authorities = Some(authorities);
        self.filled.notify_one();
    }

    /// Everything is given up.
    pub(super) fn retired(&self) {
        self.lock().is_retired = true;
        self.filled.notify_one();
    }

    /// Returns when there may be something to take.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// All that waits, in the order in which it is to be told.
    pub(super) fn take(&self) -> Vec<ToController> {
        let Waiting {
            hello,
            answers,
            facts,
            authorities,
            report,
            is_retired,
        } = std::mem::take(&mut *self.lock());
        let mut messages: Vec<_> = hello.into_iter().map(ToController::Hello).collect();
        messages.extend(answers.into_iter().map(|(name, answer)| match answer {
            Answer::Ack(revision) => ToController::Ack { name, revision },
            Answer::Nack(revision, reason) => ToController::Nack {
                name,
                revision,
                reason,
            },
        }));
        messages.extend(facts.map(ToController::Facts));
        messages.extend(authorities.map(|authorities| ToController::Trusts { authorities }));
        messages.extend(report.map(|report| {
            let report = Arc::unwrap_or_clone(report);
            ToController::Report(Box::new(report))
        }));
        messages.extend(is_retired.then_some(ToController::Retired));
        messages
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stream::samples::pool_name;

    #[test]
    fn the_newest_of_each_kind_is_told_in_order() {
        let outbox = Outbox::default();
        let revision = || Revision("r".to_owned());
        outbox.retired();
        outbox.authorities(vec!["ab".to_owned()]);
        outbox.facts(NodeFacts::default());
        outbox.acks(vec![(pool_name("a"), Some(revision()))]);
        outbox.nack(Refusal {
            name: pool_name("b"),
            revision: revision(),
            reason: "no".to_owned(),
        });
        outbox.acks(vec![(pool_name("a"), None), (pool_name("b"), None)]);
        outbox.hello(Hello::default());
        let ack = |name| ToController::Ack {
            name: pool_name(name),
            revision: None,
        };
        let expected = [
            ToController::Hello(Box::default()),
            ack("a"),
            ack("b"),
            ToController::Facts(NodeFacts::default()),
            ToController::Trusts {
                authorities: vec!["ab".to_owned()],
            },
            ToController::Retired,
        ];
        assert_eq!(outbox.take(), expected);
        assert_eq!(outbox.take(), []);
    }
}
