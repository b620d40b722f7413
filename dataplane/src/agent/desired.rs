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
                tracking: pool.tracking.clone(),
            })
        });
        routers.collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(of_pool).collect()
}

/// Where the proxy shall accept.
pub(super) fn listeners(config: &NodeConfig) -> Listeners {
    let of_pool = |(name, pool): (&PoolRef, &Pool)| {
        let addresses = pool.virtual_routers.iter();
        let addresses = addresses.flat_map(VirtualRouter::client_addresses);
        let pairs = addresses.flat_map(|address| {
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

/// How many virtual routers of `old` leave with `new`; one with another VRID, other addresses or
/// another hardware address is another virtual router.
pub(super) fn leaving(old: &NodeConfig, new: &NodeConfig) -> usize {
    let keys = |config| {
        let key = |router: Router| {
            let VirtualRouter {
                virtual_router_id,
                addresses,
                mac_address,
                ..
            } = router.settings;
            (virtual_router_id, addresses, mac_address)
        };
        let routers = routers(config, &BTreeSet::new()).into_iter();
        routers.map(key).collect::<HashSet<_>>()
    };
    keys(old).difference(&keys(new)).count()
}

/// `new`, and from `old` the addresses and listeners that `new` no longer has, with their keys: what the
/// proxy serves until vrrp has given them up.
pub(super) fn union(old: &NodeConfig, new: &NodeConfig) -> NodeConfig {
    let mut union = new.clone();
    for (name, secret) in &old.keys.secrets {
        let secrets = &mut union.keys.secrets;
        secrets
            .entry(name.clone())
            .or_insert_with(|| secret.clone());
    }
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

#[cfg(test)]
pub(super) mod tests {
    use node_api::{Drain, Heartbeat, Preemption, RankedNode, VrrpVersion};

    use super::*;

    fn name(name: &str) -> PoolRef {
        PoolRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn pool(addresses: &[&str], ports: &[u16]) -> Pool {
        let router = |address: &&str| VirtualRouter {
            virtual_router_id: address.rsplit('.').next().unwrap().parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            interface: None,
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(100),
            preemption: Preemption::Disabled,
            mac_address: node_api::MacAddress::Interface,
            nodes: vec![RankedNode {
                node_name: "server1".to_owned(),
                priority: 250,
                priority_without_endpoint: 10,
                address: None,
            }],
            peering: node_api::Peering::Multicast,
            password: None,
            sequence: 0,
        };
        Pool {
            virtual_routers: addresses.iter().map(router).collect(),
            listeners: ports
                .iter()
                .map(|port| Listener {
                    name: format!("p{port}"),
                    port: *port,
                    allowed_origins: Vec::new(),
                    trusted_proxies: Vec::new(),
                    proxy_protocol: node_api::ProxyProtocolMode::Disabled,
                    routes: Vec::new(),
                    plain_requests: None,
                    tls: None,
                })
                .collect(),
            upstreams: Vec::new(),
            heartbeat: Heartbeat {
                interval: Duration::ZERO,
                timeout: Duration::ZERO,
            },
            drain: Drain {
                timeout: Duration::ZERO,
                sessions_per_second: None,
                close_code: 1001,
            },
            tracking: node_api::Tracking::default(),
            access_log: None,
            limits: node_api::Limits::default(),
            requires: Vec::new(),
        }
    }

    /// One pool with a virtual router for each address.
    pub(in crate::agent) fn config(addresses: &[&str], ports: &[u16]) -> NodeConfig {
        NodeConfig {
            node_name: "server1".to_owned(),
            pools: [(name("chat"), pool(addresses, ports))].into(),
            keys: node_api::Keys::default(),
        }
    }

    fn at(texts: &[&str]) -> BTreeSet<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn served(config: &NodeConfig) -> BTreeSet<SocketAddr> {
        listeners(config).into_keys().collect()
    }

    #[test]
    fn each_listener_is_on_each_address() {
        let config = config(&["10.0.0.1", "10.0.0.2"], &[80, 81]);
        let all = at(&["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.2:81"]);
        assert_eq!(served(&config), all);
        let routers = routers(&config, &BTreeSet::new());
        assert_eq!(routers.len(), 2);
        assert!(routers.iter().all(|router| router.ports == [80, 81]
            && router.priority == 250
            && router.priority_without_endpoint == 10));
    }

    #[test]
    fn a_port_that_was_added_under_way_waits_until_it_accepts() {
        let old = config(&["10.0.0.1"], &[80]);
        let new = config(&["10.0.0.1", "10.0.0.2"], &[80, 81]);
        let added = added_under_way(&old, &new);
        assert_eq!(
            added,
            at(&["10.0.0.1:81"]),
            "the other router is new as a whole"
        );
        let ports: Vec<_> = routers(&new, &added)
            .into_iter()
            .map(|one| one.ports)
            .collect();
        assert_eq!(ports, [vec![80], vec![80, 81]]);
    }

    #[test]
    fn a_router_leaves_for_another_vrid_or_address_and_for_no_other_edit() {
        let old = config(&["10.0.0.1", "10.0.0.2"], &[80]);
        let mut new = config(&["10.0.0.1", "10.0.0.2"], &[81]);
        let router = &mut new.pools.get_mut(&name("chat")).unwrap().virtual_routers[0];
        router.advertisement_interval *= 2;
        assert_eq!(leaving(&old, &new), 0);
        let router = &mut new.pools.get_mut(&name("chat")).unwrap().virtual_routers[0];
        router.virtual_router_id += 100;
        assert_eq!(leaving(&old, &new), 1);
        assert_eq!(leaving(&old, &config(&["10.0.0.3"], &[80])), 2);
    }

    #[test]
    fn until_vrrp_has_changed_the_proxy_serves_what_goes() {
        let old = config(&["10.0.0.1", "10.0.0.2"], &[80, 81]);
        let new = config(&["10.0.0.2", "10.0.0.3"], &[81, 82]);
        let both = union(&old, &new);
        assert!(served(&both).is_superset(&served(&old)));
        assert!(served(&both).is_superset(&served(&new)));
        assert_eq!(union(&new, &new), new);

        let gone = NodeConfig {
            pools: BTreeMap::new(),
            ..old.clone()
        };
        assert_eq!(union(&old, &gone), old, "a pool that goes stays as it is");
    }

    #[test]
    fn an_address_that_changes_pools_is_served_by_one_of_them() {
        let old = config(&["10.0.0.1", "10.0.0.2"], &[80]);
        let mut new = config(&["10.0.0.2"], &[80]);
        new.pools.insert(name("other"), pool(&["10.0.0.1"], &[80]));
        assert_eq!(union(&old, &new), new);
    }
}
