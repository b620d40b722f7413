//! What the lease holder writes before any node is told, and what it may forget.
//!
//! A virtual router is committed by writing its VRID, order, version, interval and peers to the status of
//! its pool; nodes are told what was read back from there. An address or VRID that left a pool is
//! not free before every node that had it has given it up: until then it stays in the pool's status
//! (`retiring`), or, where the pool is gone, in the [`Ledger`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{Committed, NodePriority, Retiring, VirtualIPStatus, WebSocketHAPool};
use node_api::{PoolRef, VirtualRouter};

use crate::{
    desired::{Desired, interval, version_number, written_mac_address},
    peers::{self, Step},
    snapshot::{Ledger, RetiredRouter, Snapshot, additional, entries, holders, wanted},
};

/// What is to be written, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// The ledger, if it is another than the one that stands.
    pub ledger: Option<Ledger>,
    /// `status.virtualIPs` without what is merely observed, for pools where it changes.
    pub pools: BTreeMap<PoolRef, Vec<VirtualIPStatus>>,
}

/// Virtual routers of pools that were there before, by UID: what a deleted pool took along, even if one
/// of its name was made since.
pub type Known = BTreeMap<String, (PoolRef, Vec<VirtualIPStatus>)>;

/// What must outlive a pool that has these entries.
pub fn known_pool(
    pool: &WebSocketHAPool,
    entries: &[VirtualIPStatus],
) -> (PoolRef, Vec<VirtualIPStatus>) {
    let entries = lasting(entries).cloned().collect();
    (plan::model::pool_ref(pool), entries)
}

/// The entries of a pool's status.
pub fn listed(pool: &WebSocketHAPool) -> &[VirtualIPStatus] {
    let status = pool.status.as_ref();
    status.map_or(&[][..], |status| &status.virtual_ips)
}

/// Those that must outlive the pool.
pub fn lasting(entries: &[VirtualIPStatus]) -> impl Iterator<Item = &VirtualIPStatus> {
    entries.iter().filter(|entry| entry.committed.is_some())
}

/// Tells a pool from another one of its name.
pub fn uid(pool: &WebSocketHAPool) -> String {
    let named = || plan::model::pool_ref(pool).to_string();
    pool.metadata.uid.clone().unwrap_or_else(named)
}

/// What is to be written. `known` are the pools of the snapshot before; those that are missing now
/// were deleted.
pub fn commit(snapshot: &Snapshot, desired: &Desired, known: &Known) -> Commit {
    let mut writer = Writer {
        snapshot,
        desired,
        existing: snapshot.node_names(),
        standing: snapshot
            .pools
            .iter()
            .map(|pool| (plan::model::pool_ref(pool), entries(pool)))
            .collect(),
        sequence: desired.sequence,
    };
    let ledger = writer.ledger(known);
    let mut pools = BTreeMap::new();
    for pool in &snapshot.pools {
        let before = committed_part(pool);
        let after = writer.pool(pool);
        if before != after {
            pools.insert(plan::model::pool_ref(pool), after);
        }
    }
    // Before the pools: a pool that is deleted takes its sequence along, and none may come twice.
    let mut ledger = Ledger {
        sequence: writer.sequence,
        ..ledger
    };
    if pools.is_empty() && !ledger.next_epoch.is_empty() {
        ledger.epoch = std::mem::take(&mut ledger.next_epoch);
    }
    Commit {
        ledger: (ledger != snapshot.ledger).then_some(ledger),
        pools,
    }
}

/// The entries of a pool's status without what is merely observed.
pub fn committed_part(pool: &WebSocketHAPool) -> Vec<VirtualIPStatus> {
    let entries = pool.status.iter().flat_map(|status| &status.virtual_ips);
    let part = entries.map(|entry| VirtualIPStatus {
        address: entry.address.clone(),
        virtual_router_id: entry.virtual_router_id,
        committed: entry.committed.clone(),
        retiring: entry.retiring.clone(),
        ..VirtualIPStatus::default()
    });
    part.filter(|entry| entry.committed.is_some()).collect()
}

struct Writer<'a> {
    snapshot: &'a Snapshot,
    desired: &'a Desired,
    existing: BTreeSet<&'a str>,
    /// Entries of the pools' statuses.
    standing: BTreeMap<PoolRef, BTreeMap<IpAddr, &'a VirtualIPStatus>>,
    sequence: i64,
}

