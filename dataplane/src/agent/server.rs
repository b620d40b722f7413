//! The sockets of the agent: who connects, and what they say.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use node_api::VirtualRouter;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use crate::{
    agent::{
        event::{Event, TakeOver},
        link,
        report::Snapshot,
    },
    ipc::{Answer, FromProxy, FromVrrp, Hello, ProbeAnswer, Refusal},
    sys::channel::{Channel, Peer},
};

/// Whoever connects says hello at once.
const HELLO: Duration = Duration::from_secs(2);
/// A send that cannot make progress for so long fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// More connections to one socket are refused: the proxy faces strangers and may be theirs.
const MOST_CONNECTIONS: usize = 16;

/// A socket and who may use it.
#[derive(Debug)]
pub(super) struct Door {
    /// What it is for.
    pub(super) purpose: Purpose,
    /// The user whose processes may connect, besides root.
    pub(super) uid: u32,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// vrrp, `status` and take-overs.
    Agent,
    /// The proxy.
    Proxy,
    /// Take-overs by those who share the state directory and no more.
    Holder,
}

/// Accepts for ever; each connection gets a thread, since descriptors come with blocking reads.
pub(super) async fn accept(listener: UnixListener, door: Door, events: mpsc::Sender<Event>) {
    let door = Arc::new(door);
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await.and_then(|(one, _)| one.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection in the run directory");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            tracing::warn!(socket = ?door.purpose, "too many connections in the run directory");
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (door, events, count) = (Arc::clone(&door), events.clone(), Arc::clone(&open));
        let thread = thread::Builder::new()
            .name("receive".to_owned())
            .stack_size(link::STACK)
            .spawn(move || {
                if let Err(error) = serve(stream, &door, &events) {
                    tracing::debug!(%error, socket = ?door.purpose, "a connection ended");
                }
                count.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = thread {
            open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "cannot start a thread for a connection");
        }
    }
}

fn serve(stream: UnixStream, door: &Door, events: &mpsc::Sender<Event>) -> io::Result<()> {
    stream.set_read_timeout(Some(HELLO))?;
    let settings = stream.try_clone()?;
    let channel = Channel::new(stream, PATIENCE)?;
    let peer = channel.peer()?;
    if peer.uid != door.uid && peer.uid != 0 {
        tracing::warn!(
            pid = peer.pid,
            uid = peer.uid,
            "refused a connection of a stranger"
        );
        return Ok(());
    }
    let Some((hello, _)) = channel.receive::<Hello>()? else {
        return Ok(());
    };
    settings.set_read_timeout(None)?;
    match (door.purpose, hello) {
        (Purpose::Agent, Hello::Vrrp) => {
            pump(&channel, peer, None, events, |id, message: FromVrrp| {
                Event::Vrrp(id, message)
            })
        }
        (Purpose::Proxy, Hello::Proxy { workers }) => pump(
            &channel,
            peer,
            Some(workers),
            events,
            |id, message: FromProxy| Event::Proxy(id, message),
        ),
        (Purpose::Agent, Hello::Status) => {
            // If the agent has ended, so does the connection.
            ask(events, Event::Snapshot).map_or(Ok(()), |snapshot| {
                let Snapshot {
                    report, routers, ..
                } = snapshot;
                let without_password = |router| VirtualRouter {
                    password: None,
                    ..router
                };
                let routers = routers.into_iter().map(without_password).collect();
                channel.send(&Answer { report, routers }, &[])
            })
        }
        (Purpose::Agent, Hello::Probe { ready }) => {
            let problems = if ready {
                ask(events, Event::Snapshot).map(|snapshot| snapshot.not_ready)
            } else {
                ask(events, Event::Ping).map(|()| Vec::new())
            };
            problems.map_or(Ok(()), |problems| {
                channel.send(&ProbeAnswer { problems }, &[])
            })
        }
        (Purpose::Agent | Purpose::Holder, hello @ (Hello::Stop | Hello::StopForPod { .. })) => {
            let pod_created_ns = match hello {
                Hello::StopForPod { pod_created_ns } => Some(pod_created_ns),
                _ => None,
            };
            let refusal = ask(events, |reply| {
                Event::TakeOver(TakeOver {
                    pid: peer.pid,
                    pod_created_ns,
                    reply,
                })
            });
            if let Some(Some(reason)) = refusal {
                return channel.send(&Refusal { reason }, &[]);
            }
            // Kept open until this process ends, which is the answer.
            drop(channel.receive::<()>());
            Ok(())
        }
        (_, hello) => {
            tracing::warn!(pid = peer.pid, ?hello, "refused an unexpected message");
            Ok(())
        }
    }
}

/// Announces the connection and passes on what it says until it ends.
fn pump<M: DeserializeOwned>(
    channel: &Channel,
    peer: Peer,
    workers: Option<usize>,
    events: &mpsc::Sender<Event>,
    wrap: impl Fn(u64, M) -> Event,
) -> io::Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed) as u64;
    let sending = channel.try_clone()?;
    let arrival = Event::Arrived {
        id,
        peer,
        workers,
        channel: sending,
    };
    if !tell(events, arrival) {
        return Ok(());
    }
    let result = loop {
        match channel.receive::<M>() {
            Ok(Some((message, _))) => {
                if !tell(events, wrap(id, message)) {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    channel.shutdown();
    tell(events, Event::Closed(id));
    result
}

/// Waits for the loop's answer; `None`: the agent has ended.
fn ask<T>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Event,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    tell(events, question(reply));
    answer.blocking_recv().ok()
}

/// Says whether the agent still listens.
fn tell(events: &mpsc::Sender<Event>, event: Event) -> bool {
    events.blocking_send(event).is_ok()
}
