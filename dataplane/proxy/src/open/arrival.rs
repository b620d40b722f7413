//! What a client says until it is known what it asks for: the header of the PROXY protocol, TLS, its request.

use std::{io, mem::take, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Failure, fill,
    queue::{self, Pass},
};
use crate::{
    balance,
    client::{self, Ends},
    forward,
    handshake::{Incoming, Outcome, Reject, Request, RequestParser},
    limits::{Arriving, Gateway, GatewayArriving, GatewayPlace, Limit, Place},
    live::{Pool, Route},
    origin, proxy_protocol,
    record::Entry,
    routing::Destination,
    stats::HandshakeResult,
    stream::Stream,
    tls::{self, ServerTls},
    worker::Worker,
};

/// Whence a request comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Where its client has connected to.
    pub(crate) address: SocketAddr,
    /// Whose connection it is.
    pub(crate) peer: SocketAddr,
    /// What proxies say of that.
    pub(crate) ends: Ends,
    /// When the client came, and when it said the first word.
    pub(crate) came: std::time::Instant,
    pub(crate) begun: Instant,
    /// How long it has waited for TLS since.
    pub(crate) waited: Duration,
    /// Its next handshake with an endpoint has had its turn.
    pub(crate) has_turn: bool,
    /// How long its handshake may take, until it is known what it asks for.
    pub(crate) limit: Duration,
    /// Requests that ask for no upgrade are not refused.
    pub(crate) takes_plain: bool,
}

impl Arrival {
    /// Until when a handshake is to be through that may take so long: the time in which we let the client
    /// wait is not its own.
    pub(crate) fn deadline(&self, limit: Duration) -> Instant {
        self.begun + self.waited + limit
    }
}

/// What comes of [`arrive`].
pub(super) struct Arrived {
    /// Whose connection it is.
    pub(super) ends: Ends,
    /// When it has begun to speak.
    pub(super) begun: Instant,
    pub(super) pass: Pass,
}

/// What comes before a request on a connection: a header of the PROXY protocol and TLS, where they are
/// wanted.
pub(super) async fn arrive(
    worker: &Worker,
    route: &Route,
    client: &mut Stream,
    (peer, came): (SocketAddr, Instant),
    received: &mut Vec<u8>,
) -> Result<Arrived, Failure> {
    let limit = route.routing.patience();
    if route.proxy_protocol && !client::is_trusted(&route.trusted_proxies, peer.ip()) {
        tracing::debug!(%peer, "no trusted proxy may send a PROXY protocol header from there");
        return Err(Failure::Silent(HandshakeResult::ProxyHeader));
    }
    // A client that says nothing at all is told nothing.
    match timeout_at(came + limit, fill(worker, client, received)).await {
        Err(_elapsed) => return Err(Failure::Silent(HandshakeResult::ClientTimeout)),
        Ok(Ok(n)) if n > 0 => {}
        Ok(_) => return Err(Failure::Silent(HandshakeResult::ClientGone)),
    }
    let begun = Instant::now();
    let mut ends = Ends {
        source: peer,
        destination: route.gate.address,
    };
    if route.proxy_protocol {
        let header = read_header(worker, client, &mut ends, received);
        let late = Err(Failure::Silent(HandshakeResult::ClientTimeout));
        timeout_at(begun + limit, header).await.unwrap_or(late)?;
    }
    let mut pass = Pass::default();
    if let Some(tls) = &route.tls {
        // Half of the time is kept for what is to be said by way of it.
        let late = || Err(Failure::Silent(HandshakeResult::ClientTimeout));
        let until = begun + limit / 2;
        let greeted = timeout_at(until, greet(worker, client, received));
        greeted.await.unwrap_or_else(|_| late())?;
        pass = queue::pass(worker, route, client, ends, received).await?;
        let secured = secure(client, tls, take(received), route.pool.access_log.is_some());
        let secured = timeout_at(until + pass.waited, secured);
        secured.await.unwrap_or_else(|_| late())?;
    }
    Ok(Arrived { ends, begun, pass })
}

