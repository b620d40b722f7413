//! The agent process: small and long-lived. Reads the configuration, supervises the other two,
//! answers `status` and metrics.

mod admin;
mod app;
mod child;
mod claim;
mod configure;
mod desired;
mod event;
mod files;
mod leave;
mod link;
mod notify;
mod questions;
mod report;
mod rollout;
mod server;
mod state_dir;
pub mod status;
mod stream;
mod table;
mod watch;
mod watchdog;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};

use crate::{
    agent::{
        app::{App, Origin},
        child::Recipe,
        claim::{Claim, Prepared},
        event::{Event, Role},
        files::{FileSet, Refused},
        server::{Door, Purpose},
        state_dir::StateDir,
        stream::Beginning,
        watch::Watcher,
    },
    cli::{LogFormat, RunArgs},
    sys::{spawn, spawn::Rights, users},
};

/// Events that may wait: more than the processes of a host cause in one turn of the loop.
const EVENTS: usize = 256;
/// How often time-outs are looked after.
const TICK: Duration = Duration::from_millis(100);
/// A vrrp that lived so long is started again at once: it has two advertisement intervals to go on
/// where the former one stopped.
const VRRP_SETTLED: Duration = Duration::from_secs(1);
/// A proxy that lived so long did not crash at its start.
const PROXY_SETTLED: Duration = Duration::from_secs(10);
/// Longest wait before vrrp is started again: without it the host takes no part.
const VRRP_WAIT: Duration = Duration::from_secs(1);
/// After the proxy's death vrrp leaves the address in place, 120 ms at most, so that clients are
/// refused rather than ignored until the next host has it. A listener opened meanwhile would take
/// connections that die with the address. The host takes back after 3 s at the earliest anyway.
const PROXY_FIRST_WAIT: Duration = Duration::from_millis(150);
/// Longest wait before the proxy is started again.
const PROXY_WAIT: Duration = Duration::from_secs(5);

/// Runs the process until it has stopped in order.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let prepared = Prepared::new(args)?;
    let (claim, origin, followed) = begin(args, prepared)?;
    spawn::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(serve(args, claim, origin, followed))
}

/// What the agent follows.
#[derive(Debug)]
enum Followed {
    /// Files, and what they held when they were looked at first.
    Files(PathBuf, Option<FileSet>),
    /// A controller.
    Controller(Box<Beginning>),
}

/// Takes the lock, and finds what to begin with.
fn begin(args: &RunArgs, prepared: Prepared) -> anyhow::Result<(Claim, Origin, Followed)> {
    let controller = stream::Settings::of(args)?;
    let Some(manifests) = &args.manifests else {
        let settings = controller.context("give either --manifests or --controller")?;
        let claim = prepared.claim(args)?;
        // Only now: whoever had the lock may have saved a newer one.
        let beginning = Beginning::new(settings, &claim);
        let origin = beginning.origin();
        return Ok((claim, origin, Followed::Controller(Box::new(beginning))));
    };
    // Before the lock: with nothing to serve, an agent that runs well must not be stopped.
    let (origin, files) = first_configuration(&prepared.state, manifests, &args.node_name)?;
    let claim = prepared.claim(args)?;
    if let (Some(files), None) = (&files, &origin.stale_reason) {
        save(&claim.state, files);
    }
    let followed = Followed::Files(manifests.clone(), files);
    Ok((claim, origin, followed))
}

