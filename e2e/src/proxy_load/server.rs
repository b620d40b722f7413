//! The echo server's side of a connection.

use anyhow::Result;

use super::conn::{self, Conn};
use super::wire::{Frame, Kind};
use crate::ws;

/// A connection from the proxy.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) conn: Conn,
    upgraded: bool,
}

impl Served {
    pub(super) fn new(conn: Conn) -> Self {
        Self {
            conn,
            upgraded: false,
        }
    }

    /// Whether it is a session.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Takes what came and writes the answers to `out`; whether the session is over.
    pub(super) fn take(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let mut inbox = std::mem::take(&mut self.conn.inbox);
        let whole = conn::whole(&mut inbox, received);
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = whole.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.conn.inbox = whole.to_vec();
                return Ok(false);
            };
            self.upgraded = true;
            out.extend_from_slice(ws::accepted().as_bytes());
            at = end + 4;
        }
        while let Some(frame) = Frame::parse(&whole[at..])? {
            frame.answer(out)?;
            at += frame.len;
            if frame.kind == Kind::Close {
                return Ok(true);
            }
        }
        self.conn.inbox.extend_from_slice(&whole[at..]);
        Ok(false)
    }
}
