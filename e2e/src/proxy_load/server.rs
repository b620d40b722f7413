//! The echo server's side of a connection.

use anyhow::{Context, Result};

use super::conn::{self, Conn};
use super::wire::{Frame, Kind};
use crate::ws;

/// A connection from the proxy.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) conn: Conn,
    upgraded: bool,
    /// The start of a frame, or of a head.
    inbox: Vec<u8>,
}

impl Served {
    pub(super) fn new(conn: Conn) -> Self {
        Self {
            conn,
            upgraded: false,
            inbox: Vec::new(),
        }
    }

    /// Whether it is a session.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Takes what came and writes the answers to `out`; whether the session is over.
    pub(super) fn take(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let whole = conn::whole(&mut inbox, received);
        let mut at = 0;
        let mut is_over = false;
        if !self.upgraded
            && let Some(end) = whole.windows(4).position(|four| four == b"\r\n\r\n")
        {
            self.upgraded = true;
            let key = ws::key(&whole[..end]).context("a request without Sec-WebSocket-Key")?;
            out.extend_from_slice(ws::accepted(key).as_bytes());
            at = end + 4;
        }
        while self.upgraded
            && !is_over
            && let Some(frame) = Frame::parse(&whole[at..])?
        {
            frame.answer(out)?;
            at += frame.len;
            is_over = frame.kind == Kind::Close;
        }
        conn::keep(&mut inbox, received, at);
        self.inbox = inbox;
        Ok(is_over)
    }
}
