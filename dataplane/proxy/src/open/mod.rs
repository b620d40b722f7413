//! Brings a client to an endpoint: reads its request, tries endpoints until one answers, passes the
//! answer on, and makes the session.
//!
//! `arrival` is what the client says until it is known what it asks for, `queue` what it waits for before TLS
//! begins, `attempt` what becomes of what it asks for at one endpoint, `retry` whether another is tried after it.

mod arrival;
mod attempt;
mod queue;
mod retry;

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

pub(crate) use self::{
    arrival::{Admitted, Arrival, destination, enter, refusal},
    attempt::{AttemptError, connect},
    retry::{Spent, is_retried, may_try},
};
use self::{
    arrival::{Arrived, arrive, read_request},
    attempt::{Answer, attempt, made_of_it, pass_answer},
};
use crate::{
    balance::{self, Lease},
    handshake::Reject,
    http2,
    limits::{Arriving, Gateway, GatewayArriving, GatewayPlace, Limit, Place, Turn},
    live::{Pool, Route, Upstream},
    plain,
    record::Entry,
    relay::Session,
    session::Control,
    stats::HandshakeResult,
    stream::Stream,
    worker::Worker,
};

/// Bytes read at once during a handshake; what a client sends early is bounded by it.
pub(crate) const READ: usize = 16 * 1024;

/// How long a refused client may go on sending before its connection is closed under it.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Bytes of it that are read meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

/// How a handshake ends without a session.
pub(crate) enum Failure {
    /// The client is told.
    Refuse(Reject),
    /// The same of one that has asked for no more than a head.
    RefuseHead(Reject),
    /// There is nobody to tell, or nothing to say.
    Silent(HandshakeResult),
}

/// A whole handshake; of a connection of HTTP/2 what comes before its streams.
pub(crate) async fn open(
    worker: Rc<Worker>,
    route: Arc<Route>,
    client: TcpStream,
    peer: SocketAddr,
) -> HandshakeResult {
    let came = Instant::now();
    let mut client = Stream::from(client);
    let mut entry = Entry::begin(&worker, &route, peer);
    let mut received = Vec::new();
    let arrived = arrive(&worker, &route, &mut client, (peer, came), &mut received).await;
    entry.note(|record| record.comes_by(&client));
    let Arrived { ends, begun, pass } = match arrived {
        Ok(arrived) => arrived,
        Err(failure) => return fail(&worker, client, peer, failure, entry).await,
    };
    let arrival = Arrival {
        address: route.gate.address,
        peer,
        ends,
        came: came.into_std(),
        begun,
        waited: pass.waited,
        has_turn: pass.has_turn,
        limit: route.routing.patience(),
        takes_plain: route.plain_requests.is_some(),
    };
    if client.carries_http2() {
        // Its streams have records.
        entry.discard();
        // Not a handshake under way: it stays as long as it has sessions.
        let closing = worker.watch_closing(arrival.address);
        let open = worker.open(&route.stats, |counts| &counts.http2_connections_ended);
        let connection = http2::serve(Rc::clone(&worker), client, arrival, closing, open);
        tokio::task::spawn_local(connection);
        return HandshakeResult::Http2;
    }
    bring(worker, client, arrival, received, entry, pass.arriving).await
}

/// The handshake of a stream of the connection that has arrived so.
pub(crate) async fn open_stream(
    worker: Rc<Worker>,
    route: Arc<Route>,
    client: Stream,
    connection: Arrival,
) -> HandshakeResult {
    let arrival = Arrival {
        came: std::time::Instant::now(),
        begun: Instant::now(),
        waited: Duration::ZERO,
        limit: route.routing.patience(),
        takes_plain: route.plain_requests.is_some(),
        ..connection
    };
    let mut entry = Entry::begin(&worker, &route, arrival.peer);
    entry.note(|record| record.comes_by(&client));
    bring(worker, client, arrival, Vec::new(), entry, None).await
}

