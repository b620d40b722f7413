//! Planned stops, and how an instance comes back from the other threads.

use std::{net::IpAddr, time::Duration};

use ::vrrp::Instant;
use node_api::RouterState;

use super::{Control, managed::Stage};
use crate::{
    ipc::VrrpToProxy,
    vrrp::messages::{RouterId, ToMachine},
};

/// How long the proxy may take to close the listeners and sessions of one virtual router.
const PROXY_LEAVES_WITHIN: Duration = Duration::from_millis(250);
/// How long a state machine may take for a planned stop; its linger is 120 ms at most.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

impl Control {
    /// Moves planned stops on: the proxy first, then the protocol, then the addresses (DESIGN
    /// section 9.9). Those that are Active go one after another, the others at once. Tells whether
    /// any is gone for good.
    pub(super) fn advance_leaving(&mut self, now: Instant) -> bool {
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get(at) else {
                continue;
            };
            let Some(instance) = &router.instance else {
                continue;
            };
            let id = instance.id;
            let has_proxy = self.pairing.is_some();
            match instance.stage {
                Stage::Live if router.is_leaving => self.begin_leaving(at, id, now),
                Stage::AwaitProxy { until } if until <= now || !has_proxy => self.stop(id, now),
                Stage::AwaitStop { until } if until <= now => self.end_instance(id),
                _ => {}
            }
        }
        let before = self.routers.len();
        self.routers
            .retain(|router| !router.is_leaving || router.instance.is_some());
        self.routers.len() != before
    }

    fn begin_leaving(&mut self, at: usize, id: RouterId, now: Instant) {
        let Some(router) = self.routers.get(at) else {
            return;
        };
        if self.has_successor(router) {
            self.hand_over(id);
            return;
        }
        let is_serving = router.state == RouterState::Active || router.is_held;
        let Some(pairing) = self.pairing.as_ref().filter(|_| is_serving) else {
            self.stop(id, now);
            return;
        };
        // Until its address is gone: a client of this one may be sent to the host that takes both.
        let is_other_waiting = self.routers.iter().any(|other| {
            let instance = other.instance.as_ref();
            other.is_leaving && instance.is_some_and(|instance| instance.stage != Stage::Live)
        });
        if is_other_waiting {
            return;
        }
        // What is still wanted stays with the proxy: only another virtual router will hold it.
        let addresses = self.unwanted(router.addresses());
        if addresses.is_empty() {
            self.stop(id, now);
            return;
        }
        if pairing.tell(&VrrpToProxy::Leave { addresses }) {
            let until = now + PROXY_LEAVES_WITHIN;
            self.set_stage(id, Stage::AwaitProxy { until });
        } else {
            self.stop(id, now);
        }
    }

    /// Those of `addresses` that no virtual router shall have any more.
    fn unwanted(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let desired = self.desired.iter().flat_map(|desired| &desired.routers);
        let wanted: Vec<_> = desired
            .flat_map(|router| &router.settings.addresses)
            .collect();
        let is_unwanted = |address: &&IpAddr| !wanted.contains(address);
        addresses.iter().filter(is_unwanted).copied().collect()
    }

    fn stop(&mut self, id: RouterId, now: Instant) {
        let until = now + STOPS_WITHIN;
        self.set_stage(id, Stage::AwaitStop { until });
        self.tell_machine(ToMachine::Stop(id));
    }

    /// Takes an instance out of the other threads: first out of the machine thread, which still has
    /// a socket for its last word, then its addresses.
    pub(super) fn end_instance(&mut self, id: RouterId) {
        self.set_stage(id, Stage::AwaitGone);
        self.tell_machine(ToMachine::Destroy(id));
    }

    /// The netlink thread has forgotten an instance: nothing of it is left.
    pub(super) fn on_gone(&mut self, id: RouterId) {
        self.bequeath(id);
        let Some(router) = self.routers.iter_mut().find(|router| router.is(id)) else {
            return;
        };
        if let Some(instance) = router.instance.take() {
            instance.row.clear();
        }
        router.state = RouterState::Initialize;
        router.is_held = false;
    }

    pub(super) fn set_stage(&mut self, id: RouterId, stage: Stage) {
        let router = self.routers.iter_mut().find(|router| router.is(id));
        if let Some(instance) = router.and_then(|router| router.instance.as_mut()) {
            instance.stage = stage;
        }
    }
}
