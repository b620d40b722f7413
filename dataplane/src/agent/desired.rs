//! From the node's configuration to what each process is told; pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use node_api::{Listener, NodeConfig, Pool, PoolRef, VirtualRouter};

use crate::ipc::Router;

/// Listener addresses with the pool and listener they belong to.
pub(super) type Listeners = BTreeMap<SocketAddr, (PoolRef, String)>;

/// What vrrp is told. Ports of `not_yet` are left out: they were added under a running virtual
/// router and have not accepted so far.
pub(super) fn routers(config: &NodeConfig, not_yet: &BTreeSet<SocketAddr>) -> Vec<Router> {
    let of_pool = |(name, pool): (&PoolRef, &Pool)| {
        let ports_of = |router: &VirtualRouter| {
            let accepted = |port: &u16| {
                let mut addresses = router.addresses.iter();
                !addresses.any(|address| not_yet.contains(&SocketAddr::new(*address, *port)))
            };
            let ports: BTreeSet<u16> = pool.listeners.iter().map(|one| one.port).collect();
            ports.into_iter().filter(accepted).collect()
        };
        let routers = pool.virtual_routers.iter().filter_map(|settings| {
            let candidate = settings.candidate(&config.node_name)?;
            Some(Router {
                pool: name.clone(),
                settings: settings.clone(),
                priority: candidate.priority,
                priority_without_endpoint: candidate.priority_without_endpoint,
                ports: ports_of(settings),
            })
        });
        routers.collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(of_pool).collect()
}

/// Where the proxy shall accept.
pub(super) fn listeners(config: &NodeConfig) -> Listeners {
    let of_pool = |(name, pool): (&PoolRef, &Pool)| {
        let pairs = addresses(pool).into_iter().flat_map(|address| {
            let of_address = |listener: &Listener| {
                let at = SocketAddr::new(address, listener.port);
                (at, (name.clone(), listener.name.clone()))
            };
            pool.listeners.iter().map(of_address).collect::<Vec<_>>()
        });
        pairs.collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(of_pool).collect()
}

/// The shortest advertisement interval; `None` without virtual routers.
pub(super) fn shortest_interval(config: &NodeConfig) -> Option<Duration> {
    let routers = config.pools.values().flat_map(|pool| &pool.virtual_routers);
    routers.map(|router| router.advertisement_interval).min()
}

/// Listeners that `new` adds to addresses that `old` has already.
pub(super) fn added_under_way(old: &NodeConfig, new: &NodeConfig) -> BTreeSet<SocketAddr> {
    let before = listeners(old);
    let held: HashSet<IpAddr> = old.pools.values().flat_map(addresses).collect();
    listeners(new)
        .into_keys()
        .filter(|at| held.contains(&at.ip()) && !before.contains_key(at))
        .collect()
}

/// `new`, and from `old` the addresses and listeners that `new` no longer has: what the proxy serves
/// until vrrp has given them up.
pub(super) fn union(old: &NodeConfig, new: &NodeConfig) -> NodeConfig {
    let mut union = new.clone();
    let taken: HashSet<IpAddr> = new.pools.values().flat_map(addresses).collect();
    for (name, before) in &old.pools {
        let leaving = before.virtual_routers.iter().filter(|router| {
            // An address that moved to another router or pool is served by that one at once.
            !router
                .addresses
                .iter()
                .any(|address| taken.contains(address))
        });
        let leaving: Vec<_> = leaving.cloned().collect();
        match union.pools.get_mut(name) {
            Some(pool) => {
                pool.virtual_routers.extend(leaving);
                let gone = |listener: &&Listener| {
                    !pool
                        .listeners
                        .iter()
                        .any(|other| other.port == listener.port)
                };
                let gone: Vec<_> = before.listeners.iter().filter(gone).cloned().collect();
                pool.listeners.extend(gone);
            }
            None if leaving.is_empty() => {}
            None => {
                let pool = Pool {
                    virtual_routers: leaving,
                    ..before.clone()
                };
                union.pools.insert(name.clone(), pool);
            }
        }
    }
    union
}

fn addresses(pool: &Pool) -> Vec<IpAddr> {
    let routers = pool.virtual_routers.iter();
    routers
        .flat_map(|router| router.addresses.clone())
        .collect()
}
