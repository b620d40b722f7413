//! Brings a client to an endpoint: reads its request, tries endpoints until one answers, passes the
//! answer on, and makes the session.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    balance::{self, Lease},
    config::Heartbeat,
    endpoint::{self, ConnectFault},
    forward,
    handshake::{Body, BodyEnd, Outcome, Reject, RequestParser, ResponseParser},
    heartbeat,
    live::Route,
    observe::EndpointProblem,
    relay::Session,
    session::Control,
    stats::HandshakeResult,
    worker::Worker,
};

/// Bytes read at once during a handshake; what a client sends early is bounded by it.
const READ: usize = 16 * 1024;

/// Interim responses before the 101 that are waited through.
const INTERIM_MAX: usize = 8;

/// How long a refused client may go on sending before its connection is closed under it.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of it that are read meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

/// With heartbeats off: silence after which the kernel probes a peer, and how often it then does.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(10);

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
    mut client: TcpStream,
    peer: SocketAddr,
) -> HandshakeResult {
    let failure = match establish(&worker, &route, &mut client, peer).await {
        Ok(Opened::Session(ready)) => {
            bound_silence(&client, route.pool.heartbeat);
            let control = Rc::new(Control::new(
                worker.next_id(),
                Arc::clone(&route.pool),
                Arc::clone(&route.gate),
                ready.lease,
            ));
            let session = Session::new(
                Rc::clone(&worker),
                Rc::clone(&control),
                (client, ready.early_client),
                (ready.backend, ready.early_backend),
                &ready.response,
            );
            worker.adopt(&control, session);
            return HandshakeResult::Upgraded;
        }
        Ok(Opened::Answered) => {
            linger(&worker, client).await;
            return HandshakeResult::Answered;
        }
        Err(failure) => failure,
    };
    match failure {
        Failure::Silent(result) => result,
        Failure::Refuse(reject) => {
            tracing::debug!(%peer, status = reject.status(), "handshake refused");
            let response = reject.response();
            if timeout(LINGER, client.write_all(&response)).await.is_ok() {
                linger(&worker, client).await;
            }
            result_of(reject)
        }
    }
}

fn result_of(reject: Reject) -> HandshakeResult {
    match reject {
        Reject::Timeout => HandshakeResult::ClientTimeout,
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
async fn linger(worker: &Worker, mut client: TcpStream) {
    drop(SockRef::from(&client).shutdown(Shutdown::Write));
    let drain = async {
        let mut dropped = Vec::new();
        while dropped.len() < LINGER_BYTES {
            if !matches!(fill(worker, &mut client, &mut dropped).await, Ok(n) if n > 0) {
                return;
            }
        }
    };
    // Whether it ended or time did, the connection is closed now.
    drop(timeout(LINGER, drain).await);
}

/// Reads once, by way of the worker's scratch: a handshake under way holds what it received and no
/// more.
async fn fill(worker: &Worker, stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
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

/// Has the kernel end a connection whose peer is gone, where heartbeats cannot tell: while what was
/// sent is not acknowledged (RFC 5482), and with heartbeats off, by probes.
fn bound_silence(stream: &TcpStream, heartbeat: Heartbeat) {
    let socket = SockRef::from(stream);
    // Where an option cannot be set the peer's end is only noticed later.
    if heartbeat.interval.is_zero() {
        let probes = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY);
        drop(socket.set_tcp_keepalive(&probes));
    } else {
        let patience = heartbeat.interval + heartbeat::timeout(heartbeat);
        drop(socket.set_tcp_user_timeout(Some(patience)));
    }
}

enum Opened {
    Session(Ready),
    Answered,
}

/// What a session begins with.
struct Ready {
    backend: TcpStream,
    lease: Lease,
    response: Vec<u8>,
    early_client: Vec<u8>,
    early_backend: Vec<u8>,
}

async fn establish(
    worker: &Worker,
    route: &Route,
    client: &mut TcpStream,
    peer: SocketAddr,
) -> Result<Opened, Failure> {
    let limit = route.pool.upstream.handshake_timeout;
    let mut received = Vec::new();
    // A client that says nothing at all is told nothing.
    match timeout(limit, fill(worker, client, &mut received)).await {
        Err(_elapsed) => return Err(Failure::Silent(HandshakeResult::ClientTimeout)),
        Ok(Ok(n)) if n > 0 => {}
        Ok(_) => return Err(Failure::Silent(HandshakeResult::ClientGone)),
    }
    let deadline = Instant::now() + limit;
    let request = read_request(worker, route, client, peer, &mut received);
    let Ok(request) = timeout_at(deadline, request).await else {
        return Err(Failure::Refuse(Reject::Timeout));
    };
    let request = request?;
    let mut tried = Vec::new();
    let mut failure = None;
    while let Some(lease) = balance::choose(&route.pool.upstream, &tried) {
        if failure.is_some() {
            worker.stats().retries.add(1);
        }
        tried.push(lease.endpoint.address);
        let attempt = attempt(worker, route, &lease, &request, deadline).await;
        match attempt {
            Ok(Answer::Switch {
                backend,
                response,
                early,
            }) => {
                return Ok(Opened::Session(Ready {
                    backend,
                    lease,
                    response,
                    early_client: received,
                    early_backend: early,
                }));
            }
            Ok(Answer::Other(answer)) => {
                return pass_answer(worker, client, answer, deadline).await;
            }
            Err(Attempt::Failed(reject)) => failure = Some(reject),
            Err(Attempt::Final(reject)) => return Err(Failure::Refuse(reject)),
        }
    }
    Err(Failure::Refuse(failure.unwrap_or(Reject::Unavailable)))
}

/// Reads the client's request. What it sent behind it is left in `received`; the result is the
/// head for the backend.
async fn read_request(
    worker: &Worker,
    route: &Route,
    client: &mut TcpStream,
    peer: SocketAddr,
    received: &mut Vec<u8>,
) -> Result<Vec<u8>, Failure> {
    let mut parser = RequestParser::default();
    loop {
        match parser.parse(received) {
            Outcome::NeedMore => {}
            Outcome::Bad(reject) => return Err(Failure::Refuse(reject)),
            Outcome::Done(request, end) => {
                let head = forward::request(&request, peer, route.gate.address);
                received.drain(..end);
                received.shrink_to_fit();
                return Ok(head);
            }
        }
        if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
            return Err(Failure::Silent(HandshakeResult::ClientGone));
        }
    }
}

/// What an endpoint answered.
enum Answer {
    Switch {
        backend: TcpStream,
        response: Vec<u8>,
        early: Vec<u8>,
    },
    Other(OtherAnswer),
}

/// An answer other than 101.
struct OtherAnswer {
    backend: TcpStream,
    head: Vec<u8>,
    content: Vec<u8>,
    body: Body,
}

/// How an attempt failed.
enum Attempt {
    /// The next endpoint may do better; if there is none, this is for the client.
    Failed(Reject),
    /// No endpoint would.
    Final(Reject),
}

async fn attempt(
    worker: &Worker,
    route: &Route,
    lease: &Lease,
    request: &[u8],
    deadline: Instant,
) -> Result<Answer, Attempt> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Attempt::Final(Reject::GatewayTimeout));
    }
    let limit = route.pool.upstream.connect_timeout.min(left);
    let backend = endpoint::connect(&lease.endpoint, limit, &worker.shared).await;
    let mut backend = backend.map_err(|fault| match fault {
        ConnectFault::Endpoint(EndpointProblem::ConnectTimeout) => {
            Attempt::Failed(Reject::GatewayTimeout)
        }
        ConnectFault::Endpoint(_) => Attempt::Failed(Reject::BadGateway),
        ConnectFault::Local(error) => {
            tracing::warn!(%error, "cannot open a connection to an endpoint");
            Attempt::Final(Reject::Unavailable)
        }
    })?;
    bound_silence(&backend, route.pool.heartbeat);
    let exchange = async {
        // It may have closed already and still have said why: the answer decides.
        drop(backend.write_all(request).await);
        read_answer(worker, backend).await
    };
    match timeout_at(deadline, exchange).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(Attempt::Final(Reject::GatewayTimeout)),
    }
}

