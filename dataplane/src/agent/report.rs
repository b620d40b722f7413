//! What the agent tells about itself and the others; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use node_api::{
    ListenerReport, NodeConfig, NodeReport, PoolReport, RouterReport, RouterState, VirtualRouter,
};

use crate::{
    agent::desired::{self, Listeners},
    ipc::{ProxyReport, VrrpReport},
    metrics::Sample,
};

/// The answer to `status` and to the admin port.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The state of the node.
    pub(super) report: NodeReport,
    /// Settings of its virtual routers.
    pub(super) routers: Vec<VirtualRouter>,
    /// All metrics of all processes.
    pub(super) samples: Vec<Sample>,
    /// Why the node is not ready, each a sentence; empty when it is.
    pub(super) not_ready: Vec<String>,
}

/// A process and the last it said.
#[derive(Debug)]
pub(super) struct Heard<'a, R> {
    /// Whether it runs and is connected.
    pub(super) lives: bool,
    /// Whether it answered in time.
    pub(super) answered: bool,
    /// Whether it has its configuration in force.
    pub(super) is_done: bool,
    /// What it said last.
    pub(super) report: Option<&'a R>,
}

/// What a report is made of.
#[derive(Debug)]
pub(super) struct Material<'a> {
    /// The configuration in use.
    pub(super) config: &'a NodeConfig,
    /// Why the newest files are not in use.
    pub(super) stale_reason: Option<&'a str>,
    /// Things an administrator should look at.
    pub(super) warnings: Vec<String>,
    /// Listeners that could not be opened.
    pub(super) refused: BTreeMap<SocketAddr, String>,
    /// The vrrp process.
    pub(super) vrrp: Heard<'a, VrrpReport>,
    /// The proxy process.
    pub(super) proxy: Heard<'a, ProxyReport>,
}

impl Material<'_> {
    /// The state of the node.
    pub(super) fn report(&self) -> NodeReport {
        let mut warnings = self.warnings.clone();
        let silent = |lives: bool, answered: bool, name: &str| {
            (lives && !answered).then(|| {
                format!(
                    "the {name} process did not answer within 500 ms: this is what it said before"
                )
            })
        };
        warnings.extend(silent(self.vrrp.lives, self.vrrp.answered, "vrrp"));
        warnings.extend(silent(self.proxy.lives, self.proxy.answered, "proxy"));
        for lines in [
            self.vrrp.report.map(|report| &report.warnings),
            self.proxy.report.map(|report| &report.warnings),
        ] {
            warnings.extend(lines.into_iter().flatten().cloned());
        }
        NodeReport {
            node_name: self.config.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stale_reason: self.stale_reason.map(ToOwned::to_owned),
            warnings,
            virtual_routers: self.routers(),
            pools: self.pools(),
        }
    }

    /// Why the node is not ready.
    pub(super) fn not_ready(&self, report: &NodeReport) -> Vec<String> {
        let mut reasons: Vec<String> = report.stale_reason.iter().cloned().collect();
        for (lives, is_done, name) in [
            (self.vrrp.lives, self.vrrp.is_done, "vrrp"),
            (self.proxy.lives, self.proxy.is_done, "proxy"),
        ] {
            if !lives {
                reasons.push(format!("the {name} process does not run"));
            } else if !is_done {
                reasons.push(format!(
                    "the {name} process has not applied the configuration yet"
                ));
            }
        }
        for listener in report.pools.iter().flat_map(|pool| &pool.listeners) {
            let (name, address) = (&listener.name, listener.address);
            match &listener.problem {
                _ if listener.accepting => {}
                // Says which listener it is itself.
                Some(problem) if self.refused.contains_key(&address) => {
                    reasons.push(problem.clone());
                }
                problem => {
                    let why = problem.as_deref().unwrap_or("it is not open yet");
                    reasons.push(format!(
                        "listener {name} does not accept on {address}: {why}"
                    ));
                }
            }
        }
        reasons
    }

    /// What vrrp says of each virtual router; what can be said without it where it says nothing.
    fn routers(&self) -> Vec<RouterReport> {
        let said = self.vrrp.report.map_or(&[][..], |report| &report.routers);
        desired::routers(self.config, &BTreeSet::new())
            .into_iter()
            .map(|router| {
                let known = said.iter().find(|known| {
                    known.pool == router.pool
                        && known.virtual_router_id == router.settings.virtual_router_id
                        && known.addresses == router.settings.addresses
                });
                match known {
                    Some(known) if self.vrrp.lives => known.clone(),
                    _ => RouterReport {
                        pool: router.pool,
                        virtual_router_id: router.settings.virtual_router_id,
                        sequence: 0,
                        addresses: router.settings.addresses,
                        interface: router.settings.interface,
                        state: RouterState::Initialize,
                        since_unix_ms: known.map_or(0, |known| known.since_unix_ms),
                        reason: if self.vrrp.lives {
                            "the vrrp process has not started it yet".to_owned()
                        } else {
                            "the vrrp process does not run".to_owned()
                        },
                        priority: router.priority,
                        peers: Vec::new(),
                        transitions: known.map_or_else(Vec::new, |one| one.transitions.clone()),
                        conflicts: Vec::new(),
                        lowered_by: Vec::new(),
                        isolated_since_unix_ms: None,
                    },
                }
            })
            .collect()
    }

    /// What the proxy says of each pool, with every listener that it should have.
    fn pools(&self) -> Vec<PoolReport> {
        let wanted: Listeners = desired::listeners(self.config);
        let said = self.proxy.report.map_or(&[][..], |report| &report.pools);
        self.config
            .pools
            .keys()
            .map(|name| {
                let known = said.iter().find(|pool| pool.pool == *name);
                let listeners = wanted.iter().filter(|(_, (pool, _))| pool == name);
                let listeners = listeners.map(|(address, (_, listener))| {
                    let known = known
                        .and_then(|pool| pool.listeners.iter().find(|one| one.address == *address));
                    let problem = self.refused.get(address).cloned();
                    ListenerReport {
                        name: listener.clone(),
                        address: *address,
                        accepting: self.proxy.lives && known.is_some_and(|one| one.accepting),
                        problem: problem.or_else(|| match known {
                            _ if !self.proxy.lives => {
                                Some("the proxy process does not run".to_owned())
                            }
                            Some(one) => one.problem.clone(),
                            None => None,
                        }),
                        sessions: known
                            .filter(|_| self.proxy.lives)
                            .map_or(0, |one| one.sessions),
                    }
                });
                PoolReport {
                    pool: name.clone(),
                    listeners: listeners.collect(),
                    endpoints: known.map_or_else(Vec::new, |pool| pool.endpoints.clone()),
                }
            })
            .collect()
    }
}
