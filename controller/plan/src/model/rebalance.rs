//! Sessions that are moved, as users write it.

use crds::{LoadBalancingType, RebalanceMode};
use node_api::Rebalance;

use crate::Problem;

/// `rebalance` of the upstream at `path`; `None` where nothing is moved.
pub(super) fn rebalance(
    problems: &mut Vec<Problem>,
    path: &str,
    upstream: &crds::Upstream,
) -> Option<Rebalance> {
    let spec = upstream.rebalance.as_ref()?;
    let path = format!("{path}.rebalance");
    for (field, percent) in [
        ("percentPerMinute", spec.percent_per_minute),
        ("tolerancePercent", spec.tolerance_percent),
    ] {
        if !(1..=100).contains(&percent) {
            problems.push(Problem::new(
                format!("{path}.{field}"),
                format!("is {percent}; use a number from 1 to 100"),
            ));
        }
    }
    if spec.mode == RebalanceMode::Disabled {
        return None;
    }
    if upstream.load_balancing.type_ == LoadBalancingType::ConsistentHash {
        problems.push(Problem::new(
            path,
            "has no meaning with loadBalancing.type ConsistentHash, by which each client comes back \
             to its server; remove it or choose another type",
        ));
    }
    Some(Rebalance {
        percent_per_minute: spec.percent_per_minute,
        tolerance_percent: spec.tolerance_percent,
    })
}
