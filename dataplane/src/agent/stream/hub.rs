//! Between the streams and the agent: which replica is followed, what is carried out, what is told
//! back. No I/O and no clock: inputs come in, effects go out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use node_api::{
    NodeReport,
    stream::{Hello, NodeFacts, ToNode, Welcome},
};

mod facts;
mod memory;
mod retire;
mod show;

pub(super) use self::memory::Memory;
use super::{
    assemble::{State, assemble},
    content::{Refusal, not_understood},
    essence::Essence,
    follow::{self, Choice, Whole},
    messages::{Effect, Input, Status, StreamId},
    outbox::Outbox,
    view::View,
};

/// States that may wait to be carried out and saved; of older ones nothing is acknowledged.
const PENDING: usize = 64;

#[derive(Debug)]
struct Stream {
    address: String,
    replica: Option<String>,
    /// Which history its sequences are of; empty: unknown.
    epoch: String,
    /// It reads from the API server now, as far as it has told.
    is_live: bool,
    /// It was open, or asked for it itself, when everything was to be given up.
    is_retiring: bool,
    view: View,
    outbox: Arc<Outbox>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Retiring {
    #[default]
    No,
    GivingUp,
    Erasing,
    Done,
}

/// A state that waits to be carried out.
#[derive(Debug)]
struct Pending {
    version: u64,
    state: Arc<State>,
    /// The version that must be on disk before it is acknowledged.
    needs: u64,
}

/// The state of the node's side of the control stream.
#[derive(Debug)]
pub(super) struct Hub {
    node_name: String,
    state: Arc<State>,
    version: u64,
    has_state: bool,
    /// Why there was no saved state.
    nothing_saved: Option<String>,
    streams: BTreeMap<StreamId, Stream>,
    followed: Option<StreamId>,
    /// The followed view may have changed since it was looked at.
    is_touched: bool,
    problems: BTreeMap<String, String>,
    incomplete: Vec<String>,
    save_problem: Option<String>,
    pending: VecDeque<Pending>,
    /// The newest version that must be on disk: endpoints may be forgotten in a crash.
    must_save: u64,
    /// The state is not on disk, and needs not be at once.
    is_unsaved: bool,
    /// Endpoints were saved within this second already.
    has_saved: bool,
    failures: u32,
    applied: Option<u64>,
    saved: Option<u64>,
    carried_out: Option<Arc<State>>,
    retiring: Retiring,
    /// The network as it is.
    looked: NodeFacts,
    /// What is told of it.
    facts: NodeFacts,
    authorities: Vec<String>,
    report: Option<Arc<NodeReport>>,
    essence: Essence,
    /// Endpoints changed within this second already.
    is_busy: bool,
    is_report_due: bool,
    seconds: u32,
    shown: Option<Status>,
    effects: Vec<Effect>,
}

/// A report is told so often when nothing changes.
const REPORT_EVERY: u32 = 10;

impl Hub {
    /// Begins with the saved state, or the reason why there is none.
    pub(super) fn new(node_name: String, saved: Result<State, String>) -> Self {
        let has_state = saved.is_ok();
        let (state, nothing_saved) = match saved {
            Ok(state) => (state, None),
            Err(reason) => (State::default(), Some(reason)),
        };
        let state = Arc::new(state);
        Self {
            node_name,
            version: 0,
            has_state,
            nothing_saved,
            streams: BTreeMap::new(),
            followed: None,
            is_touched: false,
            problems: BTreeMap::new(),
            incomplete: Vec::new(),
            save_problem: None,
            pending: [Pending {
                version: 0,
                state: Arc::clone(&state),
                needs: 0,
            }]
            .into(),
            must_save: 0,
            is_unsaved: false,
            has_saved: false,
            failures: 0,
            state,
            applied: None,
            saved: Some(0),
            carried_out: None,
            retiring: Retiring::No,
            looked: NodeFacts::default(),
            facts: NodeFacts::default(),
            authorities: Vec::new(),
            report: None,
            essence: Essence::default(),
            is_busy: false,
            is_report_due: false,
            seconds: 0,
            shown: None,
            effects: Vec::new(),
        }
    }

