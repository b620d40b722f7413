//! Which endpoint a request goes to, and which one then if that fails.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{
    Asked,
    answer::Heard,
    exchange::{Broken, Exchange},
};
use crate::{
    balance::{self, Lease},
    endpoint,
    endpoint_stats::AttemptResult,
    handshake::Reject,
    health,
    live::{Route, Upstream},
    open::{self, AttemptError, Failure, Spent},
    record::Entry,
    stats::RequestResult,
    stream::Stream,
    worker::{Told, Worker},
};

/// Where a request comes from, for as long as it is under way.
pub(super) struct Origin<'a> {
    pub(super) worker: &'a Worker,
    pub(super) told: &'a Told,
    pub(super) client: &'a mut Stream,
    /// What it has sent and is not read yet.
    pub(super) received: &'a mut Vec<u8>,
    pub(super) entry: &'a mut Entry,
}

/// What the client got.
pub(super) enum Outcome {
    /// A whole answer; whether its connection may carry another request.
    Answered { stays: bool },
    /// Nothing yet: it is to be told that.
    Refuse(Reject, RequestResult),
    /// An answer that is not whole, or nothing: its connection is of no more use.
    Cut(RequestResult),
}

impl Outcome {
    pub(super) const fn refuse(reject: Reject) -> Self {
        Self::Refuse(reject, RequestResult::of(reject))
    }
}

/// Another endpoint may be tried.
struct Again {
    spent: Spent,
    /// That one, where it was chosen already.
    lease: Option<Lease>,
}

/// Brings a request to an endpoint, and its answer back.
pub(super) async fn carry(mut origin: Origin<'_>, asked: &Asked) -> Outcome {
    let deadline = Instant::now() + asked.limit;
    let mut tried = Vec::new();
    let mut again = Again {
        spent: Spent::Nothing,
        lease: None,
    };
    loop {
        // Anew each time, as for handshakes.
        let Some(route) = origin.worker.route(origin.told.address) else {
            return Outcome::Refuse(Reject::Unavailable, RequestResult::Drained);
        };
        let to = open::destination(&route, &asked.host, &asked.target, origin.entry);
        let upstream = match to {
            Ok(to) => &to.upstream,
            Err(Failure::Refuse(reject) | Failure::RefuseHead(reject)) => {
                return Outcome::refuse(reject);
            }
            Err(Failure::Silent(_)) => return Outcome::Cut(RequestResult::ClientGone),
        };
        let Again { spent, lease } = again;
        let lease = lease.or_else(|| choose(upstream, &tried, asked, &spent));
        let Some(lease) = lease else {
            return Outcome::refuse(match spent {
                Spent::Failed { reject, .. } => reject,
                _ => Reject::Unavailable,
            });
        };
        if !tried.is_empty() {
            origin.worker.stats(&route.stats).retries.add(1);
        }
        let address = lease.endpoint.address;
        tried.push(address);
        origin.entry.note(|record| record.endpoint = Some(address));
        let attempt = Attempt {
            route: &route,
            upstream,
            lease,
            tried: &tried,
        };
        again = match attempt.make(&mut origin, asked, deadline).await {
            Err(again) => again,
            Ok(outcome) => return outcome,
        };
    }
}

/// An endpoint that may be asked after what was spent.
fn choose(
    upstream: &Upstream,
    tried: &[SocketAddr],
    asked: &Asked,
    spent: &Spent,
) -> Option<Lease> {
    let lease = balance::choose(upstream, tried, asked.key);
    lease.filter(|lease| open::may_try(upstream, spent, lease))
}

/// A request and one endpoint.
struct Attempt<'a> {
    route: &'a Route,
    upstream: &'a Arc<Upstream>,
    lease: Lease,
    tried: &'a [SocketAddr],
}