/// Reads the client's first message of TLS.
async fn greet(
    worker: &Worker,
    client: &mut Stream,
    received: &mut Vec<u8>,
) -> Result<(), Failure> {
    loop {
        // A method of HTTP, where TLS begins with 22 (RFC 8446 section 5.1). Its user is told in its own
        // words.
        if received.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(Failure::Refuse(Reject::Malformed(
                "This port speaks TLS: use wss:// or https://.",
            )));
        }
        if tls::is_whole(received) {
            return Ok(());
        }
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(Failure::Silent(HandshakeResult::ClientGone));
        }
    }
}

/// Comes to TLS with a client that has sent `received` so far.
async fn secure(
    client: &mut Stream,
    tls: &ServerTls,
    received: Vec<u8>,
    keeps_name: bool,
) -> Result<(), Failure> {
    let secured = match tls.accept(received, keeps_name) {
        Ok(tls) => client.secure(tls).await,
        Err(error) => Err(io::Error::other(error)),
    };
    secured.map_err(|error| {
        if tls::error(&error).is_none() {
            return Failure::Silent(HandshakeResult::ClientGone);
        }
        tracing::debug!(%error, "TLS with a client does not come about");
        Failure::Silent(HandshakeResult::Tls)
    })
}

/// Reads the header of the PROXY protocol that a listener requires, and takes over what it says. Before
/// it nothing may be answered (section 2 of its text).
async fn read_header(
    worker: &Worker,
    client: &mut Stream,
    ends: &mut Ends,
    received: &mut Vec<u8>,
) -> Result<(), Failure> {
    loop {
        match proxy_protocol::parse(received) {
            Outcome::NeedMore => {}
            Outcome::Bad(reason) => {
                tracing::debug!(peer = %ends.source, %reason, "a PROXY protocol header is of no use");
                return Err(Failure::Silent(HandshakeResult::ProxyHeader));
            }
            Outcome::Done(header, end) => {
                if let proxy_protocol::Header::Proxied {
                    source,
                    destination,
                } = header
                {
                    *ends = Ends {
                        source,
                        destination,
                    };
                }
                received.drain(..end);
                return Ok(());
            }
        }
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(Failure::Silent(HandshakeResult::ClientGone));
        }
    }
}

/// What a client asks for.
pub(super) struct Asked {
    /// What it asks for, by which its upstream is chosen.
    pub(super) host: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// How long its handshake may take.
    pub(super) limit: Duration,
    /// The head for the backend.
    pub(super) head: Vec<u8>,
    /// What Sec-WebSocket-Accept must be; `None`: that is for the client to see to.
    pub(super) accept: Option<String>,
    /// Who it is, and where it has connected to.
    pub(super) ends: Ends,
    /// What it is known by, where endpoints are chosen by that.
    pub(super) key: Option<u64>,
    pub(super) place: (Place, GatewayPlace),
}

/// Reads the client's request; `None`: it asks for no upgrade, and is not refused for that. What it sent
/// behind one for an upgrade is left in `received`, the other is left there as a whole. Until then it is
/// counted among those on their way.
pub(super) async fn read_request(
    worker: &Worker,
    arrival: &Arrival,
    client: &mut Stream,
    received: &mut Vec<u8>,
    entry: &mut Entry,
    arriving: Option<(Arriving, GatewayArriving)>,
) -> Result<Option<Asked>, Failure> {
    let mut parser = RequestParser::default();
    loop {
        let parsed = if arrival.takes_plain {
            match parser.parse_any(received) {
                Outcome::NeedMore => Outcome::NeedMore,
                Outcome::Bad(reject) => Outcome::Bad(reject),
                Outcome::Done(Incoming::Upgrade(request), end) => Outcome::Done(request, end),
                Outcome::Done(Incoming::Plain(_), _) => return Ok(None),
            }
        } else {
            parser.parse(received)
        };
        match parsed {
            Outcome::NeedMore => {}
            Outcome::Bad(reject) => return Err(refusal(received, reject)),
            Outcome::Done(request, end) => {
                let gone = Failure::Silent(HandshakeResult::ListenerGone);
                let route = worker.route(arrival.address).ok_or(gone)?;
                drop(arriving);
                let gateway = &worker.shared.gateway;
                let asked = admit(&route, gateway, &request, arrival.ends, client, entry)?;
                received.drain(..end);
                received.shrink_to_fit();
                return Ok(Some(asked));
            }
        }
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(Failure::Silent(HandshakeResult::ClientGone));
        }
    }
}

