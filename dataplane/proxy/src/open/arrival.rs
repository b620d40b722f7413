//! What a client says until it is known what it asks for: the header of the PROXY protocol, TLS, its request.

use std::{io, mem::take, net::SocketAddr, time::Duration};

use super::{Failure, fill};
use crate::{
    balance,
    client::{self, Ends},
    forward,
    handshake::{Outcome, Reject, Request, RequestParser},
    limits::{Limit, Place},
    live::{Pool, Route},
    origin, proxy_protocol,
    record::Entry,
    routing::Destination,
    stats::HandshakeResult,
    stream::Stream,
    tls::{self, ServerTls},
    worker::Worker,
};

/// Comes to TLS with a client that has sent `received` so far.
pub(super) async fn secure(
    worker: &Worker,
    client: &mut Stream,
    tls: &ServerTls,
    received: &mut Vec<u8>,
) -> Result<(), Failure> {
    let gone = Failure::Silent(HandshakeResult::ClientGone);
    while received.is_empty() {
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(gone);
        }
    }
    // A method of HTTP, where TLS begins with 22 (RFC 8446 section 5.1). Its user is told in its own
    // words.
    if received.first().is_some_and(u8::is_ascii_uppercase) {
        return Err(Failure::Refuse(Reject::Malformed(
            "This port speaks TLS: use wss:// or https://.",
        )));
    }
    let secured = match tls.accept(take(received)) {
        Ok(tls) => client.secure(tls).await,
        Err(error) => Err(io::Error::other(error)),
    };
    secured.map_err(|error| {
        if tls::error(&error).is_none() {
            return gone;
        }
        tracing::debug!(%error, "TLS with a client does not come about");
        Failure::Silent(HandshakeResult::Tls)
    })
}

/// Reads the header of the PROXY protocol that a listener requires, and takes over what it says. Before
/// it nothing may be answered (section 2 of its text).
pub(super) async fn read_header(
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
    /// Who it is, and where it has connected to.
    pub(super) ends: Ends,
    /// What it is known by, where endpoints are chosen by that.
    pub(super) key: Option<u64>,
    pub(super) place: Place,
}

/// Reads the client's request. What it sent behind it is left in `received`.
pub(super) async fn read_request(
    worker: &Worker,
    address: SocketAddr,
    client: &mut Stream,
    ends: Ends,
    received: &mut Vec<u8>,
    entry: &mut Entry,
) -> Result<Asked, Failure> {
    let mut parser = RequestParser::default();
    loop {
        match parser.parse(received) {
            Outcome::NeedMore => {}
            Outcome::Bad(reject) => return Err(Failure::Refuse(reject)),
            Outcome::Done(request, end) => {
                let gone = Failure::Silent(HandshakeResult::ListenerGone);
                let route = worker.route(address).ok_or(gone)?;
                let asked = admit(&route, &request, ends, client.is_secure(), entry)?;
                received.drain(..end);
                received.shrink_to_fit();
                return Ok(asked);
            }
        }
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(Failure::Silent(HandshakeResult::ClientGone));
        }
    }
}

/// Whether the client may have a session, and what for.
fn admit(
    route: &Route,
    request: &Request<'_>,
    ends: Ends,
    is_secure: bool,
    entry: &mut Entry,
) -> Result<Asked, Failure> {
    let trusted = &route.trusted_proxies;
    let source = client::find(trusted, ends.source, &request.fields);
    entry.note(|record| record.asks(request, source));
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
    let place = place.map_err(|limit| {
        Failure::Refuse(match limit {
            Limit::SessionsPerSource => Reject::TooMany,
            _ => Reject::Full,
        })
    })?;
    let is_trusted = client::is_trusted(trusted, ends.source.ip());
    Ok(Asked {
        host: host.to_vec(),
        target: target.to_vec(),
        limit: upstream.handshake_timeout,
        head: forward::request(request, ends, is_trusted, is_secure),
        ends: Ends { source, ..ends },
        key: balance::key(&upstream.balancing, request, source.ip()),
        place,
    })
}

/// Where the route of a request leads.
pub(super) fn destination<'a>(
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
