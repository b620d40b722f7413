//! A cluster of values: objects as users write them, nodes that answer what they are told.

use std::{collections::BTreeMap, sync::Arc};

use controller::{
    commit::{self, Known},
    desired::{Body, Desired, desired},
    snapshot::{Ledger, NodeView, Snapshot},
};
use crds::{VirtualIPStatus, WebSocketHAPool};
use k8s_openapi::{
    api::core::v1::{Node, Service},
    api::discovery::v1::EndpointSlice,
};
use node_api::{
    NodeReport, PoolRef, RouterReport, RouterState,
    stream::{InterfaceFacts, NodeFacts, ResourceName},
};
use serde_json::json;

/// Everything that exists, and the controller that looks at it.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    known: Known,
}

impl World {
    /// Gateway nodes by name, all on 192.168.1.0/24, connected and with nothing to do.
    pub(crate) fn new(nodes: &[&str]) -> Self {
        let mut world = Self {
            snapshot: Snapshot {
                pools: Vec::new(),
                nodes: Vec::new(),
                services: Vec::new(),
                endpoint_slices: Vec::new(),
                ledger: Ledger::default(),
                ledger_version: None,
                views: BTreeMap::new(),
                policy: plan::Policy::plain_hosts(),
                keyring: Arc::default(),
            },
            known: Known::new(),
        };
        for name in nodes {
            world.add_node(name);
        }
        world
    }

