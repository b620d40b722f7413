//! All that a decision depends on, as of one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crds::{VirtualIPStatus, WebSocketHAPool};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use node_api::{
    NodeReport, PoolRef, PoolReport, RouterReport,
    stream::{NodeFacts, ResourceName, Revision},
};
use plan::{Committed, CommittedRouter, Inputs, Objects, Policy, Retirement};
use serde::{Deserialize, Serialize};

use crate::{retire::Progress, tls::Keyring};

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What users ask for, and in their status what is committed.
    pub pools: Vec<Arc<WebSocketHAPool>>,
    /// The nodes of the cluster.
    pub nodes: Vec<Arc<Node>>,
    /// The Services of the cluster.
    pub services: Vec<Arc<Service>>,
    /// Their endpoints.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// What outlives pools.
    pub ledger: Ledger,
    /// Resource version of the ledger's object; `None`: there is none.
    pub ledger_version: Option<String>,
    /// What nodes say, by name; those that were never heard are absent. Their networks are all that plans are
    /// made of.
    pub views: BTreeMap<String, Arc<NodeView>>,
    /// What the administrator permits.
    pub policy: Policy,
    /// What is known of the Secrets that pools name.
    pub keyring: Arc<Keyring>,
}

/// What one node says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Whether it has a stream to this replica now.
    pub connected: bool,
    /// Its network.
    pub facts: Arc<NodeFacts>,
    /// The history that its state was of when its stream began; empty: unknown.
    pub epoch: String,
    /// The sequence of that state.
    pub sequence: i64,
    /// Its newest report.
    pub report: Option<Arc<NodeReport>>,
    /// What it carries out.
    pub acked: BTreeMap<ResourceName, Revision>,
    /// What it refused, and why.
    pub nacked: BTreeMap<ResourceName, (Revision, String)>,
    /// Fingerprints of the authorities that it trusts for streams.
    pub authorities: Vec<String>,
    /// It has given up everything, as it was told.
    pub retired: bool,
}

impl NodeView {
    /// Whether the node says that it has no virtual router for `address` of `pool` any more.
    pub fn has_given_up(&self, pool: &PoolRef, address: IpAddr, told: Option<&Revision>) -> bool {
        let Some(report) = &self.report else {
            return false;
        };
        let mut routers = routers_of(report, pool).iter();
        let holds = routers.any(|router| router.addresses.contains(&address));
        self.connected && self.carries_out(pool, told) && !holds
    }

    /// Whether it acknowledged what it is told of `pool`.
    pub fn carries_out(&self, pool: &PoolRef, told: Option<&Revision>) -> bool {
        self.acked.get(&ResourceName::Pool(pool.clone())) == told
    }
}

/// The virtual routers of a pool in a report, which is sorted by pools.
pub fn routers_of<'a>(report: &'a NodeReport, pool: &PoolRef) -> &'a [RouterReport] {
    let all = &report.virtual_routers;
    let begin = all.partition_point(|router| router.pool < *pool);
    let len = all[begin..].partition_point(|router| router.pool == *pool);
    &all[begin..begin + len]
}

/// The listeners and endpoints of a pool in a report, which is sorted by pools.
pub fn pool_report<'a>(report: &'a NodeReport, pool: &PoolRef) -> Option<&'a PoolReport> {
    let all = &report.pools;
    let at = all.binary_search_by(|it| it.pool.cmp(pool)).ok()?;
    all.get(at)
}

/// What must be remembered although no pool's status can: kept in one object by the lease holder.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Which history the sequences are of; empty: no lease holder has written yet. Sequences grow within one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// The one to begin once all that is asked for stands, as it does not after an older state was restored;
    /// until then nodes are told nothing. Empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_epoch: String,
    /// At least the highest sequence that was ever given.
    #[serde(default)]
    pub sequence: i64,
    /// Virtual routers of pools that are gone.
    #[serde(default)]
    pub retirements: Vec<RetiredRouter>,
    /// How far the end of the installation has come, once it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<Progress>,
}

/// A virtual router of a pool that is gone; its address and VRID are not free yet.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetiredRouter {
    /// The pool it belonged to.
    pub pool: PoolRef,
    /// The address that it is known by.
    pub address: IpAddr,
    /// Its others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_addresses: Vec<IpAddr>,
    /// Its VRID.
    #[serde(rename = "virtualRouterID")]
    pub virtual_router_id: u8,
    /// When it was retired.
    pub sequence: i64,
    /// Nodes that have not given it up.
    pub node_names: BTreeSet<String>,
}

