//! The control stream (DESIGN section 6): the node follows a controller instead of files.
//!
//! ```text
//! resolve -> client (one for each replica) --Input--> hub --Effect--> saver, agent
//!                          ^------- outbox <-----------'
//! ```
//! A thread of its own: neither a large message nor a slow disk delays the agent's loop.

mod app;
mod assemble;
mod backoff;
mod client;
mod connect;
mod content;
mod essence;
mod facts;
mod follow;
mod hub;
#[cfg(test)]
mod hub_more_tests;
#[cfg(test)]
mod hub_tests;
mod keeper;
mod messages;
mod outbox;
mod resolve;
#[cfg(test)]
mod samples;
mod saved;
mod strangers;
mod supervise;
mod view;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::Context;
use node_api::{NodeConfig, NodeReport};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};

pub(super) use self::{app::Controlled, messages::Status};
use self::{
    assemble::State,
    connect::{Credentials, Target},
    hub::Hub,
    keeper::Keeper,
    messages::{Effect, Input},
    saved::{LoadError, Place},
    supervise::{pass_on_panic, supervise},
};
use crate::{
    agent::{
        app::Origin, chain, claim::Claim, event::Event, files::Accepted, keys, locks::StateLock,
    },
    cli::RunArgs,
    sys::clock,
};

/// How often the state directory is looked at.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// How often the bundle of authorities is looked at.
const TRUST: Duration = Duration::from_secs(5);
/// Inputs that may wait; a stream that brings more is read more slowly.
const QUEUE: usize = 1024;
/// Inputs taken in before anything follows from them: what comes together takes effect together.
const BATCH: usize = 1024;

/// From the stream to the agent's loop.
#[derive(Debug)]
pub(super) enum ToAgent {
    /// Carry this out; the version is told back once it is.
    Apply(u64, Box<NodeConfig>),
    /// Show this.
    Show(Status),
}

/// What was given on the command line.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    targets: Vec<Target>,
    credentials: Credentials,
    node_name: String,
}

impl Settings {
    /// From the arguments; `None`: no controller is to be followed.
    pub(super) fn of(args: &RunArgs) -> anyhow::Result<Option<Self>> {
        let (Some(authorities), Some(token)) = (&args.controller_ca, &args.token_file) else {
            return Ok(None);
        };
        let targets = args.controller.iter().map(|text| Target::parse(text));
        Ok(Some(Self {
            targets: targets.collect::<Result<_, _>>()?,
            credentials: Credentials {
                authorities: authorities.clone(),
                token: token.clone(),
            },
            node_name: args.node_name.clone(),
        }))
    }
}

/// What the node begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    settings: Settings,
    place: Place,
    lock: Arc<StateLock>,
    saved: Result<State, String>,
}

impl Beginning {
    /// Reads the saved state. Without one the node begins with nothing.
    pub(super) fn new(settings: Settings, args: &RunArgs, claim: &Claim) -> Self {
        let place = Place {
            node_name: settings.node_name.clone(),
            state_dir: claim.state.clone(),
            keys_dir: keys::place(args, claim.state.path(), &claim.run_dir, saved::SECRETS),
        };
        let saved = match place.load() {
            Ok(state) => {
                tracing::info!(
                    resources = state.resources.len(),
                    sequence = state.sequence,
                    "starting with the saved state"
                );
                Ok(state)
            }
            Err(error @ LoadError::Missing { .. }) => Err(chain(&error)),
            Err(error) => {
                let error = chain(&error);
                tracing::error!("starting with nothing: {error}");
                Err(error)
            }
        };
        Self {
            settings,
            place,
            lock: claim.state_lock(),
            saved,
        }
    }

