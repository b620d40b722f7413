//! What was planned before changes no plan: whatever is edited, in whatever order, the plan that is made again
//! is the one that is made from scratch.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::controller::{commit, controller, facts, objects, router};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use plan::{Cluster, Inputs, Outliner, Placer, Retirement, Shared, plan};
use proptest::{collection::vec, prelude::*};
use serde_json::json;

const NODES: [&str; 4] = ["a", "b", "c", "d"];
const POOLS: [&str; 4] = ["one", "two", "three", "four"];

/// Something happens to one of several objects; `u8` is the last byte of an address.
#[derive(Clone, Debug)]
enum Edit {
    Commit(usize),
    Appear(usize),
    Vanish(usize),
    Address(usize, u8),
    More(usize, u8),
    VirtualRouterId(usize, u8),
    Preferred(usize, usize),
    Port(usize, u16),
    Status(usize),
    Listed(usize, u8),
    Slice(usize, Vec<u8>),
    NoSlice(usize),
    Service(usize, u8),
    NoService(usize),
    Cordon(usize),
    Label(usize),
    NodeAddress(usize, u8),
    NodeStatus(usize),
    NodeGone(usize),
    Facts(usize, bool),
    Heard(usize, u8),
    Retire(usize, u8),
    Ranges(u8),
    Turned,
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = || 0..POOLS.len();
    let last = || 1_u8..9;
    prop_oneof![
        (0_usize..9).prop_map(Edit::Commit),
        which().prop_map(Edit::Appear),
        which().prop_map(Edit::Vanish),
        (which(), last()).prop_map(|(it, last)| Edit::Address(it, last)),
        (which(), last()).prop_map(|(it, last)| Edit::More(it, last)),
        (which(), last()).prop_map(|(it, last)| Edit::VirtualRouterId(it, last)),
        (which(), which()).prop_map(|(it, node)| Edit::Preferred(it, node)),
        (which(), 29_999_u16..30_002).prop_map(|(it, port)| Edit::Port(it, port)),
        which().prop_map(Edit::Status),
        (which(), last()).prop_map(|(it, last)| Edit::Listed(it, last)),
        (which(), vec(last(), 0..4)).prop_map(|(it, hosts)| Edit::Slice(it, hosts)),
        (which(), vec(last(), 0..4)).prop_map(|(it, hosts)| Edit::Slice(it, hosts)),
        which().prop_map(Edit::NoSlice),
        (which(), last()).prop_map(|(it, last)| Edit::Service(it, last)),
        which().prop_map(Edit::NoService),
        which().prop_map(Edit::Cordon),
        which().prop_map(Edit::Label),
        (which(), last()).prop_map(|(it, last)| Edit::NodeAddress(it, last)),
        which().prop_map(Edit::NodeStatus),
        which().prop_map(Edit::NodeGone),
        (which(), any::<bool>()).prop_map(|(it, near)| Edit::Facts(it, near)),
        (which(), last()).prop_map(|(it, vrid)| Edit::Heard(it, vrid)),
        (which(), last()).prop_map(|(it, last)| Edit::Retire(it, last)),
        last().prop_map(Edit::Ranges),
        Just(Edit::Turned),
    ]
}

/// Two pools with Services, two nodes.
fn start() -> Inputs {
    let mut objects = objects(&NODES[..2], &[]);
    objects.pools = vec![pool(0), pool(1)];
    objects.services = vec![service(0, 100), service(1, 101)];
    objects.endpoint_slices = vec![slice(0, &[1, 2]), slice(1, &[3])];
    let mut inputs = controller(objects);
    inputs.policy.cluster = Some(Cluster {
        service_ranges: Vec::new(),
        node_ports: 30_000..=32_767,
    });
    for node in NODES {
        let near = facts(&["10.0.0.0/24"]);
        inputs.facts.insert(node.to_owned(), near);
    }
    inputs
}

/// A pool with an address of its own, whose endpoints are those of the Service of its name.
fn pool(index: usize) -> Shared<crds::WebSocketHAPool> {
    let list = vec![
        format!("10.0.0.{}", 11 + index),
        format!("10.0.0.{}", 1 + index),
    ];
    let mut pool = objects(&NODES[..1], &[(POOLS[index], list)])
        .pools
        .remove(0);
    pool.metadata.name = Some(POOLS[index].to_owned());
    let upstream = &mut pool.spec.upstreams[0];
    upstream.endpoints.clear();
    let reference = json!({"name": POOLS[index], "port": 80});
    upstream.service = serde_json::from_value(reference).unwrap();
    pool
}

