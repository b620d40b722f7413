//! wsha is uninstalled: everything is given up, in order, and nothing is taken up again before a
//! controller that does not ask for this has told its whole state on a stream of its own.

use super::{Hub, Retiring};
use crate::agent::stream::{
    assemble::State,
    messages::{Effect, StreamId},
};

impl Hub {
    /// A controller asks for it.
    pub(super) fn begin_to_retire(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_retiring = true;
        }
        match self.retiring {
            Retiring::No => {
                tracing::warn!("the controller asks to give up everything: wsha is uninstalled");
                self.retiring = Retiring::GivingUp;
                self.has_state = false;
                self.is_unsaved = false;
                self.incomplete.clear();
                for stream in self.streams.values_mut() {
                    stream.is_retiring = true;
                }
                self.next(State::default(), true);
            }
            Retiring::GivingUp | Retiring::Erasing => {}
            Retiring::Done => {
                if let Some(stream) = self.streams.get(&id) {
                    stream.outbox.retired();
                }
            }
        }
    }

    /// Goes as far as what has happened so far allows.
    pub(super) fn retire(&mut self) {
        if self.retiring == Retiring::GivingUp && self.applied == Some(self.version) {
            self.retiring = Retiring::Erasing;
            self.effects.push(Effect::Erase);
        }
    }

    /// Takes part again, if a controller wants it.
    pub(super) fn revive(&mut self) {
        let wants_it_back =
            |stream: &super::Stream| !stream.is_retiring && stream.view.sequence().is_some();
        if self.retiring == Retiring::Done && self.streams.values().any(wants_it_back) {
            tracing::warn!("a controller tells what to serve: this node takes part again");
            self.retiring = Retiring::No;
        }
    }

    /// Everything on disk is removed, or why not.
    pub(super) fn erased(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                tracing::info!("every address is given up and the state directory is empty");
                self.retiring = Retiring::Done;
                self.save_problem = None;
                let streams = self.streams.values();
                for stream in streams.filter(|stream| stream.is_retiring) {
                    stream.outbox.retired();
                }
            }
            Err(problem) => {
                tracing::error!("cannot empty the state directory: {problem}");
                self.save_problem = Some(problem);
            }
        }
    }
}
