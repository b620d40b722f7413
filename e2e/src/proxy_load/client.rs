//! The generator's side of a connection: a session after a handshake of HTTP/1.1, or sessions in streams of HTTP/2.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::conn::{self, Conn};
use super::http2::Http2;
use super::session::{Script, Session};
use crate::ws;

/// What came of what was received.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Echoes of this turn.
    pub(super) echoes: u64,
    /// Handshakes that were completed in this turn.
    pub(super) opened: u64,
    /// Sessions that ended in order.
    pub(super) ended: u64,
    /// Nothing more comes of the connection.
    pub(super) is_over: bool,
}

#[derive(Debug)]
enum Speaks {
    Http1 {
        /// What there is of the answer to the handshake; `None`: the session is open.
        answer: Option<Vec<u8>>,
        session: Session,
    },
    Http2(Box<Http2>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Conn,
    speaks: Speaks,
}

impl Client {
    /// One that has asked for a session of this owner.
    pub(super) fn asking(conn: Conn, owner: u32) -> Self {
        Self {
            conn,
            speaks: Speaks::Http1 {
                answer: Some(Vec::new()),
                session: Session::new(owner),
            },
        }
    }

    /// One that has sent what a connection of HTTP/2 begins with.
    pub(super) fn http2(conn: Conn, http2: Http2) -> Self {
        Self {
            conn,
            speaks: Speaks::Http2(Box::new(http2)),
        }
    }

    /// Writes a message, which was due at `due` if that matters.
    pub(super) fn write(
        &mut self,
        script: &Script,
        due: Option<Instant>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Speaks::Http1 {
            answer: None,
            session,
        } = &mut self.speaks
        else {
            bail!("only an open session of HTTP/1.1 is told when to send");
        };
        session.write(&script.messages, due, out);
        Ok(())
    }

    /// Takes what came, writes what follows from it to `out`, and adds to `latencies` how long after it was due each
    /// echo came.
    pub(super) fn take(
        &mut self,
        mut received: &[u8],
        script: &Script,
        out: &mut Vec<u8>,
        latencies: &mut Vec<Duration>,
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        match &mut self.speaks {
            Speaks::Http1 { answer, session } => {
                if let Some(before) = answer {
                    let length = before.len();
                    let whole = conn::whole(before, received);
                    let Some(end) = ws::response(whole)? else {
                        conn::keep(before, received, 0);
                        return Ok(progress);
                    };
                    received = &received[end - length..];
                    *answer = None;
                    session.begin(script, out);
                    progress.opened = 1;
                }
                let heard = session.take(received, script, out, latencies)?;
                progress.echoes = heard.echoes;
                progress.ended = heard.is_closed.into();
                progress.is_over = heard.is_closed;
            }
            Speaks::Http2(http2) => {
                http2.take(received, script, out, latencies, &mut progress)?;
            }
        }
        Ok(progress)
    }
}
