//! One request with one endpoint: its content goes there while the answer comes back, each as fast as its
//! receiver takes it.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Asked,
    answer::{Answer, Heard},
    content::{Content, Stuck},
};
use crate::{
    handshake::Reject,
    open::{READ, poll_fill},
    stats::RequestResult,
    stream::Stream,
    worker::{Told, Worker},
};

/// How an exchange ends that does not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The endpoint has failed: so early that it may be asked for elsewhere what this one was.
    Failed(Reject),
    /// The client is told, or cut off from an answer that has begun.
    Refused(Reject),
    /// The client is gone.
    Gone,
    /// The client takes nothing.
    Slow,
    /// It was told to end.
    Drained,
}

impl From<&Broken> for RequestResult {
    fn from(broken: &Broken) -> Self {
        match broken {
            Broken::Failed(reject) | Broken::Refused(reject) => Self::of(*reject),
            Broken::Gone => Self::ClientGone,
            Broken::Slow => Self::ClientTimeout,
            Broken::Drained => Self::Drained,
        }
    }
}

/// A request with an endpoint.
pub(super) struct Exchange<'a> {
    worker: &'a Worker,
    told: &'a Told,
    client: &'a mut Stream,
    /// What the client has sent and is not read yet.
    received: &'a mut Vec<u8>,
    backend: Stream,
    request: Content,
    /// How far its content is.
    upload: Upload,
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Upload {
    UnderWay,
    Whole,
    /// The endpoint takes no more: its answer decides.
    Stopped,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        (worker, told): (&'a Worker, &'a Told),
        client: &'a mut Stream,
        received: &'a mut Vec<u8>,
        backend: Stream,
        asked: &Asked,
    ) -> Self {
        let mut request = Content::new(asked.body, asked.framing);
        request.out.bytes.clone_from(&asked.head);
        Self {
            worker,
            told,
            client,
            received,
            backend,
            request,
            upload: Upload::UnderWay,
            answer: Answer::new(asked),
        }
    }

    /// Runs until the answer is passed on whole, or until it is known that the endpoint cannot serve now,
    /// which another may. For so long it may stand still.
    pub(super) async fn run(&mut self, patience: Duration) -> Result<Heard, Broken> {
        let mut still = pin!(sleep(patience));
        poll_fn(|cx| {
            let mut moved = false;
            let polled = self.poll(cx, &mut moved);
            if polled.is_ready() {
                return polled;
            }
            if moved {
                still.as_mut().reset(Instant::now() + patience);
            }
            still.as_mut().poll(cx).map(|()| Err(self.stalled()))
        })
        .await
    }

    /// Content that came from the client, and from the endpoint.
    pub(super) fn bytes(&self) -> [u64; 2] {
        [self.request.bytes, self.answer.bytes()]
    }

    /// Whether nothing of the request's content has gone to the endpoint.
    pub(super) fn is_untouched(&self) -> bool {
        self.request.bytes == 0
    }

    fn poll(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<Heard, Broken>> {
        if self.upload == Upload::UnderWay {
            let from = (&mut *self.client, &mut *self.received);
            let to = &mut self.backend;
            match self.request.poll(cx, self.worker, from, to, moved) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.upload = Upload::Whole,
                Poll::Ready(Err(Stuck::Receiver)) => self.upload = Upload::Stopped,
                Poll::Ready(Err(Stuck::Sender)) => return Poll::Ready(Err(Broken::Gone)),
                Poll::Ready(Err(Stuck::Malformed)) => {
                    let reject = Reject::Malformed("The content is malformed.");
                    return Poll::Ready(Err(Broken::Refused(reject)));
                }
            }
        }
        if self.upload == Upload::Whole && self.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broken::Gone));
        }
        // RFC 9112 section 9.3: behind a request that was not read to its end no other can follow.
        self.answer.is_last = self.upload != Upload::Whole || self.told.is_closing();
        let backend = &mut self.backend;
        self.answer
            .poll(cx, self.worker, backend, self.client, moved)
    }

    /// Ready when the client is gone. What it asks for next is read meanwhile, up to a bound.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.client.is_http2() {
            return self.client.poll_reset(cx);
        }
        while self.received.len() < READ {
            match ready!(poll_fill(cx, self.worker, self.client, self.received)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whose fault it is that nothing moves.
    fn stalled(&self) -> Broken {
        if self.answer.waits_for_client() {
            Broken::Slow
        } else if self.upload == Upload::UnderWay && self.request.out.bytes.is_empty() {
            Broken::Refused(Reject::Timeout)
        } else {
            Broken::Failed(Reject::GatewayTimeout)
        }
    }
}

impl Drop for Exchange<'_> {
    /// An answer that was cut must not look whole: where its content ends with the connection a FIN would make
    /// it so (RFC 9112 section 8).
    fn drop(&mut self) {
        if self.answer.is_cut() {
            self.client.reset();
        }
    }
}
