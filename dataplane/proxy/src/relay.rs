//! A session after the 101: frames both ways, until both sides have ended.
//!
//! The session is a plain value that is polled, not an `async fn`: what it holds while idle is what
//! stands in its fields. It reads into the worker's scratch buffer and writes from there; only what
//! a socket did not take is copied, and while there is such a rest nothing more is read for it.

use std::{
    cell::RefMut,
    future::Future,
    io,
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    close,
    frame::{Frames, HEAD_MAX, PingPayload, Scan, Watch},
    heartbeat::{Pulse, Verdict, timeout},
    session::{Control, End, Farewell},
    stats::{CodeClass, Ended, TrafficCount},
    sys,
    worker::Worker,
};

/// How long a side may take to answer a Close and to end its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long both sides may be quiet once one has ended its half without a Close of ours.
const HALF_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads of one direction before other sessions get their turn.
const ROUNDS: usize = 4;

/// A read takes `1 << log` bytes at most: more when messages are large, less when they cannot be
/// passed on, so that a slow reader costs little.
const READ_LOG_MIN: u8 = 14;
const READ_LOG_START: u8 = 16;
const READ_LOG_MAX: u8 = 18;

/// Size of a worker's scratch buffer: the largest read, with room in front for bytes held back.
pub(crate) const SCRATCH: usize = HEAD_MAX + (1 << READ_LOG_MAX);

/// Which side of the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Backend,
}

/// A frame of ours that waits for a boundary.
#[derive(Clone, Copy, Debug)]
enum Insert {
    Ping,
    Close(u16, &'static str),
}

/// What a socket did not take yet.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    pos: usize,
}

/// One side of a session.
#[derive(Debug)]
pub(crate) struct Leg {
    stream: TcpStream,
    /// What comes from this side.
    frames: Frames,
    pulse: Pulse,
    read_log: u8,
    /// Nothing more comes from it.
    input_ended: bool,
    /// Nothing more can be sent to it.
    output_dead: bool,
    /// A Close has been sent to it, passed on or ours: no frame may follow (section 5.5.1).
    close_sent: bool,
    /// A FIN is to follow what is to be sent.
    fin: bool,
    fin_sent: bool,
    insert: Option<Insert>,
    // `Box`: it is absent in nearly all sessions, so one word rather than four.
    unsent: Option<Box<Unsent>>,
    /// Bytes handed to the kernel, bytes up to the end of our Ping, bytes acknowledged when looked
    /// at last: tell a peer that is slow from one that is dead.
    sent: u64,
    ping_end: u64,
    acknowledged: u64,
}

impl Leg {
    fn new(stream: TcpStream, now: Instant) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            pulse: Pulse::new(now),
            read_log: READ_LOG_START,
            input_ended: false,
            output_dead: false,
            close_sent: false,
            fin: false,
            fin_sent: false,
            insert: None,
            unsent: None,
            sent: 0,
            ping_end: 0,
            acknowledged: 0,
        }
    }

    /// Whether frames may still be sent to it.
    fn takes_frames(&self) -> bool {
        !self.close_sent && !self.output_dead && !self.fin
    }

    fn is_over(&self) -> bool {
        self.input_ended && (self.output_dead || (self.unsent.is_none() && self.fin_sent))
    }

    fn queue(&mut self, bytes: &[u8]) {
        if !self.output_dead {
            let unsent = self.unsent.get_or_insert_default();
            unsent.bytes.extend_from_slice(bytes);
        }
    }

    /// Writes now what the kernel takes, and keeps the rest.
    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if self.unsent.is_some() {
            return self.queue(bytes);
        }
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(n)) if n == bytes.len() => self.sent += n as u64,
            Poll::Ready(Ok(n)) => {
                self.sent += n as u64;
                self.queue(&bytes[n..]);
            }
            Poll::Pending => self.queue(bytes),
            Poll::Ready(Err(_)) => self.output_fails(),
        }
    }

    /// The other half tells more: what the peer sent before it went can still be read.
    fn output_fails(&mut self) {
        self.output_dead = true;
        self.unsent = None;
        self.insert = None;
    }

    /// Sends what waits, then the FIN. Pending: the socket takes no more now.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(unsent) = &mut self.unsent {
            let rest = &unsent.bytes[unsent.pos..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(n) => {
                    self.sent += n as u64;
                    unsent.pos += n;
                    if unsent.pos == unsent.bytes.len() {
                        self.unsent = None;
                    }
                }
                Err(_) => self.output_fails(),
            }
        }
        if self.fin && !self.fin_sent && !self.output_dead {
            self.fin_sent = true;
            if SockRef::from(&self.stream)
                .shutdown(Shutdown::Write)
                .is_err()
            {
                self.output_dead = true;
            }
        }
        Poll::Ready(())
    }

    fn acknowledged_now(&self) -> u64 {
        let open = sys::unacknowledged(&self.stream).unwrap_or(0);
        self.sent.saturating_sub(open)
    }

    fn reset(&self) {
        // The next close of the socket sends RST (socket(7), SO_LINGER).
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
    }
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
}

