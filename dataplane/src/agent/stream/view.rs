//! What one replica of the controller has told on one stream; pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use node_api::stream::{EndpointsDelta, ResourceName, Revision};
use serde_json::Value;

use super::content::{self, Content, Held, Refusal, Resources};

/// The state as a replica sees it. It begins with what the node held when the stream was opened,
/// since the replica tells only what differs from that.
#[derive(Clone, Debug)]
pub(super) struct View {
    resources: Resources,
    /// What was told before the first [`View::synced`].
    told: BTreeSet<ResourceName>,
    /// Content that is not understood, with the reason; what was there before stays.
    refused: BTreeMap<ResourceName, Refusal>,
    /// What is to be acknowledged once it is carried out; `None`: that it is gone.
    unacknowledged: BTreeMap<ResourceName, Option<Revision>>,
    sequence: Option<i64>,
    /// The highest of the virtual routers told: read from the API server as well.
    told_sequence: i64,
}

impl View {
    /// Of a node that holds `held`.
    pub(super) fn new(held: Resources) -> Self {
        Self {
            resources: held,
            told: BTreeSet::new(),
            refused: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            sequence: None,
            told_sequence: 0,
        }
    }

    /// What it has told so far, and what it left as it was.
    pub(super) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Content that was refused, with the reason.
    pub(super) fn refused(&self) -> &BTreeMap<ResourceName, Refusal> {
        &self.refused
    }

    /// Up to where the replica has read the API server; `None`: it has not told everything yet.
    pub(super) fn sequence(&self) -> Option<i64> {
        self.sequence.map(|synced| synced.max(self.told_sequence))
    }

    /// A resource has this content now.
    ///
    /// # Errors
    /// If the content is not understood.
    pub(super) fn upsert(
        &mut self,
        name: ResourceName,
        revision: Revision,
        body: Value,
    ) -> Result<(), Refusal> {
        match content::decode(&name, body) {
            None => Ok(()),
            Some(Ok(content)) => {
                self.set(name, Held { revision, content });
                Ok(())
            }
            Some(Err(reason)) => self.refuse(name, revision, reason),
        }
    }

    /// Some endpoints have changed.
    ///
    /// # Errors
    /// If they are not those that the change is for.
    pub(super) fn delta(&mut self, delta: EndpointsDelta) -> Result<(), Refusal> {
        if let ResourceName::Other(_) = delta.name {
            return Ok(());
        }
        let base = self.resources.get(&delta.name);
        match base.map(|held| (&held.revision, &held.content)) {
            Some((revision, Content::Endpoints(endpoints))) if *revision == delta.base => {
                let endpoints = delta.apply(endpoints);
                let held = Held {
                    revision: delta.revision,
                    content: Content::Endpoints(Arc::new(endpoints)),
                };
                self.set(delta.name, held);
                Ok(())
            }
            Some((revision, _)) => {
                let reason = format!(
                    "the change is for revision {} and this node has {}: tell all endpoints",
                    delta.base.0, revision.0
                );
                self.refuse(delta.name, delta.revision, reason)
            }
            None => {
                let reason = format!(
                    "the change is for revision {} and this node has none: tell all endpoints",
                    delta.base.0
                );
                self.refuse(delta.name, delta.revision, reason)
            }
        }
    }

    /// Content is not carried out; what was there before stays.
    ///
    /// # Errors
    /// Always but for what was refused for the same reason just before: a replica that tells it
    /// again and again is answered once.
    pub(super) fn refuse(
        &mut self,
        name: ResourceName,
        revision: Revision,
        reason: String,
    ) -> Result<(), Refusal> {
        self.told.insert(name.clone());
        self.unacknowledged.remove(&name);
        let refusal = Refusal {
            name: name.clone(),
            revision,
            reason,
        };
        if self.refused.insert(name, refusal.clone()).as_ref() == Some(&refusal) {
            return Ok(());
        }
        Err(refusal)
    }

    /// A resource is gone.
    pub(super) fn remove(&mut self, name: ResourceName) {
        if let ResourceName::Other(_) = name {
            return;
        }
        self.resources.remove(&name);
        self.refused.remove(&name);
        self.told.remove(&name);
        self.unacknowledged.insert(name, None);
    }

