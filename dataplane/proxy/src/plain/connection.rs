//! A client's connection from its first request that asks for no session: one request after the other, until
//! one side has enough of it, or one asks for a session after all.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant as Came},
};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Asked,
    attempt::{Origin, Outcome, carry},
};
use crate::{
    handshake::{Incoming, Outcome as Parsed, Reject, RequestParser},
    live::Route,
    open::{Arrival, Failure, LINGER, fill, linger, refusal, say, wait_for_turn},
    record::{Entry, text},
    stats::{HandshakeResult, Open, RequestResult},
    stream::Stream,
    worker::{Asking, Newcomer, Requests, Told, Worker},
};

/// Serves a client of a listener that has sent `received`, which begins with such a request.
pub(crate) fn serve(
    worker: Rc<Worker>,
    route: &Route,
    client: Stream,
    arrival: Arrival,
    received: Vec<u8>,
    entry: Entry,
) -> impl Future<Output = ()> + use<> {
    let requests = worker.take_requests(route);
    let open = worker.open(&route.stats, |counts| &counts.plain_ended);
    let connection = Connection {
        worker,
        client,
        arrival,
        received,
    };
    connection.serve(requests, open, entry)
}

/// What comes behind a request.
enum Next {
    /// Another one.
    Request,
    /// It asks for a session, and is in what was received.
    Upgrade(Arc<Route>, Entry),
    /// The end of the connection, once the client has what was said.
    End,
    /// Nothing: the connection is of no more use.
    Nothing,
}

struct Connection {
    worker: Rc<Worker>,
    client: Stream,
    arrival: Arrival,
    /// What the client has sent and is not read yet.
    received: Vec<u8>,
}

impl Connection {
    /// One request after the other; the first one has a record already.
    async fn serve(mut self, requests: Requests, _open: Open, first: Entry) {
        let mut entry = Some(first);
        let next = loop {
            // The state of a request is there for as long as the request is.
            let request = Box::pin(self.request(&requests.told, entry.take()));
            let next = request.await;
            if let Next::Request = next
                && self.wait(&requests.told).await.is_some()
            {
                continue;
            }
            break next;
        };
        let is_needed = requests.told.is_needed();
        // It is no longer to be told anything.
        drop(requests);
        match next {
            Next::Upgrade(route, entry) => self.upgrade(route, entry),
            Next::Nothing => {}
            Next::Request if is_needed => {}
            Next::Request | Next::End => linger(&self.worker, self.client).await,
        }
    }

    /// Waits for the first byte of another request; `None`: none comes, or none is to come.
    async fn wait(&mut self, told: &Told) -> Option<()> {
        let Self {
            worker,
            client,
            received,
            ..
        } = self;
        if told.is_closing() {
            return None;
        }
        if received.is_empty() {
            received.shrink_to_fit();
            let _waits = told.waits();
            let first = timeout(worker.shared.patience.idle, fill(worker, client, received));
            let first = tokio::select! {
                biased;
                first = first => first,
                () = told.closing() => return None,
            };
            if !matches!(first, Ok(Ok(n)) if n > 0) {
                return None;
            }
        }
        self.arrival.came = Came::now();
        self.arrival.begun = Instant::now();
        self.arrival.waited = Duration::ZERO;
        self.arrival.has_turn = false;
        Some(())
    }

