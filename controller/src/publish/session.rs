//! What one stream is told, as a pure machine: states in, messages out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use node_api::{
    Endpoint,
    stream::{EndpointsDelta, Hello, ResourceName, Revision, ToNode},
};
use serde_json::Value;

use crate::desired::{Body, NodeState, Part, Resource};

/// What the node on a stream has been told.
#[derive(Debug)]
pub struct Session {
    told: BTreeMap<ResourceName, Told>,
    /// The state that was told last, unless part of it must be told again.
    state: Option<Arc<NodeState>>,
    /// The sequence of the last [`ToNode::Synced`]; `None` before the first.
    synced: Option<i64>,
}

#[derive(Clone, Debug)]
struct Told {
    revision: Revision,
    /// Where the whole is known, changes are told one by one.
    endpoints: Option<Arc<Vec<Endpoint>>>,
    /// Whether it was told as a change of something that the node may not have.
    as_change: bool,
}

impl Session {
    /// For a node that holds what it says in its first message.
    pub fn new(hello: &Hello) -> Self {
        let told = hello.held.iter().map(|(name, revision)| {
            let told = Told {
                revision: revision.clone(),
                endpoints: None,
                as_change: false,
            };
            (name.clone(), told)
        });
        Self {
            told: told.collect(),
            state: None,
            synced: None,
        }
    }

    /// The messages that bring the node to `state`; endpoints before the pools that need them.
    ///
    /// # Errors
    /// If content has no JSON form.
    pub fn tell(
        &mut self,
        state: &Arc<NodeState>,
        sequence: i64,
    ) -> Result<Vec<ToNode>, serde_json::Error> {
        let before = self.state.replace(Arc::clone(state)).unwrap_or_default();
        let mut messages = Vec::new();
        let mut pools = Vec::new();
        for (name, resource) in differing(state, &before).flat_map(|part| &part.resources) {
            let Some(message) = self.change(name, resource)? else {
                continue;
            };
            if matches!(name, ResourceName::Pool(_)) {
                pools.push(message);
            } else {
                messages.push(message);
            }
        }
        messages.append(&mut pools);
        for name in self.gone(state, &before) {
            self.told.remove(&name);
            // In the first round what is not kept goes by itself.
            if self.synced.is_some() {
                messages.push(ToNode::Remove { name });
            }
        }
        if self.synced != Some(sequence) {
            messages.push(ToNode::Synced {
                sequence,
                keep: self
                    .synced
                    .is_none()
                    .then(|| self.told.keys().cloned().collect()),
            });
            self.synced = Some(sequence);
        }
        Ok(messages)
    }

    /// The node refuses `revision`. If it was told as a change, the node may not have what that was
    /// based on, and is told the whole the next time; the whole itself would be refused again.
    pub fn refused(&mut self, name: &ResourceName, revision: &Revision) {
        let told = self.told.get(name);
        if told.is_some_and(|told| told.as_change && told.revision == *revision) {
            self.told.remove(name);
            self.state = None;
        }
    }

    /// What the node is not to have any more; `before` was told last, if anything was.
    fn gone(&self, state: &NodeState, before: &NodeState) -> Vec<ResourceName> {
        let is_gone = |name: &&ResourceName| !state.keeps(name);
        if before == &NodeState::default() || before.held != state.held {
            return self.told.keys().filter(is_gone).cloned().collect();
        }
        let has = |name: &&ResourceName| self.told.contains_key(*name);
        let names = differing(before, state).flat_map(|part| {
            let told = part.resources.iter().map(|(name, _)| name);
            told.chain(part.kept.iter().filter(has))
        });
        // One that several pools name is gone once.
        let names: BTreeSet<_> = names.filter(is_gone).cloned().collect();
        names.into_iter().collect()
    }

    fn change(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
    ) -> Result<Option<ToNode>, serde_json::Error> {
        let endpoints = match &resource.body {
            Body::Endpoints(endpoints) => Some(Arc::clone(endpoints)),
            Body::Pool(_) | Body::Secret(_) | Body::TicketKeys(_) => None,
        };
        if let Some(known) = self.told.get_mut(name)
            && known.revision == resource.revision
        {
            known.endpoints = endpoints;
            return Ok(None);
        }
        let mut told = Told {
            revision: resource.revision.clone(),
            endpoints,
            as_change: false,
        };
        let known = self.told.get(name);
        let before =
            known.and_then(|known| Some((known.revision.clone(), known.endpoints.clone()?)));
        let message = match (&resource.body, before) {
            (Body::Endpoints(after), Some((base, before))) => {
                told.as_change = true;
                ToNode::EndpointsDelta(EndpointsDelta::between(
                    name.clone(),
                    (base, &before),
                    (resource.revision.clone(), after),
                ))
            }
            (body, _) => ToNode::Upsert {
                name: name.clone(),
                revision: resource.revision.clone(),
                body: whole(body)?,
            },
        };
        self.told.insert(name.clone(), told);
        Ok(Some(message))
    }
}

