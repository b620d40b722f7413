//! A hub that follows one that failed.

use std::sync::Arc;

use super::{Hub, Retiring};
use crate::agent::stream::{assemble::State, messages::Effect};

/// What a hub goes on with that follows one that failed.
#[derive(Clone, Debug)]
pub(in crate::agent::stream) struct Memory {
    version: u64,
    state: Arc<State>,
    has_state: bool,
    retiring: Retiring,
}

impl Memory {
    /// What belongs on disk, with its version; `None`: nothing does.
    pub(in crate::agent::stream) fn to_save(&self) -> Option<(u64, &State)> {
        let belongs = self.has_state && self.retiring == Retiring::No;
        belongs.then_some((self.version, &*self.state))
    }
}

impl Hub {
    /// Goes on where one stopped that failed; the `failures`-th time.
    pub(in crate::agent::stream) fn resume(
        node_name: String,
        memory: Memory,
        failures: u32,
    ) -> Self {
        let Memory {
            version,
            state,
            has_state,
            retiring,
        } = memory;
        let mut hub = Self::new(node_name, Ok(State::default()));
        hub.failures = failures;
        hub.version = version;
        hub.pending.clear();
        hub.saved = None;
        hub.has_state = has_state;
        hub.retiring = retiring;
        // Whatever became of the orders of before.
        let state = hub.next(Arc::unwrap_or_clone(state), true);
        match retiring {
            Retiring::No if has_state => hub.effects.push(Effect::Save(hub.version, state)),
            Retiring::No | Retiring::Done => {}
            Retiring::GivingUp | Retiring::Erasing => hub.retiring = Retiring::GivingUp,
        }
        hub
    }

    /// What to go on with should this one fail.
    pub(in crate::agent::stream) fn memory(&self) -> Memory {
        Memory {
            version: self.version,
            state: Arc::clone(&self.state),
            has_state: self.has_state,
            retiring: self.retiring,
        }
    }
}
