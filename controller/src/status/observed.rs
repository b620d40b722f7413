//! What the nodes of one pool report, looked at from the pool.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{Tally, VirtualIPStatus, WebSocketHAPool};
use node_api::{
    EndpointReport, ListenerReport, PoolRef, RouterReport, RouterState, Tracked,
    stream::ResourceName,
};

use crate::{
    desired::{Desired, Part, Resource},
    snapshot::{NodeView, Snapshot, pool_report, routers_of},
    status::count,
};

/// Most servers of an upstream in a sentence.
const MOST_SERVERS: usize = 3;

/// What the nodes of one pool report.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The pool.
    pub name: PoolRef,
    /// Its nodes, each with what it said.
    members: Vec<Member<'a>>,
    /// The pool as nodes acknowledge it.
    resource: ResourceName,
    desired: &'a Desired,
}

/// One of the nodes of a pool, and what it said of it.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    node: &'a str,
    view: Option<&'a NodeView>,
    /// Empty without a stream: what a node said before may be long over.
    routers: &'a [RouterReport],
    listeners: &'a [ListenerReport],
    /// Empty without a stream, too.
    endpoints: &'a [EndpointReport],
}

impl<'a> Member<'a> {
    fn new(node: &'a str, view: Option<&'a NodeView>, pool: &PoolRef) -> Self {
        let report = view.and_then(|view| Some((view, view.report.as_ref()?)));
        let routers = report.filter(|(view, _)| view.connected);
        let listeners = report.and_then(|(_, report)| pool_report(report, pool));
        let endpoints = listeners.filter(|_| view.is_some_and(|view| view.connected));
        Self {
            node,
            view,
            routers: routers.map_or(&[][..], |(_, report)| routers_of(report, pool)),
            listeners: listeners.map_or(&[][..], |report| &report.listeners),
            endpoints: endpoints.map_or(&[][..], |report| &report.endpoints),
        }
    }
}

/// A node that holds an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Active<'a> {
    /// The node.
    pub node: &'a str,
    /// Since when, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
}

/// Whether a node carries a pool out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carried<'a> {
    /// It does.
    Yes,
    /// It was told and has not answered.
    Waiting,
    /// It has no stream.
    Away,
    /// It refused.
    Refused(&'a str),
}

impl<'a> Observed<'a> {
    /// Looks at the nodes that are committed for any address of the pool.
    pub fn new(
        pool: &WebSocketHAPool,
        committed: &'a [VirtualIPStatus],
        snapshot: &'a Snapshot,
        desired: &'a Desired,
    ) -> Self {
        let agreed = committed.iter().filter_map(|it| it.committed.as_ref());
        let names: BTreeSet<&str> = agreed
            .flat_map(|committed| &committed.nodes)
            .map(|node| node.node_name.as_str())
            .collect();
        let name = plan::model::pool_ref(pool);
        let members = names.into_iter().map(|node| {
            let view = snapshot.views.get(node).map(|view| &**view);
            Member::new(node, view, &name)
        });
        Self {
            members: members.collect(),
            resource: ResourceName::Pool(name.clone()),
            name,
            desired,
        }
    }

