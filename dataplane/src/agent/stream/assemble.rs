//! From what a replica told to what the node carries out; pure.

use std::{collections::BTreeSet, sync::Arc};

use node_api::{
    Keys, NodeConfig, Pool, PoolRef, Secret, TicketKeys,
    stream::{ResourceName, Revision},
};

use super::{
    content::{Content, Held, Refusal, Resources},
    follow,
    view::View,
};

/// What a node carries out, and what is saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    /// Up to where the controller had read the API server.
    pub(super) sequence: i64,
    /// Which history that sequence is of; empty: unknown.
    pub(super) epoch: String,
    /// The resources.
    pub(super) resources: Resources,
}

impl State {
    /// Whether both are the same, by their revisions.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.resources.iter().zip(&other.resources);
        self.sequence == other.sequence
            && self.epoch == other.epoch
            && self.resources.len() == other.resources.len()
            && pairs.all(|(one, other)| one.0 == other.0 && one.1.revision == other.1.revision)
    }

    /// Whether all but the endpoints is the same, by their revisions.
    pub(super) fn differs_in_endpoints_only(&self, other: &Self) -> bool {
        fn rest(state: &State) -> impl Iterator<Item = (&ResourceName, &Revision)> {
            let resources = state.resources.iter();
            resources
                .filter(|(name, _)| !matches!(name, ResourceName::Endpoints { .. }))
                .map(|(name, held)| (name, &held.revision))
        }
        self.sequence == other.sequence && self.epoch == other.epoch && rest(self).eq(rest(other))
    }

    /// Whether sequences of `epoch` are of another history than this state's; unknown ones are not.
    pub(super) fn is_of_another_history(&self, epoch: &str) -> bool {
        !epoch.is_empty() && !self.epoch.is_empty() && epoch != self.epoch
    }

    /// The configuration of node `node_name`.
    pub(super) fn config(&self, node_name: &str) -> NodeConfig {
        let pools = self.resources.iter().filter_map(|(name, held)| {
            let (ResourceName::Pool(pool_ref), Content::Pool(settings)) = (name, &held.content)
            else {
                return None;
            };
            let mut pool = Pool::clone(settings);
            for upstream in &mut pool.upstreams {
                let endpoints = endpoints(&self.resources, pool_ref, &upstream.name);
                upstream.endpoints = endpoints.map_or_else(Vec::new, <[_]>::to_vec);
            }
            Some((pool_ref.clone(), pool))
        });
        NodeConfig {
            node_name: node_name.to_owned(),
            pools: pools.collect(),
            keys: self.keys(),
        }
    }

    fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        for (name, held) in &self.resources {
            match (name, &held.content) {
                (ResourceName::Secret(name), Content::Secret(secret)) => {
                    keys.secrets.insert(name.clone(), Secret::clone(secret));
                }
                (ResourceName::TicketKeys(pool), Content::TicketKeys(tickets)) => {
                    keys.tickets
                        .push((pool.clone(), TicketKeys::clone(tickets)));
                }
                _ => {}
            }
        }
        keys
    }
}

/// A new state.
#[derive(Debug)]
pub(super) struct Assembled {
    /// What is to be carried out.
    pub(super) state: State,
    /// What is missing or refused, each a sentence.
    pub(super) warnings: Vec<String>,
}