    /// The state is whole. The first time, of what the node held only `keep` remains.
    pub(super) fn synced(&mut self, sequence: i64, keep: Option<&BTreeSet<ResourceName>>) {
        if self.sequence.is_none() {
            let told = std::mem::take(&mut self.told);
            let is_kept = |name: &ResourceName| keep.is_none_or(|keep| keep.contains(name));
            for name in self.resources.keys().cloned().collect::<Vec<_>>() {
                let is_there = match &name {
                    name if told.contains(name) || is_kept(name) => true,
                    // One that is refused now and serves on: only the pool itself is named.
                    ResourceName::Endpoints { pool, .. } => {
                        let pool = ResourceName::Pool(pool.clone());
                        is_kept(&pool) && !told.contains(&pool)
                    }
                    _ => false,
                };
                if !is_there {
                    self.remove(name);
                } else if let Some(held) = self.resources.get(&name)
                    && !self.refused.contains_key(&name)
                {
                    let revision = Some(held.revision.clone());
                    self.unacknowledged.insert(name, revision);
                }
            }
        }
        self.sequence = Some(self.sequence.unwrap_or_default().max(sequence));
    }

    /// What can be acknowledged now that exactly `carried_out` is carried out.
    pub(super) fn acknowledge(
        &mut self,
        carried_out: &Resources,
    ) -> Vec<(ResourceName, Option<Revision>)> {
        if self.sequence.is_none() {
            return Vec::new();
        }
        let is_so = |name: &ResourceName, revision: &mut Option<Revision>| {
            carried_out.get(name).map(|held| &held.revision) == revision.as_ref()
        };
        self.unacknowledged.extract_if(.., is_so).collect()
    }

