//! An endpoint's answer, from its head to its end, on its way to the client.

use std::{
    io,
    mem::take,
    task::{Context, Poll, ready},
};

use super::{
    Asked,
    content::{Content, Framing, Out, Stuck},
    exchange::Broken,
    head,
};
use crate::{
    handshake::{Body, Outcome, Reject, Response, ResponseParser},
    open::{is_retried, poll_fill},
    stream::Stream,
    worker::Worker,
};

/// What was heard of an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// Its whole answer, which was passed on; whether the client's connection may carry another request.
    Whole { stays: bool },
    /// That it cannot serve now. Nothing was passed on yet.
    Unwell,
}

/// What a head says.
enum Head {
    /// Another one follows.
    Interim,
    /// The endpoint cannot serve now, which another one may.
    Unwell,
    /// This content follows.
    Last(Content),
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// What came from the endpoint and is not read yet.
    received: Vec<u8>,
    parser: ResponseParser,
    /// Heads of interim answers that are to go out.
    interim: Out,
    /// The head and content of the last one, once it is there.
    content: Option<Content>,
    /// What was wrong with the connection to the endpoint before that.
    pub(super) error: Option<io::Error>,
    /// Its status.
    pub(super) status: Option<u16>,
    /// One that another endpoint may better is not passed on, for the time being.
    pub(super) may_be_bettered: bool,
    /// If it begins now, its client's connection is to carry no other request.
    pub(super) is_last: bool,
    /// The client's connection may carry another request.
    stays: bool,
    is_whole: bool,
    is_head: bool,
    is_old: bool,
    is_http2: bool,
}

impl Answer {
    pub(super) fn new(asked: &Asked) -> Self {
        Self {
            received: Vec::new(),
            parser: ResponseParser::default(),
            interim: Out::default(),
            content: None,
            error: None,
            status: None,
            may_be_bettered: false,
            is_last: false,
            stays: asked.persists,
            is_whole: false,
            is_head: asked.is_head,
            is_old: asked.is_old,
            is_http2: asked.is_http2,
        }
    }

    /// Content that came.
    pub(super) fn bytes(&self) -> u64 {
        self.content.as_ref().map_or(0, |content| content.bytes)
    }

    /// Whether none of it was passed on, so that the client can be told something else.
    pub(super) fn is_clean(&self) -> bool {
        self.content.is_none() && !self.interim.is_torn()
    }

    /// Whether it was passed on in part.
    pub(super) fn is_cut(&self) -> bool {
        !self.is_clean() && !self.is_whole
    }

    /// Whether nothing at all came from the endpoint.
    pub(super) fn is_silent(&self) -> bool {
        self.status.is_none() && self.received.is_empty()
    }

    /// Whether the client has yet to take what is there.
    pub(super) fn waits_for_client(&self) -> bool {
        let content = self.content.as_ref();
        !self.interim.bytes.is_empty() || content.is_some_and(|it| !it.out.bytes.is_empty())
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        backend: &mut Stream,
        client: &mut Stream,
        moved: &mut bool,
    ) -> Poll<Result<Heard, Broken>> {
        let gone = Broken::Failed(Reject::BadGateway);
        let content = loop {
            if let Some(content) = &mut self.content {
                break content;
            }
            let sent = ready!(self.interim.poll_send(cx, client, moved));
            if sent.is_err() {
                return Poll::Ready(Err(Broken::Gone));
            }
            let received = take(&mut self.received);
            let parsed = self.read(&received);
            self.received = received;
            match parsed {
                Outcome::NeedMore => {
                    match ready!(poll_fill(cx, worker, backend, &mut self.received)) {
                        Ok(n) if n > 0 => *moved = true,
                        ended => {
                            self.error = ended.err();
                            return Poll::Ready(Err(gone));
                        }
                    }
                }
                Outcome::Bad(()) => return Poll::Ready(Err(gone)),
                Outcome::Done(Head::Unwell, _) => return Poll::Ready(Ok(Heard::Unwell)),
                Outcome::Done(Head::Interim, end) => drop(self.received.drain(..end)),
                Outcome::Done(Head::Last(content), end) => {
                    self.received.drain(..end);
                    self.content = Some(content);
                }
            }
        };
        let from = (backend, &mut self.received);
        let done = ready!(content.poll(cx, worker, from, client, moved));
        let stays = self.stays;
        self.is_whole = done.is_ok();
        Poll::Ready(match done {
            Ok(()) => Ok(Heard::Whole { stays }),
            Err(Stuck::Receiver) => Err(Broken::Gone),
            Err(Stuck::Sender | Stuck::Malformed) => Err(gone),
        })
    }

    fn read(&mut self, received: &[u8]) -> Outcome<Head, ()> {
        match self.parser.parse(received) {
            Outcome::NeedMore => Outcome::NeedMore,
            Outcome::Bad(bad) => {
                tracing::debug!(reason = %bad, "an endpoint's answer is of no use");
                Outcome::Bad(())
            }
            Outcome::Done(response, end) if response.is_interim() => {
                // RFC 9110 section 15.2: none for a client of HTTP/1.0.
                if !self.is_old {
                    self.interim.bytes = head::interim(&response);
                }
                self.parser = ResponseParser::default();
                Outcome::Done(Head::Interim, end)
            }
            // It was not asked to.
            Outcome::Done(response, _) if response.status == 101 => Outcome::Bad(()),
            Outcome::Done(response, end) => {
                self.status = Some(response.status);
                if self.may_be_bettered && is_retried(response.status) {
                    self.parser = ResponseParser::default();
                    return Outcome::Done(Head::Unwell, end);
                }
                match self.begin(&response) {
                    Some(content) => Outcome::Done(Head::Last(content), end),
                    None => Outcome::Bad(()),
                }
            }
        }
    }

    /// The content of an answer, with its head before it; `None`: where it ends is not clear.
    fn begin(&mut self, response: &Response<'_>) -> Option<Content> {
        let codings: Vec<_> = response.fields.list("transfer-encoding").collect();
        let is_coded = response.fields.all("transfer-encoding").next().is_some();
        let is_chunked = matches!(codings[..], [one] if one.eq_ignore_ascii_case(b"chunked"));
        if is_coded && !is_chunked {
            return None;
        }
        let has_content = !self.is_head && !matches!(response.status, 204 | 304);
        let framing = match response.body {
            _ if !has_content => Framing::Nothing,
            Body::Length(length) => Framing::Length(length),
            // RFC 9112 section 6.1: a client of HTTP/1.0 does not know chunks.
            _ if self.is_old || self.is_http2 => Framing::UntilEnd,
            _ => Framing::Chunked,
        };
        self.stays &= !self.is_last;
        let mut content = Content::new(response.body, framing);
        content.out.bytes = head::answer(response, framing, self.stays);
        Some(content)
    }
}
