//! What of a report is worth telling at once; pure.

use std::net::{IpAddr, SocketAddr};

use node_api::{NodeReport, PoolRef, RouterState};

/// The states in a report, without what changes all the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Essence {
    routers: Vec<Router>,
    listeners: Vec<(PoolRef, SocketAddr, bool, Option<String>)>,
    endpoints: Vec<(PoolRef, String, SocketAddr, bool)>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Router {
    pool: PoolRef,
    virtual_router_id: u8,
    sequence: i64,
    addresses: Vec<IpAddr>,
    interface: Option<String>,
    state: RouterState,
}

impl Essence {
    pub(super) fn of(report: &NodeReport) -> Self {
        let routers = report.virtual_routers.iter().map(|router| Router {
            pool: router.pool.clone(),
            virtual_router_id: router.virtual_router_id,
            sequence: router.sequence,
            addresses: router.addresses.clone(),
            interface: router.interface.clone(),
            state: router.state,
        });
        let listeners = report.pools.iter().flat_map(|pool| {
            pool.listeners.iter().map(|one| {
                let problem = one.problem.clone();
                (pool.pool.clone(), one.address, one.accepting, problem)
            })
        });
        let endpoints = report.pools.iter().flat_map(|pool| {
            pool.endpoints.iter().map(|one| {
                (
                    pool.pool.clone(),
                    one.upstream.clone(),
                    one.address,
                    one.usable,
                )
            })
        });
        Self {
            routers: routers.collect(),
            listeners: listeners.collect(),
            endpoints: endpoints.collect(),
            warnings: report.warnings.clone(),
        }
    }

    /// Whether virtual routers and listeners are the same; endpoints may differ.
    pub(super) fn has_same_states(&self, other: &Self) -> bool {
        self.routers == other.routers && self.listeners == other.listeners
    }
}
