//! The agent process: small and long-lived. Reads the configuration, supervises the other two,
//! answers `status` and metrics.

mod admin;
mod app;
mod checks;
mod child;
mod claim;
mod configure;
mod desired;
mod event;
mod files;
mod follow;
mod history;
mod keys;
mod leave;
mod link;
mod locks;
mod notify;
mod orphans;
mod pod;
pub mod probe;
mod questions;
mod report;
mod rollout;
mod run_dir;
mod server;
mod state_dir;
pub mod status;
pub mod stay;
mod stream;
mod table;
mod waiting;
mod watch;
mod watchdog;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::MissedTickBehavior,
};

use crate::{
    agent::{
        app::{App, Origin},
        checks::{CheckDir, Programs},
        child::Recipe,
        claim::{Claim, ClaimError, Prepared},
        event::{Event, Role},
        follow::{First, Follower, Source},
        keys::{KeyFiles, Keyring},
        server::{Door, Purpose},
        stream::Beginning,
    },
    cli::{Io, ProxyStart, RunArgs, common_arguments},
    restart::{self, Waits},
    sys::{limits, signals, spawn::Rights, users},
};

/// Events that may wait: more than the processes of a host cause in one turn of the loop.
const EVENTS: usize = 256;
/// How often time-outs are looked after.
const TICK: Duration = Duration::from_millis(100);
/// A vrrp that lived so long is started again at once: it has two advertisement intervals to go on
/// where the former one stopped.
const VRRP_SETTLED: Duration = Duration::from_secs(1);
/// Longest wait before vrrp is started again: without it the host takes no part.
const VRRP_WAIT: Duration = Duration::from_secs(1);

/// How often an address for metrics that is taken is tried again.
const ADMIN_AGAIN: Duration = Duration::from_secs(1);

/// Runs the process until it has stopped in order.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let prepared = Prepared::prepare(args)?;
    let run_dir = prepared.run_dir.clone();
    let check_dir = args.check_dir.as_deref().map(CheckDir::open).transpose()?;
    let (claim, origin, followed) = match begin(args, prepared) {
        Ok(begun) => begun,
        Err(error) if args.stay && is_refusal(&error) => {
            return stay::enter(args, &run_dir, &format!("{error:#}"));
        }
        Err(error) => return Err(error),
    };
    // Best effort: what either is for works less well without.
    limits::raise_open_files();
    drop(limits::forbid_core_dumps());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let is_taken_over = runtime.block_on(serve(args, claim, origin, followed, check_dir))?;
    if args.stay && is_taken_over {
        let why = "an agent of a newer pod serves this node; this one holds nothing any more";
        return stay::enter(args, &run_dir, why);
    }
    Ok(())
}

/// Whether the agent that runs is of a newer pod.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClaimError::Refused { .. }))
}

/// What the agent follows.
#[derive(Debug)]
enum Followed {
    /// Files.
    Files(Box<(Follower, KeyFiles, Keyring)>),
    /// A controller.
    Controller(Box<Beginning>),
}

/// Takes the locks, and finds what to begin with.
fn begin(args: &RunArgs, prepared: Prepared) -> anyhow::Result<(Claim, Origin, Followed)> {
    let controller = stream::Settings::of(args)?;
    let Some(manifests) = &args.manifests else {
        let settings = controller.context("give either --manifests or --controller")?;
        let claim = prepared.claim(args)?;
        // Only now: whoever had the lock may have saved a newer one.
        let beginning = Beginning::new(settings, args, &claim);
        let origin = beginning.origin();
        return Ok((claim, origin, Followed::Controller(Box::new(beginning))));
    };
    let source = Source {
        path: manifests.clone(),
        node_name: args.node_name.clone(),
        state: prepared.state.clone(),
    };
    // Before the lock: with nothing to serve, an agent that runs well must not be stopped.
    let First {
        mut origin,
        known,
        in_use,
    } = follow::first(&source)?;
    let claim = prepared.claim(args)?;
    if origin.stale_reason.is_none()
        && let Err(sentence) = follow::save(&claim.state, &in_use)
    {
        tracing::error!("{sentence}");
        origin.unsaved_reason = Some(sentence);
    }
    let follower = Follower::new(source, known, in_use, origin.unsaved_reason.clone());
    let place = keys::place(args, claim.state.path(), &claim.run_dir, KeyFiles::SAVED);
    let key_files = KeyFiles::open(args.tls_dir.as_deref(), place);
    let found = key_files.want(&origin.accepted.config);
    origin.accepted.config.keys = found.keys.clone();
    let files = (follower, key_files, Keyring::of_files(found));
    Ok((claim, origin, Followed::Files(Box::new(files))))
}

