//! What a pool allows: who is turned away and how sessions end that do too much.

mod admission;
mod frames;
mod gateway;
mod time;

use proxy::{Limit, Snapshot};

/// How often somebody ran into `limit`.
pub(crate) fn hits(snapshot: &Snapshot, limit: Limit) -> u64 {
    let limits = snapshot.limits.iter();
    limits
        .filter(|entry| entry.limit == limit)
        .map(|entry| entry.hits)
        .sum()
}