/// The parts of `one` but for those that `other` has too.
fn differing<'a>(one: &'a NodeState, other: &'a NodeState) -> impl Iterator<Item = &'a Part> {
    let parts = one.parts.iter().filter(|(pool, part)| {
        let other = other.parts.get(*pool);
        other.is_none_or(|other| !Arc::ptr_eq(part, other))
    });
    parts.map(|(_, part)| &**part)
}

fn whole(body: &Body) -> Result<Value, serde_json::Error> {
    match body {
        Body::Pool(pool) => serde_json::to_value(&**pool),
        Body::Endpoints(endpoints) => serde_json::to_value(&**endpoints),
        Body::Secret(secret) => serde_json::to_value(&**secret),
        Body::TicketKeys(keys) => serde_json::to_value(&**keys),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_api::{Drain, Heartbeat, Listener, Pool, PoolRef};
    use serde_json::json;

    use super::*;

    fn pool() -> ResourceName {
        ResourceName::from("pools/default/chat")
    }

    fn echo() -> ResourceName {
        ResourceName::from("endpoints/default/chat/echo")
    }

    fn endpoint(last: u8) -> Endpoint {
        serde_json::from_value(json!({
            "address": format!("10.0.0.{last}"), "port": 80, "weight": 1, "phase": "Ready",
        }))
        .unwrap()
    }

    fn chat() -> Arc<PoolRef> {
        Arc::new(PoolRef {
            namespace: "default".to_owned(),
            name: "chat".to_owned(),
        })
    }

    fn settings(port: u16) -> Pool {
        Pool {
            virtual_routers: Vec::new(),
            listeners: vec![Listener {
                name: "ws".to_owned(),
                port,
                allowed_origins: Vec::new(),
                trusted_proxies: Vec::new(),
                proxy_protocol: node_api::ProxyProtocolMode::Disabled,
                routes: Vec::new(),
                plain_requests: None,
                tls: None,
            }],
            upstreams: Vec::new(),
            heartbeat: Heartbeat {
                interval: Duration::ZERO,
                timeout: Duration::ZERO,
            },
            drain: Drain {
                timeout: Duration::ZERO,
                sessions_per_second: None,
                close_code: 1001,
            },
            tracking: node_api::Tracking::default(),
            access_log: None,
            limits: node_api::Limits::default(),
            requires: Vec::new(),
        }
    }

    fn part(resources: Vec<(ResourceName, Resource)>) -> Part {
        Part {
            resources,
            kept: BTreeSet::new(),
        }
    }

    fn state(port: u16, endpoints: &[u8]) -> Arc<NodeState> {
        let endpoints: Vec<_> = endpoints.iter().map(|last| endpoint(*last)).collect();
        let body = settings(port);
        let resources = vec![
            (
                pool(),
                Resource {
                    revision: Revision::of(&body).unwrap(),
                    body: Body::Pool(Arc::new(body)),
                },
            ),
            (
                echo(),
                Resource {
                    revision: Revision::of(&endpoints).unwrap(),
                    body: Body::Endpoints(Arc::new(endpoints)),
                },
            ),
        ];
        Arc::new(NodeState {
            parts: [(chat(), Arc::new(part(resources)))].into(),
            held: BTreeSet::new(),
        })
    }

    fn kinds(messages: &[ToNode]) -> Vec<String> {
        let kind = |message: &ToNode| match message {
            ToNode::Upsert { name, .. } => format!("upsert {name}"),
            ToNode::EndpointsDelta(delta) => {
                format!("+{} -{}", delta.upserts.len(), delta.removals.len())
            }
            ToNode::Remove { name } => format!("remove {name}"),
            ToNode::Synced { sequence, keep } => {
                format!(
                    "synced {sequence} {}",
                    keep.as_ref().map_or(0, BTreeSet::len)
                )
            }
            ToNode::Welcome(_) | ToNode::Watching { .. } | ToNode::Retire => "other".to_owned(),
        };
        messages.iter().map(kind).collect()
    }

    #[test]
    fn everything_once_and_then_what_changes() {
        let mut session = Session::new(&Hello::default());
        let first = session.tell(&state(1, &[1, 2]), 7).unwrap();
        assert_eq!(
            kinds(&first),
            [
                "upsert endpoints/default/chat/echo",
                "upsert pools/default/chat",
                "synced 7 2"
            ]
        );
        assert!(session.tell(&state(1, &[1, 2]), 7).unwrap().is_empty());
        let change = session.tell(&state(1, &[2, 3, 4]), 7).unwrap();
        assert_eq!(kinds(&change), ["+2 -1"]);
        let change = session.tell(&state(2, &[2, 3, 4]), 8).unwrap();
        assert_eq!(kinds(&change), ["upsert pools/default/chat", "synced 8 0"]);
        let change = session.tell(&Arc::default(), 9).unwrap();
        assert_eq!(
            kinds(&change),
            [
                "remove pools/default/chat",
                "remove endpoints/default/chat/echo",
                "synced 9 0"
            ]
        );
    }

    #[test]
    fn what_a_node_holds_is_not_told_again() {
        let before = state(1, &[1, 2]);
        let held = before
            .resources()
            .map(|(name, one)| (name.clone(), one.revision.clone()));
        let hello = Hello {
            held: held
                .chain([(
                    ResourceName::from("pools/default/old"),
                    Revision("x".into()),
                )])
                .collect(),
            ..Hello::default()
        };
        let mut session = Session::new(&hello);
        assert_eq!(kinds(&session.tell(&before, 7).unwrap()), ["synced 7 2"]);
        let change = session.tell(&state(1, &[1]), 7).unwrap();
        assert_eq!(
            kinds(&change),
            ["+0 -1"],
            "its content is known by its revision"
        );
    }

    #[test]
    fn a_pool_that_is_held_stays_as_it_is() {
        let mut session = Session::new(&Hello::default());
        session.tell(&state(1, &[1]), 7).unwrap();
        let held = Arc::new(NodeState {
            parts: BTreeMap::new(),
            held: [chat()].into(),
        });
        assert!(session.tell(&held, 7).unwrap().is_empty());
        assert_eq!(kinds(&session.tell(&state(2, &[1]), 8).unwrap()).len(), 2);
    }

    #[test]
    fn what_a_node_could_not_use_is_told_whole() {
        let mut session = Session::new(&Hello::default());
        let revision = |state: &NodeState| state.resource(&echo()).unwrap().revision.clone();
        session.tell(&state(1, &[1]), 7).unwrap();
        session.refused(&echo(), &revision(&state(1, &[1])));
        assert!(
            session.tell(&state(1, &[1]), 7).unwrap().is_empty(),
            "it was the whole"
        );
        let next = state(1, &[1, 2]);
        session.tell(&next, 7).unwrap();
        session.refused(&echo(), &revision(&next));
        let change = session.tell(&next, 7).unwrap();
        assert_eq!(kinds(&change), ["upsert endpoints/default/chat/echo"]);
        session.refused(&echo(), &revision(&next));
        assert!(session.tell(&next, 7).unwrap().is_empty(), "once");
    }

    fn named(pool: &str) -> Arc<PoolRef> {
        Arc::new(PoolRef {
            namespace: "default".to_owned(),
            name: pool.to_owned(),
        })
    }

    fn cert() -> ResourceName {
        ResourceName::from("secrets/default/cert")
    }

    /// A part that names a Secret, which can be used with this content or not now.
    fn naming(content: Option<&str>) -> Arc<Part> {
        let Some(content) = content else {
            return Arc::new(Part {
                resources: Vec::new(),
                kept: [cert()].into(),
            });
        };
        let secret = node_api::Secret {
            key: Some(content.to_owned()),
            ..node_api::Secret::default()
        };
        let resource = Resource {
            revision: Revision::of(&secret).unwrap(),
            body: Body::Secret(Arc::new(secret)),
        };
        Arc::new(part(vec![(cert(), resource)]))
    }

    fn with(parts: &[(&str, &Arc<Part>)]) -> Arc<NodeState> {
        let parts = parts.iter();
        Arc::new(NodeState {
            parts: parts
                .map(|(name, part)| (named(name), Arc::clone(part)))
                .collect(),
            held: BTreeSet::new(),
        })
    }

    #[test]
    fn a_secret_of_two_pools_is_told_once_and_goes_with_the_last_of_them() {
        let mut session = Session::new(&Hello::default());
        let (one, other) = (naming(Some("a")), naming(Some("a")));
        let first = session
            .tell(&with(&[("one", &one), ("other", &other)]), 7)
            .unwrap();
        assert_eq!(kinds(&first), ["upsert secrets/default/cert", "synced 7 1"]);
        let change = session.tell(&with(&[("other", &other)]), 7).unwrap();
        assert!(change.is_empty(), "{:?}", kinds(&change));
        let change = session.tell(&Arc::default(), 7).unwrap();
        assert_eq!(kinds(&change), ["remove secrets/default/cert"]);
    }

    #[test]
    fn a_secret_that_cannot_be_used_leaves_the_one_that_was_told() {
        let mut session = Session::new(&Hello::default());
        session
            .tell(&with(&[("one", &naming(Some("a")))]), 7)
            .unwrap();
        let unusable = naming(None);
        assert!(
            session
                .tell(&with(&[("one", &unusable)]), 7)
                .unwrap()
                .is_empty()
        );
        // A controller that has just started knows no more than that, and lets the node keep it.
        let hello = Hello {
            held: [(cert(), Revision("x".to_owned()))].into(),
            ..Hello::default()
        };
        let mut again = Session::new(&hello);
        let messages = again.tell(&with(&[("one", &unusable)]), 7).unwrap();
        assert_eq!(kinds(&messages), ["synced 7 1"]);
        for mut session in [session, again] {
            let change = session.tell(&Arc::default(), 7).unwrap();
            assert_eq!(kinds(&change), ["remove secrets/default/cert"]);
        }
        // Nobody is told that what it never had is gone.
        let mut without = Session::new(&Hello::default());
        without.tell(&with(&[("one", &unusable)]), 7).unwrap();
        assert!(without.tell(&Arc::default(), 7).unwrap().is_empty());
    }
}
