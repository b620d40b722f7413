//! Whether gateways hear each other: by what the agent heard, and by what passed the interface. Pure.
//!
//! That others hear this node is seen on the others alone. What is seen here is that its advertisements
//! leave, and whether somebody behaves as if they did not arrive.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use node_api::{NodeReport, Peering, RouterReport, RouterState, VirtualRouter};

use super::{
    Finding,
    wire::{Key, Traffic, patience},
};

/// Routers advertise several times a second, or each second in version 2.
const LEAST_RECENT: Duration = Duration::from_millis(3500);

/// What helps where packets do not arrive.
const LET_PASS: &str = "let IP protocol 112 to 224.0.0.18 and ff02::12 through between the gateways (firewall, switch, \
                        IGMP and MLD snooping)";
/// The same for unicast peers.
const LET_PASS_UNICAST: &str = "let IP protocol 112 through between the addresses of the peers, which must list each \
                                other (firewall, spec.vrrp.peering)";
/// What helps where this host drops them.
const FILTER: &str = "let IP protocol 112 in and out in this host's packet filters (`nft \
                      list ruleset`), and look at the interface's queue (`tc -s qdisc`)";

/// One for each virtual router. `before` is what the agent said before the interfaces were looked at,
/// `after` what it said then.
pub(super) fn check(
    before: &NodeReport,
    after: &NodeReport,
    settings: &[VirtualRouter],
    traffic: &Traffic,
) -> Vec<Finding> {
    let routers = after.virtual_routers.iter();
    routers
        .map(|router| {
            let same = |other: &&RouterReport| other.addresses == router.addresses;
            let former = before.virtual_routers.iter().find(same);
            let moved = former.is_none_or(|former| {
                (former.state, former.since_unix_ms) != (router.state, router.since_unix_ms)
            });
            let settings = settings
                .iter()
                .find(|one| one.addresses == router.addresses);
            Looked {
                router,
                node: &after.node_name,
                moved,
                was_active: former.is_some_and(|it| it.state == RouterState::Active),
                settings,
                traffic,
            }
            .judge()
        })
        .collect()
}

/// All that is known of one virtual router.
struct Looked<'a> {
    router: &'a RouterReport,
    node: &'a str,
    moved: bool,
    was_active: bool,
    settings: Option<&'a VirtualRouter>,
    traffic: &'a Traffic,
}

