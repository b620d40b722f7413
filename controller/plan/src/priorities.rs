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

/// The planner's own priority for the node of a rank: 250, 244, and then 15 less each, 229 ... 124.
///
/// The skew of a Backup is the greatest part of what a hand-over costs (RFC 9568 section 6.1): at 100 ms
/// advertisements the first one's is 4.7 ms, and each further one's 6 ms more, so that two heirs rarely
/// rise together. The first Backup may be nearer to the Active node than to the next Backup, as those two
/// race only where all start at once.
pub(crate) fn of_rank(rank: usize) -> u8 {
    let Some(backup) = rank.checked_sub(1) else {
        return 250;
    };
    let step = u8::try_from(backup).unwrap_or(u8::MAX).saturating_mul(15);
    244_u8.saturating_sub(step).max(1)
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
        assert_eq!(ten, [250, 244, 229, 214, 199, 184, 169, 154, 139, 124]);
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