async fn read_answer(worker: &Worker, mut backend: TcpStream) -> Result<Answer, Attempt> {
    let mut received = Vec::new();
    let mut parser = ResponseParser::default();
    let mut interim = 0;
    loop {
        match parser.parse(&received) {
            Outcome::NeedMore => {
                // It died before the 101: nothing has reached the client, so the next is tried.
                if !matches!(fill(worker, &mut backend, &mut received).await, Ok(n) if n > 0) {
                    return Err(Attempt::Failed(Reject::BadGateway));
                }
            }
            Outcome::Bad(bad) => {
                tracing::warn!(reason = %bad, "an endpoint's answer is of no use");
                return Err(Attempt::Failed(Reject::BadGateway));
            }
            Outcome::Done(response, end) if response.is_interim() => {
                // No client asked for it (RFC 9110 section 15.2): a handshake has no content to
                // wait for, and many WebSocket clients take the first answer for the last.
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(Attempt::Failed(Reject::BadGateway));
                }
                received.drain(..end);
                parser = ResponseParser::default();
            }
            Outcome::Done(response, end) if response.status == 101 => {
                return Ok(Answer::Switch {
                    response: forward::switch(&response),
                    early: received[end..].to_vec(),
                    backend,
                });
            }
            Outcome::Done(response, end) => {
                return Ok(Answer::Other(OtherAnswer {
                    head: forward::answer(&response),
                    body: response.body,
                    content: received[end..].to_vec(),
                    backend,
                }));
            }
        }
    }
}

/// Passes on an answer other than 101, content included, until it ends or time does.
async fn pass_answer(
    worker: &Worker,
    client: &mut TcpStream,
    answer: OtherAnswer,
    deadline: Instant,
) -> Result<Opened, Failure> {
    let OtherAnswer {
        mut backend,
        mut head,
        mut content,
        mut body,
    } = answer;
    let pass = async {
        loop {
            let end = body.advance(&content);
            let (BodyEnd::At(n) | BodyEnd::Broken(n)) = end else {
                head.append(&mut content);
                client.write_all(&head).await?;
                head.clear();
                if fill(worker, &mut backend, &mut content).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            head.extend_from_slice(&content[..n]);
            return client.write_all(&head).await;
        }
    };
    match timeout_at(deadline, pass).await {
        Ok(Ok(())) => Ok(Opened::Answered),
        Ok(Err::<(), io::Error>(_)) => Err(Failure::Silent(HandshakeResult::ClientGone)),
        // The head is out already: a client that is cut off sees that the content is not whole.
        Err(_elapsed) => Err(Failure::Silent(HandshakeResult::GatewayTimeout)),
    }
}
