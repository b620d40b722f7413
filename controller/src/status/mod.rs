//! What users see of a pool: reports of its nodes, merged.
//!
//! Pure. What is committed comes from [`crate::commit`]; everything else here is observed and is
//! never planned from.

mod conditions;
mod news;
mod observed;

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Tally, VirtualIPStatus, WebSocketHAPool, WebSocketHAPoolStatus};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use node_api::EndpointPhase;

use crate::{desired::Desired, snapshot::Snapshot};

pub use conditions::{ACCEPTED, DEGRADED, PROGRAMMED, READY};
pub use news::{News, news};
pub use observed::Observed;

/// The status of `pool` as it should stand, `committed` being its virtual routers as they stand or
/// are about to be written.
pub fn status(
    pool: &WebSocketHAPool,
    committed: &[VirtualIPStatus],
    snapshot: &Snapshot,
    desired: &Desired,
    now: Timestamp,
) -> WebSocketHAPoolStatus {
    let before = pool.status.clone().unwrap_or_default();
    let observed = Observed::new(pool, committed, snapshot, desired);
    let entries: Vec<_> = committed
        .iter()
        .map(|entry| observed_entry(entry, &observed, &before))
        .collect();
    let gateways = observed.gateways();
    let endpoints = endpoints(desired, &observed);
    let faults = snapshot.keyring.faults(pool, now);
    let mut status = WebSocketHAPoolStatus {
        observed_generation: pool.metadata.generation,
        listeners: conditions::listeners(pool, &before, &observed, &faults, now),
        conditions: conditions::of_pool(pool, &before, desired, &observed, &faults, now),
        virtual_ips: entries,
        endpoints: Some(endpoints),
        gateways: Some(gateways),
        sessions: Some(observed.sessions()),
        summary: None,
    };
    status.summarize();
    status
}

/// Whether the two differ in anything but counters, which are written once a minute at most.
pub fn differs_beyond_counters(one: &WebSocketHAPoolStatus, other: &WebSocketHAPoolStatus) -> bool {
    let without = |status: &WebSocketHAPoolStatus| WebSocketHAPoolStatus {
        sessions: None,
        ..status.clone()
    };
    without(one) != without(other)
}

fn observed_entry(
    entry: &VirtualIPStatus,
    observed: &Observed<'_>,
    before: &WebSocketHAPoolStatus,
) -> VirtualIPStatus {
    let former = before.virtual_ips.iter();
    let former = former.into_iter().find(|it| it.address == entry.address);
    let Ok(address) = entry.address.parse::<IpAddr>() else {
        return entry.clone();
    };
    let active = observed.active(address);
    let since = active.and_then(|active| {
        // A restarted node that says the same again is no news.
        let same = former.filter(|it| it.active_node_name.as_deref() == Some(active.node));
        let stands = same.and_then(|it| it.active_since.clone());
        let reported = i64::try_from(active.since_unix_ms).ok()?;
        stands.or_else(|| Timestamp::from_millisecond(reported).ok().map(Time))
    });
    VirtualIPStatus {
        active_node_name: active.map(|active| active.node.to_owned()),
        backup_node_names: observed.backups(entry, address),
        active_since: since,
        ..entry.clone()
    }
}

fn endpoints(desired: &Desired, observed: &Observed<'_>) -> Tally {
    let upstreams = desired.plan.pools.get(&observed.name);
    let endpoints = upstreams.iter().flat_map(|pool| &pool.upstreams);
    // A server of several upstreams is one server, and ready where one of them has it so.
    let mut servers: BTreeMap<_, bool> = BTreeMap::new();
    for endpoint in endpoints.flat_map(|upstream| &upstream.endpoints) {
        let is_ready = servers.entry(endpoint.socket_address()).or_default();
        *is_ready |= endpoint.phase == EndpointPhase::Ready;
    }
    let ready = servers.values().filter(|is_ready| **is_ready).count();
    Tally {
        ready: count(ready),
        total: count(servers.len()),
    }
}

pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
