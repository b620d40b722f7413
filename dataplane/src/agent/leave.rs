//! The planned stop: vrrp leads, address by address (DESIGN section 9.9); then the proxy.

use std::time::{Duration, Instant};

use crate::{
    agent::{
        app::{App, Flow},
        desired,
        event::{Role, TakeOver},
        pod,
    },
    ipc::{ToProxy, ToVrrp},
};

/// The longest one virtual router takes: 200 ms for its sessions, and some.
pub(super) const ONE_ROUTER: Duration = Duration::from_millis(250);
/// Beyond the sum over all virtual routers.
const SLACK: Duration = Duration::from_secs(3);
/// However many there are: with the proxy's turn it must fit into `TimeoutStopSec` of the unit and
/// into the patience of an agent that takes over, a minute each.
const LONGEST: Duration = Duration::from_secs(45);
/// The proxy's turn, after vrrp's: it tells sessions that have no address any more.
const PROXY: Duration = Duration::from_secs(3);
/// From the last word of a process to its end: the proxy ends its sessions and writes the last
/// access records meanwhile, on a machine that may have more to do than it can.
const END: Duration = Duration::from_secs(3);

/// How far the stop has come.
#[derive(Debug)]
pub(super) struct Leaving {
    stage: Stage,
    until: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// vrrp gives up its addresses.
    Vrrp,
    /// vrrp said that it has; its process ends.
    VrrpEnds,
    /// The proxy tells its sessions.
    Proxy,
    /// The proxy said that it has; its process ends.
    ProxyEnds,
}

impl App {
    /// Begins the stop.
    pub(super) fn leave(&mut self, why: &str) {
        if self.leaving.is_some() {
            tracing::info!("{why}: this agent is stopping in order already");
            return;
        }
        tracing::info!("stopping in order: {why}");
        self.notifier.send("STOPPING=1\nSTATUS=stopping in order");
        let routers = desired::routers(self.rollout.for_vrrp(), &self.not_yet).len();
        if self.vrrp.link.is_some() {
            self.vrrp.send(ToVrrp::Leave);
        } else {
            // It has said nothing yet, so it holds nothing that it could give up in order.
            self.vrrp.kill();
        }
        self.leaving = Some(Leaving {
            stage: Stage::Vrrp,
            until: Instant::now() + patience(routers),
        });
    }

    /// Another agent asks this one to stop. One of an older pod must not: it was started again,
    /// and this one has followed it.
    pub(super) fn make_way(&mut self, other: TakeOver) {
        let TakeOver {
            pid,
            pod_created_ns,
            reply,
        } = other;
        let refusal = pod::refusal(pod_created_ns, self.claim.pod_created_ns);
        if let Some(reason) = &refusal {
            tracing::warn!("refused a take-over: {reason}");
        } else {
            self.is_taken_over |= self.leaving.is_none();
            self.leave(&match pid {
                0 => "an agent of another container takes over".to_owned(),
                pid => format!("process {pid} takes over"),
            });
        }
        // Whoever asked may be gone.
        drop(reply.send(refusal));
    }

    /// A process said that it has left.
    pub(super) fn left(&mut self, role: Role) {
        let Some(leaving) = &mut self.leaving else {
            // Its end follows, and it is started again.
            return;
        };
        match (leaving.stage, role) {
            (Stage::Vrrp, Role::Vrrp) => leaving.go_to(Stage::VrrpEnds, END),
            (Stage::Proxy, Role::Proxy) => leaving.go_to(Stage::ProxyEnds, END),
            _ => {}
        }
    }

    /// Goes as far as what has happened so far allows.
    pub(super) fn go_on_leaving(&mut self) -> Flow {
        let Some(leaving) = &mut self.leaving else {
            return Flow::Continue;
        };
        let late = Instant::now() >= leaving.until;
        match leaving.stage {
            Stage::Vrrp | Stage::VrrpEnds if late || !self.vrrp.runs() => {
                if self.vrrp.runs() {
                    tracing::error!("the vrrp process did not stop in time; it is ended");
                    self.vrrp.end();
                }
                if leaving.stage == Stage::Vrrp {
                    // It did not say that its addresses are gone.
                    self.remove_addresses(|_| true);
                }
                if let Some(leaving) = &mut self.leaving {
                    leaving.go_to(Stage::Proxy, PROXY);
                }
                if self.proxy.link.is_some() {
                    self.proxy.send(ToProxy::Leave);
                } else {
                    self.proxy.end();
                }
                self.go_on_leaving()
            }
            Stage::Proxy | Stage::ProxyEnds if late || !self.proxy.runs() => {
                if self.proxy.runs() {
                    tracing::error!("the proxy process did not stop in time; it is ended");
                    self.proxy.end();
                }
                tracing::info!("stopped in order");
                Flow::Done
            }
            _ => Flow::Continue,
        }
    }
}

impl Leaving {
    fn go_to(&mut self, stage: Stage, patience: Duration) {
        self.stage = stage;
        self.until = Instant::now() + patience;
    }
}

/// For the stop of so many virtual routers.
fn patience(routers: usize) -> Duration {
    let routers = u32::try_from(routers).unwrap_or(u32::MAX);
    let all = ONE_ROUTER.saturating_mul(routers).saturating_add(SLACK);
    all.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::locks::TAKE_OVER;

    #[test]
    fn many_routers_with_deaf_clients_have_their_time() {
        let deaf = Duration::from_millis(200);
        assert!(patience(1) >= deaf + SLACK);
        assert!(patience(160) >= deaf * 160);
        assert!(patience(usize::MAX) + PROXY + END * 2 < TAKE_OVER);
    }
}
