//! The part of a plan that does not depend on which node holds what.
//!
//! Which pools stand, with which settings, VRIDs and endpoints. It is had at once, and again at the cost of
//! what has changed: whoever knows the holders already, because they are committed, need not wait until
//! [`Placer`](crate::Placer) has thought about better ones.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crds::WebSocketHAPool;
use k8s_openapi::api::core::v1::{Node, Service};
use node_api::{Listener, Peering, Pool, PoolRef, Upstream, VirtualRouter, ZonePreference};

use crate::{
    Inputs, Problem, Shared,
    draft::{Draft, Drafts, Intent},
    endpoints::{Servers, Sources},
    model::{self, PoolIntent, VirtualIpIntent},
    zones::{self, Zones},
};

/// What is planned but for the nodes that hold it.
#[derive(Clone, Debug)]
pub struct Outline {
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) drafts: Arc<Drafts>,
    pub(crate) built: BTreeMap<PoolRef, Built>,
}

/// A pool that stands.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Its virtual routers have no nodes.
    pub(crate) pool: Arc<Pool>,
    /// What leads nowhere among its endpoints.
    pub(crate) unresolved: Arc<[Problem]>,
}

impl Outline {
    /// A pool that stands, its virtual routers without their nodes. One that has not changed is the object
    /// that it was before.
    pub fn pool(&self, name: &PoolRef) -> Option<&Arc<Pool>> {
        self.built.get(name).map(|built| &built.pool)
    }

    /// Whether `other` differs in nothing but endpoints, as far as that was seen at once: then so do the plans.
    pub fn is_settled_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.drafts, &other.drafts)
    }
}

/// Makes outlines, one after another.
#[derive(Debug, Default)]
pub struct Outliner {
    intents: BTreeMap<PoolRef, (Shared<WebSocketHAPool>, Intent)>,
    ground: Option<Ground>,
    drafts: Arc<Drafts>,
    built: BTreeMap<PoolRef, Memo>,
}

/// What drafts are made of.
#[derive(Debug)]
struct Ground {
    inputs: Arc<Inputs>,
    intents: Vec<(PoolRef, Intent)>,
}

/// A pool that stands, and what it was made of.
#[derive(Debug)]
struct Memo {
    intent: Arc<PoolIntent>,
    virtual_router_ids: Vec<Option<u8>>,
    /// By index of the upstream.
    sources: Vec<Sources>,
    zones: Zones,
    built: Built,
}

impl Outliner {
    /// Outlines everything; the same inputs give the same outline, whatever came before.
    pub fn outline(&mut self, inputs: Arc<Inputs>) -> Outline {
        let ground = Ground {
            intents: self.intents(&inputs),
            inputs: Arc::clone(&inputs),
        };
        let stand = self.ground.as_ref().is_some_and(|it| it.is_same(&ground));
        let mut same_addresses = stand;
        if !stand {
            let drafts = Drafts::new(&inputs, &ground.intents);
            same_addresses = self.drafts.virtual_addresses == drafts.virtual_addresses;
            self.drafts = Arc::new(drafts);
        }
        self.ground = Some(ground);
        let built = self.build(&inputs, same_addresses);
        Outline {
            built,
            drafts: Arc::clone(&self.drafts),
            inputs,
        }
    }

    /// What each object says by itself.
    fn intents(&mut self, inputs: &Inputs) -> Vec<(PoolRef, Intent)> {
        let mut former = std::mem::take(&mut self.intents);
        let pools = inputs.objects.pools.iter().map(|pool| {
            let name = model::pool_ref(pool);
            let intent = match former.remove(&name) {
                Some((object, intent)) if object.is(pool) => intent,
                former => {
                    let intent = PoolIntent::try_from(&**pool).map(Arc::new);
                    // A status that was written leaves the spec as it was.
                    let former = former.map(|(_, former)| former);
                    former.filter(|former| *former == intent).unwrap_or(intent)
                }
            };
            let memo = (pool.clone(), intent.clone());
            self.intents.insert(name.clone(), memo);
            (name, intent)
        });
        pools.collect()
    }

    fn build(&mut self, inputs: &Inputs, same_addresses: bool) -> BTreeMap<PoolRef, Built> {
        let servers = Servers::new(&inputs.objects, &self.drafts.virtual_addresses);
        let mut former = std::mem::take(&mut self.built);
        let pools = self.drafts.accepted.iter().map(|draft| {
            let name = &draft.intent.name;
            let zones = zones::of_nodes(&inputs.objects.nodes, &draft.intent);
            let memo = match former.remove(name) {
                Some(memo) if same_addresses && memo.stands(draft, &servers, &zones) => memo,
                former => Memo::new(draft, &servers, zones, former),
            };
            let built = memo.built.clone();
            self.built.insert(name.clone(), memo);
            (name.clone(), built)
        });
        pools.collect()
    }
}

impl Memo {
    fn new(draft: &Draft, servers: &Servers<'_>, zones: Zones, former: Option<Self>) -> Self {
        let intent = &draft.intent;
        let sources = intent.upstreams.iter();
        let sources = sources.map(|it| servers.sources(&intent.name.namespace, &it.source));
        let (pool, unresolved) = build(servers, draft, &zones);
        // What comes out as before is what was before, for those who look at nothing else.
        let pool = match former {
            Some(former) if *former.built.pool == pool => former.built.pool,
            _ => Arc::new(pool),
        };
        Self {
            intent: Arc::clone(intent),
            virtual_router_ids: draft.virtual_router_ids.clone(),
            sources: sources.collect(),
            zones,
            built: Built {
                pool,
                unresolved: unresolved.into(),
            },
        }
    }