fn service(index: usize, last: u8) -> Shared<Service> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": POOLS[index], "namespace": "default"},
        "spec": {"clusterIP": format!("10.0.0.{last}"), "ports": [{"port": 80}]},
    }))
    .unwrap();
    service.into()
}

fn slice(index: usize, hosts: &[u8]) -> Shared<EndpointSlice> {
    let endpoints = hosts.iter();
    // Some of them are virtual addresses of pools.
    let endpoints = endpoints.map(|last| json!({"addresses": [format!("10.0.0.{last}")]}));
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": POOLS[index],
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": POOLS[index]},
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"port": 8010}],
    }))
    .unwrap();
    slice.into()
}

/// The one of `all` with that name.
fn of_name<'a, T>(
    all: &'a mut [Shared<T>],
    name: &str,
    name_of: impl Fn(&T) -> Option<&str>,
) -> Option<&'a mut Shared<T>> {
    all.iter_mut().find(|it| name_of(it) == Some(name))
}

fn pool_of(inputs: &mut Inputs, which: usize) -> Option<&mut Shared<crds::WebSocketHAPool>> {
    let all = &mut inputs.objects.pools;
    of_name(all, POOLS[which], |it| it.metadata.name.as_deref())
}

fn node_of(inputs: &mut Inputs, which: usize) -> Option<&mut Shared<Node>> {
    let all = &mut inputs.objects.nodes;
    of_name(all, NODES[which], |it| it.metadata.name.as_deref())
}

