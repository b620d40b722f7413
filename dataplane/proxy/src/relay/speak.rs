//! Frames of the proxy's own: Pings and Closes, put between the frames that are passed on.

use std::time::{Duration, Instant};

use super::{Session, Side};
use crate::{
    close,
    config::Heartbeat,
    frame::PingPayload,
    heartbeat::{Verdict, timeout},
    sys,
};

/// A frame of ours that waits for a boundary.
#[derive(Clone, Copy, Debug)]
pub(super) enum Insert {
    Ping,
    Close(u16, &'static str),
}

impl Session {
    pub(super) fn ping_payload(&self, side: Side) -> PingPayload {
        self.worker.secret(self.control.id, side).to_ne_bytes()
    }

    fn mask(&self, to: Side) -> close::Mask {
        let key = || self.worker.mask(self.control.id, self.backend.taken());
        (to == Side::Backend).then(key)
    }

    /// Sends a frame of ours; everything sent to this side so far ends with a whole frame.
    pub(super) fn insert(&mut self, to: Side, insert: Insert) {
        let mask = self.mask(to);
        let payload = self.ping_payload(to);
        let now = Instant::now();
        let (leg, other_leg) = self.legs(to);
        match insert {
            Insert::Ping => {
                leg.ping_start = leg.ahead();
                leg.queue(&close::ping(&payload, mask));
                leg.pulse.ping_sent(now);
                leg.acknowledged = leg.acknowledged_now();
                self.worker.stats(&self.control.stats).pings.add(1);
                self.control.due.set(true);
            }
            Insert::Close(code, reason) => {
                leg.queue(&close::close(code, reason, mask));
                leg.close_sent = true;
                let holds = matches!(other_leg.insert, Some(Insert::Close(..)));
                self.closes_with(Some(code));
                // From here the answer has its time; a Close that still waits has its own.
                if !holds {
                    self.deadline = Some(now + self.worker.shared.patience.close);
                }
                self.control.due.set(true);
            }
        }
    }

    /// Sends a frame of ours as soon as no frame is under way to this side.
    pub(super) fn insert_soon(&mut self, to: Side, insert: Insert) {
        let (leg, from) = self.legs(to);
        if !leg.takes_frames() {
            return;
        }
        if from.frames.at_boundary() {
            leg.insert = None;
            self.insert(to, insert);
        } else {
            // A Close outranks a Ping.
            if !matches!(leg.insert, Some(Insert::Close(..))) {
                leg.insert = Some(insert);
            }
            if matches!(insert, Insert::Close(..)) {
                // The frame has its time from now on, however long nothing came of it before.
                from.pulse.heard = Instant::now();
                self.hold();
            }
        }
    }

    pub(super) fn insert_waiting(&mut self, to: Side) {
        let (leg, _) = self.legs(to);
        if let Some(insert) = leg.insert.take() {
            self.insert(to, insert);
        }
    }

    /// Something came from a side, and `time` before that a Ping of ours went there: if it was the Pong,
    /// then fewer are unanswered now.
    pub(super) fn round_trip(&mut self, side: Side, unanswered: u8, time: Duration) {
        let (leg, _) = self.legs(side);
        if leg.pulse.unanswered < unanswered {
            let pool = self.control.pool.borrow();
            let times = self.worker.times(&pool);
            match side {
                Side::Client => times.client_pings.observe(time),
                Side::Backend => times.backend_pings.observe(time),
            }
        }
    }

    /// Pings a side if it is time; when to look again.
    pub(super) fn beat(&mut self, side: Side, now: Instant) -> Option<Instant> {
        let heartbeat = self.control.pool.borrow().heartbeat;
        let (leg, other_leg) = self.legs(side);
        if heartbeat.interval.is_zero() || leg.input_ended || !leg.takes_frames() {
            return None;
        }
        if leg.insert.is_some() || other_leg.blocked {
            return self.judge_by_kernel(side, now, heartbeat);
        }
        match leg.pulse.verdict(now, heartbeat)? {
            // An answer lets the next interval begin before this one's time is over.
            Verdict::Wait(until) => Some(until.min(now + heartbeat.interval)),
            Verdict::Ping => {
                self.insert_soon(side, Insert::Ping);
                Some(now + timeout(heartbeat).min(heartbeat.interval))
            }
            Verdict::Silent => {
                // A long queue on a slow link delays our Ping: while the peer takes from the queue
                // it is alive, and has its time to answer once the queue is gone.
                let acknowledged = leg.acknowledged_now();
                if leg.acknowledged < leg.ping_start && acknowledged > leg.acknowledged {
                    leg.acknowledged = acknowledged;
                    leg.pulse.pinged = Some(now);
                    return Some(now + timeout(heartbeat));
                }
                self.silent(side);
                None
            }
        }
    }

    /// Judges a side that cannot be heard, since it is not read while the other takes nothing, or
    /// cannot be asked, since it is in the middle of a frame: what its kernel acknowledges tells
    /// whether it is there.
    fn judge_by_kernel(
        &mut self,
        side: Side,
        now: Instant,
        heartbeat: Heartbeat,
    ) -> Option<Instant> {
        let (leg, _) = self.legs(side);
        let quiet = now.saturating_duration_since(leg.pulse.heard);
        let keeps_waiting = |awaited: sys::Awaited| awaited.unanswered && awaited.since >= quiet;
        if !leg.stream.awaited().is_ok_and(keeps_waiting) {
            leg.pulse.hear(now);
        } else if quiet >= heartbeat.interval + timeout(heartbeat) {
            self.silent(side);
            return None;
        }
        Some(now + timeout(heartbeat).min(heartbeat.interval))
    }
}