/// The state that follows from a view that is whole, where `before` is carried out. Its sequences are of
/// the history `epoch`; those of another one are not compared.
pub(super) fn assemble(node_name: &str, view: &View, epoch: &str, before: &State) -> Assembled {
    let is_other = before.is_of_another_history(epoch);
    let mut resources = view.resources().clone();
    let mut warnings: Vec<_> = view
        .refused()
        .values()
        .map(|refusal| {
            let Refusal { name, reason, .. } = refusal;
            format!("the newest content of {name} was refused: {reason}")
        })
        .collect();
    for (name, held) in view.resources() {
        let (ResourceName::Pool(pool_ref), Content::Pool(told)) = (name, &held.content) else {
            continue;
        };
        let mut routers = told.virtual_routers.iter();
        if routers.any(|router| router.candidate(node_name).is_none()) {
            warnings.push(format!(
                "pool {pool_ref} has virtual routers that node {node_name} is no candidate of: \
                 --node-name must be the name of the Node that the token is bound to"
            ));
        }
        let former = before.resources.get(name);
        if let Some(upstream) = missing_endpoints(view, pool_ref, told) {
            warnings.push(format!(
                "pool {pool_ref} waits for the endpoints of its upstream {upstream}, which the \
                 controller has not told yet"
            ));
            resources.remove(name);
            keep_former(&mut resources, before, pool_ref);
        } else if let Some(former) = former.filter(|_| !is_other).and_then(as_pool)
            && let Some(newest) = follow::newest_routers(told, former)
        {
            resources.insert(name.clone(), of_ours(newest));
        }
    }
    warnings.extend(keep_keys(&mut resources, before));
    let told = view.sequence().unwrap_or_default();
    let epoch = if epoch.is_empty() {
        &before.epoch
    } else {
        epoch
    };
    Assembled {
        state: State {
            sequence: if is_other {
                told
            } else {
                told.max(before.sequence)
            },
            epoch: epoch.to_owned(),
            resources,
        },
        warnings,
    }
}

/// An upstream whose endpoints come later. Those that were refused do not come: it has none.
fn missing_endpoints<'a>(view: &View, pool_ref: &PoolRef, pool: &'a Pool) -> Option<&'a str> {
    let mut names = pool.upstreams.iter().map(|upstream| upstream.name.as_str());
    names.find(|upstream| {
        let name = endpoints_name(pool_ref, upstream);
        !view.resources().contains_key(&name) && !view.refused().contains_key(&name)
    })
}

/// Puts the pool as it was carried out before, and its endpoints, in place of what is incomplete.
fn keep_former(resources: &mut Resources, before: &State, pool_ref: &PoolRef) {
    let name = ResourceName::Pool(pool_ref.clone());
    let Some(held) = before.resources.get(&name) else {
        return;
    };
    for upstream in as_pool(held).into_iter().flat_map(|pool| &pool.upstreams) {
        let name = endpoints_name(pool_ref, &upstream.name);
        if let Some(held) = before.resources.get(&name) {
            resources.entry(name).or_insert_with(|| held.clone());
        }
    }
    resources.insert(name, held.clone());
}

/// Leaves key material that pools refer to as it was, where it is not told any more: the last good one
/// serves until there is another. Says what is so.
fn keep_keys(resources: &mut Resources, before: &State) -> Vec<String> {
    let pools = resources.iter().filter_map(|(name, held)| match name {
        ResourceName::Pool(pool_ref) => Some((pool_ref.clone(), as_pool(held)?)),
        _ => None,
    });
    let wanted = pools.flat_map(|(pool_ref, pool)| {
        let secrets = pool.secrets().into_iter();
        let secrets = secrets.map(|name| ResourceName::Secret(name.to_owned()));
        let tickets = pool.has_tickets();
        secrets.chain(tickets.then_some(ResourceName::TicketKeys(pool_ref)))
    });
    let missing: BTreeSet<_> = wanted
        .filter(|name| !resources.contains_key(name))
        .collect();
    let mut warnings = Vec::new();
    for name in missing {
        let Some(held) = before.resources.get(&name) else {
            continue;
        };
        if let ResourceName::Secret(secret) = &name {
            warnings.push(format!(
                "Secret {secret} is not told any more, and the last one is in use: see the conditions of \
                 the pools that refer to it"
            ));
        }
        resources.insert(name, held.clone());
    }
    warnings
}

/// Content that is no replica's: what is told of it next replaces it.
fn of_ours(pool: Pool) -> Held {
    Held {
        revision: Revision::of(&pool).unwrap_or_else(|_| Revision(String::new())),
        content: Content::Pool(Arc::new(pool)),
    }
}

fn as_pool(held: &Held) -> Option<&Pool> {
    match &held.content {
        Content::Pool(pool) => Some(pool),
        _ => None,
    }
}

fn endpoints<'a>(
    resources: &'a Resources,
    pool_ref: &PoolRef,
    upstream: &str,
) -> Option<&'a [node_api::Endpoint]> {
    match &resources.get(&endpoints_name(pool_ref, upstream))?.content {
        Content::Endpoints(endpoints) => Some(endpoints),
        _ => None,
    }
}