    /// Takes one request in and sees to it.
    async fn request(&mut self, told: &Told, entry: Option<Entry>) -> Next {
        let Some(route) = self.worker.route(self.arrival.address) else {
            return Next::End;
        };
        let peer = self.arrival.peer;
        let mut entry = entry.unwrap_or_else(|| Entry::begin(&self.worker, &route, peer));
        entry.note(|record| record.comes_by(&self.client));
        self.arrival.limit = route.routing.patience();
        let until = self.arrival.deadline(self.arrival.limit);
        let asked = timeout_at(until, self.read(&route, &mut entry)).await;
        let asked = asked.unwrap_or_else(|_| Err(refusal(&self.received, Reject::Timeout)));
        let asked = match asked {
            Ok(None) => return Next::Upgrade(route, entry),
            Ok(Some(asked)) => Ok(asked),
            Err(failure) => Err(failure),
        };
        entry.note(|record| record.handshake = HandshakeResult::Plain);
        let (outcome, is_head) = match asked {
            Ok(asked) => {
                let outcome = self.see_to(&route, told, &asked, &mut entry).await;
                (outcome, asked.is_head)
            }
            Err(Failure::Silent(_)) => (Outcome::Cut(RequestResult::ClientGone), false),
            Err(Failure::Refuse(reject)) => (Outcome::refuse(reject), false),
            Err(Failure::RefuseHead(reject)) => (Outcome::refuse(reject), true),
        };
        if let Outcome::Answered { .. } = outcome {
            self.client.bears_fruit();
        }
        let (result, next) = match outcome {
            Outcome::Answered { stays: true } => (RequestResult::Answered, Next::Request),
            Outcome::Answered { stays: false } => (RequestResult::Answered, Next::End),
            Outcome::Refuse(reject, result) => {
                let status = self.client.status(reject.status());
                entry.note(|record| record.status = Some(status));
                (result, self.refuse(reject, is_head).await)
            }
            Outcome::Cut(result) => (result, Next::Nothing),
        };
        entry.note(|record| record.request = Some(result));
        self.worker.stats(&route.stats).request(result);
        next
    }

    /// Reads a request; `None`: it asks for a session, and is left in what was received.
    async fn read(&mut self, route: &Route, entry: &mut Entry) -> Result<Option<Asked>, Failure> {
        let Self {
            worker,
            client,
            arrival,
            received,
        } = self;
        let mut parser = RequestParser::default();
        loop {
            match parser.parse_any(received) {
                Parsed::NeedMore => {}
                Parsed::Bad(reject) => return Err(refusal(received, reject)),
                Parsed::Done(Incoming::Upgrade(_), _) => return Ok(None),
                Parsed::Done(Incoming::Plain(request), end) => {
                    // The configuration may have changed since the request before it.
                    let Some(settings) = route.plain_requests else {
                        return Err(refusal(received, Reject::NotAnUpgrade));
                    };
                    entry.note(|record| record.method = Some(text(request.method)));
                    let (gateway, ends) = (&worker.shared.gateway, arrival.ends);
                    let asked =
                        Asked::admit(route, gateway, settings, &request, ends, client, entry)?;
                    received.drain(..end);
                    return Ok(Some(asked));
                }
            }
            if !matches!(fill(worker, client, received).await, Ok(n) if n > 0) {
                return Err(Failure::Silent(HandshakeResult::ClientGone));
            }
        }
    }

    /// Brings a request to an endpoint when its turn is.
    async fn see_to(
        &mut self,
        route: &Route,
        told: &Told,
        asked: &Asked,
        entry: &mut Entry,
    ) -> Outcome {
        if !self.arrival.has_turn {
            let deadline = self.arrival.deadline(asked.limit);
            let turn = tokio::select! {
                biased;
                () = self.client.taken_back() => {
                    return Outcome::Cut(RequestResult::ClientGone);
                }
                turn = wait_for_turn(&self.worker, route, deadline) => turn,
            };
            if turn.is_err() {
                return Outcome::refuse(Reject::Full);
            }
        }
        let origin = Origin {
            worker: &self.worker,
            told,
            client: &mut self.client,
            received: &mut self.received,
            entry,
        };
        carry(origin, asked).await
    }

    /// Tells the client why it gets no answer.
    async fn refuse(&mut self, reject: Reject, is_head: bool) -> Next {
        let response = if is_head {
            reject.head()
        } else {
            reject.response()
        };
        match timeout(LINGER, say(&mut self.client, &response)).await {
            Ok(Ok(())) => Next::End,
            _ => Next::Nothing,
        }
    }

    /// The handshake that the client asks for is one of its own.
    fn upgrade(self, route: Arc<Route>, entry: Entry) {
        let Self {
            worker,
            client,
            arrival,
            received,
        } = self;
        worker.stats(&route.stats).plain_upgrades.add(1);
        let asking = Asking {
            client,
            arrival,
            received,
            entry,
        };
        worker.begin(route, Newcomer::Asking(Box::new(asking)));
    }
}
