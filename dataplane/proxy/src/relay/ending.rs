//! How a session ends: by a Close passed on, a side that is lost, an order, or out of time.

use std::{io, task::Context, time::Instant};

use super::{Session, Side, leg::Leg, other, speak::Insert};
use crate::{
    close,
    session::{End, Farewell},
    stats::{CodeClass, Ended},
};

impl Session {
    /// Notes why the session ends; the first cause stands.
    pub(super) fn ends(&mut self, by: Ended) {
        self.ended.get_or_insert(by);
    }

    /// Notes the code of a Close frame; that of the first one stands.
    pub(super) fn closes_with(&mut self, code: Option<u16>) {
        if self.class == CodeClass::None {
            self.class = CodeClass::of(code);
            self.entry.note(|record| record.close_code = code);
        }
    }

    /// The end is under way: it must not take for ever.
    pub(super) fn hurry(&mut self) {
        let by = Instant::now() + self.worker.shared.patience.close;
        self.deadline = Some(self.deadline.map_or(by, |at| at.min(by)));
        self.control.due.set(true);
    }

    /// The end is to come once a frame is whole, which has as long as sessions have that are drained.
    pub(super) fn hold(&mut self) {
        let drain = self.control.pool.borrow().drain.timeout;
        let patience = self.worker.shared.patience.close.max(drain);
        self.deadline = Some(Instant::now() + patience);
        self.control.due.set(true);
    }

    /// By when all must be over. A frame that a Close of ours waits for must also make progress.
    pub(super) fn end_by(&self) -> Option<Instant> {
        let patience = self.worker.shared.patience.close;
        let progress = |from: &Leg, to: &Leg| {
            let waits = matches!(to.insert, Some(Insert::Close(..)));
            waits.then(|| from.pulse.heard + patience)
        };
        let to_client = progress(&self.backend, &self.client);
        let stalls = to_client.max(progress(&self.client, &self.backend));
        stalls.into_iter().chain(self.deadline).min()
    }

    /// One side sends no more: it has closed its half, or its connection broke (`error`).
    pub(super) fn input_ends(
        &mut self,
        side: Side,
        error: Option<&io::Error>,
        cx: &mut Context<'_>,
    ) {
        let (from, to) = self.legs(side);
        from.input_ended = true;
        if error.is_some() {
            from.output_fails();
        }
        let told = to.close_sent;
        let cut = !from.frames.at_boundary();
        let to_is_dead = to.output_dead;
        if !told {
            let by = match side {
                Side::Client => Ended::Client,
                Side::Backend => Ended::BackendLost,
            };
            self.ends(by);
            if side == Side::Backend && !self.client.frames.is_closing() {
                self.worker.suspect(&self.control.lease.endpoint);
            }
        }
        let (_, to) = self.legs(side);
        match (side, told, cut) {
            _ if to_is_dead => self.hurry(),
            (_, true, _) => {
                to.fin = true;
                self.hurry();
            }
            // Half a frame was passed on and the rest will not come: nothing can be said within
            // it, and a FIN would say that all is well.
            (_, false, true) => return self.cut(),
            (Side::Backend, false, false) => self.backend_lost(),
            (Side::Client, false, false) => {
                if error.is_some() {
                    self.insert_soon(
                        Side::Backend,
                        Insert::Close(close::CLIENT_LOST, "client connection lost"),
                    );
                }
                // A half-close is passed on as such: the backend may still have something to say.
                self.backend.fin = true;
            }
        }
        self.control.due.set(true);
        // What was queued is sent at the next turn, which this brings about.
        cx.waker().wake_by_ref();
    }

    /// The client is to be told that its backend is gone, when its turn comes.
    fn backend_lost(&mut self) {
        let now = Instant::now();
        self.tell_at = Some(now + self.control.lease.endpoint.loss_slot(now));
        self.tell_lost(now);
    }

    /// Tells it if it is time.
    pub(super) fn tell_lost(&mut self, now: Instant) {
        if self.tell_at.is_none_or(|at| at > now) {
            return;
        }
        self.tell_at = None;
        let reason = match self.ended {
            Some(Ended::BackendSilent) => "backend does not answer pings",
            _ => "backend connection lost",
        };
        self.insert_soon(Side::Client, Insert::Close(close::BACKEND_LOST, reason));
        self.client.fin = true;
        self.hurry();
    }