async fn serve(
    args: &RunArgs,
    claim: Claim,
    origin: Origin,
    followed: Followed,
) -> anyhow::Result<()> {
    let admin = TcpListener::bind(args.admin).await.with_context(|| {
        format!(
            "cannot serve metrics on {}; choose another address with --admin",
            args.admin
        )
    })?;
    let sockets = claim.open_sockets()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = args.node_name,
        manifests = args.manifests.as_ref().map(|path| display(path.display())),
        controller = (!args.controller.is_empty()).then(|| args.controller.join(", ")),
        state_dir = %claim.state.path().display(),
        run_dir = %claim.run_dir.display(),
        admin = %args.admin,
        "agent started"
    );
    let (sender, events) = mpsc::channel(EVENTS);

    for (socket, purpose, uid) in [
        (sockets.agent, Purpose::Agent, users::effective_uid()),
        (sockets.proxy, Purpose::Proxy, claim.proxy_user.uid),
    ] {
        let listener = UnixListener::from_std(socket).context("cannot watch a socket")?;
        let door = Door { purpose, uid };
        tokio::spawn(server::accept(listener, door, sender.clone()));
    }
    tokio::spawn(admin::serve(admin, sender.clone()));
    tokio::spawn(tick(sender.clone()));
    stop_on_signals(&sender).context("cannot handle signals")?;
    let mut stream = None;
    match followed {
        Followed::Files(path, files) => {
            let node_name = args.node_name.clone();
            let state = claim.state.clone();
            let source = Source {
                path,
                node_name,
                state,
            };
            tokio::spawn(follow_files(source, files, sender.clone()));
        }
        Followed::Controller(beginning) => stream = Some(beginning.start(sender.clone())?),
    }

    let recipes = (vrrp_recipe(args, &claim), proxy_recipe(args, &claim));
    let mut app = App::new(claim, recipes, origin, sender).context("cannot start")?;
    app.stream = stream;
    app.run(events).await;
    if app.is_retired() {
        let removed = app.claim.state.remove_lock();
        removed.context("cannot remove the lock from the state directory")?;
    }
    Ok(())
}

fn vrrp_recipe(args: &RunArgs, claim: &Claim) -> Recipe {
    Recipe {
        role: Role::Vrrp,
        arguments: common_arguments(&claim.run_dir, args.log_format),
        rights: Rights {
            user: None,
            keep: vec![
                users::NET_ADMIN,
                users::NET_RAW,
                users::SYS_NICE,
                users::IPC_LOCK,
            ],
        },
        settled_after: VRRP_SETTLED,
        // Within two advertisement intervals it goes on where its predecessor stopped.
        first_wait: Duration::ZERO,
        longest_wait: VRRP_WAIT,
    }
}

fn proxy_recipe(args: &RunArgs, claim: &Claim) -> Recipe {
    let mut arguments = common_arguments(&claim.run_dir, args.log_format);
    if let Some(workers) = args.workers {
        arguments.extend(["--workers".into(), workers.to_string().into()]);
    }
    Recipe {
        role: Role::Proxy,
        arguments,
        rights: Rights {
            user: Some(claim.proxy_user),
            keep: Vec::new(),
        },
        settled_after: PROXY_SETTLED,
        first_wait: PROXY_FIRST_WAIT,
        longest_wait: PROXY_WAIT,
    }
}

fn common_arguments(run_dir: &Path, format: LogFormat) -> Vec<OsString> {
    let format = format.to_possible_value();
    let format = format.map_or_else(|| "text".to_owned(), |value| value.get_name().to_owned());
    vec![
        "--run-dir".into(),
        run_dir.into(),
        "--log-format".into(),
        format.into(),
    ]
}

/// What the files gave.
type Reading = Result<(files::Accepted, FileSet), Unusable>;

/// Why nothing can be done with the files.
#[derive(Debug)]
enum Unusable {
    /// They cannot be read.
    Unreadable(String),
    /// They are not in order.
    Refused(FileSet, Vec<String>),
    /// They are in order, and this node is not among their nodes.
    Node(String),
}

fn read(manifests: &Path, node_name: &str) -> Reading {
    let files = files::read(manifests).map_err(|error| Unusable::Unreadable(chain(&error)))?;
    match files::evaluate(&files, node_name) {
        Ok(accepted) => Ok((accepted, files)),
        Err(Refused::Node(sentence)) => Err(Unusable::Node(sentence)),
        Err(Refused::Content(sentences)) => Err(Unusable::Refused(files, sentences)),
    }
}