    /// The node that holds the address; of several that say so the newest.
    pub fn active(&self, address: IpAddr) -> Option<Active<'a>> {
        self.all_active(address)
            .into_iter()
            .max_by_key(|active| active.since_unix_ms)
    }

    /// All nodes that say they hold the address.
    pub fn all_active(&self, address: IpAddr) -> Vec<Active<'a>> {
        let routers = self.routers(address);
        let active = routers.filter(|(_, router)| router.state == RouterState::Active);
        active
            .map(|(node, router)| Active {
                node,
                since_unix_ms: router.since_unix_ms,
            })
            .collect()
    }

    /// Who answers for the address besides the node that holds it, each a sentence.
    pub fn conflicts(&self, address: IpAddr) -> Vec<String> {
        let active = self
            .routers(address)
            .filter(|(_, router)| router.state == RouterState::Active);
        active
            .flat_map(|(node, router)| {
                let others = router.conflicts.iter();
                others.map(move |other| {
                    let (address, mac) = (other.address, &other.hardware_address);
                    let interface = router.interface.as_deref().unwrap_or("its interface");
                    match &other.own_interface {
                        // Where Linux answers without having the address, and where it has it.
                        Some(own) if address.is_ipv6() => format!(
                            "{own} of {node} has {address}, too, on the segment of {interface}; take it \
                             from {own}"
                        ),
                        Some(own) => format!(
                            "{own} of {node} answers for {address} on the segment of {interface}, too; \
                             set arp_ignore there, or keep two interfaces off one segment"
                        ),
                        None => format!(
                            "a host with the hardware address {mac} answers for {address}, too, as \
                             {node} sees on {interface}; take the address from it"
                        ),
                    }
                })
            })
            .collect()
    }

    /// Nodes that have given addresses up since they are cut off.
    pub fn isolated(&self) -> Vec<&'a str> {
        let cut_off = |member: &&Member<'a>| {
            let mut routers = member.routers.iter();
            routers.any(|it| it.isolated_since_unix_ms.is_some())
        };
        let members = self.members.iter().filter(cut_off);
        members.map(|member| member.node).collect()
    }

    /// What lowers the priority of nodes, one entry for each node and thing: the kind of the first, and
    /// a sentence about each.
    pub fn lowered(&self) -> Option<(Tracked, Vec<String>)> {
        let members = self.members.iter();
        let routers = members.flat_map(|member| member.routers.iter().map(|it| (member.node, it)));
        let lowerings =
            routers.flat_map(|(node, it)| it.lowered_by.iter().map(move |it| (node, it)));
        let mut first = None;
        let mut told = BTreeSet::new();
        let sentences = lowerings.filter_map(|(node, it)| {
            first = first.or(Some(it.kind));
            // The same for each address of the pool.
            told.insert((node, it.kind.to_string(), &it.name)).then(|| {
                format!(
                    "{} {} on {node} {}, which lowers its priority by {}",
                    it.kind, it.name, it.problem, it.weight
                )
            })
        });
        let sentences: Vec<_> = sentences.collect();
        first.map(|first| (first, sentences))
    }

    /// Upstreams of which a node finds no server well, each a sentence.
    pub fn unwell(&self) -> Vec<String> {
        let mut unwell = Vec::new();
        // Servers of an upstream that was removed are told of as long as they have sessions.
        let pool = self.desired.plan.pools.get(&self.name);
        let is_listed = |endpoint: &&EndpointReport| {
            let is_it = |upstream: &node_api::Upstream| upstream.name == endpoint.upstream;
            pool.is_none_or(|pool| pool.upstreams.iter().any(is_it))
        };
        for member in &self.members {
            let mut upstreams: BTreeMap<&str, Vec<&EndpointReport>> = BTreeMap::new();
            for endpoint in member.endpoints.iter().filter(is_listed) {
                let of_upstream = upstreams.entry(&endpoint.upstream).or_default();
                of_upstream.push(endpoint);
            }
            for (upstream, endpoints) in upstreams {
                if endpoints.iter().any(|endpoint| endpoint.usable) {
                    continue;
                }
                let told = endpoints.iter().take(MOST_SERVERS).map(|endpoint| {
                    let problem = endpoint.problem.as_deref().unwrap_or("it is not usable");
                    format!("{}, {problem}", endpoint.address)
                });
                let told = told.collect::<Vec<_>>().join("; ");
                let more = match endpoints.len().saturating_sub(MOST_SERVERS) {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                unwell.push(format!(
                    "{} finds no server of upstream {upstream} well: {told}{more}",
                    member.node
                ));
            }
        }
        unwell
    }

    /// Nodes that would take the address over, in their order.
    pub fn backups(&self, entry: &VirtualIPStatus, address: IpAddr) -> Vec<String> {
        let backups: BTreeSet<&str> = self
            .routers(address)
            .filter(|(_, router)| router.state == RouterState::Backup)
            .map(|(node, _)| node)
            .collect();
        let order = entry.committed.iter().flat_map(|it| &it.nodes);
        let names = order.map(|node| node.node_name.as_str());
        names
            .filter(|name| backups.contains(name))
            .map(str::to_owned)
            .collect()
    }

    /// Nodes that carry out what they were told, of all.
    pub fn gateways(&self) -> Tally {
        let ready = self
            .carried()
            .filter(|(_, carried)| *carried == Carried::Yes);
        Tally {
            ready: count(ready.count()),
            total: count(self.members.len()),
        }
    }

    /// Live sessions on all nodes.
    pub fn sessions(&self) -> i64 {
        let sessions = self.listeners().map(|(_, listener)| listener.sessions);
        i64::try_from(sessions.sum::<u64>()).unwrap_or(i64::MAX)
    }

    /// How far each node is.
    pub fn carried(&self) -> impl Iterator<Item = (&'a str, Carried<'a>)> + '_ {
        self.members.iter().map(|&Member { node, view, .. }| {
            let carried = match view {
                Some(view) if view.connected => {
                    let state = self.desired.nodes.get(node);
                    let told = state.and_then(|state| state.parts.get(&self.name));
                    told.map_or(Carried::Waiting, |told| self.carries(view, told))
                }
                _ => Carried::Away,
            };
            (node, carried)
        })
    }

    /// Whether a node carries out what it is told of the pool, but for endpoints, which change all the time.
    fn carries(&self, view: &'a NodeView, told: &Part) -> Carried<'a> {
        let lasts = |name: &ResourceName| !matches!(name, ResourceName::Endpoints { .. });
        let resources = told.resources.iter().filter(|(name, _)| lasts(name));
        let (mut is_told, mut is_acked) = (false, true);
        for (name, Resource { revision, .. }) in resources {
            match view.nacked.get(name) {
                Some((refused, why)) if refused == revision => return Carried::Refused(why),
                _ => {}
            }
            // Of a pool that is refused now, secrets alone are told.
            is_told |= *name == self.resource;
            is_acked &= view.acked.get(name) == Some(revision);
        }
        if is_told && is_acked {
            Carried::Yes
        } else {
            Carried::Waiting
        }
    }

    /// Listeners of the pool on each node.
    pub fn listeners(&self) -> impl Iterator<Item = (&'a str, &'a ListenerReport)> + '_ {
        let members = self.members.iter();
        members.flat_map(|member| member.listeners.iter().map(|it| (member.node, it)))
    }

    fn routers(&self, address: IpAddr) -> impl Iterator<Item = (&'a str, &'a RouterReport)> + '_ {
        let members = self.members.iter();
        let routers = members.flat_map(|member| member.routers.iter().map(|it| (member.node, it)));
        routers.filter(move |(_, it)| it.addresses.contains(&address))
    }
}
