//! One stream, from its first message to its end.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use node_api::{
    Decoded,
    stream::{Hello, ResourceName, Revision, ToController, ToNode, Welcome},
};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::{
    Server, Session,
    admit::Admitted,
    server::{Opening, Socket},
};
use crate::{recompute::Published, registry::Registry, wait::at};

/// From the upgrade to the node's first message.
const HELLO: Duration = Duration::from_secs(10);
/// A node that does not take a message for so long is too slow: it comes back and is told the whole.
const SLOW: Duration = Duration::from_secs(10);

/// Why a stream has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The node closed it.
    Closed,
    /// The connection broke.
    Broken(Error),
    /// Nothing was heard.
    Silent,
    /// The node takes nothing.
    Slow,
    /// The first message was none, or another one cannot be read.
    Wrong(String),
    /// The pod is gone.
    PodGone,
    /// The token is over.
    TokenExpired,
    /// The request to retire was withdrawn: the node begins anew.
    NotRetired,
    /// Sequences are of another history now: the node is told which.
    OtherEpoch,
    /// Nothing has been read from the API server.
    Blind,
    /// This replica ends.
    Over,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the node"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Silent => f.write_str("the node says nothing"),
            Self::Slow => f.write_str("the node takes nothing"),
            Self::Wrong(what) => f.write_str(what),
            Self::PodGone => f.write_str("its pod is gone"),
            Self::TokenExpired => f.write_str("its token is over"),
            Self::NotRetired => f.write_str("it is not to retire after all"),
            Self::OtherEpoch => f.write_str("another epoch has begun"),
            Self::Blind => f.write_str("nothing has been read from the API server"),
            Self::Over => f.write_str("this replica ends"),
        }
    }
}

/// Runs a stream to its end.
pub(super) async fn run<R>(socket: Socket, opening: Opening, server: &Arc<Server<R>>) -> Ended {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let Opening {
        admitted,
        expires,
        protocol,
    } = opening;
    let (mut sink, mut messages) = socket.split();
    let Some(epoch) = epoch(server.published.clone()).await else {
        return Ended::Blind;
    };
    let welcome = ToNode::Welcome(Welcome {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        replica: server.replica.clone(),
        silence_ms: u64::try_from(server.silence.as_millis()).unwrap_or(u64::MAX),
        epoch: epoch.clone(),
    });
    if let Err(ended) = send(&mut sink, &welcome).await {
        return ended;
    }
    let hello = match timeout(HELLO, first(&mut messages)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Silent,
    };
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let node = admitted.node.as_str();
    tracing::info!(
        node,
        pod = admitted.pod,
        version = hello.version,
        %protocol,
        "a node is connected"
    );
    server.registry.connected(node, id, &hello);
    let shared = Shared {
        refused: Mutex::default(),
        again: Notify::new(),
    };
    let reader = Reader {
        node,
        id,
        messages,
        registry: &server.registry,
        shared: &shared,
        silence: server.silence,
    };
    let writer = Writer {
        admitted: &admitted,
        sink,
        session: Session::new(&hello),
        epoch,
        retires: None,
        is_live: None,
        published: server.published.clone(),
        live: server.live.clone(),
        shared: &shared,
        silence: server.silence,
        expires,
    };
    let ended = tokio::select! {
        ended = reader.run() => ended,
        ended = writer.run() => ended,
    };
    server.registry.gone(node, id);
    ended
}

/// The history that sequences are of, once anything was read.
async fn epoch(mut published: watch::Receiver<Option<Arc<Published>>>) -> Option<String> {
    let read = timeout(HELLO, published.wait_for(Option::is_some)).await;
    let read = read.ok()?.ok()?;
    Some(read.as_ref()?.snapshot.ledger.epoch.clone())
}

/// What the two halves of a stream tell each other.
#[derive(Debug)]
struct Shared {
    /// Resources that the node could not use.
    refused: Mutex<BTreeMap<ResourceName, Revision>>,
    again: Notify,
}

async fn first(messages: &mut SplitStream<Socket>) -> Result<Box<Hello>, Ended> {
    loop {
        match messages.next().await {
            Some(Ok(Message::Text(text))) => {
                return match serde_json::from_str(&text) {
                    Ok(ToController::Hello(hello)) => Ok(hello),
                    Ok(_) => Err(Ended::Wrong("its first message is no hello".to_owned())),
                    Err(error) => Err(Ended::Wrong(format!("its hello cannot be read: {error}"))),
                };
            }
            Some(Ok(Message::Close(_))) | None => return Err(Ended::Closed),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Ended::Broken(error)),
        }
    }
}

struct Reader<'a> {
    node: &'a str,
    id: u64,
    messages: SplitStream<Socket>,
    registry: &'a Registry,
    shared: &'a Shared,
    silence: Duration,
}