impl Attempt<'_> {
    async fn make(
        &self,
        origin: &mut Origin<'_>,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Outcome, Again> {
        let backend = match self.connect(origin, asked, deadline).await? {
            Ok(backend) => backend,
            Err(outcome) => return Ok(outcome),
        };
        let Self { route, lease, .. } = self;
        let (worker, told) = (origin.worker, origin.told);
        worker.stats(&route.stats).requests_begun.add(1);
        let _open = worker.open(&route.stats, |counts| &counts.requests_ended);
        let _goes = told.goes_to(&lease.endpoint);
        let (client, received) = (&mut *origin.client, &mut *origin.received);
        let mut exchange = Exchange::new((worker, told), client, received, backend, asked);
        exchange.answer.may_be_bettered = asked.is_repeatable();
        loop {
            let heard = tokio::select! {
                biased;
                heard = exchange.run(asked.timeout) => heard,
                () = told.over() => Err(Broken::Drained),
            };
            let status = exchange.answer.status;
            let [up, down] = exchange.bytes();
            origin.entry.note(|record| {
                (record.from_client.bytes, record.from_endpoint.bytes) = (up, down);
            });
            let failed = match heard {
                Ok(Heard::Whole { stays }) => {
                    self.made(worker, AttemptResult::Answered);
                    self.learn(worker, status.is_some_and(open::is_retried));
                    origin.entry.note(|record| record.status = status);
                    return Ok(Outcome::Answered { stays });
                }
                Ok(Heard::Unwell) => {
                    let spent = Spent::Failed {
                        reject: Reject::Unavailable,
                        was_untouched: false,
                    };
                    let other = exchange.is_untouched().then_some(());
                    let other =
                        other.and_then(|()| choose(self.upstream, self.tried, asked, &spent));
                    if other.is_none() {
                        // Then the client gets what there is.
                        exchange.answer.may_be_bettered = false;
                        continue;
                    }
                    self.made(worker, AttemptResult::Answered);
                    self.learn(worker, true);
                    return Err(Again {
                        spent,
                        lease: other,
                    });
                }
                Err(Broken::Failed(reject)) => {
                    let is_late = reject == Reject::GatewayTimeout;
                    let made = if is_late {
                        AttemptResult::TimedOut
                    } else {
                        AttemptResult::Failed
                    };
                    self.made(worker, made);
                    self.learn(worker, true);
                    if let Some(error) = &exchange.answer.error {
                        endpoint::heard(&lease.endpoint, error, &worker.shared);
                    }
                    let is_first = exchange.is_untouched() && exchange.answer.is_silent();
                    if is_first && !is_late && asked.is_repeatable() {
                        return Err(Again {
                            spent: Spent::Failed {
                                reject,
                                was_untouched: false,
                            },
                            lease: None,
                        });
                    }
                    Broken::Failed(reject)
                }
                Err(broken) => broken,
            };
            let result = RequestResult::from(&failed);
            let reject = match failed {
                Broken::Failed(reject) | Broken::Refused(reject) => Some(reject),
                Broken::Drained => Some(Reject::Unavailable),
                Broken::Gone | Broken::Slow => None,
            };
            let reject = reject.filter(|_| exchange.answer.is_clean());
            return Ok(match reject {
                Some(reject) => Outcome::Refuse(reject, result),
                None => Outcome::Cut(result),
            });
        }
    }

    async fn connect(
        &self,
        origin: &mut Origin<'_>,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Result<Stream, Outcome>, Again> {
        let worker = origin.worker;
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        if left.is_zero() {
            return Ok(Err(Outcome::refuse(Reject::GatewayTimeout)));
        }
        let (upstream, lease) = (self.upstream, &self.lease);
        let connecting = open::connect(worker, upstream, lease, asked.ends, begun, left);
        let connected = tokio::select! {
            biased;
            connected = connecting => connected,
            () = origin.client.taken_back() => {
                return Ok(Err(Outcome::Cut(RequestResult::ClientGone)));
            }
        };
        match connected {
            Ok(backend) => Ok(Ok(backend)),
            Err(AttemptError::Final(reject)) => Ok(Err(Outcome::refuse(reject))),
            Err(AttemptError::Failed {
                reject,
                was_untouched,
                is_news,
            }) => {
                self.made(worker, AttemptResult::Unreached);
                if is_news {
                    self.learn(worker, true);
                }
                let spent = Spent::Failed {
                    reject,
                    was_untouched,
                };
                Err(Again { spent, lease: None })
            }
        }
    }

    fn made(&self, worker: &Worker, result: AttemptResult) {
        let stats = worker.endpoint_stats(&self.lease.endpoint);
        stats.handshake(result);
    }

    /// Takes in what was heard of the endpoint.
    fn learn(&self, worker: &Worker, is_failure: bool) {
        let endpoint = &self.lease.endpoint;
        if is_failure {
            health::failed(endpoint, self.upstream, &worker.shared);
        } else {
            endpoint.condition.succeeded();
        }
    }
}
