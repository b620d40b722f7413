//! What a session may not do, and how it ends when it does.

use std::{
    task::Context,
    time::{Duration, Instant},
};

use super::{Session, Side, leg::Leg, other, speak::Insert};
use crate::{
    close,
    frame::{Allowance, Excess, Scan},
    limits::Limit,
    session::End,
    stats::Ended,
};

/// How often it is looked how much waits for a side that is slow, at least.
const LOOK: Duration = Duration::from_secs(1);

impl Session {
    /// What one side may send now.
    pub(super) fn allowance(&self, from: Side) -> Allowance {
        let limits = &self.control.pool.borrow().limits;
        let mut allowance = limits.allowance();
        if let (Side::Client, Some(rate)) = (from, limits.message_rate()) {
            allowance.messages = rate.room(self.messages_due, Instant::now());
        }
        allowance
    }

    /// Bytes of payload that a message of one frame may have. `None`: messages are counted, too.
    #[inline]
    pub(super) fn allowed(&self, from: Side) -> Option<u64> {
        let limits = &self.control.pool.borrow().limits;
        let is_counted = from == Side::Client && limits.messages.is_some();
        (!is_counted).then(|| limits.allowance().payload())
    }

    /// Counts what was sent, and ends the session if it was too much: what was is not passed on.
    pub(super) fn charge(&mut self, from: Side, scan: &Scan) {
        let rate = self.control.pool.borrow().limits.message_rate();
        if let (Side::Client, Some(rate), 1..) = (from, rate, scan.counted) {
            let now = Instant::now();
            self.messages_due = Some(rate.after(self.messages_due, scan.counted, now));
        }
        let Some(excess) = scan.excess else { return };
        // Section 7.4.1 of RFC 6455 has a code for each; the other side has done nothing wrong.
        let (limit, code, reason) = match excess {
            Excess::Frame => (Limit::FrameSize, close::TOO_BIG, "frame too big"),
            Excess::Message => (Limit::MessageSize, close::TOO_BIG, "message too big"),
            Excess::Messages => (Limit::MessagesPerSecond, close::POLICY, "too many messages"),
        };
        let (told_code, told) = match from {
            Side::Client => (close::CLIENT_LOST, "client sent more than it may"),
            Side::Backend => (close::BAD_GATEWAY, "backend sent more than it may"),
        };
        self.ends(Ended::Limit);
        self.control.hit(limit);
        self.insert_soon(from, Insert::Close(code, reason));
        self.insert_soon(other(from), Insert::Close(told_code, told));
    }

    /// Ends the session if it is too old; when it will be.
    pub(super) fn age(&mut self, now: Instant, cx: &mut Context<'_>) -> Option<Instant> {
        let is_told =
            |leg: &Leg| !leg.takes_frames() || matches!(leg.insert, Some(Insert::Close(..)));
        if is_told(&self.client) && is_told(&self.backend) {
            return None;
        }
        let at = self.control.old_at.get()?;
        if at > now {
            return Some(at);
        }
        self.control.old_at.set(None);
        self.control.hit(Limit::SessionAge);
        let end = End {
            by: Ended::Limit,
            code: close::GOING_AWAY,
            reason: "session too old",
        };
        self.obey(end, cx);
        None
    }

    /// Ends the session for a side that reads too slowly; when to look again.
    pub(super) fn patience(&mut self, side: Side, now: Instant) -> Option<Instant> {
        let (limit, most) = {
            let limits = &self.control.pool.borrow().limits;
            (limits.slow_reader?, limits.buffered_bytes)
        };
        let behind = most.and_then(|most| self.catches_up(side, most, limit, now));
        let stalls = self.takes_some(side, limit, now);
        behind.into_iter().chain(stalls).min()
    }

    /// Ends the session for a side that has been too far behind for too long. It takes something, so it
    /// may read a Close, too.
    fn catches_up(
        &mut self,
        side: Side,
        most: u64,
        limit: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let (leg, _) = self.legs(side);
        if !leg.takes_frames() || matches!(leg.insert, Some(Insert::Close(..))) {
            return None;
        }
        let look = (limit / 8).min(LOOK);
        let Some(since) = leg.behind_since(most, now) else {
            // It may come to be: the other side is still held back for it.
            return leg.unsent.is_some().then(|| now + look);
        };
        if since + limit > now {
            return Some((now + look).min(since + limit));
        }
        self.control.hit(Limit::BufferedBytes);
        self.ends(Ended::Limit);
        let reason = match side {
            Side::Client => "client reads too slowly",
            Side::Backend => "backend reads too slowly",
        };
        self.insert_soon(Side::Client, Insert::Close(close::TRY_AGAIN, reason));
        self.insert_soon(Side::Backend, Insert::Close(close::GOING_AWAY, reason));
        None
    }

    /// Gives a side up that has taken nothing for too long.
    fn takes_some(&mut self, side: Side, limit: Duration, now: Instant) -> Option<Instant> {
        let (leg, _) = self.legs(side);
        let since = leg.stalls_since(now)?;
        if since + limit > now {
            return Some(since + limit);
        }
        self.control.hit(Limit::SlowReader);
        self.ends(Ended::Limit);
        let (code, reason) = match side {
            Side::Client => (close::CLIENT_LOST, "client does not read"),
            Side::Backend => (close::TRY_AGAIN, "backend does not read"),
        };
        self.drop_side(side, code, reason);
        None
    }

    /// Has the timers looked at, once, if a side has begun to take nothing.
    pub(super) fn watch_readers(&mut self) {
        let is_limited = || self.control.pool.borrow().limits.slow_reader.is_some();
        if !self.readers_watched && is_limited() {
            self.readers_watched = true;
            self.control.due.set(true);
        }
    }
}
