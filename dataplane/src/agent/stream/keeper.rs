//! What outlives a failure of the control stream's loop, and the disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{assemble::State, hub::Memory, saved::Place};
use crate::agent::chain;

/// Shared by the loop, whoever writes for it, and the agent, which ends.
#[derive(Debug)]
pub(super) struct Keeper {
    place: Place,
    memory: Mutex<Option<Memory>>,
    /// The version that was saved last. Held while something is written.
    on_disk: Mutex<u64>,
}

impl Keeper {
    /// With what was saved as version 0.
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            memory: Mutex::new(None),
            on_disk: Mutex::new(0),
        }
    }

    /// Where everything is kept.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What to go on with after a failure.
    pub(super) fn remember(&self, memory: Memory) {
        *lock(&self.memory) = Some(memory);
    }

    /// What was remembered last.
    pub(super) fn recall(&self) -> Option<Memory> {
        lock(&self.memory).clone()
    }

    /// Saves a state, unless a newer one is saved.
    pub(super) fn save(&self, version: u64, state: &State) -> Result<(), String> {
        let mut on_disk = lock(&self.on_disk);
        if *on_disk <= version {
            self.place.save(state).map_err(|error| chain(&error))?;
            *on_disk = version;
        }
        Ok(())
    }

    /// Removes everything that was saved.
    pub(super) fn erase(&self) -> Result<(), String> {
        let _on_disk = lock(&self.on_disk);
        self.place.erase().map_err(|error| error.to_string())
    }

    /// Saves what waits for it; the process ends.
    pub(super) fn save_rest(&self) {
        let memory = self.recall();
        let Some((version, state)) = memory.as_ref().and_then(Memory::to_save) else {
            return;
        };
        if *lock(&self.on_disk) < version
            && let Err(error) = self.save(version, state)
        {
            tracing::error!("cannot save the state: {error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
