//! The part of a plan that one node carries out.

use node_api::{Keys, NodeConfig, Pool};

use crate::Plan;

/// The plan knows no such node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no Node is named {name}; {}", present(.nodes))]
pub struct UnknownNode {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub nodes: Vec<String>,
}

fn present(nodes: &[String]) -> String {
    if nodes.is_empty() {
        "there is no Node at all".to_owned()
    } else {
        format!("those present are {}", nodes.join(", "))
    }
}

/// What `node_name` must do: the pools in which it is a candidate for at least one address. The key
/// material for them is not the planner's.
pub fn node_config(plan: &Plan, node_name: &str) -> Result<NodeConfig, UnknownNode> {
    if !plan.nodes.contains(node_name) {
        return Err(UnknownNode {
            name: node_name.to_owned(),
            nodes: plan.nodes.iter().cloned().collect(),
        });
    }
    let pools = plan.pools.iter().filter_map(|(name, pool)| {
        let virtual_routers: Vec<_> = pool
            .virtual_routers
            .iter()
            .filter(|router| router.candidate(node_name).is_some())
            .cloned()
            .collect();
        (!virtual_routers.is_empty()).then(|| {
            let pool = Pool {
                virtual_routers,
                ..Pool::clone(pool)
            };
            (name.clone(), pool)
        })
    });
    Ok(NodeConfig {
        node_name: node_name.to_owned(),
        pools: pools.collect(),
        keys: Keys::default(),
    })
}
