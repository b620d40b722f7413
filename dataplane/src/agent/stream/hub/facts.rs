//! What controllers are told of the node's network.

use std::{collections::BTreeSet, net::IpAddr};

use node_api::stream::{HEARD, NodeFacts};

use super::Hub;
use crate::agent::stream::{assemble::State, content::Content};

impl Hub {
    /// Tells the network, where it is another than was told.
    pub(super) fn tell_facts(&mut self) {
        let facts = others_alone(self.looked.clone(), &self.state);
        if facts == self.facts {
            return;
        }
        log_new(&self.facts, &facts);
        for stream in self.streams.values() {
            stream.outbox.facts(facts.clone());
        }
        self.facts = facts;
    }
}

/// Says which virtual routers of others were not heard before.
fn log_new(before: &NodeFacts, now: &NodeFacts) {
    for interface in &now.interfaces {
        let mut same = before.interfaces.iter();
        let known = same.find(|one| one.name == interface.name);
        let known = known.map_or(&[][..], |one| &one.heard);
        for heard in interface.heard.iter().filter(|one| !known.contains(one)) {
            tracing::info!(
                interface = interface.name,
                vrid = heard.virtual_router_id,
                source = %heard.source,
                "another host's virtual router is heard"
            );
        }
    }
}

/// Of the virtual routers that were heard only those that the node has no part in, and not too many.
fn others_alone(mut facts: NodeFacts, state: &State) -> NodeFacts {
    if facts.interfaces.iter().all(|one| one.heard.is_empty()) {
        return facts;
    }
    let pools = state
        .resources
        .values()
        .filter_map(|held| match &held.content {
            Content::Pool(pool) => Some(pool),
            _ => None,
        });
    let routers = pools.flat_map(|pool| &pool.virtual_routers);
    let own: BTreeSet<(u8, IpAddr)> = routers
        .flat_map(|router| {
            let addresses = router.addresses.iter();
            addresses.map(|address| (router.virtual_router_id, *address))
        })
        .collect();
    for interface in &mut facts.interfaces {
        interface.heard.retain(|heard| {
            let mut addresses = heard.addresses.iter();
            !addresses.any(|address| own.contains(&(heard.virtual_router_id, *address)))
        });
        interface.heard.truncate(HEARD);
    }
    facts
}
