//! Objects for tests, made from YAML as users make them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers, not all used by each test"
)]

pub mod controller;

use std::net::IpAddr;

use node_api::{NodeConfig, Pool, PoolRef};
use plan::{Inputs, Objects, Plan, Refusal, manifests, node_config, plan};

/// A pool as users write the simplest one; `virtual_ips` and `more` are YAML at their depth.
pub fn pool(name: &str, virtual_ips: &str, more: &str) -> String {
    format!(
        "---\napiVersion: wsha.dev/v1alpha1\nkind: WebSocketHAPool\nmetadata: {{name: {name}}}\nspec:\n  \
         virtualIPs:\n{virtual_ips}\n  gateways: {{nodeSelector: {{matchLabels: {{gw: \"yes\"}}}}}}\n  \
         listeners: [{{name: ws, port: 8020}}]\n  upstreams:\n  - name: echo\n    endpoints: [{{address: \
         10.0.0.1, port: 8010}}]\n{more}\n"
    )
}

/// Entries of `virtualIPs` with nothing but an address.
pub fn addresses(addresses: &[&str]) -> String {
    let lines = addresses.iter().map(|it| format!("  - address: {it}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A gateway node.
pub fn node(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{gw: \"yes\"}}}}\n"
    )
}

/// Gateway nodes.
pub fn nodes(names: &[&str]) -> String {
    names.iter().map(|name| node(name)).collect()
}

pub fn parse(texts: &[&str]) -> Result<Objects, Vec<Refusal>> {
    let files = texts.iter().enumerate();
    let files: Vec<_> = files
        .map(|(index, text)| (format!("file{index}.yaml"), (*text).to_owned()))
        .collect();
    manifests::parse(&files)
}

pub fn accepted(texts: &[&str]) -> Objects {
    parse(texts).unwrap_or_else(|refusals| {
        let lines: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

pub fn planned(texts: &[&str]) -> Plan {
    plan(&Inputs::plain_hosts(accepted(texts)))
}

/// The sentences with which the texts are refused.
pub fn refused(texts: &[&str]) -> Vec<String> {
    parse(texts)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub fn pool_ref(name: &str) -> PoolRef {
    PoolRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// Addresses of a pool with VRID and nodes in order.
pub fn routers(pool: &Pool) -> Vec<(IpAddr, u8, Vec<String>)> {
    let routers = pool.virtual_routers.iter().map(|router| {
        let nodes = router.nodes.iter().map(|node| node.node_name.clone());
        (
            router.addresses[0],
            router.virtual_router_id,
            nodes.collect(),
        )
    });
    routers.collect()
}

pub fn config(plan: &Plan, node: &str) -> NodeConfig {
    node_config(plan, node).unwrap()
}
