//! What each node of a virtual router advertises.

use std::cmp::Reverse;

use node_api::RankedNode;

/// Nodes with their priorities, the highest first, and what each advertises while it has no usable
/// endpoint.
///
/// That is a function of nothing but these pairs, so that whoever has read committed priorities comes
/// to the same numbers: the best node has 10, or one less than the lowest priority if that is less,
/// and each further node one less, 1 at least. So a node without an endpoint is below every node
/// that has one, and among themselves they keep their order.
pub fn ranked_nodes(nodes: impl IntoIterator<Item = (String, u8)>) -> Vec<RankedNode> {
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by_key(|(_, priority)| Reverse(*priority));
    let lowest = nodes.last().map_or(u8::MAX, |(_, priority)| *priority);
    let base = lowest.saturating_sub(1).min(10);
    let ranks = 0_u8..=u8::MAX;
    let ranked = nodes.into_iter().zip(ranks);
    ranked
        .map(|((node_name, priority), rank)| RankedNode {
            node_name,
            priority,
            priority_without_endpoint: base.saturating_sub(rank).max(1),
            address: None,
        })
        .collect()
}

/// The planner's own priority for the node of a rank: 250, 235, ... 115. At 100 ms advertisements the
/// first Backup's skew is 8 ms then and each further one's 6 ms more (RFC 9568 section 6.1).
pub(crate) fn of_rank(rank: usize) -> u8 {
    let step = u8::try_from(rank).unwrap_or(u8::MAX).saturating_mul(15);
    250_u8.saturating_sub(step).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_endpoint(priorities: &[u8]) -> Vec<u8> {
        let nodes = priorities.iter();
        let nodes = nodes.map(|&priority| (format!("node{priority}"), priority));
        let ranked = ranked_nodes(nodes);
        ranked
            .iter()
            .map(|it| it.priority_without_endpoint)
            .collect()
    }

    #[test]
    fn ranks_without_endpoint_lie_below_every_priority() {
        let ten: Vec<u8> = (0..10).map(of_rank).collect();
        assert_eq!(ten, [250, 235, 220, 205, 190, 175, 160, 145, 130, 115]);
        assert_eq!(without_endpoint(&ten), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(without_endpoint(&[100, 50]), [10, 9]);
        assert_eq!(without_endpoint(&[9, 4, 3]), [2, 1, 1]);
        assert_eq!(without_endpoint(&[13, 12, 11]), [10, 9, 8]);
        assert_eq!(without_endpoint(&[100]), [10]);
        assert!(without_endpoint(&[]).is_empty());
    }

    #[test]
    fn the_order_of_the_pairs_decides_nothing() {
        let pairs = [("a", 50), ("b", 200), ("c", 120)].map(|(name, it)| (name.to_owned(), it));
        let mut reversed = pairs.clone();
        reversed.reverse();
        let ranked = ranked_nodes(pairs);
        assert_eq!(ranked, ranked_nodes(reversed));
        let names: Vec<_> = ranked.iter().map(|it| it.node_name.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