/// Brings a client, which has sent `received` so far, to an endpoint.
pub(crate) async fn bring(
    worker: Rc<Worker>,
    mut client: Stream,
    arrival: Arrival,
    received: Vec<u8>,
    mut entry: Entry,
    arriving: Option<(Arriving, GatewayArriving)>,
) -> HandshakeResult {
    let opened = establish(
        &worker,
        &mut client,
        &arrival,
        received,
        &mut entry,
        arriving,
    );
    match opened.await {
        Ok(Opened::Session(ready)) => {
            client.bears_fruit();
            let by_ring = |stream| worker.by_ring(stream);
            let (Ok(client), Ok(backend)) = (by_ring(client), by_ring(ready.backend)) else {
                return HandshakeResult::ClientGone;
            };
            entry.note(|record| {
                record.handshake = HandshakeResult::Upgraded;
                record.status = Some(client.status(101));
            });
            let control = Rc::new(Control::new(
                worker.next_id(),
                &ready.route,
                ready.lease,
                ready.place,
            ));
            let session = Session::new(
                Rc::clone(&worker),
                Rc::clone(&control),
                (client, ready.early_client),
                (backend, ready.early_backend),
                ready.response,
                entry,
            );
            worker.adopt(&control, session, arrival.came);
            HandshakeResult::Upgraded
        }
        Ok(Opened::Plain(received)) => {
            let Some(route) = worker.route(arrival.address) else {
                return HandshakeResult::ListenerGone;
            };
            // Not a handshake under way: it may go on for as long as a session.
            let requests = plain::serve(worker, &route, client, arrival, received, entry);
            tokio::task::spawn_local(requests);
            HandshakeResult::Plain
        }
        Ok(Opened::Answered) => {
            entry.note(|record| record.handshake = HandshakeResult::Answered);
            drop(entry);
            linger(&worker, client).await;
            HandshakeResult::Answered
        }
        Err(failure) => fail(&worker, client, arrival.peer, failure, entry).await,
    }
}

/// Tells a client that it gets no session, if there is anything to say.
async fn fail(
    worker: &Worker,
    mut client: Stream,
    peer: SocketAddr,
    failure: Failure,
    mut entry: Entry,
) -> HandshakeResult {
    match failure {
        Failure::Silent(result) => {
            entry.note(|record| record.handshake = result);
            result
        }
        Failure::Refuse(reject) | Failure::RefuseHead(reject) => {
            let status = client.status(reject.status());
            entry.note(|record| {
                record.handshake = result_of(reject);
                record.status = Some(status);
            });
            drop(entry);
            tracing::debug!(%peer, status, "handshake refused");
            let response = match failure {
                Failure::RefuseHead(_) => reject.head(),
                _ => reject.response(),
            };
            if timeout(LINGER, say(&mut client, &response)).await.is_ok() {
                linger(worker, client).await;
            }
            result_of(reject)
        }
    }
}

pub(crate) fn result_of(reject: Reject) -> HandshakeResult {
    match reject {
        Reject::Timeout => HandshakeResult::ClientTimeout,
        Reject::Origin => HandshakeResult::Forbidden,
        Reject::NoRoute => HandshakeResult::NoRoute,
        Reject::TooMany | Reject::Full => HandshakeResult::Limited,
        Reject::BadGateway => HandshakeResult::BadGateway,
        Reject::Unavailable => HandshakeResult::Unavailable,
        Reject::GatewayTimeout => HandshakeResult::GatewayTimeout,
        _ => HandshakeResult::Refused,
    }
}

/// Answers a client that cannot be served, without waiting for anything.
pub(crate) fn turn_away(client: &TcpStream, reject: Reject) {
    // By the socket itself: the event loop does not know yet that it is ready.
    let socket = SockRef::from(client);
    // Unread bytes would turn the close into a reset, which may overtake the answer.
    drop((&*socket).read(&mut [0; 4096]));
    drop((&*socket).write(&reject.response()));
    drop(socket.shutdown(Shutdown::Write));
}