impl Session {
    /// A session whose handshake is done. `response` is the 101 for the client, `early_*` what each
    /// side has sent behind its part of the handshake.
    pub(crate) fn new(
        worker: Rc<Worker>,
        control: Rc<Control>,
        (client, mut early_client): (TcpStream, Vec<u8>),
        (backend, mut early_backend): (TcpStream, Vec<u8>),
        response: &[u8],
    ) -> Self {
        let now = Instant::now();
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
        };
        session.client.queue(response);
        session.preload(Side::Client, &mut early_client);
        session.preload(Side::Backend, &mut early_backend);
        session
    }

    fn preload(&mut self, side: Side, early: &mut [u8]) {
        if early.is_empty() {
            return;
        }
        let scan = self.scan(side, early);
        let (_, to) = self.legs(side);
        to.queue(&early[..scan.ready]);
        self.after_scan(side, &scan);
    }

    fn legs(&mut self, from: Side) -> (&mut Leg, &mut Leg) {
        match from {
            Side::Client => (&mut self.client, &mut self.backend),
            Side::Backend => (&mut self.backend, &mut self.client),
        }
    }

    fn ping_payload(&self, side: Side) -> PingPayload {
        self.worker.secret(self.control.id, side).to_ne_bytes()
    }

    fn mask(&self, to: Side) -> close::Mask {
        let key = || {
            let secret = self.worker.secret(self.control.id, Side::Backend);
            let sent = u32::try_from(self.backend.sent & 0xffff_ffff).unwrap_or(0);
            let [a, b, c, d, ..] = secret.rotate_left(17).to_ne_bytes();
            (u32::from_ne_bytes([a, b, c, d]) ^ sent).to_ne_bytes()
        };
        (to == Side::Backend).then(key)
    }

    fn scan(&mut self, side: Side, buf: &mut [u8]) -> Scan {
        let pong = self.ping_payload(side);
        let (from, _) = self.legs(side);
        let watch = Watch {
            masked: side == Side::Client,
            pong: (from.pulse.unanswered > 0).then_some(pong),
        };
        let scan = from.frames.scan(buf, watch);
        let answered = u8::try_from(scan.own_pongs).unwrap_or(u8::MAX);
        from.pulse.unanswered = from.pulse.unanswered.saturating_sub(answered);
        scan
    }

    fn after_scan(&mut self, side: Side, scan: &Scan) {
        let stats = self.worker.stats();
        stats.pongs.add(scan.own_pongs.into());
        let traffic = traffic(&self.worker, side);
        traffic.bytes.add(scan.ready as u64);
        traffic.frames.add(scan.frames.into());
        traffic.messages.add(scan.messages.into());
        traffic.violations.add(scan.violations.into());
        if let Some(code) = scan.close {
            self.ends(match side {
                Side::Client => Ended::Client,
                Side::Backend => Ended::Backend,
            });
            if self.class == CodeClass::None {
                self.class = CodeClass::of(code);
            }
        }
        let (from, to) = self.legs(side);
        if from.frames.is_closed() {
            to.close_sent = true;
            to.insert = None;
            if from.close_sent {
                self.hurry();
            }
            self.control.due.set(true);
        }
    }

    /// Notes why the session ends; the first cause stands.
    fn ends(&mut self, by: Ended) {
        self.ended.get_or_insert(by);
    }

    /// The end is under way: it must not take for ever.
    fn hurry(&mut self) {
        self.deadline
            .get_or_insert_with(|| Instant::now() + CLOSE_TIMEOUT);
        self.control.due.set(true);
    }

    /// Passes on what one side sends, until it has nothing more or the other takes no more.
    fn pump(&mut self, side: Side, now: &mut Option<Instant>, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            let (from, to) = self.legs(side);
            if to.poll_flush(cx).is_pending() || from.input_ended {
                return;
            }
            let limit = 1 << from.read_log;
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch();
            let (from, _) = self.legs(side);
            let mut buf = ReadBuf::new(&mut scratch[HEAD_MAX..HEAD_MAX + limit]);
            let read = match Pin::new(&mut from.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return,
                Poll::Ready(read) => read.map(|()| buf.filled().len()),
            };
            match read {
                Ok(0) => return self.input_ends(side, None, cx),
                Err(error) => return self.input_ends(side, Some(&error), cx),
                Ok(n) => {
                    from.pulse.hear(*now.get_or_insert_with(Instant::now));
                    self.pass_on(side, scratch, n, cx);
                }
            }
            if self.over {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Passes on `n` bytes just read.
    fn pass_on(
        &mut self,
        side: Side,
        mut scratch: RefMut<'_, [u8]>,
        n: usize,
        cx: &mut Context<'_>,
    ) {
        let (from, _) = self.legs(side);
        // Bytes held back go in front, so that all is one slice again.
        let held = from.frames.held();
        let start = HEAD_MAX - held.len();
        scratch[start..HEAD_MAX].copy_from_slice(held);
        let buf = &mut scratch[start..HEAD_MAX + n];
        let scan = self.scan(side, buf);
        let mut out = &buf[..scan.ready];
        let (from, to) = self.legs(side);
        // Behind a Close of ours, and to a side that is gone, nothing is sent.
        let dropped = to.close_sent || to.output_dead || to.fin;
        if !dropped && !out.is_empty() {
            if let (Some(insert), Some(boundary)) = (to.insert, scan.boundary) {
                to.insert = None;
                to.send(cx, &out[..boundary]);
                out = &out[boundary..];
                self.insert(other(side), insert);
            }
            let (_, to) = self.legs(side);
            if !to.close_sent && !out.is_empty() {
                to.send(cx, out);
            }
            let slow = to.unsent.is_some();
            let (from, _) = self.legs(side);
            if slow {
                from.read_log = (from.read_log - 1).max(READ_LOG_MIN);
            } else if n == 1 << from.read_log {
                from.read_log = (from.read_log + 1).min(READ_LOG_MAX);
            }
        } else if from.frames.at_boundary() && !dropped {
            self.insert_waiting(other(side));
        }
        self.after_scan(side, &scan);
    }

    /// Sends a frame of ours; everything sent to this side so far ends with a whole frame.
    fn insert(&mut self, to: Side, insert: Insert) {
        let mask = self.mask(to);
        let payload = self.ping_payload(to);
        let now = Instant::now();
        let (leg, _) = self.legs(to);
        match insert {
            Insert::Ping => {
                leg.queue(&close::ping(&payload, mask));
                leg.pulse.ping_sent(now);
                let waiting = leg.unsent.as_ref().map_or(0, |u| u.bytes.len() - u.pos);
                leg.ping_end = leg.sent + waiting as u64;
                leg.acknowledged = leg.acknowledged_now();
                self.worker.stats().pings.add(1);
                self.control.due.set(true);
            }
            Insert::Close(code, reason) => {
                leg.queue(&close::close(code, reason, mask));
                leg.close_sent = true;
                if self.class == CodeClass::None {
                    self.class = CodeClass::of(Some(code));
                }
                self.hurry();
            }
        }
    }

    /// Sends a frame of ours as soon as no frame is under way to this side.
    fn insert_soon(&mut self, to: Side, insert: Insert) {
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
                self.hurry();
            }
        }
    }

    fn insert_waiting(&mut self, to: Side) {
        let (leg, _) = self.legs(to);
        if let Some(insert) = leg.insert.take() {
            self.insert(to, insert);
        }
    }

    /// One side sends no more: it has closed its half, or its connection broke (`error`).
    fn input_ends(&mut self, side: Side, error: Option<&io::Error>, cx: &mut Context<'_>) {
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
            (Side::Backend, false, false) => {
                self.insert_soon(
                    Side::Client,
                    Insert::Close(close::BACKEND_LOST, "backend connection lost"),
                );
                self.client.fin = true;
            }
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

    /// Ends the session at once with resets, since a frame was cut.
    fn cut(&mut self) {
        self.client.reset();
        self.backend.reset();
        self.worker.stats().resets.add(1);
        self.over = true;
    }

    /// A side did not answer our Ping.
    fn silent(&mut self, side: Side) {
        self.ends(match side {
            Side::Client => Ended::ClientSilent,
            Side::Backend => Ended::BackendSilent,
        });
        let (leg, other_leg) = self.legs(side);
        leg.input_ended = true;
        leg.output_fails();
        // What it has not acknowledged it will never get.
        leg.reset();
        if !leg.frames.at_boundary() && other_leg.takes_frames() {
            return self.cut();
        }
        let (code, reason) = match side {
            Side::Client => (close::CLIENT_LOST, "client does not answer pings"),
            Side::Backend => (close::BACKEND_LOST, "backend does not answer pings"),
        };
        if side == Side::Backend {
            self.worker.suspect(&self.control.lease.endpoint);
        }
        self.insert_soon(other(side), Insert::Close(code, reason));
        let (_, other_leg) = self.legs(side);
        other_leg.fin = true;
        self.hurry();
    }

    /// Obeys an order to end.
    fn obey(&mut self, end: End, cx: &mut Context<'_>) {
        self.ends(end.by);
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
        self.hurry();
    }

    /// The host lost the address for good: the client cannot be reached, the backend is told.
    fn address_lost(&mut self) {
        self.ends(Ended::AddressLost);
        self.client.input_ended = true;
        self.client.output_fails();
        self.client.reset();
        if !self.client.frames.at_boundary() && self.backend.takes_frames() {
            return self.cut();
        }
        let reason = "the address of the client's connection was lost";
        self.insert_soon(Side::Backend, Insert::Close(close::CLIENT_LOST, reason));
        self.backend.fin = true;
        self.hurry();
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
        let mut next = [
            self.control.drain_at.get(),
            self.control.lost_at.get().map(lost_for),
            self.beat(Side::Client, now),
            self.beat(Side::Backend, now),
            self.half_deadline(),
            None,
        ];
        next[5] = self.deadline;
        let hard = self.deadline.into_iter().chain(next[4]);
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

    fn is_over(&self) -> bool {
        let (client, backend) = (&self.client, &self.backend);
        if self.over || (client.is_over() && backend.is_over()) {
            return true;
        }
        // Both Close frames have passed and the end of one connection was passed on, too: nothing
        // more will come (RFC 6455 section 5.5.1), so a peer that is slow to end is not waited for.
        let passed_on = |from: &Leg, to: &Leg| from.input_ended && to.fin_sent;
        client.frames.is_closed()
            && backend.frames.is_closed()
            && (passed_on(client, backend) || passed_on(backend, client))
    }

    /// Bounds a session of which one half has ended.
    fn half_deadline(&self) -> Option<Instant> {
        let half = |leg: &Leg| leg.input_ended || leg.frames.is_closing();
        let heard = self.client.pulse.heard.max(self.backend.pulse.heard);
        (half(&self.client) || half(&self.backend)).then(|| heard + HALF_TIMEOUT)
    }

    /// Pings a side if it is time; when to look again.
    fn beat(&mut self, side: Side, now: Instant) -> Option<Instant> {
        let heartbeat = self.control.pool.borrow().heartbeat;
        let (leg, _) = self.legs(side);
        if leg.input_ended || !leg.takes_frames() || leg.insert.is_some() {
            return None;
        }
        match leg.pulse.verdict(now, heartbeat)? {
            // An answer lets the next interval begin before this one's time is over.
            Verdict::Wait(until) => Some(until.min(now + heartbeat.interval)),
            Verdict::Ping => {
                self.insert_soon(side, Insert::Ping);
                let (leg, _) = self.legs(side);
                let patience = timeout(heartbeat).min(heartbeat.interval);
                leg.pulse.pinged.map(|pinged| pinged + patience)
            }
            Verdict::Silent => {
                // A long queue on a slow link delays our Ping: while the peer takes from the queue
                // it is alive.
                let acknowledged = leg.acknowledged_now();
                if acknowledged < leg.ping_end && acknowledged > leg.acknowledged {
                    leg.acknowledged = acknowledged;
                    leg.pulse.pinged = Some(now);
                    return Some(now + timeout(heartbeat));
                }
                self.silent(side);
                None
            }
        }
    }

    /// Tells a planned stop how far the client's farewell has come.
    fn report_farewell(&mut self, cx: &mut Context<'_>) {
        if self.client.close_sent && !self.client.fin {
            self.client.fin = true;
        }
        if self.client.poll_flush(cx).is_ready()
            && (self.client.fin_sent || self.client.output_dead)
        {
            let open = sys::unacknowledged(&self.client.stream).unwrap_or(0);
            self.control.farewell.set(Farewell::Sent(open));
        }
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.control.attach(cx.waker());
        if this.control.due.take() {
            if let Some(end) = this.backend_end.take() {
                this.insert_soon(Side::Backend, Insert::Close(end.code, end.reason));
            }
            this.tick(cx);
        }
        let mut now = None;
        this.pump(Side::Client, &mut now, cx);
        if !this.over {
            this.pump(Side::Backend, &mut now, cx);
        }
        if !this.over && this.leaving {
            this.report_farewell(cx);
        }
        if this.is_over() {
            return Poll::Ready(());
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
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Backend,
        Side::Backend => Side::Client,
    }
}

fn traffic(worker: &Worker, from: Side) -> &TrafficCount {
    match from {
        Side::Client => &worker.stats().from_clients,
        Side::Backend => &worker.stats().from_backends,
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