    /// What is carried out until a controller has told more.
    pub(super) fn origin(&self) -> Origin {
        let node_name = &self.settings.node_name;
        let state = self.saved.as_ref().ok();
        let config = state.map(|state| state.config(node_name));
        let saved_at = state.and_then(|_| self.place.saved_at_unix_ms().ok());
        Origin {
            accepted: Accepted {
                config: config.unwrap_or_else(|| State::default().config(node_name)),
                remarks: Vec::new(),
            },
            stale_reason: Some("no controller has answered yet".to_owned()),
            unsaved_reason: None,
            accepted_unix_ms: saved_at.unwrap_or_else(clock::now_unix_ms),
        }
    }

    /// Starts to follow the controller.
    pub(super) fn start(self, events: mpsc::Sender<Event>) -> anyhow::Result<Controlled> {
        let Self {
            settings,
            place,
            lock,
            saved,
        } = self;
        let keeper = Arc::new(Keeper::new(place));
        let (controlled, applied, report) = Controlled::new(saved.is_ok(), Arc::clone(&keeper));
        let run = move |failures| {
            let node_name = settings.node_name.clone();
            let hub = match keeper.recall() {
                Some(memory) => Hub::resume(node_name, memory, failures),
                None => Hub::new(node_name, saved.clone()),
            };
            let ends = Ends {
                events: events.clone(),
                applied: applied.clone(),
                report: report.clone(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(hub, &settings, &keeper, &lock, ends)),
                Err(error) => tracing::error!(%error, "cannot follow the controller"),
            }
        };
        thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || supervise(supervise::WAITS, run))
            .context("cannot start the thread of the control stream")?;
        Ok(controlled)
    }
}

/// What leads to the agent's loop and from it.
#[derive(Debug)]
struct Ends {
    events: mpsc::Sender<Event>,
    applied: watch::Receiver<Option<u64>>,
    report: watch::Receiver<Option<Arc<NodeReport>>>,
}

async fn run(
    mut hub: Hub,
    settings: &Settings,
    keeper: &Arc<Keeper>,
    lock: &Arc<StateLock>,
    ends: Ends,
) {
    let Ends {
        events,
        applied,
        report,
    } = ends;
    let (inputs, mut queue) = mpsc::channel(QUEUE);
    let (jobs, waiting) = watch::channel(None);

    // A replica may plan by the facts of the first message.
    match facts::look() {
        Ok(facts) => hub.handle(Input::Facts(facts)),
        Err(error) => tracing::error!(%error, "cannot look at the network"),
    }
    if let Err(error) = facts::watch(inputs.clone()) {
        tracing::error!(%error, "cannot watch the network");
    }
    let mut tasks = JoinSet::new();
    let (of_keeper, of_lock) = (Arc::clone(keeper), Arc::clone(lock));
    tasks.spawn(keep(of_keeper, of_lock, waiting, inputs.clone()));
    tasks.spawn(pass_on(applied, Input::Applied, inputs.clone()));
    tasks.spawn(pass_on(report, Input::Observed, inputs.clone()));
    let authorities = settings.credentials.authorities.clone();
    let told = connect::fingerprints(&authorities);
    hub.handle(Input::Authorities(told.clone()));
    tasks.spawn(trust(authorities, told, inputs.clone()));
    tasks.spawn(seconds(inputs.clone()));
    for target in settings.targets.clone() {
        let credentials = settings.credentials.clone();
        tasks.spawn(resolve::follow(target, credentials, inputs.clone()));
    }

    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let effects = hub.finish();
        keeper.remember(hub.memory());
        for effect in effects {
            let event = match effect {
                Effect::Apply(version, config) => ToAgent::Apply(version, config),
                Effect::Show(status) => ToAgent::Show(status),
                Effect::Save(version, state) => {
                    jobs.send_replace(Some(Job::Save(version, state)));
                    continue;
                }
                Effect::Erase => {
                    jobs.send_replace(Some(Job::Erase));
                    continue;
                }
                Effect::Ask => {
                    tasks.spawn(ask(events.clone(), inputs.clone()));
                    continue;
                }
            };
            if events.send(Event::Stream(event)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => pass_on_panic(ended),
            taken = queue.recv_many(&mut batch, BATCH) => if taken == 0 {
                return;
            },
        }
        for input in batch.drain(..) {
            hub.handle(input);
        }
    }
}

