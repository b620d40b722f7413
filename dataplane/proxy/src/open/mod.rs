//! Brings a client to an endpoint: reads its request, tries endpoints until one answers, passes the
//! answer on, and makes the session.
//!
//! `arrival` is what the client says until it is known what it asks for, `attempt` what becomes of that at
//! one endpoint, `retry` whether another is
//! tried after it.

mod arrival;
mod attempt;
mod retry;

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::{
    arrival::{destination, read_header, read_request, secure},
    attempt::{Answer, Attempt, attempt, pass_answer},
    retry::Spent,
};
use crate::{
    balance::{self, Lease},
    client::{self, Ends},
    handshake::Reject,
    limits::Place,
    live::{Route, Upstream},
    record::Entry,
    relay::Session,
    session::Control,
    stats::HandshakeResult,
    stream::Stream,
    worker::Worker,
};

/// Bytes read at once during a handshake; what a client sends early is bounded by it.
const READ: usize = 16 * 1024;

/// How long a refused client may go on sending before its connection is closed under it.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of it that are read meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

/// How a handshake ends without a session.
enum Failure {
    /// The client is told.
    Refuse(Reject),
    /// There is nobody to tell, or nothing to say.
    Silent(HandshakeResult),
}

/// A whole handshake.
pub(crate) async fn open(
    worker: Rc<Worker>,
    route: Arc<Route>,
    client: TcpStream,
    peer: SocketAddr,
) -> HandshakeResult {
    let begun = std::time::Instant::now();
    let mut client = Stream::from(client);
    let mut entry = Entry::begin(&worker, &route, peer);
    let failure = match establish(&worker, &route, &mut client, peer, &mut entry).await {
        Ok(Opened::Session(ready)) => {
            entry.note(|record| {
                record.handshake = HandshakeResult::Upgraded;
                record.status = Some(101);
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
                (ready.backend, ready.early_backend),
                &ready.response,
                entry,
            );
            worker.adopt(&control, session, begun);
            return HandshakeResult::Upgraded;
        }
        Ok(Opened::Answered) => {
            entry.note(|record| record.handshake = HandshakeResult::Answered);
            drop(entry);
            linger(&worker, client).await;
            return HandshakeResult::Answered;
        }
        Err(failure) => failure,
    };
    match failure {
        Failure::Silent(result) => {
            entry.note(|record| record.handshake = result);
            result
        }
        Failure::Refuse(reject) => {
            entry.note(|record| {
                record.handshake = result_of(reject);
                record.status = Some(reject.status());
            });
            drop(entry);
            tracing::debug!(%peer, status = reject.status(), "handshake refused");
            let response = reject.response();
            if timeout(LINGER, say(&mut client, &response)).await.is_ok() {
                linger(&worker, client).await;
            }
            result_of(reject)
        }
    }
}

fn result_of(reject: Reject) -> HandshakeResult {
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
async fn linger(worker: &Worker, mut client: Stream) {
    let drain = async {
        drop(client.shutdown().await);
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
async fn say(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads once, by way of the worker's scratch: a handshake under way holds what it received and no
/// more.
async fn fill(worker: &Worker, stream: &mut Stream, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut scratch = worker.scratch();
        let mut buf = ReadBuf::new(&mut scratch[..READ]);
        let read = Pin::new(&mut *stream).poll_read(cx, &mut buf);
        read.map_ok(|()| {
            into.extend_from_slice(buf.filled());
            buf.filled().len()
        })
    })
    .await
}

enum Opened {
    Session(Ready),
    Answered,
}

/// What a session begins with.
struct Ready {
    route: Arc<Route>,
    backend: Stream,
    lease: Lease,
    place: Place,
    response: Vec<u8>,
    early_client: Vec<u8>,
    early_backend: Vec<u8>,
}

/// What comes before a request on a connection: a header of the PROXY protocol and TLS, where they are
/// wanted. Gives whose connection it is, and when it began to speak.
async fn arrive(
    worker: &Worker,
    route: &Route,
    client: &mut Stream,
    peer: SocketAddr,
    received: &mut Vec<u8>,
) -> Result<(Ends, Instant), Failure> {
    let limit = route.routing.patience();
    if route.proxy_protocol && !client::is_trusted(&route.trusted_proxies, peer.ip()) {
        tracing::debug!(%peer, "no trusted proxy may send a PROXY protocol header from there");
        return Err(Failure::Silent(HandshakeResult::ProxyHeader));
    }
    // A client that says nothing at all is told nothing.
    match timeout(limit, fill(worker, client, received)).await {
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
    if let Some(tls) = &route.tls {
        let secured = secure(worker, client, tls, received);
        // Half of the time is kept for what is to be said by way of it.
        let late = Err(Failure::Silent(HandshakeResult::ClientTimeout));
        let until = begun + limit / 2;
        timeout_at(until, secured).await.unwrap_or(late)?;
    }
    Ok((ends, begun))
}

/// `first` is the route when the client came.
async fn establish(
    worker: &Worker,
    first: &Route,
    client: &mut Stream,
    peer: SocketAddr,
    entry: &mut Entry,
) -> Result<Opened, Failure> {
    let address = first.gate.address;
    let route = || {
        let gone = Failure::Silent(HandshakeResult::ListenerGone);
        worker.route(address).ok_or(gone)
    };
    let mut received = Vec::new();
    let (ends, begun) = arrive(worker, first, client, peer, &mut received).await?;
    let deadline = begun + first.routing.patience();
    let request = read_request(worker, address, client, ends, &mut received, entry);
    let Ok(request) = timeout_at(deadline, request).await else {
        return Err(Failure::Refuse(Reject::Timeout));
    };
    let request = request?;
    // The client was given the longest time that any upstream gives.
    let deadline = begun + request.limit;
    if deadline <= Instant::now() {
        return Err(Failure::Refuse(Reject::Timeout));
    }
    wait_for_turn(&*route()?, deadline).await?;
    let mut tried = Vec::new();
    let mut spent = Spent::Nothing;
    loop {
        // Anew each time: an endpoint that was listed when the client came may be gone by now.
        let route = route()?;
        let to = destination(&route, &request.host, &request.target, entry)?;
        let upstream = &to.upstream;
        let lease = balance::choose(upstream, &tried, request.key);
        let Some(lease) = lease.filter(|lease| retry::may_try(upstream, &spent, lease)) else {
            return give_up(worker, client, spent, deadline, entry).await;
        };
        if !tried.is_empty() {
            worker.stats(&route.stats).retries.add(1);
            // An answer that may be bettered is not read: its connection is closed.
            drop(std::mem::replace(&mut spent, Spent::Nothing));
        }
        tried.push(lease.endpoint.address);
        entry.note(|record| record.endpoint = Some(lease.endpoint.address));
        let until = share(upstream, &tried, deadline);
        let given = until.saturating_duration_since(Instant::now());
        let outcome = attempt(worker, upstream, &lease, &request, until).await;
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
            Ok(Answer::Other(answer)) if retry::is_retried(answer.status) => {
                spent = Spent::Answer(answer);
            }
            Ok(Answer::Other(answer)) => {
                let last = Spent::Answer(answer);
                return give_up(worker, client, last, deadline, entry).await;
            }
            Err(Attempt::Failed {
                reject,
                was_untouched,
                ..
            }) => {
                spent = Spent::Failed {
                    reject,
                    was_untouched,
                };
            }
            Err(Attempt::Final(reject)) => return Err(Failure::Refuse(reject)),
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
            entry.note(|record| record.status = Some(answer.status));
            let passed = pass_answer(worker, client, answer, deadline).await;
            passed.map(|()| Opened::Answered)
        }
    }
}

/// Waits until another handshake may be brought to an endpoint. Half of the time that is left is kept
/// for the endpoint to answer: who would have to wait longer is told so at once.
async fn wait_for_turn(route: &Route, deadline: Instant) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    let turn = route.pool.admission.turn(&route.pool.limits, left / 2);
    let wait = turn.map_err(|_| Failure::Refuse(Reject::Full))?;
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok(())
}

/// Until when the endpoint tried last may take: half of the time that is left, while there is
/// another that promises more to try in the other half.
fn share(upstream: &Upstream, tried: &[SocketAddr], deadline: Instant) -> Instant {
    let mut endpoints = upstream.endpoints.iter();
    if endpoints.any(|endpoint| endpoint.is_usable() && !tried.contains(&endpoint.address)) {
        let now = Instant::now();
        now + deadline.saturating_duration_since(now) / 2
    } else {
        deadline
    }
}
