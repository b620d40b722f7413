//! Inputs as a controller gives them, and what it reads from a plan.

use std::{collections::BTreeMap, net::IpAddr};

use plan::{
    Committed, CommittedRouter, HeardRouter, Inputs, InterfaceFacts, NodeFacts, Objects, Plan,
    Policy,
};

use super::{accepted, addresses, nodes, pool, pool_ref, routers};

/// Objects of texts that files would not be accepted with as they stand.
pub fn objects(nodes_of: &[&str], pools: &[(&str, Vec<String>)]) -> Objects {
    let mut objects = Objects {
        nodes: accepted(&[&nodes(nodes_of)]).nodes,
        ..Objects::default()
    };
    for (name, list) in pools {
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let entries = addresses(&list).replace('@', "\n    virtualRouterID: ");
        // One at a time, with VRIDs that files need and that are taken out again.
        let text = pool(name, &entries, "").replace("10.0.0.1,", "172.16.0.1,");
        let spec = text.split("\nspec:\n").nth(1).unwrap();
        let mut read = accepted(&[
            &nodes(nodes_of),
            &pool(name, "  - address: 203.0.113.1", ""),
        ])
        .pools
        .remove(0);
        read.spec = serde_saphyr::from_str(spec).unwrap();
        objects.pools.push(read);
    }
    objects
}

pub fn controller(objects: Objects) -> Inputs {
    Inputs {
        policy: Policy {
            virtual_router_ids: Some(1..=255),
            ..Policy::plain_hosts()
        },
        ..Inputs::plain_hosts(objects)
    }
}

/// What the leader would write into status.
pub fn commit(plan: &Plan) -> Committed {
    let mut committed = Committed::default();
    for (name, pool) in &plan.pools {
        let addresses = pool.virtual_routers.iter().map(|router| &router.addresses);
        for ((address, virtual_router_id, nodes), all) in routers(pool).into_iter().zip(addresses) {
            let router = CommittedRouter {
                additional_addresses: all[1..].to_vec(),
                virtual_router_id,
                nodes,
            };
            committed.routers.insert((name.clone(), address), router);
        }
    }
    committed
}

pub fn by_address(plan: &Plan) -> BTreeMap<IpAddr, (u8, Vec<String>)> {
    let routers = plan.pools.values().flat_map(|pool| routers(pool));
    routers
        .map(|(address, vrid, nodes)| (address, (vrid, nodes)))
        .collect()
}

pub fn facts(prefixes: &[&str]) -> NodeFacts {
    let interface = |(index, prefix): (usize, &&str)| InterfaceFacts {
        name: format!("eth{index}"),
        prefixes: vec![prefix.parse().unwrap()],
        ..InterfaceFacts::default()
    };
    NodeFacts {
        interfaces: prefixes.iter().enumerate().map(interface).collect(),
    }
}

/// A virtual router that `source` advertises for `address`.
pub fn router(virtual_router_id: u8, source: &str, address: &str) -> HeardRouter {
    HeardRouter {
        virtual_router_id,
        source: source.parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
    }
}

/// The sentences about what leads nowhere in a pool.
pub fn unresolved(plan: &Plan, name: &str) -> Vec<String> {
    let problems = plan.unresolved.get(&pool_ref(name)).into_iter().flatten();
    problems.map(ToString::to_string).collect()
}

/// The sentences about a pool that was rejected.
pub fn rejected(plan: &Plan, name: &str) -> Vec<String> {
    let problems = plan.rejected.get(&pool_ref(name)).into_iter().flatten();
    problems.map(ToString::to_string).collect()
}