    fn set(&mut self, name: ResourceName, held: Held) {
        if let Content::Pool(pool) = &held.content {
            let routers = pool.virtual_routers.iter();
            let newest = routers.map(|router| router.sequence).max();
            self.told_sequence = self.told_sequence.max(newest.unwrap_or_default());
        }
        let revision = Some(held.revision.clone());
        self.refused.remove(&name);
        self.told.insert(name.clone());
        self.unacknowledged.insert(name.clone(), revision);
        self.resources.insert(name, held);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::stream::samples::{
        body, endpoints, endpoints_name, held_endpoints, pool, pool_name, resources,
    };

    fn names(all: &[ResourceName]) -> BTreeSet<ResourceName> {
        all.iter().cloned().collect()
    }

    fn told(view: &mut View, name: ResourceName, content: &impl serde::Serialize) -> Revision {
        let (revision, body) = body(content);
        view.upsert(name, revision.clone(), body).unwrap();
        revision
    }

    fn delta(name: ResourceName, old: &[u16], new: &[u16]) -> EndpointsDelta {
        let (old, new) = (endpoints(old), endpoints(new));
        let revision = |all: &Vec<_>| Revision::of(all).unwrap();
        EndpointsDelta::between(name, (revision(&old), &old), (revision(&new), &new))
    }

    #[test]
    fn of_what_the_node_held_only_what_is_kept_or_told_remains() {
        let held = resources(&[
            ("kept", pool(1, &["10.0.0.1"]), &[1]),
            ("gone", pool(1, &["10.0.0.2"]), &[1]),
        ]);
        let mut view = View::new(held.clone());
        let new = told(&mut view, pool_name("new"), &pool(2, &["10.0.0.3"]));
        told(&mut view, endpoints_name("new"), &endpoints(&[1]));
        let keep = names(&[
            pool_name("kept"),
            endpoints_name("kept"),
            pool_name("new"),
            pool_name("unknown"),
            ResourceName::from("later/x"),
        ]);
        assert_eq!(view.sequence(), None);
        assert!(
            view.acknowledge(&held).is_empty(),
            "nothing before it is whole"
        );
        view.synced(1, Some(&keep));
        let remaining: Vec<_> = view.resources().keys().cloned().collect();
        let expected = [
            pool_name("kept"),
            pool_name("new"),
            endpoints_name("kept"),
            endpoints_name("new"),
        ];
        assert_eq!(names(&remaining), names(&expected));
        assert_eq!(view.sequence(), Some(2), "a virtual router is of that one");

        // What is carried out already is acknowledged, the rest once it is.
        let acknowledged = view.acknowledge(&held);
        assert_eq!(
            acknowledged
                .iter()
                .map(|(name, _)| name.clone())
                .collect::<Vec<_>>(),
            [pool_name("kept"), endpoints_name("kept")]
        );
        let now = view.resources().clone();
        let acknowledged: BTreeMap<_, _> = view.acknowledge(&now).into_iter().collect();
        assert_eq!(acknowledged[&pool_name("new")], Some(new));
        assert_eq!(acknowledged[&pool_name("gone")], None);
        assert_eq!(acknowledged[&endpoints_name("gone")], None);
        assert!(view.acknowledge(&now).is_empty(), "each once");
    }

    #[test]
    fn a_pool_that_is_kept_as_it_is_keeps_its_endpoints() {
        let held = resources(&[("a", pool(1, &["10.0.0.1"]), &[1])]);
        let mut view = View::new(held.clone());
        view.synced(1, Some(&names(&[pool_name("a")])));
        assert_eq!(*view.resources(), held);
    }

    #[test]
    fn without_a_list_nothing_is_given_up() {
        let held = resources(&[("kept", pool(1, &["10.0.0.1"]), &[1])]);
        let mut view = View::new(held.clone());
        view.synced(1, None);
        assert_eq!(*view.resources(), held);
    }

    #[test]
    fn later_lists_and_lower_sequences_change_nothing() {
        let mut view = View::new(Resources::new());
        view.synced(5, Some(&BTreeSet::new()));
        told(&mut view, pool_name("a"), &pool(6, &["10.0.0.1"]));
        view.synced(4, Some(&BTreeSet::new()));
        assert_eq!(view.sequence(), Some(6));
        assert!(view.resources().contains_key(&pool_name("a")));
    }

    #[test]
    fn refused_content_leaves_what_was_there() {
        let held = resources(&[("a", pool(1, &["10.0.0.1"]), &[1])]);
        let mut view = View::new(held.clone());
        let bad = Revision("bad".to_owned());
        let mut tell = || view.upsert(pool_name("a"), bad.clone(), json!({"listeners": 1}));
        let refusal = tell().unwrap_err();
        assert_eq!(tell(), Ok(()), "it was answered");
        assert_eq!((refusal.name, refusal.revision), (pool_name("a"), bad));
        view.synced(1, Some(&names(&[pool_name("a"), endpoints_name("a")])));
        assert_eq!(*view.resources(), held);
        assert!(view.refused().contains_key(&pool_name("a")));
        let acknowledged = view.acknowledge(&held);
        assert_eq!(acknowledged.len(), 1, "the refused one is not acknowledged");

        told(&mut view, pool_name("a"), &pool(2, &["10.0.0.1"]));
        assert!(view.refused().is_empty());
    }

    #[test]
    fn deltas_apply_to_what_they_are_for() {
        let name = endpoints_name("a");
        let mut view = View::new([(name.clone(), held_endpoints(&[1, 2]))].into());
        view.synced(0, Some(&names(std::slice::from_ref(&name))));
        view.delta(delta(name.clone(), &[1, 2], &[2, 3])).unwrap();
        assert_eq!(view.resources()[&name], held_endpoints(&[2, 3]));
        // A second one of the same base, one of an unknown resource, one of a kind of the future.
        for (name, words) in [
            (name.clone(), "this node has"),
            (endpoints_name("b"), "has none"),
            (pool_name("b"), "has none"),
        ] {
            let refusal = view.delta(delta(name, &[1, 2], &[4])).unwrap_err();
            assert!(refusal.reason.contains(words), "{}", refusal.reason);
        }
        assert_eq!(view.resources()[&name], held_endpoints(&[2, 3]));
        view.delta(delta(ResourceName::from("later/x"), &[1], &[2]))
            .unwrap();
    }

    #[test]
    fn what_comes_and_goes_is_acknowledged_as_it_is_in_the_end() {
        let mut view = View::new(Resources::new());
        view.synced(0, Some(&BTreeSet::new()));
        told(&mut view, pool_name("a"), &pool(1, &["10.0.0.1"]));
        view.remove(pool_name("a"));
        view.remove(ResourceName::from("later/x"));
        let gone = [(pool_name("a"), None)];
        assert_eq!(view.acknowledge(&Resources::new()), gone);
    }
}