#[allow(clippy::too_many_lines, reason = "one line or two for each edit")]
fn make(inputs: &mut Inputs, edit: &Edit) {
    match edit {
        Edit::Commit(most) => {
            let committed = commit(&plan(inputs)).routers;
            inputs
                .committed
                .routers
                .extend(committed.into_iter().take(*most));
        }
        Edit::Appear(which) => {
            if pool_of(inputs, *which).is_none() {
                inputs.objects.pools.push(pool(*which));
            }
            if node_of(inputs, *which).is_none() {
                let node = objects(&[NODES[*which]], &[]).nodes.remove(0);
                inputs.objects.nodes.push(node);
            }
        }
        Edit::Vanish(which) => {
            let name = Some(POOLS[*which]);
            let pools = &mut inputs.objects.pools;
            pools.retain(|pool| pool.metadata.name.as_deref() != name);
        }
        Edit::Address(which, last) => {
            if let Some(pool) = pool_of(inputs, *which) {
                pool.spec.virtual_ips[0].address = format!("10.0.0.{last}");
            }
        }
        Edit::More(which, last) => {
            if let Some(pool) = pool_of(inputs, *which) {
                pool.spec.virtual_ips[0].additional_addresses = vec![format!("10.0.0.{last}")];
            }
        }
        Edit::VirtualRouterId(which, last) => {
            if let Some(pool) = pool_of(inputs, *which) {
                pool.spec.virtual_ips[0].virtual_router_id = Some(*last);
            }
        }
        Edit::Preferred(which, node) => {
            if let Some(pool) = pool_of(inputs, *which) {
                let node = NODES[*node].to_owned();
                pool.spec.virtual_ips[0].preferred_node_name = Some(node);
            }
        }
        Edit::Port(which, port) => {
            if let Some(pool) = pool_of(inputs, *which) {
                pool.spec.listeners[0].port = *port;
            }
        }
        Edit::Status(which) => {
            if let Some(pool) = pool_of(inputs, *which) {
                pool.status.get_or_insert_default().sessions = Some(7);
            }
        }
        Edit::Listed(which, last) => {
            if let Some(pool) = pool_of(inputs, *which) {
                let listed = json!([{"address": format!("10.0.0.{last}"), "port": 80}]);
                let upstream = &mut pool.spec.upstreams[0];
                upstream.service = None;
                upstream.endpoints = serde_json::from_value(listed).unwrap();
            }
        }
        Edit::Slice(which, hosts) => {
            let new = slice(*which, hosts);
            let slices = &mut inputs.objects.endpoint_slices;
            match of_name(slices, POOLS[*which], |it| it.metadata.name.as_deref()) {
                Some(stands) => *stands = new,
                None => slices.push(new),
            }
        }
        Edit::NoSlice(which) => {
            let name = Some(POOLS[*which]);
            let slices = &mut inputs.objects.endpoint_slices;
            slices.retain(|slice| slice.metadata.name.as_deref() != name);
        }
        Edit::Service(which, last) => {
            let new = service(*which, *last);
            let services = &mut inputs.objects.services;
            match of_name(services, POOLS[*which], |it| it.metadata.name.as_deref()) {
                Some(stands) => *stands = new,
                None => services.push(new),
            }
        }
        Edit::NoService(which) => {
            let name = Some(POOLS[*which]);
            let services = &mut inputs.objects.services;
            services.retain(|service| service.metadata.name.as_deref() != name);
        }
        Edit::Cordon(which) => {
            if let Some(node) = node_of(inputs, *which) {
                let spec = node.spec.get_or_insert_default();
                spec.unschedulable = Some(spec.unschedulable != Some(true));
            }
        }
        Edit::Label(which) => {
            if let Some(node) = node_of(inputs, *which) {
                node.metadata.labels = None;
            }
        }
        Edit::NodeAddress(which, last) => {
            if let Some(node) = node_of(inputs, *which) {
                let status = json!({"addresses": [
                    {"type": "InternalIP", "address": format!("10.0.0.{last}")},
                ]});
                node.status = serde_json::from_value(status).unwrap();
            }
        }
        Edit::NodeStatus(which) => {
            if let Some(node) = node_of(inputs, *which) {
                node.status.get_or_insert_default().phase = Some("Running".to_owned());
            }
        }
        Edit::NodeGone(which) => {
            let name = Some(NODES[*which]);
            let nodes = &mut inputs.objects.nodes;
            nodes.retain(|node| node.metadata.name.as_deref() != name);
        }
        Edit::Facts(which, near) => {
            let prefix = if *near { "10.0.0.0/24" } else { "10.0.0.0/29" };
            let name = NODES[*which].to_owned();
            inputs.facts.insert(name, facts(&[prefix]));
        }
        Edit::Heard(which, vrid) => {
            let facts = inputs.facts.get_mut(NODES[*which]).unwrap();
            facts.interfaces[0].heard = vec![router(*vrid, "10.0.0.77", "10.0.0.88")];
        }
        Edit::Retire(which, last) => inputs.committed.retirements.push(Retirement {
            additional_addresses: Vec::new(),
            pool: common::pool_ref(POOLS[*which]),
            address: format!("10.0.0.{last}").parse().unwrap(),
            virtual_router_id: *last,
            nodes: [NODES[0].to_owned()].into(),
        }),
        Edit::Ranges(last) => {
            let range = format!("10.0.0.1-10.0.0.{}", 5 + last);
            inputs.policy.grant.virtual_addresses = Some(vec![range.parse().unwrap()]);
        }
        Edit::Turned => {
            inputs.objects.pools.reverse();
            inputs.objects.nodes.reverse();
            inputs.objects.endpoint_slices.reverse();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_was_planned_before_changes_no_plan(edits in vec((edit(), any::<bool>()), 1..25)) {
        let mut inputs = start();
        let (mut outliner, mut placer) = (Outliner::default(), Placer::default());
        placer.place(&outliner.outline(Arc::new(inputs.clone())));
        for (edit, is_placed) in edits {
            make(&mut inputs, &edit);
            let outline = outliner.outline(Arc::new(inputs.clone()));
            let from_scratch = plan(&inputs);
            for (name, pool) in &from_scratch.pools {
                let mut pool = node_api::Pool::clone(pool);
                pool.virtual_routers.iter_mut().for_each(|router| router.nodes.clear());
                prop_assert_eq!(outline.pool(name).map(|it| &**it), Some(&pool));
            }
            // Not every outline is placed: who is slow takes the newest.
            if is_placed {
                prop_assert_eq!(placer.place(&outline), from_scratch, "{:?}", edit);
            }
        }
    }
}

/// What is told of a pool is the same object until it is another: nobody needs to compare it.
#[test]
fn endpoints_change_nothing_but_their_pool() {
    let mut inputs = start();
    let (mut outliner, mut placer) = (Outliner::default(), Placer::default());
    let before = outliner.outline(Arc::new(inputs.clone()));
    let planned = placer.place(&before);
    make(&mut inputs, &Edit::Slice(0, vec![7]));
    let after = outliner.outline(Arc::new(inputs.clone()));
    let planned_again = placer.place(&after);
    assert!(after.is_settled_as(&before));
    for (name, is_same) in [("one", false), ("two", true)] {
        let name = common::pool_ref(name);
        let (one, other) = (before.pool(&name).unwrap(), after.pool(&name).unwrap());
        assert_eq!(Arc::ptr_eq(one, other), is_same, "{name}");
        let (one, other) = (&planned.pools[&name], &planned_again.pools[&name]);
        assert_eq!(Arc::ptr_eq(one, other), is_same, "{name}");
    }
    make(&mut inputs, &Edit::Port(1, 9));
    let edited = outliner.outline(Arc::new(inputs));
    assert!(!edited.is_settled_as(&after));
}
