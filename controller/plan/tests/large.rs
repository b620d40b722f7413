//! A large installation is planned: with costs that grow with the square of it this would not end.

mod common;

use std::time::{Duration, Instant};

use common::controller::{commit, controller, facts, objects};
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};
use plan::plan;

const POOLS: usize = 1_000;
const ENDPOINTS_PER_POOL: usize = 10;

/// A pool for each Service, addresses in 32 subnets, twelve nodes in all of them.
#[test]
fn a_thousand_pools_are_planned() {
    let names: Vec<String> = (0..12).map(|index| format!("node{index:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut objects = objects(&names, &[("chat", vec!["10.0.0.1".to_owned()])]);
    let template = objects.pools.remove(0);
    for index in 0..POOLS {
        let name = format!("pool{index:04}");
        let mut pool = template.clone();
        pool.metadata.name = Some(name.clone());
        pool.spec.virtual_ips[0].address = format!("10.0.{}.{}", index % 32, 1 + index / 32);
        let upstream = &mut pool.spec.upstreams[0];
        upstream.endpoints.clear();
        let reference = serde_json::json!({"name": name, "port": 80});
        upstream.service = serde_json::from_value(reference).ok();
        objects.pools.push(pool);

        let mut service = Service::default();
        service.metadata.name = Some(name.clone());
        let port = ServicePort {
            port: 80,
            ..ServicePort::default()
        };
        service.spec.get_or_insert_default().ports = Some(vec![port]);
        objects.services.push(service.into());

        let mut slice = EndpointSlice {
            address_type: "IPv4".to_owned(),
            ..EndpointSlice::default()
        };
        slice.metadata.name = Some(name.clone());
        let labels = slice.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/service-name".to_owned(), name);
        let port = EndpointPort {
            port: Some(8010),
            ..EndpointPort::default()
        };
        slice.ports = Some(vec![port]);
        let addresses = (0..ENDPOINTS_PER_POOL)
            .map(|host| format!("10.{}.{}.{host}", 1 + index / 256, index % 256));
        slice.endpoints = addresses
            .map(|address| Endpoint {
                addresses: vec![address],
                ..Endpoint::default()
            })
            .collect();
        objects.endpoint_slices.push(slice.into());
    }
    let mut inputs = controller(objects);
    let prefixes: Vec<String> = (0..32).map(|net| format!("10.0.{net}.2/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    for name in names {
        inputs.facts.insert(name.to_owned(), facts(&prefixes));
    }

    let start = Instant::now();
    let first = plan(&inputs);
    inputs.committed = commit(&first);
    let again = plan(&inputs);
    let took = start.elapsed();
    println!("twice {POOLS} pools: {took:?}");
    assert!(took < Duration::from_mins(5), "{took:?}");

    assert!(again == first, "what is committed is planned again");
    assert_eq!(first.pools.len(), POOLS);
    assert!(first.unresolved.is_empty());
    for pool in first.pools.values() {
        assert_eq!(pool.upstreams[0].endpoints.len(), ENDPOINTS_PER_POOL);
        assert_eq!(pool.virtual_routers[0].nodes.len(), 10);
    }
}