/// From the files, or else from what was accepted before. Also gives the files that were looked at,
/// so that only a change of them is looked at again.
fn first_configuration(
    state: &StateDir,
    manifests: &Path,
    node_name: &str,
) -> anyhow::Result<(Origin, Option<FileSet>)> {
    let (sentences, files) = match read(manifests, node_name) {
        Ok((accepted, files)) => {
            let origin = Origin {
                accepted,
                stale_reason: None,
            };
            return Ok((origin, Some(files)));
        }
        Err(Unusable::Node(sentence)) => anyhow::bail!("{sentence}"),
        Err(Unusable::Unreadable(sentence)) => (vec![sentence], None),
        Err(Unusable::Refused(files, sentences)) => (sentences, Some(files)),
    };
    let why = sentences.join("; ");
    let saved = state.load().map_err(|error| chain(&error));
    let accepted = saved.and_then(|saved| {
        files::evaluate(&saved, node_name)
            .map_err(|refused| format!("the files accepted before do not serve either: {refused}"))
    });
    match accepted {
        Ok(accepted) => {
            for sentence in &sentences {
                tracing::error!("cannot use the files: {sentence}");
            }
            tracing::warn!("starting with the files that were accepted before");
            let origin = Origin {
                accepted,
                stale_reason: Some(format!(
                    "the files cannot be used and those accepted before are in use: {why}"
                )),
            };
            Ok((origin, files))
        }
        Err(nothing) => anyhow::bail!("{why}; and there is nothing to go on with: {nothing}"),
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    node_name: String,
    state: StateDir,
}

/// Looks at the files whenever they may have changed; ends when the agent does.
async fn follow_files(source: Source, mut known: Option<FileSet>, events: mpsc::Sender<Event>) {
    let mut watcher = match Watcher::new(&source.path) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "cannot watch the files: they are looked at every 10 s");
            None
        }
    };
    let mut unreadable = None;
    loop {
        // Once before the first wait: they may have changed between the first look and the watch.
        let looking = source.clone();
        let before = known.clone();
        let looked = tokio::task::spawn_blocking(move || look(&looking, before.as_ref())).await;
        let event = match looked {
            // Readable again, and as they were: what was said of them is said again.
            Ok(Look::Same) if unreadable.take().is_some() => {
                known = None;
                continue;
            }
            Ok(Look::Same) => None,
            Ok(Look::Unreadable(sentence)) => {
                let new = unreadable.as_ref() != Some(&sentence);
                unreadable = Some(sentence.clone());
                new.then(|| Event::Refused(vec![sentence]))
            }
            Ok(Look::New(files, event)) => {
                unreadable = None;
                known = Some(files);
                Some(event)
            }
            Err(error) => {
                tracing::error!(%error, "cannot look at the files");
                None
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
        wait_for_change(&mut watcher).await;
    }
}

async fn wait_for_change(watcher: &mut Option<Watcher>) {
    if let Some(watching) = watcher {
        match watching.changed().await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot watch the files: they are looked at every 10 s");
                *watcher = None;
            }
        }
    }
    tokio::time::sleep(watch::LOOK_ANYWAY).await;
}

/// What a look at the files gave.
enum Look {
    Same,
    Unreadable(String),
    New(FileSet, Event),
}

fn look(source: &Source, known: Option<&FileSet>) -> Look {
    let files = match files::read(&source.path) {
        Ok(files) if Some(&files) == known => return Look::Same,
        Ok(files) => files,
        Err(error) => return Look::Unreadable(chain(&error)),
    };
    let event = match files::evaluate(&files, &source.node_name) {
        Ok(accepted) => {
            save(&source.state, &files);
            Event::Accepted(Box::new(accepted))
        }
        Err(refused) => Event::Refused(refused.sentences().to_vec()),
    };
    Look::New(files, event)
}

/// Without it a later start with bad files may fail; what runs is fine.
fn save(state: &StateDir, files: &FileSet) {
    if let Err(error) = state.save(files) {
        tracing::error!("{}; a later start may not find these files", chain(&error));
    }
}

async fn tick(events: mpsc::Sender<Event>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

fn stop_on_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    for (kind, name) in [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::hangup(), "SIGHUP"),
    ] {
        let mut signals = signal(kind)?;
        let events = events.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                drop(events.send(Event::Stop(name.to_owned())).await);
            }
        });
    }
    Ok(())
}

/// An error with all its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
