//! Which pools stand beside each other.
//!
//! Pools are looked at one after another: those that have something committed first, then the older
//! one, then by name. Of two that clash the first stands; and one that does not stand for whatever
//! reason takes nothing from those behind it. What is committed is held by nodes, and is its pool's
//! whatever becomes of the pool.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use node_api::{PoolRef, Probe, is_link_local_v6};

use crate::{
    CommittedRouter, Inputs, Problem, Reason, Retirement,
    draft::Draft,
    membership::Nodes,
    model::{EndpointSource, targets},
    network::Network,
    reserved::Reserved,
    vrid::{Claims, Key, Taken},
};

pub(crate) struct Admission<'a> {
    inputs: &'a Inputs,
    network: &'a Network<'a>,
    nodes: &'a Nodes<'a>,
    reserved: Reserved<'a>,
    /// Virtual routers that a node may still hold although their pool has no such address.
    leaving: BTreeMap<IpAddr, Vec<Retirement>>,
    /// Pools that have an address: those that stand, and those that committed it.
    owners: BTreeMap<IpAddr, PoolRef>,
    /// Virtual addresses to which no session may be sent: those of pools that stand, and committed
    /// ones that their pool still asks for.
    virtual_addresses: BTreeSet<IpAddr>,
    /// Where the endpoints that pools list, and their checks, lead to.
    targets: BTreeMap<IpAddr, (&'static str, PoolRef)>,
    claims: Claims<'a>,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(
        inputs: &'a Inputs,
        network: &'a Network<'a>,
        nodes: &'a Nodes<'a>,
        drafts: &[Draft],
    ) -> Self {
        // A node that left the cluster holds nothing any more.
        let retirements = inputs.committed.retirements.iter().filter(|retirement| {
            let mut holders = retirement.nodes.iter();
            holders.any(|node| nodes.index_of(node).is_some())
        });
        let retirements: Vec<_> = retirements.cloned().collect();
        let committed = &inputs.committed.routers;
        let asked = drafts.iter().flat_map(Draft::keys);
        let held = asked.filter_map(|key| committed.get_key_value(&key));
        let all = |(key, router): (&Key, &CommittedRouter)| {
            let more = router.additional_addresses.clone();
            std::iter::once(key.1).chain(more)
        };
        let mut admission = Self {
            inputs,
            network,
            nodes,
            reserved: Reserved::new(inputs),
            leaving: BTreeMap::new(),
            owners: committed
                .iter()
                .flat_map(|it| all(it).map(|address| (address, it.0.0.clone())))
                .collect(),
            virtual_addresses: held.flat_map(all).collect(),
            targets: BTreeMap::new(),
            claims: Claims::new(inputs, network, &retirements),
        };
        for retirement in retirements {
            let more = retirement.additional_addresses.clone();
            for address in std::iter::once(retirement.address).chain(more) {
                let held = admission.leaving.entry(address).or_default();
                held.push(retirement.clone());
            }
        }
        admission
    }

    /// Lets the pool stand, or adds what is wrong with it to its problems.
    pub(crate) fn admit(&mut self, draft: &mut Draft) {
        self.check_addresses(draft);
        self.check_additional(draft);
        self.check_ports(draft);
        self.check_endpoints(draft);
        self.check_tracking(draft);
        let named = self.check_virtual_router_ids(draft);
        if draft.problems.is_empty() {
            let name = &draft.intent.name;
            for address in draft.addresses() {
                self.owners.insert(address, name.clone());
                self.virtual_addresses.insert(address);
            }
            for (_, _, target) in listed_targets(draft) {
                let owner = self.targets.entry(target);
                owner.or_insert_with(|| ("an endpoint", name.clone()));
            }
            for (_, _, target) in checked_targets(draft) {
                let owner = self.targets.entry(target);
                owner.or_insert_with(|| ("asked by a check", name.clone()));
            }
        } else {
            for (key, virtual_router_id) in named {
                self.claims.release(&key, virtual_router_id);
            }
        }
    }

    /// Addresses: one pool each, no host's own, no server's, permitted.
    fn check_addresses(&self, draft: &mut Draft) {
        let name = draft.intent.name.clone();
        let routers = draft.intent.virtual_ips.iter().enumerate();
        let addresses = routers.flat_map(|(index, virtual_ip)| {
            let key = (name.clone(), virtual_ip.address);
            let committed = self.inputs.committed.routers.get(&key);
            virtual_ip.addresses().map(move |(field, address)| {
                // What nodes hold was free once, and clients depend on it: they are not cut off by
                // what came later.
                let is_held = committed.is_some_and(|router| {
                    field == "address" || router.additional_addresses.contains(&address)
                });
                (
                    format!("spec.virtualIPs[{index}].{field}"),
                    address,
                    is_held,
                )
            })
        });
        for (path, address, is_held) in addresses.collect::<Vec<_>>() {
            let mut refuse = |reason: Reason, message: String| {
                draft.problems.push(Problem::of(reason, &path, message));
            };
            let mut conflict = |message: String| refuse(Reason::AddressConflict, message);
            if let Some(owner) = self.owners.get(&address).filter(|owner| **owner != name) {
                conflict(format!(
                    "{address} is also an address of WebSocketHAPool {owner}; an address belongs \
                     to one pool, so remove it from one of the two"
                ));
            }
            let mut leaving = self.leaving.get(&address).into_iter().flatten();
            if let Some(held) = leaving.find(|held| held.pool != name) {
                conflict(format!(
                    "{address} is still being given up by WebSocketHAPool {}; it is free once its \
                     nodes have acknowledged that",
                    held.pool
                ));
            }
            // A committed address was there first: then the endpoint is refused.
            if let Some((what, owner)) = self.targets.get(&address)
                && !self.virtual_addresses.contains(&address)
            {
                conflict(format!(
                    "{address} is {what} of WebSocketHAPool {owner}; use one that no server has"
                ));
            }
            if let Some((reason, message)) = self.other_owner(address, is_held) {
                if is_held {
                    let problem = Problem::of(Reason::AddressClaimed, path.clone(), message);
                    draft.unresolved.push(problem);
                } else {
                    refuse(reason, message);
                }
            }
            if let Some((reason, message)) = self.not_permitted(draft, address, is_held) {
                draft.problems.push(Problem::of(reason, path, message));
            }
        }
    }

    /// Who else than a pool has the address.
    fn other_owner(&self, address: IpAddr, is_held: bool) -> Option<(Reason, String)> {
        let not_permitted = |message| Some((Reason::AddressNotPermitted, message));
        if let Some(node) = self.nodes.owner(address) {
            return not_permitted(if is_held {
                format!(
                    "{address} is held by gateways, and node {node} gives it as its own: its \
                     kubelet has chosen it; start the kubelet with --node-ip and the node's own \
                     address"
                )
            } else {
                format!("{address} is node {node}'s own address; use one that no host owns")
            });
        }
        if self.network.is_default_router(address) {
            return not_permitted(format!(
                "{address} is a default router of the nodes; use one that no host owns"
            ));
        }
        self.reserved.address(address)
    }

    /// All nodes list the same addresses, so those that are committed stay.
    fn check_additional(&self, draft: &mut Draft) {
        for (index, virtual_ip) in draft.intent.virtual_ips.iter().enumerate() {
            let key = (draft.intent.name.clone(), virtual_ip.address);
            let committed = self.inputs.committed.routers.get(&key);
            let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
            let Some(agreed) = committed.map(|router| set(&router.additional_addresses)) else {
                continue;
            };
            if agreed != set(&virtual_ip.additional_addresses) {
                draft.problems.push(Problem::of(
                    Reason::Invalid,
                    format!("spec.virtualIPs[{index}].additionalAddresses"),
                    format!(
                        "are not those with which nodes hold {} already, which are {}; to change \
                         them remove the address from the pool, then add it again",
                        virtual_ip.address,
                        listed(agreed.iter())
                    ),
                ));
            }
        }
    }

    /// Why the pool may not have that address: by the administrator's word, else by the
    /// networks of its gateways.
    fn not_permitted(
        &self,
        draft: &Draft,
        address: IpAddr,
        is_held: bool,
    ) -> Option<(Reason, String)> {
        let namespace = &draft.intent.name.namespace;
        let policy = &self.inputs.policy;
        if let Some(permitted) = policy.virtual_addresses(namespace) {
            return (!permitted.iter().any(|range| range.contains(address))).then(|| {
                let message = format!(
                    "{address} is not permitted in namespace {namespace}; the administrator \
                     permits {}",
                    listed(permitted.iter())
                );
                (Reason::AddressNotPermitted, message)
            });
        }
        // Networks may go from a node that is in trouble: what it holds was looked at before.
        // A link-local address lies on every network.
        if is_held || policy.cluster.is_none() || is_link_local_v6(address) {
            return None;
        }
        let members = self.nodes.members(&draft.intent.match_labels);
        let members = &members.nodes;
        let links: Vec<_> = members
            .iter()
            .filter_map(|node| self.nodes.links(*node))
            .collect();
        if members.is_empty() || links.iter().any(|links| links.on_link(address)) {
            return None;
        }
        if links.len() < members.len() {
            return Some((
                Reason::AddressNotJudged,
                format!(
                    "{address} is looked at once all gateway nodes have told of their networks; \
                     if that does not come, look at their data-plane pods"
                ),
            ));
        }
        let networks: BTreeSet<_> = links.iter().flat_map(|links| links.networks()).collect();
        Some((
            Reason::AddressNotPermitted,
            format!(
                "{address} lies on no network of the pool's gateway nodes, which are {}; use a \
                 free address of one of these, or have the administrator permit it in \
                 virtualIPRanges",
                listed(networks.into_iter())
            ),
        ))
    }

    fn check_ports(&self, draft: &mut Draft) {
        let namespace = &draft.intent.name.namespace;
        let permitted = self.inputs.policy.ports(namespace);
        for (index, listener) in draft.intent.listeners.iter().enumerate() {
            let port = listener.port;
            let mut refuse = |reason: Reason, message: String| {
                let path = format!("spec.listeners[{index}].port");
                draft.problems.push(Problem::of(reason, path, message));
            };
            if let Some(message) = self.reserved.port(port) {
                refuse(Reason::PortConflict, message);
            }
            if let Some(permitted) = permitted
                && !permitted.iter().any(|range| range.contains(&port))
            {
                let ranges = permitted.iter().map(|range| {
                    if range.start() == range.end() {
                        range.start().to_string()
                    } else {
                        format!("{}-{}", range.start(), range.end())
                    }
                });
                refuse(
                    Reason::PortNotPermitted,
                    format!(
                        "{port} is not permitted in namespace {namespace}; the administrator \
                         permits {}",
                        listed(ranges)
                    ),
                );
            }
        }
    }

    /// Endpoints that pools list: a virtual address would be a loop.
    fn check_endpoints(&self, draft: &mut Draft) {
        let own: BTreeSet<IpAddr> = draft.addresses().collect();
        let loops = listed_targets(draft).filter(|(_, _, target)| {
            own.contains(target) || self.virtual_addresses.contains(target)
        });
        let problems: Vec<_> = loops
            .map(|(path, address, target)| {
                let what = if address == target {
                    format!("{address} is a virtual address")
                } else {
                    format!("{address} stands for {target}, a virtual address")
                };
                Problem::of(
                    Reason::EndpointNotPermitted,
                    path,
                    format!("{what}, which would be a loop; use the server's own address"),
                )
            })
            .collect();
        draft.problems.extend(problems);
    }

    /// Checks go where sessions may go, and not to the node that asks: that says nothing of a network.
    fn check_tracking(&self, draft: &mut Draft) {
        let own: BTreeSet<IpAddr> = draft.addresses().collect();
        let members = self.nodes.members(&draft.intent.match_labels);
        let gateway = |address: IpAddr| {
            let node = self.nodes.owner(address)?;
            let index = self.nodes.index_of(node)?;
            members.nodes.contains(&index).then_some(node)
        };
        let mut problems = Vec::new();
        for (path, address, target) in checked_targets(draft) {
            let stands = if address == target {
                "is"
            } else {
                "stands for"
            };
            let mut refuse = |what: String| {
                let message = format!(
                    "{address} {stands} {what}, which its holder would always reach; use the address \
                     of another host"
                );
                problems.push(Problem::of(Reason::EndpointNotPermitted, &path, message));
            };
            if own.contains(&target) || self.virtual_addresses.contains(&target) {
                refuse("a virtual address".to_owned());
            } else if let Some(node) = gateway(target) {
                refuse(format!("gateway node {node}'s own address"));
            }
        }
        if self.inputs.policy.cluster.is_some() {
            let checks = draft.intent.tracking.checks.iter().enumerate();
            let commands = checks.filter(|(_, it)| matches!(it.probe, Probe::Command { .. }));
            problems.extend(commands.map(|(index, _)| {
                Problem::new(
                    format!("spec.tracking.checks[{index}].command"),
                    "is for the files of plain hosts alone; in a cluster use tcp or http",
                )
            }));
        }
        draft.problems.extend(problems);
    }

    /// VRIDs that are committed, and those that users name. Returns what was claimed.
    fn check_virtual_router_ids(&mut self, draft: &mut Draft) -> Vec<(Key, u8)> {
        let mut claimed = Vec::new();
        let keys: Vec<Key> = draft.keys().collect();
        for (index, key) in keys.into_iter().enumerate() {
            let named = draft.intent.virtual_ips[index].virtual_router_id;
            let mut refuse = |reason: Reason, message: String| {
                let path = format!("spec.virtualIPs[{index}].virtualRouterID");
                draft.problems.push(Problem::of(reason, path, message));
            };
            if let Some(router) = self.inputs.committed.routers.get(&key) {
                let committed = router.virtual_router_id;
                if let Err(taken) = self.claims.stand(&key, committed) {
                    refuse(
                        Reason::VirtualRouterIDConflict,
                        format!(
                            "was {committed} when networks were apart that are one now, where it \
                             is also that of {}; remove the address from the pool, then add it \
                             again with another",
                            describe(&taken)
                        ),
                    );
                }
                if let Some(named) = named.filter(|named| *named != committed) {
                    refuse(
                        Reason::Invalid,
                        format!(
                            "is {named}, and nodes hold {} with {committed} already; to change it \
                             remove the address from the pool, then add it again",
                            key.1
                        ),
                    );
                }
                draft.virtual_router_ids[index] = Some(committed);
            } else if let Some(named) = named {
                match self.claims.named(&key, named) {
                    Ok(()) => {
                        self.claims.claim(&key, named);
                        draft.virtual_router_ids[index] = Some(named);
                        claimed.push((key, named));
                    }
                    Err(taken) => refuse(
                        Reason::VirtualRouterIDConflict,
                        format!(
                            "{named} is also that of {}; choose another from 1 to 255",
                            describe(&taken)
                        ),
                    ),
                }
            }
        }
        claimed
    }

    /// VRIDs for the addresses of pools that stand and have none.
    pub(crate) fn choose_virtual_router_ids(mut self, drafts: &mut [Draft]) {
        // All last bytes before any other number: none may take what is another's by nature.
        let mut left = Vec::new();
        for (place, draft) in drafts.iter_mut().enumerate() {
            for (index, key) in draft.open() {
                let interface = draft.intent.virtual_ips[index].interface.as_deref();
                match self.claims.last_byte(&key, interface) {
                    Ok(last) => draft.virtual_router_ids[index] = Some(last),
                    Err(taken) => left.push((place, index, key, taken)),
                }
            }
        }
        for (place, index, key, taken) in left {
            let draft = &mut drafts[place];
            let interface = draft.intent.virtual_ips[index].interface.as_deref();
            draft.virtual_router_ids[index] = self.claims.next_free(&key, interface);
            if draft.virtual_router_ids[index].is_none() {
                let why = taken.map_or_else(
                    || "is 0 or heard from a router that is none of ours".to_owned(),
                    |taken| format!("is also the VRID of {}", describe(&taken)),
                );
                draft.problems.push(Problem::of(
                    Reason::VirtualRouterIDConflict,
                    format!("spec.virtualIPs[{index}].virtualRouterID"),
                    format!(
                        "is left out, and the last byte of {} {why}; set virtualRouterID to a \
                         number from 1 to 255 that no other virtual router of the network has",
                        key.1
                    ),
                ));
            }
        }
        for draft in drafts {
            self.warn_of_others(draft);
        }
    }

    /// Of two virtual routers with one VRID the one of lower priority never rises. What the user named
    /// or what is committed is not changed for that: clients depend on it, and the other may go.
    fn warn_of_others(&self, draft: &mut Draft) {
        let virtual_ips = draft.intent.virtual_ips.iter().enumerate();
        let chosen = virtual_ips.zip(&draft.virtual_router_ids);
        let clashes = chosen.filter_map(|((index, virtual_ip), chosen)| {
            let (address, vrid) = (virtual_ip.address, (*chosen)?);
            let interface = virtual_ip.interface.as_deref();
            let heard = self.network.clash(address, interface, vrid)?;
            let message = format!(
                "VRID {vrid} of {address} is also spoken by {}, which is no gateway, for {}, as node {} \
                 hears on {}: only one of the two can be active; give that one another VRID, or \
                 remove {address} here and, once it is given up, add it again with a \
                 virtualRouterID that is free",
                heard.router.source,
                listed(heard.router.addresses.iter()),
                heard.node,
                heard.interface.name,
            );
            let path = format!("spec.virtualIPs[{index}].virtualRouterID");
            Some(Problem::of(Reason::VirtualRouterIDClaimed, path, message))
        });
        let clashes: Vec<_> = clashes.collect();
        draft.unresolved.extend(clashes);
    }
}