impl Reader<'_> {
    async fn run(mut self) -> Ended {
        loop {
            let message = match timeout(self.silence, self.messages.next()).await {
                Err(_) => return Ended::Silent,
                Ok(None | Some(Ok(Message::Close(_)))) => return Ended::Closed,
                Ok(Some(Err(error))) => return Ended::Broken(error),
                Ok(Some(Ok(message))) => message,
            };
            let Message::Text(text) = message else {
                continue;
            };
            match ToController::decode(&text) {
                Ok(Decoded::Message(message)) => {
                    if let ToController::Nack { name, revision, .. } = &message {
                        let refused = self.shared.refused.lock();
                        let mut refused = refused.unwrap_or_else(PoisonError::into_inner);
                        refused.insert(name.clone(), revision.clone());
                        drop(refused);
                        self.shared.again.notify_one();
                    }
                    self.registry.heard(self.node, self.id, message);
                }
                // Of a newer data plane.
                Ok(Decoded::UnknownKind(kind)) => {
                    tracing::debug!(node = self.node, kind, "a message is not known");
                }
                Ok(Decoded::Refused { reason, .. }) => return Ended::Wrong(reason),
                Err(error) => return Ended::Wrong(format!("{error}: {}", error.source)),
            }
        }
    }
}

struct Writer<'a> {
    admitted: &'a Admitted,
    sink: SplitSink<Socket, Message>,
    session: Session,
    /// What the node was told of the history of sequences.
    epoch: String,
    /// The request to retire that was passed on.
    retires: Option<Arc<str>>,
    /// What was said of this replica's own sight.
    is_live: Option<bool>,
    published: watch::Receiver<Option<Arc<Published>>>,
    live: watch::Receiver<bool>,
    shared: &'a Shared,
    silence: Duration,
    expires: Option<u64>,
}

impl Writer<'_> {
    async fn run(mut self) -> Ended {
        let mut ping = interval(self.silence / 3);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let expires = self.expires.map(instant_of);
        loop {
            let published = self.published.borrow_and_update().clone();
            if let Some(published) = published {
                if !published.pods.contains(&self.admitted.pod_uid) {
                    return Ended::PodGone;
                }
                if let Err(ended) = self.tell(&published).await {
                    return ended;
                }
                if let Err(ended) = self.tell_of_sight().await {
                    return ended;
                }
            }
            tokio::select! {
                changed = self.published.changed() => if changed.is_err() {
                    return Ended::Over;
                },
                () = self.shared.again.notified() => {}
                _ = self.live.changed() => {}
                _ = ping.tick() => {
                    let ping = Message::Ping(Bytes::new());
                    match timeout(SLOW, self.sink.send(ping)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Ended::Broken(error),
                        Err(_) => return Ended::Slow,
                    }
                }
                () = at(expires) => return Ended::TokenExpired,
            }
        }
    }

    async fn tell(&mut self, published: &Published) -> Result<(), Ended> {
        if let Some(request) = &published.retire {
            if self.retires.as_ref() != Some(request) {
                send(&mut self.sink, &ToNode::Retire).await?;
                self.retires = Some(Arc::clone(request));
            }
            return Ok(());
        }
        if self.retires.is_some() {
            return Err(Ended::NotRetired);
        }
        let ledger = &published.snapshot.ledger;
        if !ledger.epoch.is_empty() && ledger.epoch != self.epoch {
            return Err(Ended::OtherEpoch);
        }
        // Of what the node serves, part may not be committed again yet.
        if !ledger.next_epoch.is_empty() {
            return Ok(());
        }
        let told = &published.told;
        let state = told.nodes.get(&self.admitted.node);
        let state = state.map(Arc::clone).unwrap_or_default();
        let refused = {
            let mut names = self
                .shared
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *names)
        };
        for (name, revision) in &refused {
            self.session.refused(name, revision);
        }
        let messages = self
            .session
            .tell(&state, told.sequence)
            .map_err(|error| Ended::Wrong(format!("the state has no form: {error}")))?;
        for message in &messages {
            send(&mut self.sink, message).await?;
        }
        Ok(())
    }

    /// Says whether this replica reads from the API server now: what it tells may be old otherwise.
    async fn tell_of_sight(&mut self) -> Result<(), Ended> {
        let live = *self.live.borrow_and_update();
        if self.retires.is_none() && self.is_live != Some(live) {
            send(&mut self.sink, &ToNode::Watching { live }).await?;
            self.is_live = Some(live);
        }
        Ok(())
    }
}

async fn send(sink: &mut SplitSink<Socket, Message>, message: &ToNode) -> Result<(), Ended> {
    let text = serde_json::to_string(message)
        .map_err(|error| Ended::Wrong(format!("a message has no form: {error}")))?;
    match timeout(SLOW, sink.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Ended::Broken(error)),
        Err(_) => Err(Ended::Slow),
    }
}

fn instant_of(unix_seconds: u64) -> Instant {
    let end = UNIX_EPOCH + Duration::from_secs(unix_seconds);
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    // Far beyond any token's life.
    Instant::now() + left.min(Duration::from_hours(24 * 365))
}

/// When a token that the API server has found good is over, seconds since the Unix epoch
/// (RFC 7519 section 4.1.4); `None`: it does not say.
pub(super) fn expiry(token: &str) -> Option<u64> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["exp"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_is_over() {
        // {"exp":1700000000}
        assert_eq!(
            expiry("e30.eyJleHAiOjE3MDAwMDAwMDB9.x"),
            Some(1_700_000_000)
        );
        for text in ["", "a", "a.b", "a.!!.c", "e30.e30.x"] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }
}
