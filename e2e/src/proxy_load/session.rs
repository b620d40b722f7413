//! The generator's side of a session, apart from what it runs over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::conn;
use super::wire::{self, Frame, Kind, Messages};

/// What a session does once it is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doing {
    /// Keeps so many messages under way.
    Closed(usize),
    /// Sends when it is told to.
    Open,
    /// Sends one message and closes.
    Churn,
}

/// What all sessions do, and with which messages.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) doing: Doing,
    pub(super) messages: Messages,
}

/// What came of what was received.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) echoes: u64,
    /// The answer to our Close came.
    pub(super) is_closed: bool,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    owner: u32,
    sent: u32,
    echoed: u32,
    /// When each message under way was to be sent, where that is measured.
    due: VecDeque<Option<Instant>>,
    /// The start of a frame.
    inbox: Vec<u8>,
}

impl Session {
    pub(super) fn new(owner: u32) -> Self {
        Self {
            owner,
            sent: 0,
            echoed: 0,
            due: VecDeque::new(),
            inbox: Vec::new(),
        }
    }

    /// Writes the next message, which was due at `due` if that matters.
    pub(super) fn write(&mut self, messages: &Messages, due: Option<Instant>, out: &mut Vec<u8>) {
        messages.write(out, self.owner, self.sent);
        self.sent = self.sent.wrapping_add(1);
        self.due.push_back(due);
    }

    /// Writes what it begins with, now that it is open.
    pub(super) fn begin(&mut self, script: &Script, out: &mut Vec<u8>) {
        let first = match script.doing {
            Doing::Closed(depth) => depth,
            Doing::Open => 0,
            Doing::Churn => 1,
        };
        (0..first).for_each(|_| self.write(&script.messages, None, out));
    }

    /// Takes what came, writes what follows from it to `out`, and adds to `latencies` how long after it was due each
    /// echo came.
    pub(super) fn take(
        &mut self,
        received: &[u8],
        script: &Script,
        out: &mut Vec<u8>,
        latencies: &mut Vec<Duration>,
    ) -> Result<Heard> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let whole = conn::whole(&mut inbox, received);
        let mut heard = Heard::default();
        let mut at = 0;
        while let Some(frame) = Frame::parse(&whole[at..])? {
            at += frame.len;
            match frame.kind {
                Kind::Message => {
                    ensure!(self.sent != self.echoed, "an echo of nothing");
                    let messages = &script.messages;
                    messages.check(frame.payload, self.owner, self.echoed)?;
                    self.echoed = self.echoed.wrapping_add(1);
                    heard.echoes += 1;
                    let due = self.due.pop_front().flatten();
                    latencies.extend(due.map(|due| due.elapsed()));
                    match script.doing {
                        Doing::Closed(_) => self.write(messages, None, out),
                        Doing::Churn => wire::close(out),
                        Doing::Open => {}
                    }
                }
                Kind::Ping => wire::pong(out, &frame.control_payload()),
                Kind::Pong => {}
                Kind::Close if script.doing == Doing::Churn && self.sent == self.echoed => {
                    heard.is_closed = true;
                }
                Kind::Close => bail!("a session was closed: {:?}", frame.control_payload()),
            }
        }
        conn::keep(&mut inbox, received, at);
        self.inbox = inbox;
        Ok(heard)
    }
}
