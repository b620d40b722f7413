//! What a person should know of the control stream.

use super::{Hub, Retiring};
use crate::agent::stream::messages::Status;

impl Hub {
    pub(super) fn status(&self) -> Status {
        let connected = self.streams.values().filter(|one| one.replica.is_some());
        let mut warnings = self.incomplete.clone();
        warnings.extend((self.failures > 0).then(|| {
            let times = self.failures;
            format!(
                "the control stream failed {times} times and began anew, which is a defect of this \
                 program: report it along with the log"
            )
        }));
        warnings.extend(self.save_problem.as_ref().map(|problem| {
            format!("cannot save the state, so a later start may not find it: {problem}")
        }));
        let stale_reason = if self.retiring != Retiring::No {
            Some("wsha is being uninstalled: this node gave up every address".to_owned())
        } else if self.followed.is_some() {
            warnings.extend(self.causes());
            None
        } else {
            let causes = self.causes().join("; ");
            let causes = if causes.is_empty() {
                "it has not answered yet"
            } else {
                &causes
            };
            Some(match &self.nothing_saved {
                Some(reason) if !self.has_state => {
                    format!("there is nothing to serve: {causes}; and {reason}")
                }
                _ => format!("no controller is followed, what was told before is in use: {causes}"),
            })
        };
        Status {
            connected: connected.count(),
            has_state: self.has_state,
            is_unsaved: self.save_problem.is_some() && self.retiring == Retiring::No,
            is_retired: self.retiring == Retiring::Done,
            stale_reason,
            warnings,
        }
    }

    /// Why replicas are not followed, each a sentence.
    fn causes(&self) -> Vec<String> {
        let mut causes: Vec<_> = self
            .problems
            .iter()
            .map(|(address, problem)| format!("controller {address}: {problem}"))
            .collect();
        for stream in self.streams.values() {
            let Some(replica) = &stream.replica else {
                continue;
            };
            let address = &stream.address;
            match stream.view.sequence() {
                None if self.followed.is_none() => causes.push(format!(
                    "controller {address}: replica {replica} has not told its whole state yet"
                )),
                Some(sequence) if sequence < self.state.sequence && !self.is_other(stream) => {
                    causes.push(format!(
                        "controller {address}: replica {replica} has read the API server up to \
                     sequence {sequence} and this node carries out {}; it is ignored until it \
                     has caught up",
                        self.state.sequence
                    ));
                }
                _ => {}
            }
        }
        causes
    }
}