/// Ends a connection so that the answer arrives: with unread bytes a close is a reset, which may
/// overtake it (RFC 9112 section 9.6).
pub(crate) async fn linger(worker: &Worker, mut client: Stream) {
    let drain = async {
        drop(client.shutdown().await);
        if client.is_http2() {
            // What the client goes on to send on a stream is no trouble to others.
            return;
        }
        let mut dropped = Vec::new();
        let mut bytes = 0;
        while bytes < LINGER_BYTES {
            match fill(worker, &mut client, &mut dropped).await {
                Ok(n @ 1..) => bytes += n,
                _ => return,
            }
            dropped.clear();
        }
    };
    // Whether it ended or time did, the connection is closed now.
    drop(timeout(LINGER, drain).await);
}

/// Hands all of it to the kernel.
pub(crate) async fn say(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads once, by way of the worker's scratch: a handshake under way holds what it received and no
/// more.
pub(crate) async fn fill(
    worker: &Worker,
    stream: &mut Stream,
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    poll_fn(|cx| poll_fill(cx, worker, stream, into)).await
}

pub(crate) fn poll_fill(
    cx: &mut Context<'_>,
    worker: &Worker,
    stream: &mut Stream,
    into: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut scratch = worker.scratch();
    let mut buf = ReadBuf::new(&mut scratch[..READ]);
    let read = Pin::new(stream).poll_read(cx, &mut buf);
    read.map_ok(|()| {
        into.extend_from_slice(buf.filled());
        buf.filled().len()
    })
}

enum Opened {
    Session(Ready),
    Answered,
    /// It asks for no session: the client has sent so much.
    Plain(Vec<u8>),
}

/// What a session begins with.
struct Ready {
    route: Arc<Route>,
    backend: Stream,
    lease: Lease,
    place: (Place, GatewayPlace),
    response: Vec<u8>,
    early_client: Vec<u8>,
    early_backend: Vec<u8>,
}

/// From the request, of which `received` is there, to the answer.
async fn establish(
    worker: &Worker,
    client: &mut Stream,
    arrival: &Arrival,
    mut received: Vec<u8>,
    entry: &mut Entry,
    arriving: Option<(Arriving, GatewayArriving)>,
) -> Result<Opened, Failure> {
    let Arrival { address, begun, .. } = *arrival;
    let route = || {
        let gone = Failure::Silent(HandshakeResult::ListenerGone);
        worker.route(address).ok_or(gone)
    };
    let deadline = arrival.deadline(arrival.limit);
    let request = read_request(worker, arrival, client, &mut received, entry, arriving);
    let Ok(request) = timeout_at(deadline, request).await else {
        return Err(refusal(&received, Reject::Timeout));
    };
    let Some(request) = request? else {
        return Ok(Opened::Plain(received));
    };
    // The client was given the longest time that any upstream gives.
    let deadline = arrival.deadline(request.limit);
    if deadline <= Instant::now() {
        return Err(Failure::Refuse(Reject::Timeout));
    }
    if !arrival.has_turn {
        let begins_at = route()?;
        // Before anything is done for one that has gone: after a failure whole crowds give up and come anew.
        tokio::select! {
            biased;
            () = client.taken_back() => return Err(Failure::Silent(HandshakeResult::ClientGone)),
            turn = wait_for_turn(worker, &begins_at, deadline) => turn?,
        }
    }
    let mut tried = Vec::new();
    let mut spent = Spent::Nothing;
    loop {
        // Anew each time: an endpoint that was listed when the client came may be gone by now.
        let route = route()?;
        let to = destination(&route, &request.host, &request.target, entry)?;
        let upstream = &to.upstream;
        let lease = balance::choose(upstream, &tried, request.key);
        let Some(lease) = lease.filter(|lease| may_try(upstream, &spent, lease)) else {
            return give_up(worker, client, spent, deadline, entry).await;
        };
        if !matches!(spent, Spent::Nothing) {
            worker.stats(&route.stats).retries.add(1);
            // An answer that may be bettered is not read: its connection is closed.
            drop(std::mem::replace(&mut spent, Spent::Nothing));
        }
        let address = lease.endpoint.address;
        entry.note(|record| record.endpoint = Some(address));
        let now = Instant::now();
        let until = share(upstream, &tried, address, (now, deadline));
        let given = until.saturating_duration_since(now);
        let outcome = tokio::select! {
            biased;
            outcome = attempt(worker, upstream, &lease, &request, now, until) => outcome,
            () = client.taken_back() => return Err(Failure::Silent(HandshakeResult::ClientGone)),
        };
        if let Some(made) = made_of_it(&outcome) {
            worker.endpoint_stats(&lease.endpoint).handshake(made);
        }
        retry::learn(upstream, &lease.endpoint, &outcome, given, &worker.shared);
        match outcome {
            Ok(Answer::Switch {
                backend,
                response,
                early,
                subprotocol,
            }) => {
                entry.note(|record| record.subprotocol = subprotocol);
                let times = worker.opening_times(upstream);
                times.handshakes.observe(begun.elapsed());
                return Ok(Opened::Session(Ready {
                    route,
                    backend,
                    lease,
                    place: request.place,
                    response,
                    early_client: received,
                    early_backend: early,
                }));
            }
            Ok(Answer::Other(answer)) if is_retried(answer.status) => {
                tried.push(address);
                spent = Spent::Answer(answer);
            }
            Ok(Answer::Other(answer)) => {
                let last = Spent::Answer(answer);
                return give_up(worker, client, last, deadline, entry).await;
            }
            Err(AttemptError::Failed {
                reject,
                was_untouched,
                ..
            }) => {
                tried.push(address);
                spent = Spent::Failed {
                    reject,
                    was_untouched,
                };
            }
            Err(AttemptError::Final(reject)) => return Err(Failure::Refuse(reject)),
        }
    }
}

/// Tells the client what came of the last attempt.
async fn give_up(
    worker: &Worker,
    client: &mut Stream,
    spent: Spent,
    deadline: Instant,
    entry: &mut Entry,
) -> Result<Opened, Failure> {
    match spent {
        Spent::Nothing => Err(Failure::Refuse(Reject::Unavailable)),
        Spent::Failed { reject, .. } => Err(Failure::Refuse(reject)),
        Spent::Answer(answer) => {
            let status = client.status(answer.status);
            entry.note(|record| record.status = Some(status));
            let passed = pass_answer(worker, client, answer, deadline).await;
            passed.map(|()| Opened::Answered)
        }
    }
}

/// Waits until another handshake may be brought to an endpoint. Half of the time that is left is kept
/// for the endpoint to answer: who would have to wait longer is told so at once.
pub(crate) async fn wait_for_turn(
    worker: &Worker,
    route: &Route,
    deadline: Instant,
) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    let turn = queue_up(&route.pool, &worker.shared.gateway, left / 2).map_err(|limit| {
        route.pool.admission.hit(limit);
        Failure::Refuse(Reject::Full)
    })?;
    turn.comes().await;
    turn.begin();
    Ok(())
}

/// Queues up with those of the pool, and of the gateway.
fn queue_up(pool: &Pool, gateway: &Gateway, patience: Duration) -> Result<Turn, Limit> {
    let of_pool = pool.admission.queue(&pool.limits, patience)?;
    let of_gateway = gateway.queue(patience)?;
    Ok(Turn::of(of_pool.into_iter().chain(of_gateway)))
}

/// Until when the endpoint at `address` may take that is tried now: half of the time that is left, while there
/// is another that promises more to try in the other half.
fn share(
    upstream: &Upstream,
    tried: &[SocketAddr],
    address: SocketAddr,
    (now, deadline): (Instant, Instant),
) -> Instant {
    let is_tried = |other: SocketAddr| other == address || tried.contains(&other);
    let mut endpoints = upstream.endpoints.iter();
    if endpoints.any(|endpoint| endpoint.is_usable() && !is_tried(endpoint.address)) {
        now + deadline.saturating_duration_since(now) / 2
    } else {
        deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_under_way_is_small() {
        fn size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        // So much each task of the crew has, and keeps. With other features of tokio it has other sizes.
        assert!(size(open) <= 3360, "{}", size(open));
    }
}