    /// Takes in one thing; [`Self::finish`] follows once there is no more for the moment.
    pub(super) fn handle(&mut self, input: Input) {
        match input {
            Input::Opened {
                id,
                address,
                outbox,
            } => self.opened(id, address, outbox),
            Input::Welcome(id, welcome) => self.welcome(id, welcome),
            Input::Told(id, message) => self.told(id, message),
            Input::Refused(id, name, revision, what) => {
                self.with(id, |view| {
                    view.refuse(name, revision, not_understood(&what))
                });
            }
            Input::Ended(id) => {
                self.streams.remove(&id);
            }
            Input::Problem(address, Some(cause)) => {
                self.problems.insert(address, cause);
            }
            Input::Problem(address, None) => {
                self.problems.remove(&address);
            }
            Input::Applied(version) => self.applied = Some(version),
            Input::Saved(version, Ok(())) => {
                self.saved = Some(version);
                self.save_problem = None;
            }
            Input::Saved(_, Err(problem)) => self.save_problem = Some(problem),
            Input::Lost(made_again) => self.lost(made_again),
            Input::Erased(result) => self.erased(result),
            Input::Observed(report) => self.observed(report),
            Input::Fresh(report) => {
                self.essence = Essence::of(&report);
                self.report_now(report);
            }
            Input::Facts(facts) => {
                self.looked = facts;
                self.tell_facts();
            }
            Input::Authorities(authorities) => {
                for stream in self.streams.values() {
                    stream.outbox.authorities(authorities.clone());
                }
                self.authorities = authorities;
            }
            Input::Second => self.second(),
        }
    }

    /// What follows from what was taken in.
    pub(super) fn finish(&mut self) -> Vec<Effect> {
        self.revive();
        self.follow();
        self.acknowledge();
        self.retire();
        let status = self.status();
        if self.shown.as_ref() != Some(&status) {
            self.shown = Some(status.clone());
            self.effects.push(Effect::Show(status));
        }
        std::mem::take(&mut self.effects)
    }

    fn opened(&mut self, id: StreamId, address: String, outbox: Arc<Outbox>) {
        let held = self.state.resources.iter();
        outbox.hello(Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: held
                .map(|(name, held)| (name.clone(), held.revision.clone()))
                .collect(),
            sequence: self.state.sequence,
            epoch: self.state.epoch.clone(),
            facts: self.facts.clone(),
            authorities: self.authorities.clone(),
        });
        let stream = Stream {
            address,
            replica: None,
            epoch: String::new(),
            is_live: true,
            is_retiring: false,
            view: View::new(self.state.resources.clone()),
            outbox,
        };
        self.streams.insert(id, stream);
    }

