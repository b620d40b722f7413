//! The order in which a change reaches the two processes; pure.
//!
//! What is new starts at the proxy, so that a virtual router never waits for a port that was only
//! just asked for. What goes starts at vrrp, which stops it in order (DESIGN section 9.9) while the
//! proxy still has it.

use std::time::{Duration, Instant};

use node_api::NodeConfig;

use crate::agent::{
    desired::{leaving, union},
    leave::ONE_ROUTER,
};

/// The proxy opens and reports within milliseconds.
const EXPAND: Duration = Duration::from_secs(2);
/// Beyond the sum over the virtual routers that leave, which vrrp stops one after another.
const SWITCH: Duration = Duration::from_secs(6);

/// Where the change under way stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// The proxy adds what is new and keeps what goes.
    Expand { until: Instant },
    /// vrrp takes the new configuration.
    Switch { until: Instant },
    /// The proxy drops what went: all is as desired.
    Settled,
}

/// The configurations of the two processes.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    stage: Stage,
    proxy: NodeConfig,
    vrrp: NodeConfig,
    target: NodeConfig,
    next: Option<NodeConfig>,
}

impl Rollout {
    /// The first configuration goes to both at once: vrrp waits for the proxy itself.
    pub(super) fn new(first: NodeConfig) -> Self {
        Self {
            stage: Stage::Settled,
            proxy: first.clone(),
            vrrp: first.clone(),
            target: first,
            next: None,
        }
    }

    /// Begins the change to `target`, or queues it behind the one under way.
    pub(super) fn begin(&mut self, target: NodeConfig, now: Instant) {
        if self.stage != Stage::Settled {
            self.next = Some(target);
            return;
        }
        if target == self.target {
            return;
        }
        self.proxy = union(&self.vrrp, &target);
        self.target = target;
        self.stage = Stage::Expand {
            until: now + EXPAND,
        };
    }

    /// Goes on if the process of the stage has done its part, or has had its time. Says whether
    /// something changed.
    pub(super) fn advance(&mut self, proxy_done: bool, vrrp_done: bool, now: Instant) -> bool {
        match self.stage {
            Stage::Expand { until } if proxy_done || now >= until => {
                let leaving = leaving(&self.vrrp, &self.target);
                self.vrrp = self.target.clone();
                self.stage = Stage::Switch {
                    until: now + switch_time(leaving),
                };
                true
            }
            Stage::Switch { until } if vrrp_done || now >= until => {
                self.proxy = self.target.clone();
                self.stage = Stage::Settled;
                if let Some(next) = self.next.take() {
                    self.begin(next, now);
                }
                true
            }
            _ => false,
        }
    }

    /// What the proxy shall serve now.
    pub(super) fn for_proxy(&self) -> &NodeConfig {
        &self.proxy
    }

    /// What vrrp shall run now.
    pub(super) fn for_vrrp(&self) -> &NodeConfig {
        &self.vrrp
    }

    /// What both shall have in the end.
    pub(super) fn newest(&self) -> &NodeConfig {
        self.next.as_ref().unwrap_or(&self.target)
    }

    /// Whether no change is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }
}

/// For a change with which so many virtual routers leave.
fn switch_time(leaving: usize) -> Duration {
    let leaving = u32::try_from(leaving).unwrap_or(u32::MAX);
    ONE_ROUTER.saturating_mul(leaving).saturating_add(SWITCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::desired::{self, tests::config};

    fn ports(config: &NodeConfig) -> Vec<u16> {
        desired::listeners(config)
            .keys()
            .map(std::net::SocketAddr::port)
            .collect()
    }

    #[test]
    fn what_is_new_begins_at_the_proxy_and_what_goes_begins_at_vrrp() {
        let now = Instant::now();
        let mut rollout = Rollout::new(config(&["10.0.0.1"], &[1]));
        rollout.begin(config(&["10.0.0.1"], &[2]), now);
        assert_eq!(
            ports(rollout.for_proxy()),
            [1, 2],
            "both, until vrrp has changed"
        );
        assert_eq!(ports(rollout.for_vrrp()), [1]);
        assert!(
            !rollout.advance(false, true, now),
            "the proxy has not opened it yet"
        );
        assert!(rollout.advance(true, false, now));
        assert_eq!(ports(rollout.for_proxy()), [1, 2]);
        assert_eq!(ports(rollout.for_vrrp()), [2]);
        assert!(
            !rollout.advance(true, false, now),
            "vrrp has not changed yet"
        );
        assert!(rollout.advance(true, true, now));
        assert_eq!(ports(rollout.for_proxy()), [2]);
        assert!(rollout.is_settled());
    }

    #[test]
    fn a_process_that_hangs_delays_a_change_but_does_not_prevent_it() {
        let now = Instant::now();
        let mut rollout = Rollout::new(config(&["10.0.0.1"], &[1]));
        rollout.begin(config(&["10.0.0.1"], &[2]), now);
        assert!(rollout.advance(false, false, now + EXPAND));
        assert!(rollout.advance(false, false, now + EXPAND + SWITCH));
        assert_eq!(ports(rollout.for_proxy()), [2]);
    }

    #[test]
    fn listeners_stay_while_many_routers_leave() {
        let now = Instant::now();
        let many: Vec<_> = (1..=100).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let mut rollout = Rollout::new(config(&many, &[1]));
        rollout.begin(config(&many[..1], &[1]), now);
        assert!(rollout.advance(true, false, now));
        let deaf = Duration::from_millis(200) * 99;
        assert!(!rollout.advance(true, false, now + deaf));
        assert_eq!(ports(rollout.for_proxy()).len(), 100);
        assert!(rollout.advance(true, false, now + SWITCH + ONE_ROUTER * 99));
        assert_eq!(ports(rollout.for_proxy()).len(), 1);
    }

    #[test]
    fn of_changes_that_come_meanwhile_the_newest_follows() {
        let now = Instant::now();
        let mut rollout = Rollout::new(config(&["10.0.0.1"], &[1]));
        for port in [2, 3, 4] {
            rollout.begin(config(&["10.0.0.1"], &[port]), now);
        }
        assert_eq!(ports(rollout.newest()), [4]);
        while rollout.advance(true, true, now) {}
        assert_eq!(ports(rollout.for_proxy()), [4]);
        assert_eq!(ports(rollout.for_vrrp()), [4]);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let now = Instant::now();
        let mut rollout = Rollout::new(config(&["10.0.0.1"], &[1]));
        rollout.begin(config(&["10.0.0.1"], &[1]), now);
        assert!(rollout.is_settled());
        assert!(!rollout.advance(true, true, now));
    }
}