/// Refuses a request of which so much was `received`.
pub(crate) fn refusal(received: &[u8], reject: Reject) -> Failure {
    if received.starts_with(b"HEAD ") {
        Failure::RefuseHead(reject)
    } else {
        Failure::Refuse(reject)
    }
}

/// Whether the client may have a session, and what for.
fn admit(
    route: &Route,
    gateway: &Arc<Gateway>,
    request: &Request<'_>,
    ends: Ends,
    client: &Stream,
    entry: &mut Entry,
) -> Result<Asked, Failure> {
    let admitted = enter(route, gateway, request, ends, client, entry)?;
    let is_trusted = client::is_trusted(&route.trusted_proxies, ends.source.ip());
    Ok(Asked {
        host: request.host.to_vec(),
        target: request.target.to_vec(),
        limit: admitted.limit,
        head: forward::request(request, ends, is_trusted, client),
        accept: client.is_http2().then(|| accept(request)),
        ends: admitted.ends,
        key: admitted.key,
        place: admitted.place,
    })
}

/// What a client is let in with.
pub(crate) struct Admitted {
    /// How long its handshake may take.
    pub(crate) limit: Duration,
    /// Who it is, and where it has connected to.
    pub(crate) ends: Ends,
    /// What it is known by, where endpoints are chosen by that.
    pub(crate) key: Option<u64>,
    pub(crate) place: (Place, GatewayPlace),
}

/// Whether the client may have what it asks for.
pub(crate) fn enter(
    route: &Route,
    gateway: &Arc<Gateway>,
    request: &Request<'_>,
    ends: Ends,
    client: &Stream,
    entry: &mut Entry,
) -> Result<Admitted, Failure> {
    let trusted = &route.trusted_proxies;
    let source = client::find(trusted, ends.source, &request.fields);
    entry.note(|record| record.asks(request, source, client));
    if !origin::is_allowed(&route.allowed_origins, &request.fields) {
        return Err(Failure::Refuse(Reject::Origin));
    }
    let (host, target) = (request.host, request.target);
    let upstream = &destination(route, host, target, entry)?.upstream;
    let Pool {
        admission, limits, ..
    } = &*route.pool;
    let origin = request.fields.all("origin").next();
    let place = admission.enter(limits, source.ip(), origin);
    let place = place.and_then(|place| {
        let of_gateway = gateway.enter();
        let of_gateway = of_gateway.inspect_err(|limit| admission.hit(*limit));
        Ok((place, of_gateway?))
    });
    let place = place.map_err(|limit| {
        Failure::Refuse(match limit {
            Limit::SessionsPerSource => Reject::TooMany,
            _ => Reject::Full,
        })
    })?;
    Ok(Admitted {
        limit: upstream.handshake_timeout,
        ends: Ends { source, ..ends },
        key: balance::key(&upstream.balancing, request, source.ip()),
        place,
    })
}

/// What an endpoint has to make of the key that we have made, as HTTP/2 has none (RFC 8441 section 5).
fn accept(request: &Request<'_>) -> String {
    let key = request.fields.all("sec-websocket-key").next();
    derive_accept_key(key.unwrap_or_default())
}

/// Where the route of a request leads.
pub(crate) fn destination<'a>(
    route: &'a Route,
    host: &[u8],
    target: &[u8],
    entry: &mut Entry,
) -> Result<&'a Destination, Failure> {
    let to = route.routing.choose(host, target);
    let to = to.map_err(Failure::Refuse)?;
    entry.note(|record| record.goes(to));
    Ok(to)
}