/// Whether it stopped for another agent.
async fn serve(
    args: &RunArgs,
    claim: Claim,
    origin: Origin,
    followed: Followed,
    check_dir: Option<CheckDir>,
) -> anyhow::Result<bool> {
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
    // Each runs as long as the agent does.
    let mut tasks = JoinSet::new();
    let us = users::effective_uid();
    let doors = [
        (sockets.agent, Purpose::Agent, us),
        (sockets.proxy, Purpose::Proxy, claim.proxy_user.uid),
    ];
    let holder = sockets.holder.map(|socket| (socket, Purpose::Holder, us));
    for (socket, purpose, uid) in doors.into_iter().chain(holder) {
        let listener = UnixListener::from_std(socket).context("cannot watch a socket")?;
        let door = Door { purpose, uid };
        tasks.spawn(server::accept(listener, door, sender.clone()));
    }
    tasks.spawn(serve_admin(args.admin, sender.clone()));
    tasks.spawn(tick(sender.clone()));
    for (kind, name) in [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
    ] {
        let signals = signal(kind).with_context(|| format!("cannot handle {name}"))?;
        tasks.spawn(stop_on(signals, name, sender.clone()));
    }
    signals::let_through().context("cannot let signals through")?;
    let hangups = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let mut stream = None;
    let keyring = match followed {
        Followed::Files(files) => {
            let (files, key_files, keyring) = *files;
            let asked = Arc::new(Notify::new());
            tasks.spawn(look_on(hangups, Arc::clone(&asked)));
            let lock = claim.state_lock();
            if args.tls_dir.is_some() {
                tasks.spawn(keys::look(key_files.clone(), sender.clone()));
            }
            tasks.spawn(follow::follow(
                files,
                key_files,
                lock,
                asked,
                sender.clone(),
            ));
            keyring
        }
        Followed::Controller(beginning) => {
            tasks.spawn(ignore(hangups));
            stream = Some(beginning.start(sender.clone())?);
            Keyring::of_controller()
        }
    };

    let proxy = match args.proxy {
        ProxyStart::Child => child::Origin::Ours(proxy_recipe(args, &claim)),
        ProxyStart::External => child::Origin::Elsewhere,
    };
    let processes = (child::Origin::Ours(vrrp_recipe(args, &claim)), proxy);
    let programs = Programs {
        directory: check_dir,
        user: claim.proxy_user,
    };
    let app = App::new(claim, processes, origin, keyring, sender, programs);
    let mut app = app.context("cannot start")?;
    app.stream = stream;
    tokio::select! {
        // First, as the others end once it has.
        biased;
        () = app.run(events) => {}
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => return Err(error).context("a task of the agent failed"),
            _ => bail!("a task of the agent ended"),
        },
    }
    if let Some(stream) = &app.stream {
        stream.save_rest();
    }
    if app.is_retired() {
        let removed = app.claim.state.remove_lock();
        removed.context("cannot remove the lock from the state directory")?;
    }
    Ok(app.is_taken_over)
}

/// An address that somebody took since it was looked at costs metrics, not the service.
async fn serve_admin(address: SocketAddr, events: mpsc::Sender<Event>) {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return admin::serve(listener, events).await,
            Err(error) if is_told => {
                tracing::debug!(%error, "the address for metrics is still taken");
            }
            Err(error) => {
                is_told = true;
                tracing::error!(
                    "cannot serve metrics on {address} ({error}); choose another address with \
                     --admin; meanwhile it is tried again every second"
                );
            }
        }
        tokio::time::sleep(ADMIN_AGAIN).await;
    }
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
            is_expendable: false,
            is_guest: false,
        },
        waits: Waits {
            settled_after: VRRP_SETTLED,
            // Within two advertisement intervals it goes on where its predecessor stopped.
            first: Duration::ZERO,
            longest: VRRP_WAIT,
        },
    }
}

fn proxy_recipe(args: &RunArgs, claim: &Claim) -> Recipe {
    let mut arguments = common_arguments(&claim.run_dir, args.log_format);
    if let Some(workers) = args.workers {
        arguments.extend(["--workers".into(), workers.to_string().into()]);
    }
    arguments.extend(args.io.map(Io::argument));
    arguments.extend(args.gateway.arguments());
    Recipe {
        role: Role::Proxy,
        arguments,
        rights: Rights {
            user: Some(claim.proxy_user),
            keep: Vec::new(),
            // Its sessions are what grows, and without it the address moves to another host.
            is_expendable: true,
            is_guest: false,
        },
        waits: restart::PROXY,
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

async fn stop_on(mut signals: Signal, name: &'static str, events: mpsc::Sender<Event>) {
    while signals.recv().await.is_some() {
        drop(events.send(Event::Stop(name.to_owned())).await);
    }
}

/// `SIGHUP` asks for a look at the files, whatever else is known of them.
async fn look_on(mut hangups: Signal, asked: Arc<Notify>) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: looking at the files");
        asked.notify_one();
    }
}

/// Without a handler `SIGHUP` would end the process.
async fn ignore(mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: there are no files to look at, as a controller is followed");
    }
}

/// An error with all its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
