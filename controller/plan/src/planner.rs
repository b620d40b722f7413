//! From inputs to a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use node_api::{Pool, PoolRef};

use crate::{Inputs, Outliner, Placer, Problem};

/// Who does what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Names of all nodes that exist, members of a pool or not.
    pub nodes: BTreeSet<String>,
    /// What was accepted, each with all its virtual routers.
    pub pools: BTreeMap<PoolRef, Arc<Pool>>,
    /// What was not, and why; none of these is planned in part.
    pub rejected: BTreeMap<PoolRef, Vec<Problem>>,
    /// What leads nowhere now in pools that were accepted, and may lead somewhere later: a Service,
    /// a node, an endpoint that is refused.
    pub unresolved: BTreeMap<PoolRef, Vec<Problem>>,
}

/// Plans everything; the same inputs give the same plan, whatever the order of objects.
pub fn plan(inputs: &Inputs) -> Plan {
    let outline = Outliner::default().outline(Arc::new(inputs.clone()));
    Placer::default().place(&outline)
}