impl Writer<'_> {
    fn next(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    /// Of `nodes`, those that may still have the virtual router.
    fn waiting(
        &self,
        pool: &PoolRef,
        address: IpAddr,
        nodes: impl IntoIterator<Item = String>,
    ) -> BTreeSet<String> {
        let waits = |name: &String| {
            // A node that left the cluster holds nothing any more.
            if !self.existing.contains(name.as_str()) {
                return false;
            }
            let state = self.desired.nodes.get(name);
            let told = state.and_then(|state| state.pool_revision(pool));
            let view = self.snapshot.views.get(name);
            !view.is_some_and(|view| view.has_given_up(pool, address, told))
        };
        nodes.into_iter().filter(waits).collect()
    }

    fn ledger(&mut self, known: &Known) -> Ledger {
        let mut retirements = Vec::new();
        for retired in &self.snapshot.ledger.retirements {
            let mut waiting = self.waiting(
                &retired.pool,
                retired.address,
                retired.node_names.iter().cloned(),
            );
            // What came back to its pool stands in the pool's status again.
            let back = self.standing(&retired.pool, retired.address);
            if let Some(entry) =
                back.filter(|it| it.virtual_router_id == Some(retired.virtual_router_id))
            {
                let holders = holders(entry);
                waiting.retain(|node| !holders.contains(node));
            }
            if !waiting.is_empty() {
                retirements.push(RetiredRouter {
                    node_names: waiting,
                    ..retired.clone()
                });
            }
        }
        let pools: BTreeSet<_> = self.snapshot.pools.iter().map(|it| uid(it)).collect();
        let gone = known.iter().filter(|(uid, _)| !pools.contains(*uid));
        for (pool, entries) in gone.map(|(_, gone)| gone) {
            for entry in entries {
                let (Ok(address), Some(virtual_router_id)) =
                    (entry.address.parse(), entry.virtual_router_id)
                else {
                    continue;
                };
                let waiting = self.waiting(pool, address, holders(entry));
                let stands = retirements
                    .iter()
                    .any(|it| it.pool == *pool && it.address == address);
                if !waiting.is_empty() && !stands {
                    retirements.push(RetiredRouter {
                        pool: pool.clone(),
                        address,
                        additional_addresses: additional(entry),
                        virtual_router_id,
                        sequence: self.next(),
                        node_names: waiting,
                    });
                }
            }
        }
        self.strays(&mut retirements);
        retirements.sort();
        Ledger {
            epoch: self.snapshot.ledger.epoch.clone(),
            next_epoch: self.snapshot.ledger.next_epoch.clone(),
            sequence: self.snapshot.ledger.sequence,
            retirements,
            // Nothing is committed while the end is asked for.
            retire: None,
        }
    }

    /// The entry of an address in the status of a pool.
    fn standing(&self, pool: &PoolRef, address: IpAddr) -> Option<&VirtualIPStatus> {
        self.standing.get(pool)?.get(&address).copied()
    }

    /// Virtual routers that nodes say they have and that stand nowhere: of pools that were deleted while no
    /// controller looked.
    fn strays(&mut self, retirements: &mut Vec<RetiredRouter>) {
        let retired: BTreeSet<(&PoolRef, IpAddr)> = retirements
            .iter()
            .map(|it| (&it.pool, it.address))
            .collect();
        let mut strays: BTreeMap<(PoolRef, IpAddr), RetiredRouter> = BTreeMap::new();
        let views = self.snapshot.views.iter();
        for (node, view) in views.filter(|(node, _)| self.existing.contains(node.as_str())) {
            let routers = view.report.iter().flat_map(|it| &it.virtual_routers);
            for router in routers {
                let Some(&address) = router.addresses.first() else {
                    continue;
                };
                let stands = self.standing(&router.pool, address).is_some();
                if stands || retired.contains(&(&router.pool, address)) {
                    continue;
                }
                let stray = strays.entry((router.pool.clone(), address));
                let stray = stray.or_insert_with(|| RetiredRouter {
                    pool: router.pool.clone(),
                    address,
                    additional_addresses: router.addresses.iter().skip(1).copied().collect(),
                    virtual_router_id: router.virtual_router_id,
                    sequence: 0,
                    node_names: BTreeSet::new(),
                });
                stray.node_names.insert(node.clone());
            }
        }
        for stray in strays.into_values() {
            retirements.push(RetiredRouter {
                sequence: self.next(),
                ..stray
            });
        }
    }

    /// The entries that a pool shall have: in the order of its spec, then those on their way out.
    fn pool(&mut self, pool: &WebSocketHAPool) -> Vec<VirtualIPStatus> {
        let name = plan::model::pool_ref(pool);
        let entries = entries(pool);
        let wanted = wanted(pool);
        let planned: BTreeMap<IpAddr, &VirtualRouter> = self
            .desired
            .plan
            .pools
            .get(&name)
            .into_iter()
            .flat_map(|pool| &pool.virtual_routers)
            .filter_map(|router| Some((*router.addresses.first()?, router)))
            .collect();
        let mut result = Vec::new();
        for virtual_ip in &pool.spec.virtual_ips {
            let Ok(address) = virtual_ip.address.parse() else {
                continue;
            };
            let entry = entries.get(&address).copied();
            let entry = match planned.get(&address) {
                Some(router) => Some(self.living(&name, address, router, entry)),
                // Refused as a whole: what is committed stands.
                None => entry.map(bare),
            };
            result.extend(entry.filter(|entry| entry.committed.is_some()));
        }
        for (address, entry) in entries {
            if wanted.contains(&address) || entry.committed.is_none() {
                continue;
            }
            let waiting = self.waiting(&name, address, holders(entry));
            if !waiting.is_empty() {
                let mut entry = bare(entry);
                // Nobody is to hold it; whoever still does is waited for.
                if let Some(committed) = &mut entry.committed {
                    committed.nodes.clear();
                }
                entry.retiring = Some(Retiring {
                    node_names: waiting.into_iter().collect(),
                });
                result.push(entry);
            }
        }
        result
    }

    /// Nodes and peers to commit for an address that the pool has.
    fn step(
        &self,
        name: &PoolRef,
        address: IpAddr,
        router: &VirtualRouter,
        entry: Option<&VirtualIPStatus>,
    ) -> Step {
        let standing = entry.and_then(|entry| {
            let mut standing = entry.committed.clone()?;
            let exists = |node: &NodePriority| self.existing.contains(node.node_name.as_str());
            standing.nodes.retain(exists);
            (!standing.nodes.is_empty()).then_some(standing)
        });
        let members = standing.iter().flat_map(|it| &it.nodes);
        let mut members = members.map(|node| &node.node_name);
        let left = entry.and_then(|it| it.retiring.as_ref());
        let left = left.map_or(&[][..], |it| &it.node_names);
        let settled = router.peering.is_multicast()
            || members.all(|node| self.carries_out(name, node))
                && self.waiting(name, address, left.iter().cloned()).is_empty();
        peers::step(router, standing.as_ref(), settled)
    }

    /// Whether the node does what it is told of the pool.
    fn carries_out(&self, pool: &PoolRef, node: &str) -> bool {
        let state = self.desired.nodes.get(node);
        let told = state.and_then(|state| state.pool_revision(pool));
        let view = self.snapshot.views.get(node);
        view.is_some_and(|view| view.connected && view.carries_out(pool, told))
    }

    /// An address that the pool has: what the plan says, under a new sequence where that is new.
    fn living(
        &mut self,
        name: &PoolRef,
        address: IpAddr,
        router: &VirtualRouter,
        entry: Option<&VirtualIPStatus>,
    ) -> VirtualIPStatus {
        let agreed = entry.and_then(|entry| entry.committed.as_ref());
        let Step { nodes, peering } = self.step(name, address, router, entry);
        let addresses = router.addresses.iter().skip(1);
        let additional_addresses: Vec<_> = addresses.map(ToString::to_string).collect();
        let same = |agreed: &&Committed| {
            entry.and_then(|entry| entry.virtual_router_id) == Some(router.virtual_router_id)
                && agreed.additional_addresses == additional_addresses
                && agreed.nodes == nodes
                && agreed.version == version_number(router.version)
                && agreed.advertisement_interval == interval(router.advertisement_interval)
                && agreed.mac_address == written_mac_address(router.mac_address)
                && agreed.peering == peering
        };
        let sequence = match agreed.filter(same) {
            Some(agreed) => agreed.sequence,
            None => self.next(),
        };
        let left = entry.map(holders).unwrap_or_default();
        let left = left
            .into_iter()
            .filter(|name| !nodes.iter().any(|node| node.node_name == *name));
        let waiting = self.waiting(name, address, left);
        VirtualIPStatus {
            address: address.to_string(),
            virtual_router_id: Some(router.virtual_router_id),
            committed: Some(Committed {
                sequence,
                additional_addresses,
                nodes,
                version: version_number(router.version),
                advertisement_interval: interval(router.advertisement_interval),
                mac_address: written_mac_address(router.mac_address),
                peering,
            }),
            retiring: (!waiting.is_empty()).then(|| Retiring {
                node_names: waiting.into_iter().collect(),
            }),
            ..VirtualIPStatus::default()
        }
    }
}

fn bare(entry: &VirtualIPStatus) -> VirtualIPStatus {
    VirtualIPStatus {
        active_node_name: None,
        backup_node_names: Vec::new(),
        active_since: None,
        ..entry.clone()
    }
}