    fn welcome(&mut self, id: StreamId, welcome: Welcome) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(report) = &self.report {
            stream.outbox.report(Arc::clone(report));
        }
        stream.replica = Some(welcome.replica);
        stream.epoch = welcome.epoch;
        self.problems.remove(&stream.address);
    }

    fn told(&mut self, id: StreamId, message: ToNode) {
        match message {
            ToNode::Welcome(welcome) => self.welcome(id, welcome),
            ToNode::Upsert {
                name,
                revision,
                body,
            } => self.with(id, |view| view.upsert(name, revision, body)),
            ToNode::EndpointsDelta(delta) => self.with(id, |view| view.delta(delta)),
            ToNode::Remove { name } => self.with(id, |view| {
                view.remove(name);
                Ok(())
            }),
            ToNode::Synced { sequence, keep } => self.with(id, |view| {
                view.synced(sequence, keep.as_ref());
                Ok(())
            }),
            ToNode::Watching { live } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.is_live = live;
                }
            }
            ToNode::Retire => self.begin_to_retire(id),
        }
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut View) -> Result<(), Refusal>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        self.is_touched |= self.followed == Some(id);
        if let Err(refusal) = change(&mut stream.view) {
            let (name, replica) = (&refusal.name, stream.replica.as_deref());
            tracing::error!(resource = %name, replica, "refused it: {}", refusal.reason);
            stream.outbox.nack(refusal);
        }
    }

    fn follow(&mut self) {
        if self.retiring != Retiring::No {
            self.followed = None;
            return;
        }
        // What was told to a node that gives up everything is not what it is to take up again.
        let streams = self.streams.iter().filter(|(_, one)| !one.is_retiring);
        let whole = streams.filter_map(|(id, stream)| {
            Some(Whole {
                id: *id,
                sequence: stream.view.sequence()?,
                is_live: stream.is_live,
                is_other: self.is_other(stream),
            })
        });
        let choice = follow::choose(whole, self.followed, self.state.sequence);
        let chosen = match choice {
            Choice::Follow(id) => Some(id),
            Choice::AllOlder(_) | Choice::None => None,
        };
        if chosen != self.followed {
            self.followed = chosen;
            self.is_touched = true;
            if let Some(stream) = chosen.and_then(|id| self.streams.get(&id)) {
                let replica = stream.replica.as_deref();
                tracing::info!(address = stream.address, replica, "following this replica");
            }
        }
        if std::mem::take(&mut self.is_touched)
            && let Some(stream) = chosen.and_then(|id| self.streams.get(&id))
        {
            if self.is_other(stream) {
                let (before, epoch) = (&self.state.epoch, &stream.epoch);
                tracing::warn!(
                    before,
                    epoch,
                    "the controller's history began anew: sequences of before do not count any more"
                );
            }
            let assembled = assemble(&self.node_name, &stream.view, &stream.epoch, &self.state);
            self.incomplete = assembled.warnings;
            self.adopt(assembled.state);
        }
    }

    /// Whether the stream's sequences are of another history than what is carried out.
    fn is_other(&self, stream: &Stream) -> bool {
        self.state.is_of_another_history(&stream.epoch)
    }

    fn adopt(&mut self, state: State) {
        let is_first = !std::mem::replace(&mut self.has_state, true);
        if state.is_same(&self.state) && !is_first {
            return;
        }
        let must_save = is_first || !state.differs_in_endpoints_only(&self.state);
        let state = self.next(state, must_save);
        tracing::debug!(
            version = self.version,
            sequence = state.sequence,
            resources = state.resources.len(),
            "took over the controller's state"
        );
        if !must_save && std::mem::replace(&mut self.has_saved, true) {
            // Pods come and go by hundreds: one write a second is enough.
            self.is_unsaved = true;
            return;
        }
        self.save(state);
    }

    fn save(&mut self, state: Arc<State>) {
        self.is_unsaved = false;
        self.effects.push(Effect::Save(self.version, state));
    }

    fn next(&mut self, state: State, must_save: bool) -> Arc<State> {
        self.version += 1;
        if must_save {
            self.must_save = self.version;
        }
        self.state = Arc::new(state);
        self.tell_facts();
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        let state = Arc::clone(&self.state);
        self.pending.push_back(Pending {
            version: self.version,
            state: Arc::clone(&state),
            needs: self.must_save,
        });
        let config = Box::new(state.config(&self.node_name));
        self.effects.push(Effect::Apply(self.version, config));
        state
    }

    /// What is carried out and on disk is acknowledged: a node that forgot it in a crash could claim
    /// an address that has gone to another pool since. Endpoints need not be on disk for that.
    fn acknowledge(&mut self) {
        if let Some(applied) = self.applied {
            while let Some(next) = self.pending.front()
                && next.version <= applied
                && self.saved >= Some(next.needs)
            {
                let newest = self
                    .pending
                    .pop_front()
                    .filter(|one| one.version == applied);
                let newest = newest.map(|one| one.state);
                self.carried_out = newest.or_else(|| self.carried_out.take());
            }
        }
        let Some(carried_out) = &self.carried_out else {
            return;
        };
        for stream in self.streams.values_mut() {
            let acks = stream.view.acknowledge(&carried_out.resources);
            stream.outbox.acks(acks);
        }
    }

    /// What was saved is saved again; a node that was told nothing has nothing to save.
    fn lost(&mut self, made_again: Result<(), String>) {
        if !self.has_state || self.retiring != Retiring::No {
            return;
        }
        match made_again {
            Ok(()) => {
                let state = Arc::clone(&self.state);
                self.save(state);
            }
            Err(problem) => self.save_problem = Some(problem),
        }
    }

    fn observed(&mut self, report: Arc<NodeReport>) {
        let essence = Essence::of(&report);
        let is_urgent = !essence.has_same_states(&self.essence);
        let is_new = essence != self.essence;
        self.essence = essence;
        if is_urgent || (is_new && !self.is_busy) {
            // A pool whose endpoints all come and go costs one report a second, not hundreds.
            self.is_busy = true;
            self.report_now(report);
        } else {
            self.is_report_due |= is_new;
            self.report = Some(report);
        }
    }

    fn report_now(&mut self, report: Arc<NodeReport>) {
        self.is_report_due = false;
        for stream in self.streams.values() {
            stream.outbox.report(Arc::clone(&report));
        }
        self.report = Some(report);
    }

    fn second(&mut self) {
        self.is_busy = false;
        self.has_saved = self.is_unsaved;
        if self.is_unsaved {
            let state = Arc::clone(&self.state);
            self.save(state);
        }
        if self.is_report_due
            && let Some(report) = self.report.clone()
        {
            self.is_busy = true;
            self.report_now(report);
        }
        self.seconds += 1;
        if self.seconds >= REPORT_EVERY {
            self.seconds = 0;
            self.effects.push(Effect::Ask);
            if self.save_problem.is_some() {
                self.effects.push(match self.retiring {
                    Retiring::No => Effect::Save(self.version, Arc::clone(&self.state)),
                    _ => Effect::Erase,
                });
            }
        }
    }
}