fn endpoints_name(pool: &PoolRef, upstream: &str) -> ResourceName {
    ResourceName::Endpoints {
        pool: pool.clone(),
        upstream: upstream.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use node_api::ListenerTls;
    use serde_json::json;

    use super::*;
    use crate::agent::stream::samples::{
        NODE, body, endpoints, endpoints_name, held_endpoints, pool, pool_name, pool_ref, resources,
    };

    fn view(sequence: i64, pools: &[(&str, Pool, &[u16])]) -> View {
        let mut view = View::new(Resources::new());
        for (name, pool, ports) in pools {
            tell(&mut view, endpoints_name(name), &endpoints(ports));
            tell(&mut view, pool_name(name), pool);
        }
        view.synced(sequence, Some(&BTreeSet::new()));
        view
    }

    fn tell(view: &mut View, name: ResourceName, content: &impl serde::Serialize) {
        let (revision, body) = body(content);
        view.upsert(name, revision, body).unwrap();
    }

    #[test]
    fn a_view_becomes_a_configuration() {
        let view = view(3, &[("a", pool(1, &["10.0.0.1"]), &[1, 2])]);
        let assembled = assemble(NODE, &view, "", &State::default());
        assert_eq!(assembled.warnings, [""; 0]);
        assert_eq!(assembled.state.sequence, 3);
        assert_eq!(assembled.state.resources, *view.resources());
        let config = assembled.state.config(NODE);
        assert_eq!(config.node_name, NODE);
        let upstream = &config.pools[&pool_ref("a")].upstreams[0];
        assert_eq!(upstream.endpoints, endpoints(&[1, 2]));
        assert!(assembled.state.is_same(&assembled.state.clone()));
        assert!(!assembled.state.is_same(&State::default()));
    }

    #[test]
    fn a_pool_waits_for_its_endpoints_and_is_served_as_before() {
        let mut view = view(3, &[]);
        tell(
            &mut view,
            pool_name("a"),
            &pool(2, &["10.0.0.1", "10.0.0.2"]),
        );
        let assembled = assemble(NODE, &view, "", &State::default());
        assert_eq!(assembled.state.resources, Resources::new());
        assert!(assembled.warnings[0].contains("waits for the endpoints"));

        let before = State {
            sequence: 2,
            epoch: String::new(),
            resources: resources(&[("a", pool(1, &["10.0.0.1"]), &[1])]),
        };
        let assembled = assemble(NODE, &view, "", &before);
        assert_eq!(assembled.state.resources, before.resources);
        assert_eq!(assembled.state.sequence, 3);

        // Refused endpoints do not come: the pool is there, without.
        view.upsert(endpoints_name("a"), Revision(String::new()), json!(1))
            .unwrap_err();
        let assembled = assemble(NODE, &view, "", &State::default());
        let config = assembled.state.config(NODE);
        assert_eq!(config.pools[&pool_ref("a")].upstreams[0].endpoints, []);
        assert!(assembled.warnings[0].contains("endpoints/default/a/echo was refused"));
    }

    #[test]
    fn an_older_router_is_not_carried_out_nor_acknowledged() {
        let before = State {
            sequence: 5,
            epoch: String::new(),
            resources: resources(&[("a", pool(5, &["10.0.0.1"]), &[1])]),
        };
        let mut older = pool(4, &["10.0.0.1"]);
        older.virtual_routers[0].virtual_router_id = 99;
        let mut view = view(5, &[("a", older, &[1, 2])]);
        let state = assemble(NODE, &view, "", &before).state;
        let pool = &state.config(NODE).pools[&pool_ref("a")];
        let router = &pool.virtual_routers[0];
        assert_eq!((router.sequence, router.virtual_router_id), (5, 1));
        assert_eq!(
            state.resources[&endpoints_name("a")],
            held_endpoints(&[1, 2])
        );
        let acknowledged = view.acknowledge(&state.resources);
        assert_eq!(acknowledged.len(), 1);
        assert_eq!(acknowledged[0].0, endpoints_name("a"));
    }

    #[test]
    fn sequences_of_another_history_do_not_count() {
        let router = |state: &State| {
            let pool = &state.config(NODE).pools[&pool_ref("a")];
            let router = &pool.virtual_routers[0];
            (state.sequence, router.sequence, router.virtual_router_id)
        };
        let mut older = pool(2, &["10.0.0.1"]);
        older.virtual_routers[0].virtual_router_id = 99;
        let view = view(3, &[("a", older, &[1])]);
        for (ours, theirs, epoch, expected) in [
            ("", "", "", (5, 5, 1)),
            ("", "e2", "e2", (5, 5, 1)),
            ("e1", "", "e1", (5, 5, 1)),
            ("e1", "e1", "e1", (5, 5, 1)),
            ("e1", "e2", "e2", (3, 2, 99)),
        ] {
            let before = State {
                sequence: 5,
                epoch: ours.to_owned(),
                resources: resources(&[("a", pool(5, &["10.0.0.1"]), &[1])]),
            };
            let state = assemble(NODE, &view, theirs, &before).state;
            assert_eq!((state.epoch.as_str(), router(&state)), (epoch, expected));
            assert!(!state.differs_in_endpoints_only(&before) || ours == epoch);
        }
    }

    #[test]
    fn what_differs_in_endpoints_only_is_told_apart() {
        let state = |sequence, port, ports: &[u16]| {
            let mut pool = pool(5, &["10.0.0.1"]);
            pool.listeners[0].port = port;
            State {
                sequence,
                epoch: String::new(),
                resources: resources(&[("a", pool, ports)]),
            }
        };
        let before = state(5, 80, &[1]);
        assert!(state(5, 80, &[1, 2]).differs_in_endpoints_only(&before));
        assert!(!state(6, 80, &[1, 2]).differs_in_endpoints_only(&before));
        assert!(!state(5, 81, &[1]).differs_in_endpoints_only(&before));
        assert!(!State::default().differs_in_endpoints_only(&before));
    }

    #[test]
    fn a_node_of_another_name_is_told_so() {
        let view = view(3, &[("a", pool(1, &["10.0.0.1"]), &[1])]);
        let assembled = assemble("server9", &view, "", &State::default());
        assert!(assembled.warnings[0].contains("--node-name"));
    }

    #[test]
    fn what_the_view_lacks_goes() {
        let before = State {
            sequence: 5,
            epoch: String::new(),
            resources: resources(&[("a", pool(5, &["10.0.0.1"]), &[1])]),
        };
        let state = assemble(NODE, &view(5, &[]), "", &before).state;
        assert_eq!(state.config(NODE).pools.len(), 0);
    }

    #[test]
    fn keys_that_pools_refer_to_stay_and_others_go() {
        let secret = ResourceName::from("secrets/default/chat-tls");
        let tickets = ResourceName::from("ticketKeys/default/a");
        let of = |pool: Pool| {
            let mut resources = resources(&[("a", pool, &[1])]);
            for name in [&secret, &tickets] {
                let content = match name {
                    ResourceName::Secret(_) => Content::Secret(Arc::default()),
                    _ => Content::TicketKeys(Arc::default()),
                };
                let revision = Revision("k1".to_owned());
                resources.insert(name.clone(), Held { revision, content });
            }
            State {
                sequence: 5,
                epoch: String::new(),
                resources,
            }
        };
        let plain = pool(5, &["10.0.0.1"]);
        let mut with_tls = plain.clone();
        with_tls.listeners[0].tls = Some(ListenerTls {
            certificates: vec!["default/chat-tls".to_owned()],
            minimum_version: node_api::TlsVersion::V12,
            http2: node_api::Http2::default(),
        });
        let before = of(with_tls.clone());
        let config = before.config(NODE);
        assert!(config.keys.secrets.contains_key("default/chat-tls"));
        assert!(config.keys.tickets_of(&pool_ref("a")).is_some());

        let told = view(5, &[("a", with_tls, &[1])]);
        let assembled = assemble(NODE, &told, "", &before);
        assert_eq!(assembled.state.config(NODE).keys, config.keys);
        assert!(assembled.warnings[0].contains("Secret default/chat-tls is not told any more"));

        let told = view(5, &[("a", plain, &[1])]);
        let assembled = assemble(NODE, &told, "", &before);
        assert_eq!(assembled.warnings, [""; 0]);
        assert!(assembled.state.config(NODE).keys.is_empty());
    }
}
