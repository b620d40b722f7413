//! One replica of the controller at one address: a stream, opened again whenever it ends.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use node_api::{Decoded, Protocol, stream::ToNode};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::{self, Bytes, Message, protocol::CloseFrame};

use super::{
    backoff::{self, Backoff},
    connect::{self, Cause, Credentials, PATIENCE, Socket, Target},
    messages::{Input, StreamId},
    outbox::Outbox,
};
use crate::agent::chain;

/// What a replica may ask for as the longest silence.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

/// What is needed to keep a stream.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The controller.
    pub(super) target: Target,
    /// One of its addresses.
    pub(super) address: SocketAddr,
    /// What makes it trusted.
    pub(super) credentials: Credentials,
    /// Where everything goes.
    pub(super) inputs: mpsc::Sender<Input>,
}

impl Client {
    /// Keeps a stream for as long as the address is `wanted`; one that lives is kept to its end.
    pub(super) async fn run(self, mut wanted: watch::Receiver<bool>) {
        let mut backoff = Backoff::default();
        let mut logged: Option<String> = None;
        while *wanted.borrow() {
            let began = Instant::now();
            let mut welcomed = None;
            let cause = self.attempt(&mut welcomed).await;
            if welcomed.is_some() {
                logged = None;
            }
            let said = chain(&cause);
            if logged.as_ref() != Some(&said) {
                tracing::warn!(
                    address = %self.address,
                    host = self.target.host,
                    "no stream to the controller: {said}"
                );
                logged = Some(said.clone());
            }
            let problem = Input::Problem(self.address.to_string(), Some(said));
            if self.inputs.send(problem).await.is_err() {
                return;
            }
            let lasted = welcomed.unwrap_or(began).elapsed();
            let lasted = if welcomed.is_some() {
                lasted
            } else {
                Duration::ZERO
            };
            let wait = backoff.wait(lasted, backoff::random());
            let no_more = wanted.wait_for(|wanted| !*wanted);
            // Over with the wait, or because the address is not wanted any more.
            drop(timeout(wait, no_more).await);
        }
        let gone = Input::Problem(self.address.to_string(), None);
        drop(self.inputs.send(gone).await);
    }

    /// Opens a stream and serves it to its end; notes when it was welcome.
    async fn attempt(&self, welcomed: &mut Option<Instant>) -> Cause {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let opened = connect::open(&self.target, self.address, &self.credentials).await;
        let (socket, protocol) = match opened {
            Ok(opened) => opened,
            Err(cause) => return cause,
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::default());
        let opened = Input::Opened {
            id,
            address: self.address.to_string(),
            outbox: Arc::clone(&outbox),
        };
        drop(self.inputs.send(opened).await);
        let (silence, told) = watch::channel(PATIENCE);
        let (sink, messages) = socket.split();
        let mut reader = Reader {
            id,
            protocol,
            messages,
            silence,
            inputs: &self.inputs,
            welcomed,
        };
        let cause = tokio::select! {
            cause = reader.run() => cause,
            cause = write(sink, &outbox, told) => cause,
        };
        drop(self.inputs.send(Input::Ended(id)).await);
        cause
    }
}

struct Reader<'a> {
    id: StreamId,
    protocol: Protocol,
    messages: SplitStream<Socket>,
    silence: watch::Sender<Duration>,
    inputs: &'a mpsc::Sender<Input>,
    welcomed: &'a mut Option<Instant>,
}

impl Reader<'_> {
    async fn run(&mut self) -> Cause {
        loop {
            let silence = *self.silence.borrow();
            let message = match timeout(silence, self.messages.next()).await {
                Err(_) => return Cause::Silent(silence),
                Ok(None) => return Cause::Closed(" without a word".to_owned()),
                Ok(Some(Err(error))) => return ended(error),
                Ok(Some(Ok(message))) => message,
            };
            let text = match message {
                Message::Text(text) => text,
                Message::Close(frame) => {
                    return Cause::Closed(frame.as_ref().map_or_else(String::new, why));
                }
                // Signs of life.
                _ => continue,
            };
            let input = match ToNode::decode(&text) {
                Ok(Decoded::Message(ToNode::Welcome(welcome))) => {
                    let silence = Duration::from_millis(welcome.silence_ms);
                    let silence = silence.clamp(SHORTEST_SILENCE, LONGEST_SILENCE);
                    self.silence.send_replace(silence);
                    *self.welcomed = Some(Instant::now());
                    tracing::info!(
                        replica = welcome.replica,
                        version = welcome.version,
                        protocol = %self.protocol,
                        "a stream to the controller is open"
                    );
                    Input::Welcome(self.id, welcome)
                }
                _ if self.welcomed.is_none() => return Cause::NoWelcome,
                Ok(Decoded::Message(message)) => Input::Told(self.id, message),
                Ok(Decoded::Refused {
                    name,
                    revision,
                    reason,
                }) => Input::Refused(self.id, name, revision, reason),
                Ok(Decoded::UnknownKind(kind)) => {
                    tracing::debug!(kind, "skipped a message of an unknown kind");
                    continue;
                }
                Err(error) => return Cause::Unreadable(error),
            };
            // The hub ends with the process.
            drop(self.inputs.send(input).await);
        }
    }
}

/// Sends what the outbox has, and pings.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    outbox: &Outbox,
    mut silence: watch::Receiver<Duration>,
) -> Cause {
    let mut limit = *silence.borrow_and_update();
    let mut pings = pings(limit);
    loop {
        let messages = tokio::select! {
            () = outbox.filled() => outbox.take(),
            _ = pings.tick() => Vec::new(),
            // The reader goes on, and with it this one.
            Ok(()) = silence.changed() => {
                limit = *silence.borrow_and_update();
                pings = self::pings(limit);
                continue;
            }
        };
        let frames = if messages.is_empty() {
            vec![Message::Ping(Bytes::new())]
        } else {
            let texts = messages.iter().filter_map(|message| {
                let text = serde_json::to_string(message);
                text.inspect_err(|error| tracing::error!(%error, "cannot encode a message"))
                    .ok()
            });
            texts.map(|text| Message::Text(text.into())).collect()
        };
        let sending = async {
            for frame in frames {
                sink.feed(frame).await?;
            }
            sink.flush().await
        };
        match timeout(limit, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return ended(error),
            Err(_) => return Cause::Stuck(limit),
        }
    }
}

/// Three times as often as the other side counts on.
fn pings(silence: Duration) -> tokio::time::Interval {
    let mut pings = interval(silence / 3);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    pings
}

fn ended(error: tungstenite::Error) -> Cause {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            Cause::Closed(String::new())
        }
        // Also of a process that was killed: rustls misses the end of TLS.
        tungstenite::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Cause::Closed(" without a word".to_owned())
        }
        error => Cause::Broken(error),
    }
}

fn why(frame: &CloseFrame) -> String {
    let code = u16::from(frame.code);
    let reason = frame.reason.as_str();
    if reason.is_empty() {
        format!(" ({code})")
    } else {
        format!(" ({code}: {reason:?})")
    }
}
