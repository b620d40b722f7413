//! A session after the 101: frames both ways, until both sides have ended.
//!
//! The session is a plain value that is polled, not an `async fn`: what it holds while idle is what
//! stands in its fields. It reads into the worker's scratch buffer and writes from there; only what
//! a socket did not take is copied, and while there is such a rest nothing more is read for it.
//!
//! Here it is turned; `pass` passes frames on, `leg` is one side of it, `speak` puts in frames of our own, `limit` is
//! what a session may not do, `ending` is how all of it comes to an end.

mod ending;
mod leg;
mod limit;
mod pass;
mod speak;

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use self::{leg::Leg, speak::Insert};
use crate::{
    frame::HEAD_MAX,
    heartbeat::timeout,
    record::Entry,
    session::{Control, End, Farewell},
    stats::{CodeClass, Ended},
    stream::Stream,
    worker::Worker,
};

/// Reads of one direction before other sessions get their turn.
const ROUNDS: usize = 4;

/// A read takes `1 << log` bytes at most: more when messages are large, less when they cannot be
/// passed on, so that a slow reader costs little.
const READ_LOG_MIN: u8 = 14;
const READ_LOG_START: u8 = 16;
const READ_LOG_MAX: u8 = 18;

/// What a read takes beyond that: messages whose size is a power of two come with their heads, and
/// would else leave a few bytes for a read of their own.
const READ_HEADS: usize = 1024;

/// What any read takes.
pub(crate) const READ_MIN: usize = (1 << READ_LOG_MIN) + READ_HEADS;

/// Size of a worker's scratch buffer: the largest read, with room in front for bytes held back.
pub(crate) const SCRATCH: usize = HEAD_MAX + (1 << READ_LOG_MAX) + READ_HEADS;

/// Which side of the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Backend,
}

/// A live session.
#[derive(Debug)]
pub(crate) struct Session {
    client: Leg,
    backend: Leg,
    control: Rc<Control>,
    worker: Rc<Worker>,
    /// By when all must be over.
    deadline: Option<Instant>,
    ended: Option<Ended>,
    class: CodeClass,
    /// A planned stop waits for the client's acknowledgement.
    leaving: bool,
    /// Ended at once, whatever is under way.
    over: bool,
    /// The part of a planned stop that concerns the backend waits for the next turn.
    backend_end: Option<End>,
    /// When the client is told that its backend is lost.
    tell_at: Option<Instant>,
    /// Whether the kernel probes both sides, in place of heartbeats.
    probed: bool,
    entry: Entry,
    /// Whether the timers know of a side that takes nothing.
    readers_watched: bool,
    /// When the client's next message would be due, if they came evenly.
    messages_due: Option<Instant>,
}

impl Session {
    /// A session whose handshake is done. `response` is the 101 for the client, `early_*` what each
    /// side has sent behind its part of the handshake.
    pub(crate) fn new(
        worker: Rc<Worker>,
        control: Rc<Control>,
        (client, mut early_client): (Stream, Vec<u8>),
        (backend, mut early_backend): (Stream, Vec<u8>),
        response: Vec<u8>,
        entry: Entry,
    ) -> Self {
        let now = control.begun;
        let mut session = Self {
            client: Leg::new(client, now),
            backend: Leg::new(backend, now),
            control,
            worker,
            deadline: None,
            ended: None,
            class: CodeClass::None,
            leaving: false,
            over: false,
            backend_end: None,
            tell_at: None,
            probed: false,
            entry,
            readers_watched: false,
            messages_due: None,
        };
        session.client.begin(response);
        session.preload(Side::Client, &mut early_client);
        session.preload(Side::Backend, &mut early_backend);
        session
    }

    /// Has it woken by that, whoever wants something of it.
    pub(crate) fn attach(&self, waker: &Waker) {
        self.control.attach(waker);
    }

    fn preload(&mut self, side: Side, early: &mut [u8]) {
        if early.is_empty() {
            return;
        }
        let scan = self.scan(side, early);
        let (_, to) = self.legs(side);
        to.queue(&early[..scan.ready]);
        self.charge(side, &scan);
        self.after_scan(side, &scan);
    }

    #[inline]
    fn legs(&mut self, from: Side) -> (&mut Leg, &mut Leg) {
        match from {
            Side::Client => (&mut self.client, &mut self.backend),
            Side::Backend => (&mut self.backend, &mut self.client),
        }
    }