    pub(crate) fn add_node(&mut self, name: &str) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"wsha.dev/gateway": "true"}},
        }))
        .unwrap();
        self.snapshot.nodes.push(Arc::new(node));
        let interface = InterfaceFacts {
            name: "eth0".to_owned(),
            prefixes: vec!["192.168.1.0/24".to_owned()],
            ..InterfaceFacts::default()
        };
        let view = NodeView {
            connected: true,
            facts: Arc::new(NodeFacts {
                interfaces: vec![interface],
            }),
            report: Some(Arc::new(report(name))),
            ..NodeView::default()
        };
        self.snapshot.views.insert(name.to_owned(), Arc::new(view));
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.snapshot
            .nodes
            .retain(|node| node.metadata.name.as_deref() != Some(name));
        self.snapshot.views.remove(name);
    }

    /// Creates or replaces a pool; its status stays.
    pub(crate) fn apply(&mut self, name: &str, addresses: &[&str]) {
        self.edit(name, |spec| {
            spec["virtualIPs"] = addresses.iter().map(|it| json!({"address": it})).collect();
        });
    }

    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut spec = json!({
            "virtualIPs": [],
            "gateways": {"nodeSelector": {"matchLabels": {"wsha.dev/gateway": "true"}}},
            "listeners": [{"name": "ws", "port": 8020}],
            "upstreams": [{"name": "echo", "endpoints": [{"address": "10.0.0.1", "port": 8010}]}],
        });
        change(&mut spec);
        let mut pool: WebSocketHAPool = serde_json::from_value(json!({
            "apiVersion": "wsha.dev/v1alpha1",
            "kind": "WebSocketHAPool",
            "metadata": {"name": name, "namespace": "default", "generation": 1},
            "spec": spec,
        }))
        .unwrap();
        let pools = &mut self.snapshot.pools;
        let place = pools
            .iter()
            .position(|it| it.metadata.name == pool.metadata.name);
        if let Some(place) = place {
            pool.status.clone_from(&pools[place].status);
            pools[place] = Arc::new(pool);
        } else {
            pools.push(Arc::new(pool));
        }
    }

    /// Gives a pool its UID.
    pub(crate) fn identify(&mut self, name: &str, uid: &str) {
        let mut pools = self.snapshot.pools.iter_mut();
        let pool = pools.find(|pool| pool.metadata.name.as_deref() == Some(name));
        Arc::make_mut(pool.unwrap()).metadata.uid = Some(uid.to_owned());
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.snapshot
            .pools
            .retain(|pool| pool.metadata.name.as_deref() != Some(name));
    }

    pub(crate) fn add(&mut self, service: serde_json::Value, slice: serde_json::Value) {
        let service: Service = serde_json::from_value(service).unwrap();
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        self.snapshot.services.push(Arc::new(service));
        self.snapshot.endpoint_slices.push(Arc::new(slice));
    }

    /// What the controller makes of it now.
    pub(crate) fn desired(&self) -> Desired {
        desired(&self.snapshot).unwrap()
    }

    /// The lease holder writes what there is to write, once; says whether there was anything.
    pub(crate) fn commit(&mut self) -> bool {
        let desired = self.desired();
        let commit = commit::commit(&self.snapshot, &desired, &self.known);
        let wrote = commit != commit::Commit::default();
        if let Some(ledger) = commit.ledger {
            self.snapshot.ledger = ledger;
        }
        for pool in &mut self.snapshot.pools {
            if let Some(entries) = commit.pools.get(&plan::model::pool_ref(pool)) {
                let mut changed = WebSocketHAPool::clone(pool);
                let mut status = changed.status.unwrap_or_default();
                status.virtual_ips.clone_from(entries);
                changed.status = Some(status);
                *pool = Arc::new(changed);
            }
        }
        let pools = self.snapshot.pools.iter();
        let known = |pool| commit::known_pool(pool, commit::listed(pool));
        self.known = pools.map(|pool| (commit::uid(pool), known(pool))).collect();
        wrote
    }

    /// The controller was restarted and has forgotten what it saw.
    pub(crate) fn restart_controller(&mut self) {
        self.known = Known::new();
    }

    /// `node` carries out what it is told now, and says so.
    pub(crate) fn carry_out(&mut self, node: &str) {
        let desired = self.desired();
        let state = desired.nodes.get(node).cloned().unwrap_or_default();
        let view = Arc::make_mut(self.snapshot.views.get_mut(node).unwrap());
        let mut report = report(node);
        let is_held = |name: &ResourceName| match name {
            ResourceName::Pool(pool) => state.held.contains(pool),
            _ => false,
        };
        view.acked.retain(|name, _| is_held(name));
        for (name, resource) in state.resources() {
            view.acked.insert(name.clone(), resource.revision.clone());
            if let (ResourceName::Pool(pool), Body::Pool(body)) = (name, &resource.body) {
                let routers = body.virtual_routers.iter().cloned();
                report.virtual_routers.extend(routers.map(|router| {
                    let best = router.nodes[0].node_name == node;
                    RouterReport {
                        pool: pool.clone(),
                        virtual_router_id: router.virtual_router_id,
                        sequence: router.sequence,
                        addresses: router.addresses,
                        interface: Some("eth0".to_owned()),
                        state: if best {
                            RouterState::Active
                        } else {
                            RouterState::Backup
                        },
                        since_unix_ms: 1_000,
                        reason: String::new(),
                        priority: 250,
                        peers: Vec::new(),
                        transitions: Vec::new(),
                        conflicts: Vec::new(),
                        lowered_by: Vec::new(),
                        isolated_since_unix_ms: None,
                    }
                }));
            }
        }
        view.report = Some(Arc::new(report));
    }

    /// Writes and carries out until nothing changes.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..12 {
            let wrote = self.commit();
            let names: Vec<_> = self.snapshot.views.keys().cloned().collect();
            for name in names {
                if self.snapshot.views[&name].connected {
                    self.carry_out(&name);
                }
            }
            // What was carried out after the last write may free something.
            quiet = if wrote { 0 } else { quiet + 1 };
            if quiet == 2 {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub(crate) fn connected(&mut self, node: &str, connected: bool) {
        let view = self.snapshot.views.get_mut(node).unwrap();
        Arc::make_mut(view).connected = connected;
    }

    /// `status.virtualIPs` of a pool by address.
    pub(crate) fn entries(&self, name: &str) -> BTreeMap<String, VirtualIPStatus> {
        let pool = self.pool(name);
        let entries = pool.status.iter().flat_map(|status| &status.virtual_ips);
        entries
            .map(|entry| (entry.address.clone(), entry.clone()))
            .collect()
    }

    pub(crate) fn pool(&self, name: &str) -> &WebSocketHAPool {
        let mut pools = self.snapshot.pools.iter();
        pools
            .find(|pool| pool.metadata.name.as_deref() == Some(name))
            .unwrap()
    }
}

pub(crate) fn pool_ref(name: &str) -> PoolRef {
    PoolRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn report(node: &str) -> NodeReport {
    serde_json::from_value(json!({
        "nodeName": node, "version": "0", "staleReason": null, "warnings": [],
        "virtualRouters": [], "pools": [],
    }))
    .unwrap()
}
