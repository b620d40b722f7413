//! One virtual router as control sees it.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use ::vrrp::{Family, Instant, Settings, wire::Mac};
use node_api::{Lowering, MacAddress, RouterState, Transition};

use crate::{
    ipc::Router,
    sys::pages::RouterRow,
    vrrp::{
        asking::Heard,
        messages::{PairingNumber, RouterId},
        world::Binding,
    },
};

/// Transitions kept for reports.
const HISTORY: usize = 16;

/// What tells two virtual routers apart on a host. Everything else changes in place; an interface
/// only where it is another one than that in use, whatever it was called by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    family: Family,
    virtual_router_id: u8,
    /// Another list is another virtual router: it is replaced.
    addresses: Vec<IpAddr>,
    mac_address: MacAddress,
}

impl Key {
    pub(super) fn of(router: &Router) -> Self {
        let settings = &router.settings;
        Self {
            family: settings
                .addresses
                .first()
                .copied()
                .map_or(Family::V4, Family::of),
            virtual_router_id: settings.virtual_router_id,
            addresses: settings.addresses.clone(),
            mac_address: settings.mac_address,
        }
    }

    /// The family of its addresses.
    pub(super) const fn family(&self) -> Family {
        self.family
    }

    /// Whether both cannot be there at a time.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        self.addresses.iter().any(|a| other.addresses.contains(a))
            || (self.virtual_router_id, self.family) == (other.virtual_router_id, other.family)
    }
}

/// A configured virtual router, or one that is leaving.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) key: Key,
    pub(super) spec: Router,
    pub(super) is_leaving: bool,
    /// What it advertises while there is a usable endpoint, and what has lowered it to that.
    pub(super) priority: u8,
    pub(super) lowered_by: Vec<Lowering>,
    /// Interface and source, or why there is none.
    pub(super) binding: Result<Binding, String>,
    /// Why it could not be started there, and when it is tried again.
    pub(super) refused: Option<(String, Instant)>,
    pub(super) instance: Option<Instance>,
    /// Ports on which the proxy must accept for it to take part.
    pub(super) required_ports: Vec<u16>,
    pub(super) state: RouterState,
    pub(super) since_unix_ms: u64,
    pub(super) cause: String,
    pub(super) history: VecDeque<Transition>,
    pub(super) transitions: [u64; 3],
    /// What failed last.
    pub(super) problem: Option<String>,
    pub(super) is_held: bool,
    /// Another router that was heard for it last.
    pub(super) peer: Option<IpAddr>,
}

/// A virtual router in the machine thread and the netlink thread.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: RouterId,
    pub(super) index: u32,
    /// Its own hardware address, if it has one.
    pub(super) mac: Option<Mac>,
    pub(super) row: &'static RouterRow,
    /// When a router was heard, while Active, that has to yield to this one.
    pub(super) contested: Arc<Heard>,
    /// What the state machine was told.
    pub(super) settings: Settings,
    pub(super) stage: Stage,
    /// The pairing under which it was told to take part.
    pub(super) pairing: Option<PairingNumber>,
    pub(super) is_usable: bool,
    /// When the former process advertised last as Active: handed over at the start, however old.
    pub(super) resume: Option<Instant>,
    /// Addresses that the former process left stay, since this one may yet go on with them.
    pub(super) keeps_residual: bool,
}

/// Where an instance is on its way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Live,
    /// The proxy closes listeners and tells sessions.
    AwaitProxy {
        until: Instant,
    },
    /// The state machine says priority 0 and lingers.
    AwaitStop {
        until: Instant,
    },
    /// Its part of the machine thread comes back, then the netlink thread forgets it.
    AwaitGone,
    /// The same, but another virtual router of this host goes on with its addresses.
    AwaitHandOver,
}

impl Managed {
    pub(super) fn new(spec: Router, now_unix_ms: u64) -> Self {
        Self {
            key: Key::of(&spec),
            required_ports: spec.ports.clone(),
            priority: spec.priority,
            lowered_by: Vec::new(),
            spec,
            is_leaving: false,
            binding: Err("has not started yet".to_owned()),
            refused: None,
            instance: None,
            state: RouterState::Initialize,
            since_unix_ms: now_unix_ms,
            cause: String::new(),
            history: VecDeque::with_capacity(HISTORY),
            transitions: [0; 3],
            problem: None,
            is_held: false,
            peer: None,
        }
    }

    /// Why it does not run, in words.
    pub(super) fn obstacle(&self) -> Option<&str> {
        match (&self.binding, &self.refused) {
            (Err(unbound), _) => Some(unbound),
            (Ok(_), Some((refused, _))) => Some(refused),
            (Ok(_), None) => None,
        }
    }

    pub(super) fn is(&self, id: RouterId) -> bool {
        self.instance.as_ref().is_some_and(|i| i.id == id)
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.spec.settings.addresses
    }

    pub(super) fn is_live(&self) -> bool {
        self.instance
            .as_ref()
            .is_some_and(|instance| instance.stage == Stage::Live)
    }

    /// Records a change of state.
    pub(super) fn enter(&mut self, transition: Transition) {
        self.state = transition.to;
        self.since_unix_ms = transition.at_unix_ms;
        self.cause.clone_from(&transition.cause);
        if let Some(count) = self.transitions.get_mut(transition.to as usize) {
            *count += 1;
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(transition);
    }
}