/// The endpoints that a pool lists: the field, the address, and each address it leads to.
fn listed_targets(draft: &Draft) -> impl Iterator<Item = (String, IpAddr, IpAddr)> {
    let upstreams = draft.intent.upstreams.iter().enumerate();
    let listed = upstreams.flat_map(|(upstream, intent)| {
        let listed: &[_] = match &intent.source {
            EndpointSource::Listed(listed) => listed,
            EndpointSource::Service { .. } => &[],
        };
        let listed = listed.iter().enumerate();
        listed.map(move |(index, endpoint)| (upstream, index, endpoint.address))
    });
    listed.flat_map(|(upstream, index, address)| {
        targets(address).map(move |target| {
            let path = format!("spec.upstreams[{upstream}].endpoints[{index}].address");
            (path, address, target)
        })
    })
}

/// The addresses that checks of a pool ask: the field, the address, and each address it leads to.
fn checked_targets(draft: &Draft) -> impl Iterator<Item = (String, IpAddr, IpAddr)> {
    let checks = draft.intent.tracking.checks.iter().enumerate();
    let asked = checks.filter_map(|(index, check)| match &check.probe {
        Probe::Tcp { address } => Some((index, "tcp", address.ip())),
        Probe::Http { address, .. } => Some((index, "http", address.ip())),
        Probe::Command { .. } => None,
    });
    asked.flat_map(|(index, kind, address)| {
        targets(address).map(move |target| {
            let path = format!("spec.tracking.checks[{index}].{kind}.address");
            (path, address, target)
        })
    })
}

/// Names in a sentence, the first of them where there are many.
fn listed(names: impl ExactSizeIterator<Item: ToString>) -> String {
    const MOST: usize = 8;
    let all = names.len();
    let mut names: Vec<_> = names.take(MOST).map(|name| name.to_string()).collect();
    if all == 0 {
        return "none".to_owned();
    }
    if all > MOST {
        names.push(format!("and {} more", all - MOST));
    }
    names.join(", ")
}

fn describe(taken: &Taken) -> String {
    let (pool, address) = &taken.by;
    let leaving = if taken.leaving {
        ", which its nodes are still giving up"
    } else {
        ""
    };
    format!("{address} of WebSocketHAPool {pool}{leaving}")
}
