//! One endpoint and what it makes of a request: a session, another answer, or nothing.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Failure, arrival::Asked, fill, say};
use crate::{
    balance::Lease,
    client::Ends,
    endpoint::{self, ConnectFault, Fault},
    endpoint_stats::AttemptResult,
    forward,
    handshake::{Body, BodyEnd, INTERIM_MAX, Outcome, Reject, Response, ResponseParser},
    live::Upstream,
    proxy_protocol, record,
    stats::HandshakeResult,
    stream::Stream,
    worker::Worker,
};

/// What an endpoint answered.
pub(super) enum Answer {
    Switch {
        backend: Stream,
        response: Vec<u8>,
        early: Vec<u8>,
        subprotocol: Option<String>,
    },
    Other(OtherAnswer),
}

/// An answer other than 101.
pub(crate) struct OtherAnswer {
    pub(super) status: u16,
    backend: Stream,
    head: Vec<u8>,
    content: Vec<u8>,
    body: Body,
}

/// How an attempt failed.
pub(crate) enum AttemptError {
    /// The next endpoint may do better; if there is none, `reject` is for the client.
    Failed {
        reject: Reject,
        /// The endpoint took no connection, so that it knows nothing of the request.
        was_untouched: bool,
        /// It was not known to be like that.
        is_news: bool,
    },
    /// No endpoint would.
    Final(Reject),
}

impl AttemptError {
    /// The endpoint took the request and has no use for it.
    const fn failed(reject: Reject) -> Self {
        Self::Failed {
            reject,
            was_untouched: false,
            is_news: true,
        }
    }
}

/// What is counted of an endpoint for an outcome; `None`: it had no part in it.
pub(super) fn made_of_it(outcome: &Result<Answer, AttemptError>) -> Option<AttemptResult> {
    Some(match outcome {
        Ok(Answer::Switch { .. }) => AttemptResult::Upgraded,
        Ok(Answer::Other(_)) => AttemptResult::Answered,
        Err(AttemptError::Failed {
            was_untouched: true,
            ..
        }) => AttemptResult::Unreached,
        Err(AttemptError::Failed {
            reject: Reject::GatewayTimeout,
            ..
        }) => AttemptResult::TimedOut,
        Err(AttemptError::Failed { .. }) => AttemptResult::Failed,
        Err(AttemptError::Final(_)) => return None,
    })
}

/// Asks one endpoint, from `begun` until then.
pub(super) async fn attempt(
    worker: &Worker,
    upstream: &Upstream,
    lease: &Lease,
    request: &Asked,
    begun: Instant,
    until: Instant,
) -> Result<Answer, AttemptError> {
    let left = until.saturating_duration_since(begun);
    if left.is_zero() {
        return Err(AttemptError::Final(Reject::GatewayTimeout));
    }
    let mut backend = connect(worker, upstream, lease, request.ends, begun, left).await?;
    let exchange = async {
        // It may have closed already and still have said why: the answer decides.
        drop(say(&mut backend, &request.head).await);
        read_answer(worker, lease, backend, request.accept.as_deref()).await
    };
    let late = Err(AttemptError::failed(Reject::GatewayTimeout));
    timeout_at(until, exchange).await.unwrap_or(late)
}

/// Connects to an endpoint, if there is so much time `left` from `begun` on. What it gets first tells it of the client's `ends`,
/// where it wants to know.
pub(crate) async fn connect(
    worker: &Worker,
    upstream: &Upstream,
    lease: &Lease,
    ends: Ends,
    begun: Instant,
    left: Duration,
) -> Result<Stream, AttemptError> {
    let Ends {
        source,
        destination,
    } = ends;
    let header = upstream.proxy_protocol;
    let header = header.map(|version| proxy_protocol::header(version, source, destination));
    let header = header.unwrap_or_default();
    let limit = upstream.connect_timeout;
    let backend = endpoint::connect(&lease.endpoint, &header, limit, left, &worker.shared).await;
    if backend.is_ok() {
        let times = worker.opening_times(upstream);
        times.connects.observe(begun.elapsed());
    }
    backend.map_err(|fault| match fault {
        ConnectFault::Endpoint { fault, is_news } => AttemptError::Failed {
            reject: match fault {
                Fault::TimedOut => Reject::GatewayTimeout,
                _ => Reject::BadGateway,
            },
            was_untouched: true,
            is_news,
        },
        ConnectFault::Local(error) => {
            let endpoint = lease.endpoint.address;
            tracing::debug!(%endpoint, %error, "cannot open a connection to an endpoint");
            AttemptError::Final(Reject::Unavailable)
        }
    })
}

async fn read_answer(
    worker: &Worker,
    lease: &Lease,
    mut backend: Stream,
    accept: Option<&str>,
) -> Result<Answer, AttemptError> {
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
                    return Err(AttemptError::failed(Reject::BadGateway));
                }
            }
            Outcome::Bad(bad) => {
                let endpoint = lease.endpoint.address;
                tracing::debug!(%endpoint, reason = %bad, "an endpoint's answer is of no use");
                return Err(AttemptError::failed(Reject::BadGateway));
            }
            Outcome::Done(response, end) if response.is_interim() => {
                // No client asked for it (RFC 9110 section 15.2): a handshake has no content to
                // wait for, and many WebSocket clients take the first answer for the last.
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(AttemptError::failed(Reject::BadGateway));
                }
                received.drain(..end);
                parser = ResponseParser::default();
            }
            Outcome::Done(response, end) if response.status == 101 => {
                let given = response.fields.all("sec-websocket-accept").next();
                if accept.is_some_and(|accept| given != Some(accept.as_bytes())) {
                    let endpoint = lease.endpoint.address;
                    tracing::debug!(%endpoint, "its Sec-WebSocket-Accept does not belong to the key");
                    return Err(AttemptError::failed(Reject::BadGateway));
                }
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
pub(super) async fn pass_answer(
    worker: &Worker,
    client: &mut Stream,
    answer: OtherAnswer,
    deadline: Instant,
) -> Result<(), Failure> {
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
                    // Of other content the rest is missing (RFC 9112 section 8).
                    Ok(0) if body == Body::UntilEnd => return Ok(()),
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => return Err(Cut::Backend(HandshakeResult::BadGateway)),
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
        Ok(()) => Ok(()),
        Err(Cut::Client) => Err(Failure::Silent(HandshakeResult::ClientGone)),
        Err(Cut::Backend(result)) => {
            // The head is out already. Where the content ends with the connection (RFC 9112 section
            // 6.3, item 8) a FIN would make a whole of the part that came.
            client.reset();
            Err(Failure::Silent(result))
        }
    }
}

/// Why an answer was not passed on whole.
enum Cut {
    Client,
    Backend(HandshakeResult),
}
