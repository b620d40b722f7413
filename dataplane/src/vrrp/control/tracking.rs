//! What a host looks at besides the protocol, and by how much it lowers priorities.
//!
//! A lowered priority goes to the state machine as any other change of its settings: an Active router
//! says it at once, and whoever has a higher one takes over from it as from any living router, with the
//! address held until then.

use std::{sync::Arc, time::SystemTime};

use node_api::{Lowering, Tracked};

use super::{Control, managed::Managed, unix_ms};
use crate::{ipc::Router, vrrp::carrier::Carrier};

impl Control {
    /// Looks at everything that is tracked.
    pub(super) fn track(&mut self) {
        self.watch_interfaces();
        let now = unix_ms(Some(SystemTime::now()));
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get(at) else {
                continue;
            };
            let lowered_by = self.lowerings(router, now);
            let weights = lowered_by.iter().map(|it| u32::from(it.weight));
            let priority = lowered(&router.spec, weights.sum());
            let is_same = router.priority == priority && router.lowered_by == lowered_by;
            if is_same {
                continue;
            }
            if let Some(router) = self.routers.get_mut(at) {
                tell(router, &lowered_by, priority);
                router.priority = priority;
                router.lowered_by = lowered_by;
            }
            self.report.is_wanted = true;
        }
    }

    /// Has drivers asked for the links of interfaces that are tracked, and of no others.
    fn watch_interfaces(&mut self) {
        let Some(world) = &self.world else { return };
        let tracked = self
            .routers
            .iter()
            .flat_map(|it| &it.spec.tracking.interfaces);
        let tracked: Vec<u32> = tracked
            .filter_map(|it| world.interface(&it.name))
            .map(|(index, _)| index)
            .collect();
        self.tracked.retain(|(index, _)| tracked.contains(index));
        for index in tracked {
            if !self.tracked.iter().any(|(known, _)| *known == index) {
                let carrier = Carrier::new();
                // A thread that ended could not ask either; rtnetlink still tells.
                drop(self.ends.carrier.send((index, Arc::downgrade(&carrier))));
                self.tracked.push((index, carrier));
            }
        }
    }

    /// What is not as it should be, for one virtual router.
    fn lowerings(&self, router: &Managed, now: u64) -> Vec<Lowering> {
        let tracking = &router.spec.tracking;
        // What was found before keeps its time.
        let since = |kind: Tracked, name: &str| {
            let mut known = router.lowered_by.iter();
            let known = known.find(|it| it.kind == kind && it.name == name);
            known.map_or(now, |known| known.since_unix_ms)
        };
        let interfaces = tracking.interfaces.iter().filter_map(|it| {
            Some(Lowering {
                kind: Tracked::Interface,
                name: it.name.clone(),
                weight: it.weight,
                problem: self.interface_problem(&it.name)?.to_owned(),
                since_unix_ms: since(Tracked::Interface, &it.name),
            })
        });
        let checks = tracking.checks.iter().filter_map(|it| {
            let mut failing = self.failing.iter();
            let pool = &router.spec.pool;
            let failing = failing.find(|one| one.pool == *pool && one.name == it.name)?;
            Some(Lowering {
                kind: Tracked::Check,
                name: it.name.clone(),
                weight: it.weight,
                problem: format!("fails: {}", failing.problem),
                since_unix_ms: failing.since_unix_ms,
            })
        });
        let usable = self.usable.get(&router.spec.pool);
        let upstreams = tracking.upstreams.iter().filter_map(|it| {
            let least = usize::try_from(it.min_usable_endpoints).unwrap_or(usize::MAX);
            let usable = usable?.upstreams.get(&it.name);
            let usable = usable.filter(|usable| **usable < least)?;
            Some(Lowering {
                kind: Tracked::Upstream,
                name: it.name.clone(),
                weight: it.weight,
                problem: format!(
                    "has {usable} usable endpoints, fewer than {}",
                    it.min_usable_endpoints
                ),
                since_unix_ms: since(Tracked::Upstream, &it.name),
            })
        });
        interfaces.chain(checks).chain(upstreams).collect()
    }

    fn interface_problem(&self, name: &str) -> Option<&'static str> {
        let Some((index, is_up)) = self.world.as_ref()?.interface(name) else {
            return Some("does not exist");
        };
        let mut tracked = self.tracked.iter();
        let carrier = tracked.find(|(of, _)| *of == index);
        let has_link = is_up && carrier.is_none_or(|(_, carrier)| carrier.is_there());
        (!has_link).then_some("has no link")
    }
}