impl Looked<'_> {
    fn judge(&self) -> Finding {
        let router = self.router;
        let address = router
            .addresses
            .first()
            .map_or_else(String::new, ToString::to_string);
        let subject = format!("virtual router {} ({address})", router.virtual_router_id);
        // One that is mute loses the addresses and takes them again: it speaks whenever it does.
        let mute =
            self.was_active && router.state == RouterState::Active && self.leaves() == Some(false);
        if self.moved && !mute && router.state != RouterState::Initialize {
            return Finding::unknown(subject, "its state has changed just now: look again");
        }
        match router.state {
            RouterState::Active => self.active(subject),
            RouterState::Backup => self.backup(subject),
            RouterState::Initialize => Finding::problem(
                subject,
                format!("takes no part: {}", router.reason),
                "remove the cause",
            ),
        }
    }

    fn active(&self, subject: String) -> Finding {
        let heard = self.heard();
        if !heard.is_empty() {
            return Finding::problem(
                subject,
                format!("Active here, and {} advertises too", listed(&heard)),
                format!(
                    "if that lasts, it does not hear this node: {}",
                    self.let_pass()
                ),
            );
        }
        let arrived = self.arrived();
        if !arrived.is_empty() {
            return Finding::problem(
                subject,
                format!(
                    "Active here, and {} advertises too, which arrives at {} and is not heard",
                    listed(&arrived),
                    self.interface()
                ),
                FILTER,
            );
        }
        let leaves = match self.leaves() {
            Some(false) => {
                let what = format!(
                    "Active here, and no advertisement leaves {}",
                    self.interface()
                );
                return Finding::problem(subject, what, FILTER);
            }
            Some(true) => format!("its advertisements leave {}", self.interface()),
            None => "whether its advertisements leave was not seen".to_owned(),
        };
        let nodes = self.settings.map_or(&[][..], |settings| &settings.nodes);
        let others: Vec<_> = nodes
            .iter()
            .map(|node| node.node_name.as_str())
            .filter(|name| *name != self.node)
            .collect();
        if others.is_empty() && self.settings.is_some() && self.leaves() == Some(true) {
            let what = format!("Active here, {leaves}, and no other node is to hear them");
            return Finding::fine(subject, what);
        }
        let others = if others.is_empty() {
            "a Backup".to_owned()
        } else {
            others.join(", ")
        };
        Finding::unknown(
            subject,
            format!(
                "Active here, {leaves}, and nobody else advertises; whether the others hear it cannot \
                 be told from here: run this on {others}"
            ),
        )
    }

    fn backup(&self, subject: String) -> Finding {
        let (heard, arrived) = (self.heard(), self.arrived());
        if !heard.is_empty() {
            return Finding::fine(subject, format!("Backup here, hears {}", listed(&heard)));
        }
        if !arrived.is_empty() {
            let what = format!(
                "Backup here, and what {} advertises arrives at {} and is not heard",
                listed(&arrived),
                self.interface()
            );
            return Finding::problem(subject, what, FILTER);
        }
        Finding::problem(
            subject,
            "Backup here, and nobody is heard",
            format!("{}, unless this node takes over just now", self.let_pass()),
        )
    }

    fn let_pass(&self) -> &'static str {
        let peering = self.settings.map(|settings| &settings.peering);
        if peering.is_none_or(Peering::is_multicast) {
            LET_PASS
        } else {
            LET_PASS_UNICAST
        }
    }

    fn interface(&self) -> &str {
        self.router.interface.as_deref().unwrap_or("its interface")
    }

    fn key(&self) -> Key {
        Key {
            is_ipv6: self.router.addresses.first().is_some_and(IpAddr::is_ipv6),
            virtual_router_id: self.router.virtual_router_id,
        }
    }

    fn interval(&self) -> Duration {
        self.settings
            .map_or(Duration::ZERO, |settings| settings.advertisement_interval)
    }

    /// Whom vrrp heard lately.
    fn heard(&self) -> BTreeSet<IpAddr> {
        let recent = (self.interval() * 7 / 2).max(LEAST_RECENT).as_millis();
        let peers = self.router.peers.iter();
        peers
            .filter(|peer| u128::from(peer.last_heard_ms) < recent)
            .map(|peer| peer.address)
            .collect()
    }

    /// Whose advertisements reached the interface.
    fn arrived(&self) -> BTreeSet<IpAddr> {
        let seen = self.traffic.get(self.interface());
        let arrived = seen.and_then(|seen| seen.arrived.get(&self.key()));
        arrived.cloned().unwrap_or_default()
    }

    /// Whether its own advertisements left; `None`: it was not looked at for long enough.
    fn leaves(&self) -> Option<bool> {
        let seen = self.traffic.get(self.interface())?;
        if seen.left.contains(&self.key()) {
            return Some(true);
        }
        (self.settings.is_some() && patience(self.interval()).is_some()).then_some(false)
    }
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use node_api::{PeerReport, PoolRef, Preemption, RankedNode, VrrpVersion};

    use super::{super::wire::Seen, *};

    fn report(state: RouterState, heard_ms: &[u64]) -> NodeReport {
        let peer = |ms: &u64| PeerReport {
            address: "10.0.0.2".parse().unwrap(),
            priority: 250,
            last_heard_ms: *ms,
        };
        let router = RouterReport {
            pool: PoolRef {
                namespace: "default".to_owned(),
                name: "chat".to_owned(),
            },
            virtual_router_id: 7,
            sequence: 0,
            addresses: vec!["10.0.0.7".parse().unwrap()],
            interface: Some("eth0".to_owned()),
            state,
            since_unix_ms: 0,
            reason: "the interface is down".to_owned(),
            priority: 100,
            peers: heard_ms.iter().map(peer).collect(),
            transitions: Vec::new(),
            conflicts: Vec::new(),
            lowered_by: Vec::new(),
            isolated_since_unix_ms: None,
        };
        NodeReport {
            node_name: "server1".to_owned(),
            version: "0.1.0".to_owned(),
            stale_reason: None,
            warnings: Vec::new(),
            virtual_routers: vec![router],
            pools: Vec::new(),
        }
    }

    fn settings(interval_ms: u64, nodes: &[&str]) -> VirtualRouter {
        let node = |name: &&str| RankedNode {
            node_name: (*name).to_owned(),
            priority: 250,
            priority_without_endpoint: 10,
            address: None,
        };
        VirtualRouter {
            virtual_router_id: 7,
            addresses: vec!["10.0.0.7".parse().unwrap()],
            interface: None,
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(interval_ms),
            preemption: Preemption::Disabled,
            mac_address: node_api::MacAddress::Interface,
            nodes: nodes.iter().map(node).collect(),
            peering: Peering::Multicast,
            password: None,
            sequence: 0,
        }
    }

    fn traffic(left: &[u8], arrived: &[u8]) -> Traffic {
        let source = || BTreeSet::from(["10.0.0.3".parse().unwrap()]);
        let key = |vrid: &u8| Key {
            is_ipv6: false,
            virtual_router_id: *vrid,
        };
        let seen = Seen {
            left: left.iter().map(key).collect(),
            arrived: arrived.iter().map(|vrid| (key(vrid), source())).collect(),
        };
        BTreeMap::from([("eth0".to_owned(), seen)])
    }

    fn said(report: &NodeReport, settings: &VirtualRouter, traffic: &Traffic) -> String {
        let findings = check(report, report, std::slice::from_ref(settings), traffic);
        findings[0].to_string()
    }

    #[test]
    fn what_is_heard_and_what_passes_is_judged_by_the_state() {
        use RouterState::{Active, Backup, Initialize};
        let start = |said: &str| format!("virtual router 7 (10.0.0.7): {said}");
        for (state, heard, left, arrived, verdict, expected) in [
            (
                Active,
                &[][..],
                &[7_u8][..],
                &[][..],
                "unknown  ",
                "Active here, its advertisements leave eth0, and nobody else advertises; whether the others hear it cannot be told from here: run this on server2, server3",
            ),
            (
                Active,
                &[9000],
                &[7],
                &[9],
                "unknown  ",
                "Active here, its advertisements leave",
            ),
            (
                Active,
                &[],
                &[9],
                &[],
                "PROBLEM  ",
                "Active here, and no advertisement leaves eth0; let IP protocol 112",
            ),
            (
                Active,
                &[40],
                &[7],
                &[],
                "PROBLEM  ",
                "Active here, and 10.0.0.2 advertises too; if",
            ),
            (
                Active,
                &[],
                &[7],
                &[7],
                "PROBLEM  ",
                "Active here, and 10.0.0.3 advertises too, which arrives at eth0 and is not heard",
            ),
            (
                Backup,
                &[40],
                &[],
                &[7],
                "ok       ",
                "Backup here, hears 10.0.0.2",
            ),
            (
                Backup,
                &[9000],
                &[],
                &[],
                "PROBLEM  ",
                "Backup here, and nobody is heard",
            ),
            (
                Backup,
                &[],
                &[],
                &[7],
                "PROBLEM  ",
                "Backup here, and what 10.0.0.3 advertises arrives at eth0 and is not heard",
            ),
            (
                Initialize,
                &[],
                &[],
                &[],
                "PROBLEM  ",
                "takes no part: the interface",
            ),
        ] {
            let settings = settings(100, &["server1", "server2", "server3"]);
            let said = said(&report(state, heard), &settings, &traffic(left, arrived));
            let expected = verdict.to_owned() + &start(expected);
            assert!(said.starts_with(&expected), "{said}");
        }
    }

    #[test]
    fn nothing_is_told_of_what_was_not_seen() {
        let active = report(RouterState::Active, &[]);
        let others = ["server1", "server2"];
        let fast = settings(100, &others);
        let unseen = said(&active, &fast, &Traffic::new());
        assert!(unseen.contains("was not seen"), "{unseen}");
        // Three of its intervals are more than anybody waits for.
        let slow = said(&active, &settings(40_000, &others), &traffic(&[], &[]));
        assert!(
            slow.starts_with("unknown") && slow.contains("was not seen"),
            "{slow}"
        );
        let alone = said(&active, &settings(100, &["server1"]), &traffic(&[7], &[]));
        assert!(
            alone.starts_with("ok") && alone.contains("no other node"),
            "{alone}"
        );
        let mut before = active.clone();
        before.virtual_routers[0].state = RouterState::Backup;
        let moved = check(&before, &active, &[fast], &traffic(&[], &[]));
        assert!(
            moved[0].to_string().contains("changed just now"),
            "{moved:?}"
        );
    }

    #[test]
    fn who_speaks_slowly_is_heard_for_longer() {
        let backup = report(RouterState::Backup, &[9000]);
        let slow = said(&backup, &settings(10_000, &[]), &traffic(&[], &[]));
        assert!(slow.starts_with("ok"), "{slow}");
    }
}
