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

/// A view that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<Id> {
    /// Which one.
    pub(super) id: Id,
    /// Up to where it has read the API server.
    pub(super) sequence: i64,
    /// Whether it reads from the API server now.
    pub(super) is_live: bool,
    /// It is of another history than what is carried out: its sequence is not to be compared.
    pub(super) is_other: bool,
}

/// Chooses among the views that are whole: the highest sequence, never a lower one than what was
/// `applied` before. Among equals one that reads from the API server, and then the one followed now.
/// One of another history is followed if
/// there is none of ours.
pub(super) fn choose<Id: Copy + Ord>(
    whole: impl IntoIterator<Item = Whole<Id>>,
    followed: Option<Id>,
    applied: i64,
) -> Choice<Id> {
    let (others, ours): (Vec<_>, Vec<_>) = whole.into_iter().partition(|one| one.is_other);
    let best = |views: Vec<Whole<Id>>| {
        let order = |one: &Whole<Id>| {
            let is_followed = Some(one.id) == followed;
            let id = std::cmp::Reverse(one.id);
            (one.sequence, one.is_live, is_followed, id)
        };
        views.into_iter().max_by_key(order)
    };
    match (best(ours), best(others)) {
        (Some(one), _) if one.sequence >= applied => Choice::Follow(one.id),
        (_, Some(other)) => Choice::Follow(other.id),
        (Some(one), None) => Choice::AllOlder(one.sequence),
        (None, None) => Choice::None,
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
            let views = whole.iter().map(|&(id, sequence)| Whole {
                id,
                sequence,
                is_live: true,
                is_other: false,
            });
            let chosen = choose(views, followed, applied);
            assert_eq!(chosen, expected, "{whole:?} {followed:?} {applied}");
        }
    }

    #[test]
    fn another_history_is_followed_where_there_is_none_of_ours() {
        use Choice::Follow;
        for (whole, followed, applied, expected) in [
            (&[(1, 3, true)][..], None, 9, Follow(1)),
            (&[(1, 3, true), (2, 4, true)], None, 9, Follow(2)),
            (&[(1, 30, true), (2, 9, false)], None, 9, Follow(2)),
            (&[(1, 3, true), (2, 8, false)], None, 9, Follow(1)),
            (&[(1, 3, true), (2, 3, true)], Some(2), 9, Follow(2)),
        ] {
            let views = whole.iter().map(|&(id, sequence, is_other)| Whole {
                id,
                sequence,
                is_live: true,
                is_other,
            });
            let chosen = choose(views, followed, applied);
            assert_eq!(chosen, expected, "{whole:?} {followed:?} {applied}");
        }
    }

    #[test]
    fn of_equals_one_that_reads_is_followed() {
        use Choice::Follow;
        for (whole, expected) in [
            ([(1, 3, false), (2, 3, true)], Follow(2)),
            ([(1, 4, false), (2, 3, true)], Follow(1)),
            ([(1, 3, false), (2, 3, false)], Follow(1)),
        ] {
            let views = whole.map(|(id, sequence, is_live)| Whole {
                id,
                sequence,
                is_live,
                is_other: false,
            });
            assert_eq!(choose(views, Some(1), 3), expected, "{whole:?}");
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