fn tell(router: &Managed, lowered_by: &[Lowering], priority: u8) {
    let vrid = router.spec.settings.virtual_router_id;
    let is_in = |list: &[Lowering], it: &Lowering| {
        let mut list = list.iter();
        list.any(|other| (other.kind, &other.name) == (it.kind, &it.name))
    };
    for new in lowered_by
        .iter()
        .filter(|it| !is_in(&router.lowered_by, it))
    {
        let (kind, name, problem) = (new.kind, &new.name, &new.problem);
        tracing::warn!(vrid, priority, "{kind} {name} {problem}");
    }
    for old in router.lowered_by.iter().filter(|it| !is_in(lowered_by, it)) {
        tracing::info!(
            vrid,
            priority,
            "{} {} is as it should be",
            old.kind,
            old.name
        );
    }
}

/// The priority of `router` lowered by `weight`. It stays above all that nodes without a usable endpoint
/// advertise, and off what others advertise while nothing is wrong with them: equal priorities do not
/// move an address. That of an owner (255) means that it owns the addresses (RFC 9568 section 5.2.4),
/// and stays.
fn lowered(router: &Router, weight: u32) -> u8 {
    let planned = router.priority;
    if weight == 0 || planned == u8::MAX {
        return planned;
    }
    let nodes = &router.settings.nodes;
    let bottom = nodes.iter().map(|node| node.priority_without_endpoint);
    let bottom = bottom.fold(router.priority_without_endpoint, u8::max);
    let floor = bottom.saturating_add(1).min(planned);
    let weight = u8::try_from(weight).unwrap_or(u8::MAX);
    let top = planned.saturating_sub(weight).max(floor);
    let is_taken = |priority: &u8| nodes.iter().any(|node| node.priority == *priority);
    let mut free = (floor..=top).rev().filter(|it| !is_taken(it));
    free.next().unwrap_or(floor)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_api::{PoolRef, Preemption, RankedNode, Tracking, VirtualRouter, VrrpVersion};

    use super::*;

    /// The first of nodes with these priorities, and what they advertise without an endpoint.
    fn router(nodes: &[(u8, u8)]) -> Router {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|&(priority, priority_without_endpoint)| RankedNode {
                node_name: format!("node{priority}"),
                priority,
                priority_without_endpoint,
                address: None,
            })
            .collect();
        Router {
            pool: PoolRef {
                namespace: "default".to_owned(),
                name: "chat".to_owned(),
            },
            priority: nodes[0].priority,
            priority_without_endpoint: nodes[0].priority_without_endpoint,
            settings: VirtualRouter {
                peering: node_api::Peering::Multicast,
                password: None,
                virtual_router_id: 7,
                addresses: vec!["192.0.2.7".parse().unwrap()],
                interface: None,
                version: VrrpVersion::V3,
                advertisement_interval: Duration::from_millis(100),
                preemption: Preemption::Disabled,
                mac_address: node_api::MacAddress::Interface,
                nodes,
                sequence: 0,
            },
            ports: Vec::new(),
            tracking: Tracking::default(),
        }
    }

    #[test]
    fn a_weight_lowers_the_priority_below_the_next_node() {
        let router = router(&[(250, 10), (235, 9), (220, 8)]);
        assert_eq!(lowered(&router, 0), 250);
        assert_eq!(lowered(&router, 10), 240);
        assert_eq!(lowered(&router, 20), 230);
        assert_eq!(lowered(&router, 15), 234, "not what the next one has");
        assert_eq!(lowered(&router, 30), 219);
    }

    #[test]
    fn it_stays_above_every_node_without_an_endpoint() {
        let planned = router(&[(250, 10), (235, 9)]);
        assert_eq!(lowered(&planned, 253), 11);
        assert_eq!(lowered(&planned, 2000), 11);
        let second = router(&[(235, 9), (250, 10)]);
        assert_eq!(lowered(&second, 253), 11, "the other one may have none");
        let close = router(&[(4, 2), (3, 1)]);
        assert_eq!(lowered(&close, 20), 3, "there is nothing between");
        assert_eq!(lowered(&router(&[(2, 1)]), 20), 2);
    }

    /// RFC 9568 section 5.2.4.
    #[test]
    fn an_owner_is_not_lowered() {
        assert_eq!(lowered(&router(&[(255, 10), (100, 9)]), 20), 255);
    }
}