    /// Passes on what one side sends, until it has nothing more or the other takes no more.
    #[expect(
        clippy::inline_always,
        reason = "for each side by itself: who is who is no question then, a tenth of what a small message takes"
    )]
    #[inline(always)]
    fn pump(&mut self, side: Side, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            let (from, to) = self.legs(side);
            if (to.has_output() && to.poll_flush(cx).is_pending()) || from.input_ended {
                return;
            }
            let limit = (1 << from.read_log) + READ_HEADS;
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch();
            let (from, _) = self.legs(side);
            let room = &mut scratch[HEAD_MAX..HEAD_MAX + limit];
            let Poll::Ready(read) = from.poll_read(cx, room) else {
                return;
            };
            // More would have come with it.
            let is_all = matches!(read, Ok(n) if n < limit);
            match read {
                Ok(0) => return self.input_ends(side, None, cx),
                Err(error) => return self.input_ends(side, Some(&error), cx),
                Ok(n) => {
                    let after_ping = from.pulse.hear(worker.turns_at.get());
                    let unanswered = from.pulse.unanswered;
                    self.pass_on(side, scratch, n, cx);
                    if let Some(time) = after_ping {
                        self.round_trip(side, unanswered, time);
                    }
                }
            }
            if is_all && self.client.ends && self.legs(side).0.stream.has_ended() {
                // Nothing was to come but the end, which a read would tell again.
                return self.input_ends(side, None, cx);
            }
            let (from, to) = self.legs(side);
            // What the other side did not take is tried again, which has the task woken when it takes more.
            let is_done = is_all && !to.has_output() && from.watch(cx);
            if is_done || self.over {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Does what is due, and sets the timer for what is next.
    fn tick(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        if let Some(end) = self.control.order.take() {
            self.obey(end, cx);
        }
        if self.control.drain_at.get().is_some_and(|at| at <= now) {
            self.control.drain_at.set(None);
            let code = self.control.pool.borrow().drain.close_code;
            let end = End {
                by: Ended::EndpointGone,
                code,
                reason: "backend is going away",
            };
            self.obey(end, cx);
        }
        let heartbeat = self.control.pool.borrow().heartbeat;
        let lost_for = |lost: Instant| lost + timeout(heartbeat);
        if self
            .control
            .lost_at
            .get()
            .is_some_and(|lost| lost_for(lost) <= now)
        {
            self.control.lost_at.set(None);
            self.address_lost();
        }
        self.tell_lost(now);
        let probed = heartbeat.interval.is_zero();
        if probed != self.probed {
            self.probed = probed;
            // With heartbeats off the kernel tells whether a peer is there.
            self.client.stream.probe(probed);
            self.backend.stream.probe(probed);
        }
        let readers = [Side::Client, Side::Backend].map(|side| self.patience(side, now));
        self.readers_watched = readers.iter().any(Option::is_some);
        let mut next = [
            self.age(now, cx),
            readers[0],
            readers[1],
            self.control.drain_at.get(),
            self.control.lost_at.get().map(lost_for),
            self.beat(Side::Client, now),
            self.beat(Side::Backend, now),
            self.half_deadline(),
            None,
            None,
        ];
        // Not before: a side that is found silent brings these about.
        (next[8], next[9]) = (self.end_by(), self.tell_at);
        let hard = next[7].into_iter().chain(next[8]);
        if hard.min().is_some_and(|at| at <= now) {
            // Out of time: a frame that never ended leaves no way to speak but a reset.
            let waits = |leg: &Leg| leg.insert.is_some() || leg.unsent.is_some();
            if waits(&self.client) || waits(&self.backend) {
                self.cut();
            }
            self.over = true;
            return;
        }
        let next = next.into_iter().flatten().min();
        self.worker.set_timer(&self.control, next);
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.control.due.take() {
            if let Some(end) = this.backend_end.take() {
                this.insert_soon(Side::Backend, Insert::Close(end.code, end.reason));
            }
            this.tick(cx);
        }
        this.pump(Side::Client, cx);
        if !this.over {
            this.pump(Side::Backend, cx);
        }
        if !this.over && this.leaving {
            this.report_farewell(cx);
        }
        if this.is_over() {
            if !this.over {
                this.client.announce_end(cx);
                this.backend.announce_end(cx);
            }
            return Poll::Ready(());
        }
        if this.client.ends {
            this.client.end_now(cx);
        }
        if this.control.due.get() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control.farewell.set(Farewell::Over);
        let by = self.ended.unwrap_or(Ended::Stopped);
        self.worker.forget(&self.control, by, self.class);
        self.entry.note(|record| record.ended = Some(by));
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Backend,
        Side::Backend => Side::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        // Each byte here is paid for by every idle session. Its task, its entry in the event loop
        // and its sockets come on top.
        assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
    }
}
