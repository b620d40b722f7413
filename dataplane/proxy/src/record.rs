//! The access record of a connection: who came, where it went, how long it took and why it ended.
//!
//! It is made when a client is accepted, filled in as more becomes known, and handed over when the
//! session ends, or the handshake without one. Whoever takes it may be slow or gone: a worker never
//! waits, and counts what nobody took.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{atomic::Ordering::Relaxed, mpsc::TrySendError},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    handshake::Request,
    live::Route,
    relay::Side,
    routing::Destination,
    stats::{Ended, HandshakeResult, RequestResult},
    stream::Stream,
    worker::Worker,
};

/// Bytes that are kept of what a client wrote: a session has its record for as long as it lives.
const TEXT: usize = 512;

/// One connection, at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// When it ended.
    pub at: SystemTime,
    /// The pool.
    pub pool: String,
    /// Its listener.
    pub listener: String,
    /// The address that was connected to.
    pub address: SocketAddr,
    /// Whose connection it was: the client, or a proxy before this one.
    pub peer: SocketAddr,
    /// The client; port 0: not known.
    pub client: SocketAddr,
    /// The version of TLS that was agreed on, as `1.3`.
    pub tls_version: Option<&'static str>,
    /// The server that was asked for when TLS began (RFC 6066 section 3).
    pub server_name: Option<String>,
    /// The version of HTTP in which the client asked, as `1.1` or `2`.
    pub http_version: Option<&'static str>,
    /// The host that was asked for.
    pub host: Option<String>,
    /// The method of a request that asked for no session.
    pub method: Option<String>,
    /// The path that was asked for. Not the query, where clients send tokens.
    pub path: Option<String>,
    /// The page that asked.
    pub origin: Option<String>,
    /// The route that matched, as its hostname and prefix; left out where there are none.
    pub route: Option<String>,
    /// The upstream that it leads to.
    pub upstream: Option<String>,
    /// The endpoint that was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The subprotocol that it chose.
    pub subprotocol: Option<String>,
    /// How the handshake ended.
    pub handshake: HandshakeResult,
    /// How such a request ended.
    pub request: Option<RequestResult>,
    /// The status that the client was answered with, if it was.
    pub status: Option<u16>,
    /// From the client's arrival until now.
    pub duration: Duration,
    /// Who ended the session.
    pub ended: Option<Ended>,
    /// The code of the first Close frame, if it had one.
    pub close_code: Option<u16>,
    /// Bytes of frames, and messages, from the client; of a request its content.
    pub from_client: Volume,
    /// The same from the endpoint.
    pub from_endpoint: Volume,
    begun: Instant,
}

/// How much came from one side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Volume {
    /// Bytes of frames.
    pub bytes: u64,
    /// Messages that ended.
    pub messages: u64,
}

impl Record {
    fn new(route: &Route, peer: SocketAddr) -> Box<Self> {
        Box::new(Self {
            at: SystemTime::UNIX_EPOCH,
            pool: route.pool.name.clone(),
            listener: route.listener.clone(),
            address: route.gate.address,
            peer,
            client: peer,
            tls_version: None,
            server_name: None,
            http_version: None,
            host: None,
            method: None,
            path: None,
            origin: None,
            route: None,
            upstream: None,
            endpoint: None,
            subprotocol: None,
            handshake: HandshakeResult::ListenerGone,
            request: None,
            status: None,
            duration: Duration::ZERO,
            ended: None,
            close_code: None,
            from_client: Volume::default(),
            from_endpoint: Volume::default(),
            begun: Instant::now(),
        })
    }

    /// By what the client comes.
    pub(crate) fn comes_by(&mut self, stream: &Stream) {
        if let Some(agreed) = stream.agreed() {
            self.tls_version = agreed.version;
            self.server_name = agreed.server_name.map(|name| text(name.as_bytes()));
        }
    }

    /// What the client asks for, and who it is.
    pub(crate) fn asks(&mut self, request: &Request<'_>, client: SocketAddr, stream: &Stream) {
        self.http_version = Some(if stream.is_http2() { "2" } else { "1.1" });
        let path = request.target.split(|byte| *byte == b'?').next();
        self.client = client;
        self.host = Some(text(request.host));
        self.path = path.map(text);
        self.origin = request.fields.all("origin").next().map(text);
    }

    /// Where that leads.
    pub(crate) fn goes(&mut self, to: &Destination) {
        self.route.clone_from(&to.route);
        self.upstream = Some(to.upstream.name.clone());
    }

    pub(crate) fn count(&mut self, side: Side, volume: Volume) {
        let sum = match side {
            Side::Client => &mut self.from_client,
            Side::Backend => &mut self.from_endpoint,
        };
        sum.bytes += volume.bytes;
        sum.messages += volume.messages;
    }
}

/// The beginning of what somebody wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..TEXT).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// The record of a connection, if one is wanted, which is handed over when this is dropped, however
/// that comes about.
#[derive(Debug)]
pub(crate) struct Entry(Option<(Rc<Worker>, Box<Record>)>);

impl Entry {
    pub(crate) fn begin(worker: &Rc<Worker>, route: &Route, peer: SocketAddr) -> Self {
        let percent = route.pool.access_log;
        let is_wanted = percent.is_some_and(|percent| worker.draws(percent));
        Self(is_wanted.then(|| (Rc::clone(worker), Record::new(route, peer))))
    }

    /// There is to be no record: what it would tell is told by others.
    pub(crate) fn discard(mut self) {
        self.0 = None;
    }

    /// Fills in what has become known.
    pub(crate) fn note(&mut self, note: impl FnOnce(&mut Record)) {
        if let Some((_, record)) = &mut self.0 {
            note(record);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some((worker, mut record)) = self.0.take() else {
            return;
        };
        record.at = SystemTime::now();
        record.duration = record.begun.elapsed();
        if let Some(records) = &worker.shared.records
            && let Err(TrySendError::Full(_)) = records.try_send(record)
        {
            worker.shared.unrecorded.fetch_add(1, Relaxed);
        }
    }
}
