//! The generator's side of a session.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::conn::{self, Conn};
use super::wire::{self, Frame, Kind, Messages};
use crate::ws;

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

/// What came of what was received.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Echoes of this turn.
    pub(super) echoes: u64,
    /// The handshake was completed in this turn.
    pub(super) opened: bool,
    /// The answer to our Close came.
    pub(super) closed: bool,
}

/// A session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Conn,
    owner: u32,
    upgraded: bool,
    sent: u32,
    echoed: u32,
    /// When each message under way was to be sent, where that is measured.
    due: VecDeque<Option<Instant>>,
}

impl Client {
    pub(super) fn new(conn: Conn, owner: u32) -> Self {
        Self {
            conn,
            owner,
            upgraded: false,
            sent: 0,
            echoed: 0,
            due: VecDeque::new(),
        }
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.upgraded && self.sent == self.echoed
    }

    /// Writes the next message, which was due at `due` if that matters.
    pub(super) fn write(&mut self, messages: &Messages, due: Option<Instant>, out: &mut Vec<u8>) {
        messages.write(out, self.owner, self.sent);
        self.sent = self.sent.wrapping_add(1);
        self.due.push_back(due);
    }

    /// Takes what came, writes what follows from it to `out`, and tells `late` of each echo since when it was due.
    pub(super) fn take(
        &mut self,
        received: &[u8],
        doing: Doing,
        messages: &Messages,
        out: &mut Vec<u8>,
        late: &mut impl FnMut(Instant),
    ) -> Result<Progress> {
        let mut inbox = std::mem::take(&mut self.conn.inbox);
        let whole = conn::whole(&mut inbox, received);
        let mut progress = Progress::default();
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = ws::response(whole)? else {
                self.conn.inbox = whole.to_vec();
                return Ok(progress);
            };
            at = end;
            self.upgraded = true;
            progress.opened = true;
            let first = match doing {
                Doing::Closed(depth) => depth,
                Doing::Open => 0,
                Doing::Churn => 1,
            };
            (0..first).for_each(|_| self.write(messages, None, out));
        }
        while let Some(frame) = Frame::parse(&whole[at..])? {
            at += frame.len;
            match frame.kind {
                Kind::Message => {
                    ensure!(self.sent != self.echoed, "an echo of nothing");
                    messages.check(frame.payload, self.owner, self.echoed)?;
                    self.echoed = self.echoed.wrapping_add(1);
                    progress.echoes += 1;
                    self.due
                        .pop_front()
                        .flatten()
                        .into_iter()
                        .for_each(&mut *late);
                    match doing {
                        Doing::Closed(_) => self.write(messages, None, out),
                        Doing::Churn => wire::close(out),
                        Doing::Open => {}
                    }
                }
                Kind::Ping => wire::pong(out, &frame.control_payload()),
                Kind::Pong => {}
                Kind::Close if doing == Doing::Churn && self.is_quiet() => progress.closed = true,
                Kind::Close => bail!("a session was closed: {:?}", frame.control_payload()),
            }
        }
        self.conn.inbox.extend_from_slice(&whole[at..]);
        Ok(progress)
    }
}
