//! Brings a client to an endpoint: reads its request, tries endpoints until one answers, passes the
//! answer on, and makes the session.

use std::{
    borrow::Cow,
    future::poll_fn,
    io::{self, Read, Write},
    mem::take,
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

use crate::{
    balance::{self, Lease},
    client::{self, Ends},
    endpoint::{self, ConnectFault, Endpoint},
    forward,
    handshake::{Body, BodyEnd, Outcome, Reject, Request, RequestParser, Response, ResponseParser},
    limits::{Limit, Place},
    live::{Pool, Route, Upstream},
    observe::EndpointProblem,
    origin, proxy_protocol,
    record::{self, Entry},
    relay::Session,
    routing::Destination,
    session::Control,
    stats::HandshakeResult,
    stream::Stream,
    tls::{self, ServerTls},
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
    address: SocketAddr,
    client: TcpStream,
    peer: SocketAddr,
) -> HandshakeResult {
    let begun = std::time::Instant::now();
    let mut client = Stream::from(client);
    let Some(route) = worker.route(address) else {
        return HandshakeResult::ListenerGone;
    };
    let mut entry = Entry::begin(&worker, &route, peer);
    let failure = match establish(&worker, &route, &mut client, peer, &mut entry).await {
        Ok(Opened::Session(ready)) => {
            entry.note(|record| {
                record.handshake = HandshakeResult::Upgraded;
                record.status = Some(101);
            });
            let control = Rc::new(Control::new(
                worker.next_id(),
                Arc::clone(&ready.route.pool),
                Arc::clone(&ready.route.gate),
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
    let limit = first.routing.patience();
    if first.proxy_protocol && !client::is_trusted(&first.trusted_proxies, peer.ip()) {
        tracing::debug!(%peer, "no trusted proxy may send a PROXY protocol header from there");
        return Err(Failure::Silent(HandshakeResult::ProxyHeader));
    }
    let mut received = Vec::new();
    // A client that says nothing at all is told nothing.
    match timeout(limit, fill(worker, client, &mut received)).await {
        Err(_elapsed) => return Err(Failure::Silent(HandshakeResult::ClientTimeout)),
        Ok(Ok(n)) if n > 0 => {}
        Ok(_) => return Err(Failure::Silent(HandshakeResult::ClientGone)),
    }
    let begun = Instant::now();
    let deadline = begun + limit;
    let mut ends = Ends {
        source: peer,
        destination: address,
    };
    if first.proxy_protocol {
        let header = read_header(worker, client, &mut ends, &mut received);
        let late = Err(Failure::Silent(HandshakeResult::ClientTimeout));
        timeout_at(deadline, header).await.unwrap_or(late)?;
    }
    if let Some(tls) = &first.tls {
        let secured = secure(worker, client, tls, &mut received);
        // Half of the time is kept for what is to be said by way of it.
        let late = Err(Failure::Silent(HandshakeResult::ClientTimeout));
        let until = begun + limit / 2;
        timeout_at(until, secured).await.unwrap_or(late)?;
    }
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
    let mut failure = None;
    loop {
        // Anew each time: an endpoint that was listed when the client came may be gone by now.
        let route = route()?;
        let to = destination(&route, &request.host, &request.target, entry)?;
        let upstream = &to.upstream;
        let Some(lease) = balance::choose(upstream, &tried, request.key) else {
            return Err(Failure::Refuse(failure.unwrap_or(Reject::Unavailable)));
        };
        if failure.is_some() {
            worker.stats().retries.add(1);
        }
        tried.push(lease.endpoint.address);
        entry.note(|record| record.endpoint = Some(lease.endpoint.address));
        let until = share(upstream, &tried, deadline);
        match attempt(worker, upstream, &lease, &request, until).await {
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
            Ok(Answer::Other(answer)) => {
                entry.note(|record| record.status = Some(answer.status));
                return pass_answer(worker, client, answer, deadline).await;
            }
            Err(Attempt::Failed(reject)) => failure = Some(reject),
            Err(Attempt::Final(reject)) => return Err(Failure::Refuse(reject)),
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
    let is_good = |endpoint: &Endpoint| endpoint.is_usable() && !endpoint.is_shunned();
    if endpoints.any(|endpoint| is_good(endpoint) && !tried.contains(&endpoint.address)) {
        let now = Instant::now();
        now + deadline.saturating_duration_since(now) / 2
    } else {
        deadline
    }
}

/// Comes to TLS with a client that has sent `received` so far.
async fn secure(
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
struct Asked {
    /// What it asks for, by which its upstream is chosen.
    host: Vec<u8>,
    target: Vec<u8>,
    /// How long its handshake may take.
    limit: Duration,
    /// The head for the backend.
    head: Vec<u8>,
    /// Who it is, and where it has connected to.
    ends: Ends,
    /// What it is known by, where endpoints are chosen by that.
    key: Option<u64>,
    place: Place,
}

/// Reads the client's request. What it sent behind it is left in `received`.
async fn read_request(
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
fn destination<'a>(
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

/// What an endpoint answered.
enum Answer {
    Switch {
        backend: Stream,
        response: Vec<u8>,
        early: Vec<u8>,
        subprotocol: Option<String>,
    },
    Other(OtherAnswer),
}

/// An answer other than 101.
struct OtherAnswer {
    status: u16,
    backend: Stream,
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
    upstream: &Upstream,
    lease: &Lease,
    request: &Asked,
    until: Instant,
) -> Result<Answer, Attempt> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Attempt::Final(Reject::GatewayTimeout));
    }
    let limit = upstream.connect_timeout.min(left);
    let begun = Instant::now();
    let Ends {
        source,
        destination,
    } = request.ends;
    let header = upstream.proxy_protocol;
    let header = header.map(|version| proxy_protocol::header(version, source, destination));
    let header = header.unwrap_or_default();
    let backend = endpoint::connect(&lease.endpoint, &header, limit, &worker.shared).await;
    if backend.is_ok() {
        let times = worker.opening_times(upstream);
        times.connects.observe(begun.elapsed());
    }
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
    let opening = if header.is_empty() || backend.is_secure() {
        Cow::Borrowed(&request.head)
    } else {
        Cow::Owned([header, request.head.clone()].concat())
    };
    let exchange = async {
        // It may have closed already and still have said why: the answer decides.
        drop(say(&mut backend, &opening).await);
        read_answer(worker, lease, backend).await
    };
    if let Ok(answer) = timeout_at(until, exchange).await {
        lease.endpoint.shun(false);
        answer
    } else {
        // It takes connections, so no check of ours would find it out.
        lease.endpoint.shun(true);
        Err(Attempt::Failed(Reject::GatewayTimeout))
    }
}

async fn read_answer(
    worker: &Worker,
    lease: &Lease,
    mut backend: Stream,
) -> Result<Answer, Attempt> {
    let mut received = Vec::new();
    let mut parser = ResponseParser::default();
    let mut interim = 0;
    loop {
        match parser.parse(&received) {
            Outcome::NeedMore => {
                let filled = fill(worker, &mut backend, &mut received).await;
                if let Err(error) = &filled {
                    endpoint::heard(&lease.endpoint, error, &worker.shared);
                }
                // It died before the 101: nothing has reached the client, so the next is tried.
                if !matches!(filled, Ok(n) if n > 0) {
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
                    subprotocol: subprotocol(&response),
                    early: received[end..].to_vec(),
                    backend,
                });
            }
            Outcome::Done(response, end) => {
                return Ok(Answer::Other(OtherAnswer {
                    status: response.status,
                    head: forward::answer(&response),
                    body: response.body,
                    content: received[end..].to_vec(),
                    backend,
                }));
            }
        }
    }
}

/// RFC 6455 section 4.2.2, item 5.
fn subprotocol(response: &Response<'_>) -> Option<String> {
    let chosen = response.fields.all("sec-websocket-protocol").next();
    chosen.map(record::text)
}

/// Passes on an answer other than 101, content included, until it ends or time does.
async fn pass_answer(
    worker: &Worker,
    client: &mut Stream,
    answer: OtherAnswer,
    deadline: Instant,
) -> Result<Opened, Failure> {
    let OtherAnswer {
        status: _,
        mut backend,
        mut head,
        mut content,
        mut body,
    } = answer;
    let whole = async {
        loop {
            let end = body.advance(&content);
            let (BodyEnd::At(n) | BodyEnd::Broken(n)) = end else {
                head.append(&mut content);
                say(client, &head).await.map_err(|_| Cut::Client)?;
                head.clear();
                match fill(worker, &mut backend, &mut content).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => continue,
                    Err(_) => return Err(Cut::Backend(HandshakeResult::BadGateway)),
                }
            };
            head.extend_from_slice(&content[..n]);
            say(client, &head).await.map_err(|_| Cut::Client)?;
            return match end {
                BodyEnd::Broken(_) => Err(Cut::Backend(HandshakeResult::BadGateway)),
                _ => Ok(()),
            };
        }
    };
    let late = Err(Cut::Backend(HandshakeResult::GatewayTimeout));
    match timeout_at(deadline, whole).await.unwrap_or(late) {
        Ok(()) => Ok(Opened::Answered),
        Err(Cut::Client) => Err(Failure::Silent(HandshakeResult::ClientGone)),
        Err(Cut::Backend(result)) => {
            // The head is out already. Where the content ends with the connection (RFC 9112 section
            // 6.3, item 8) a FIN would make a whole of the part that came.
            drop(SockRef::from(&*client).set_linger(Some(Duration::ZERO)));
            Err(Failure::Silent(result))
        }
    }
}

/// Why an answer was not passed on whole.
enum Cut {
    Client,
    Backend(HandshakeResult),
}