/// Something to do with the disk.
#[derive(Clone, Debug)]
enum Job {
    Save(u64, Arc<State>),
    Erase,
}

/// Does what is asked for, one after another; of what waits, the newest. Makes the state directory
/// again if somebody removed it.
async fn keep(
    keeper: Arc<Keeper>,
    lock: Arc<StateLock>,
    mut jobs: watch::Receiver<Option<Job>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut is_erased = false;
    loop {
        let job = match tokio::time::timeout(LOOK_ANYWAY, jobs.changed()).await {
            Ok(Ok(())) => jobs.borrow_and_update().clone(),
            Ok(Err(_ended)) => return,
            Err(_elapsed) => None,
        };
        match job {
            Some(Job::Erase) => is_erased = true,
            Some(Job::Save(..)) => is_erased = false,
            None => {}
        }
        // First: what is saved into a directory without the lock could be another agent's.
        if !is_erased {
            restore(keeper.place(), &lock, &inputs).await;
        }
        let Some(job) = job else { continue };
        let keeper = Arc::clone(&keeper);
        let work = move || match job {
            Job::Save(version, state) => Input::Saved(version, keeper.save(version, &state)),
            Job::Erase => Input::Erased(keeper.erase()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(input) => drop(inputs.send(input).await),
            Err(error) => pass_on_panic(Err(error)),
        }
    }
}

async fn restore(place: &Place, lock: &Arc<StateLock>, inputs: &mpsc::Sender<Input>) {
    let lock = Arc::clone(lock);
    let path = place.state_dir.path().display();
    match tokio::task::spawn_blocking(move || lock.restore()).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => {
            tracing::warn!(state_dir = %path, "the state directory was removed; it is made again");
            drop(inputs.send(Input::Lost(Ok(()))).await);
        }
        Ok(Err(error)) => {
            let why = format!("{path} was removed and cannot be made again ({error})");
            drop(inputs.send(Input::Lost(Err(why))).await);
        }
        Err(error) => tracing::error!(%error, "cannot look at the state directory"),
    }
}

/// Hands on what the agent shows, the newest.
async fn pass_on<T: Clone + Send + Sync>(
    mut shown: watch::Receiver<Option<T>>,
    wrap: impl Fn(T) -> Input,
    inputs: mpsc::Sender<Input>,
) {
    // What is shown by now is news to a loop that begins anew.
    shown.mark_changed();
    while shown.changed().await.is_ok() {
        let value = shown.borrow_and_update().clone();
        if let Some(value) = value
            && inputs.send(wrap(value)).await.is_err()
        {
            return;
        }
    }
}

/// Tells when the bundle of authorities changes, which the kubelet brings a minute after the controller
/// wrote it.
async fn trust(bundle: PathBuf, mut told: Vec<String>, inputs: mpsc::Sender<Input>) {
    let mut look = tokio::time::interval(TRUST);
    loop {
        look.tick().await;
        let now = connect::fingerprints(&bundle);
        if told != now {
            told.clone_from(&now);
            if inputs.send(Input::Authorities(now)).await.is_err() {
                return;
            }
        }
    }
}

async fn seconds(inputs: mpsc::Sender<Input>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        if inputs.send(Input::Second).await.is_err() {
            return;
        }
    }
}

async fn ask(events: mpsc::Sender<Event>, inputs: mpsc::Sender<Input>) {
    let (reply, answer) = oneshot::channel();
    drop(events.send(Event::Snapshot(reply)).await);
    if let Ok(snapshot) = answer.await {
        let report = Arc::new(snapshot.report);
        drop(inputs.send(Input::Fresh(report)).await);
    }
}
