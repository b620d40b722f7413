//! Which replica is followed, and what is newer: the state of one replica never undoes what another
//! had told of a later commitment; pure.

use node_api::Pool;

/// Which view to carry out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice<Id> {
    /// This one.
    Follow(Id),
    /// All that are whole are older than what is carried out; this is the highest sequence.
    AllOlder(i64),
    /// No view is whole.
    None,
}

/// Chooses among the views that are whole, each with its sequence: the highest one, never a lower one
/// than what was `applied` before. Among equals the one followed now stays.
pub(super) fn choose<Id: Copy + Ord>(
    whole: impl IntoIterator<Item = (Id, i64)>,
    followed: Option<Id>,
    applied: i64,
) -> Choice<Id> {
    let best = whole
        .into_iter()
        .max_by_key(|&(id, sequence)| (sequence, Some(id) == followed, std::cmp::Reverse(id)));
    match best {
        Some((id, sequence)) if sequence >= applied => Choice::Follow(id),
        Some((_, sequence)) => Choice::AllOlder(sequence),
        None => Choice::None,
    }
}

/// `told` with the virtual routers of `applied` in place of older ones; `None`: none is older.
pub(super) fn newest_routers(told: &Pool, applied: &Pool) -> Option<Pool> {
    let newer = told
        .virtual_routers
        .iter()
        .enumerate()
        .filter_map(|(at, router)| {
            let address = router.addresses.first()?;
            let before = applied
                .virtual_routers
                .iter()
                .find(|before| before.addresses.first() == Some(address))?;
            (before.sequence > router.sequence).then(|| (at, before.clone()))
        });
    let newer: Vec<_> = newer.collect();
    if newer.is_empty() {
        return None;
    }
    let mut pool = told.clone();
    for (at, before) in newer {
        if let Some(router) = pool.virtual_routers.get_mut(at) {
            *router = before;
        }
    }
    Some(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stream::samples::pool;

    #[test]
    fn the_highest_sequence_is_followed_and_never_an_older_one() {
        use Choice::{AllOlder, Follow, None as Nothing};
        for (whole, followed, applied, expected) in [
            (&[][..], None, 0, Nothing),
            (&[], Some(1), 7, Nothing),
            (&[(1, 0)], None, 0, Follow(1)),
            (&[(1, 3), (2, 4)], Some(1), 3, Follow(2)),
            (&[(1, 3), (2, 4)], Some(2), 4, Follow(2)),
            (&[(1, 4), (2, 4)], Some(2), 4, Follow(2)),
            (&[(1, 4), (2, 4)], Some(9), 4, Follow(1)),
            (&[(1, 4), (2, 4)], None, 4, Follow(1)),
            (&[(1, 3), (2, 4)], Some(1), 5, AllOlder(4)),
            (&[(1, 3)], Some(1), 4, AllOlder(3)),
        ] {
            let chosen = choose(whole.iter().copied(), followed, applied);
            assert_eq!(chosen, expected, "{whole:?} {followed:?} {applied}");
        }
    }

    #[test]
    fn older_routers_are_ignored_one_by_one() {
        let applied = pool(5, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let mut told = pool(5, &["10.0.0.1", "10.0.0.2", "10.0.0.4"]);
        told.listeners[0].port = 81;
        assert_eq!(newest_routers(&told, &applied), None);
        told.virtual_routers[0].sequence = 4;
        told.virtual_routers[0].virtual_router_id = 99;
        told.virtual_routers[1].sequence = 6;
        told.virtual_routers[1].virtual_router_id = 98;
        told.virtual_routers[2].sequence = 1;
        let newest = newest_routers(&told, &applied).unwrap();
        let seen: Vec<_> = newest
            .virtual_routers
            .iter()
            .map(|router| (router.sequence, router.virtual_router_id))
            .collect();
        assert_eq!(seen, [(5, 1), (6, 98), (1, 4)]);
        assert_eq!(newest.listeners, told.listeners, "the rest is as told");
    }
}