    fn stands(&self, draft: &Draft, servers: &Servers<'_>, zones: &Zones) -> bool {
        let namespace = &draft.intent.name.namespace;
        let mut pairs = draft.intent.upstreams.iter().zip(&self.sources);
        Arc::ptr_eq(&self.intent, &draft.intent)
            && self.virtual_router_ids == draft.virtual_router_ids
            && self.zones == *zones
            && pairs.all(|(upstream, sources)| servers.stand(namespace, &upstream.source, sources))
    }
}

impl Ground {
    /// Whether admission and the choice of nodes find the same in both: everything but endpoints.
    fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&*self.inputs, &*other.inputs);
        alike(&self.intents, &other.intents, |one, two| {
            match (&one.1, &two.1) {
                (Ok(one), Ok(two)) => Arc::ptr_eq(one, two),
                _ => one == two,
            }
        }) && alike(&one.objects.nodes, &two.objects.nodes, same_node)
            && alike(&one.objects.services, &two.objects.services, same_service)
            && one.facts == two.facts
            && one.committed == two.committed
            && one.policy == two.policy
    }
}

fn alike<T>(one: &[T], two: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
}

fn same_service(one: &Shared<Service>, two: &Shared<Service>) -> bool {
    let (name, other) = (&one.metadata, &two.metadata);
    one.is(two)
        || (&name.namespace, &name.name, &one.spec, &one.status)
            == (&other.namespace, &other.name, &two.spec, &two.status)
}

/// What else stands in the status changes with every word of a kubelet.
fn same_node(one: &Shared<Node>, two: &Shared<Node>) -> bool {
    let (name, other) = (&one.metadata, &two.metadata);
    one.is(two)
        || (&name.name, &name.labels, &one.spec) == (&other.name, &other.labels, &two.spec)
            && node_addresses(one).eq(node_addresses(two))
}

fn node_addresses(node: &Node) -> impl Iterator<Item = &str> {
    let status = node.status.iter();
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    addresses.map(|it| it.address.as_str())
}

/// The first as the user names it, the others in their own order: nodes take another order for another
/// virtual router.
fn addresses(virtual_ip: &VirtualIpIntent) -> Vec<IpAddr> {
    let mut more = virtual_ip.additional_addresses.clone();
    more.sort_unstable();
    std::iter::once(virtual_ip.address).chain(more).collect()
}

/// The pool as nodes carry it out but for the nodes, and what leads nowhere in it.
fn build(servers: &Servers<'_>, draft: &Draft, zones: &Zones) -> (Pool, Vec<Problem>) {
    let intent = &draft.intent;
    let routers = intent.virtual_ips.iter().zip(&draft.virtual_router_ids);
    let routers = routers.filter_map(|(virtual_ip, virtual_router_id)| {
        Some(VirtualRouter {
            virtual_router_id: (*virtual_router_id)?, // a draft that stands has one
            addresses: addresses(virtual_ip),
            interface: virtual_ip.interface.clone(),
            version: intent.timing.version,
            advertisement_interval: intent.timing.advertisement_interval,
            preemption: intent.timing.preemption,
            mac_address: intent.timing.mac_address,
            nodes: Vec::new(),
            peering: match &intent.peering {
                model::Peering::Multicast => Peering::Multicast,
                // Of candidates, those that are chosen.
                peering => Peering::Unicast {
                    addresses: peering.listed(virtual_ip.address).collect(),
                },
            },
            password: intent.password.clone(),
            sequence: 0,
        })
    });
    let mut unresolved = Vec::new();
    let upstreams = intent.upstreams.iter().enumerate();
    let upstreams = upstreams.map(|(index, upstream)| {
        let path = format!("spec.upstreams[{index}]");
        let found = servers.find(&intent.name.namespace, &path, &upstream.source);
        unresolved.extend(found.problems);
        let mut endpoints = found.endpoints;
        if upstream.zone_preference.is_none() {
            // Nodes need not be told what they do not look at.
            for endpoint in &mut endpoints {
                endpoint.zone = None;
            }
        }
        Upstream {
            name: upstream.name.clone(),
            endpoints,
            balancing: upstream.balancing.clone(),
            slow_start: upstream.slow_start,
            endpoint_sessions: upstream.endpoint_sessions,
            connect_timeout: upstream.connect_timeout,
            handshake_timeout: upstream.handshake_timeout,
            proxy_protocol: upstream.proxy_protocol,
            tls: upstream.tls.clone(),
            health: upstream.health.clone(),
            zone_preference: upstream
                .zone_preference
                .clone()
                .map(|preference| ZonePreference {
                    nodes: zones.clone(),
                    ..preference
                }),
            rebalance: upstream.rebalance,
        }
    });
    let pool = Pool {
        virtual_routers: routers.collect(),
        listeners: intent.listeners.clone(),
        upstreams: upstreams.collect(),
        heartbeat: intent.heartbeat,
        drain: intent.drain,
        tracking: intent.tracking.clone(),
        access_log: intent.access_log,
        limits: intent.limits,
        requires: requirements(&intent.listeners),
    };
    (pool, unresolved)
}

/// What a node must know to serve these. All that there was when the list began is known everywhere.
fn requirements(listeners: &[Listener]) -> Vec<String> {
    let proxied = |listener: &Listener| listener.plain_requests.is_some();
    let plain_requests = listeners.iter().any(proxied);
    plain_requests
        .then(|| node_api::PLAIN_REQUESTS.to_owned())
        .into_iter()
        .collect()
}