    /// Ends the session at once with resets, since a frame was cut.
    pub(super) fn cut(&mut self) {
        self.client.stream.reset();
        self.backend.stream.reset();
        self.worker.stats(&self.control.stats).resets.add(1);
        self.over = true;
    }

    /// A side did not answer our Ping.
    pub(super) fn silent(&mut self, side: Side) {
        self.ends(match side {
            Side::Client => Ended::ClientSilent,
            Side::Backend => Ended::BackendSilent,
        });
        match side {
            Side::Client => {
                self.drop_side(side, close::CLIENT_LOST, "client does not answer pings");
            }
            Side::Backend => {
                if self.gives_up(side) {
                    self.worker.suspect(&self.control.lease.endpoint);
                    self.backend_lost();
                }
            }
        }
    }

    /// Nothing more comes from a side or goes to it, and the other is told why.
    pub(super) fn drop_side(&mut self, side: Side, code: u16, reason: &'static str) {
        if self.gives_up(side) {
            self.insert_soon(other(side), Insert::Close(code, reason));
            self.legs(other(side)).0.fin = true;
            self.hurry();
        }
    }

    /// Nothing more comes from a side or goes to it; whether the other can be told.
    fn gives_up(&mut self, side: Side) -> bool {
        let (leg, other_leg) = self.legs(side);
        leg.input_ended = true;
        leg.output_fails();
        // What it has not taken it will never get, and that would stand before any word of ours.
        leg.stream.reset();
        let is_cut = !leg.frames.at_boundary() && other_leg.takes_frames();
        if is_cut {
            self.cut();
        }
        !is_cut
    }

    /// Obeys an order to end.
    pub(super) fn obey(&mut self, end: End, cx: &mut Context<'_>) {
        self.ends(end.by);
        self.control.tell();
        self.insert_soon(Side::Client, Insert::Close(end.code, end.reason));
        if end.by == Ended::Left {
            self.leaving = true;
            // All clients of the address come before their backends: the address waits for them.
            if self.client.close_sent {
                self.client.fin = true;
            }
            self.backend_end = Some(end);
            cx.waker().wake_by_ref();
        } else {
            self.insert_soon(Side::Backend, Insert::Close(end.code, end.reason));
        }
        if self.client.insert.is_none() && self.backend.insert.is_none() {
            self.hurry();
        }
    }

    /// The host lost the address for good: the client cannot be reached, the backend is told.
    pub(super) fn address_lost(&mut self) {
        self.ends(Ended::AddressLost);
        let reason = "the address of the client's connection was lost";
        self.drop_side(Side::Client, close::CLIENT_LOST, reason);
    }

    pub(super) fn is_over(&self) -> bool {
        let (client, backend) = (&self.client, &self.backend);
        if self.over || (client.is_over() && backend.is_over()) {
            return true;
        }
        // Both Close frames have passed and the end of one connection is passed on, too, if only by the
        // end of ours: nothing more will come (RFC 6455 section 5.5.1), so a peer that is slow to end is
        // not waited for. But for one that ends a stream: it would be reset, and a client that resets so many on
        // its connection, or makes us do so, is taken for an attacker (RFC 9113 section 10.5).
        let passed_on = |from: &Leg, to: &Leg| {
            from.input_ended && to.fin && to.unsent.is_none() && !to.stream.is_http2()
        };
        client.frames.is_closed()
            && backend.frames.is_closed()
            && (passed_on(client, backend) || passed_on(backend, client))
    }

    /// Bounds a session of which one half has ended.
    pub(super) fn half_deadline(&self) -> Option<Instant> {
        let half = |leg: &Leg| leg.input_ended || leg.frames.is_closing();
        let heard = self.client.pulse.heard.max(self.backend.pulse.heard);
        let patience = self.worker.shared.patience.half;
        (half(&self.client) || half(&self.backend)).then(|| heard + patience)
    }

    /// Tells a planned stop how far the client's farewell has come.
    pub(super) fn report_farewell(&mut self, cx: &mut Context<'_>) {
        if self.client.close_sent && !self.client.fin {
            self.client.fin = true;
        }
        if self.client.poll_flush(cx).is_ready()
            && (self.client.fin_sent || self.client.output_dead)
        {
            let open = self.client.stream.undelivered();
            self.control.farewell.set(Farewell::Sent(open));
        }
    }
}