/// The entries of a pool's status that can be understood, by address.
pub fn entries(pool: &WebSocketHAPool) -> BTreeMap<IpAddr, &VirtualIPStatus> {
    let listed = pool.status.iter().flat_map(|status| &status.virtual_ips);
    listed
        .filter_map(|entry| Some((entry.address.parse().ok()?, entry)))
        .collect()
}

/// The addresses that the pool's spec asks for.
pub fn wanted(pool: &WebSocketHAPool) -> BTreeSet<IpAddr> {
    let listed = pool.spec.virtual_ips.iter();
    listed.filter_map(|it| it.address.parse().ok()).collect()
}

impl Snapshot {
    /// The nodes that exist.
    pub fn node_names(&self) -> BTreeSet<&str> {
        let nodes = self.nodes.iter();
        nodes
            .filter_map(|node| node.metadata.name.as_deref())
            .collect()
    }

    /// The highest sequence that any object names.
    pub fn sequence(&self) -> i64 {
        let statuses = self.pools.iter().flat_map(|pool| pool.status.iter());
        let entries = statuses.flat_map(|status| &status.virtual_ips);
        let committed = entries.filter_map(|entry| Some(entry.committed.as_ref()?.sequence));
        committed.fold(self.ledger.sequence, i64::max)
    }

    /// What the planner is asked.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            objects: Objects {
                pools: self.pools.iter().cloned().map(Into::into).collect(),
                nodes: self.nodes.iter().cloned().map(Into::into).collect(),
                services: self.services.iter().cloned().map(Into::into).collect(),
                endpoint_slices: self
                    .endpoint_slices
                    .iter()
                    .cloned()
                    .map(Into::into)
                    .collect(),
            },
            facts: self
                .views
                .iter()
                .map(|(name, view)| (name.clone(), facts(&view.facts)))
                .collect(),
            committed: self.committed(),
            policy: self.policy.clone(),
        }
    }

    fn committed(&self) -> Committed {
        let mut committed = Committed::default();
        for pool in &self.pools {
            let name = plan::model::pool_ref(pool);
            let wanted = wanted(pool);
            for (address, entry) in entries(pool) {
                let (Some(agreed), Some(virtual_router_id)) =
                    (&entry.committed, entry.virtual_router_id)
                else {
                    continue;
                };
                if wanted.contains(&address) {
                    let nodes = agreed.nodes.iter().map(|node| node.node_name.clone());
                    committed.routers.insert(
                        (name.clone(), address),
                        CommittedRouter {
                            additional_addresses: additional(entry),
                            virtual_router_id,
                            nodes: nodes.collect(),
                        },
                    );
                } else {
                    committed.retirements.push(Retirement {
                        pool: name.clone(),
                        address,
                        additional_addresses: additional(entry),
                        virtual_router_id,
                        nodes: holders(entry),
                    });
                }
            }
        }
        let gone = self.ledger.retirements.iter().map(|retired| Retirement {
            pool: retired.pool.clone(),
            address: retired.address,
            additional_addresses: retired.additional_addresses.clone(),
            virtual_router_id: retired.virtual_router_id,
            nodes: retired.node_names.clone(),
        });
        committed.retirements.extend(gone);
        committed
    }
}

/// The committed addresses besides the one of the entry.
pub fn additional(entry: &VirtualIPStatus) -> Vec<IpAddr> {
    let committed = entry.committed.iter();
    let listed = committed.flat_map(|it| &it.additional_addresses);
    listed.filter_map(|text| text.parse().ok()).collect()
}

/// All nodes that may still have the virtual router: those that agree on it, and those that left it
/// and have not given it up.
pub fn holders(entry: &VirtualIPStatus) -> BTreeSet<String> {
    let agreed = entry.committed.iter().flat_map(|it| &it.nodes);
    let agreed = agreed.map(|node| &node.node_name);
    let leaving = entry.retiring.iter().flat_map(|it| &it.node_names);
    agreed.chain(leaving).cloned().collect()
}

fn facts(facts: &NodeFacts) -> plan::NodeFacts {
    let interfaces = facts.interfaces.iter().map(|one| plan::InterfaceFacts {
        name: one.name.clone(),
        prefixes: one
            .prefixes
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        default_routers: one.default_routers.clone(),
        addresses: one.addresses.clone(),
        heard: one.heard.clone(),
    });
    plan::NodeFacts {
        interfaces: interfaces.collect(),
    }
}
