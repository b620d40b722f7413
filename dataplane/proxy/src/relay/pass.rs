//! What was read from one side is passed on to the other.

use std::{cell::RefMut, task::Context};

use super::{Session, Side, other, speak::Insert};
use crate::{
    frame::{HEAD_MAX, PingPayload, Scan, Watch},
    record::Volume,
    stats::Ended,
};

impl Session {
    /// Passes on `n` bytes just read.
    #[expect(clippy::inline_always, reason = "as its caller")]
    #[inline(always)]
    pub(super) fn pass_on(
        &mut self,
        side: Side,
        scratch: RefMut<'_, [u8]>,
        n: usize,
        cx: &mut Context<'_>,
    ) {
        if !self.pass_whole(side, &scratch[HEAD_MAX..HEAD_MAX + n], cx) {
            self.pass_parts(side, scratch, n, cx);
        }
    }

    /// Passes `bytes` on if they are whole messages, and nothing is to be looked for in them or put between them.
    /// Nearly always they are, and then all that costs is paid for each message.
    #[expect(clippy::inline_always, reason = "as its caller")]
    #[inline(always)]
    fn pass_whole(&mut self, side: Side, bytes: &[u8], cx: &mut Context<'_>) -> bool {
        let Some(allowed) = self.allowed(side) else {
            return false;
        };
        let (from, to) = self.legs(side);
        if from.pulse.unanswered > 0 || to.insert.is_some() || !to.takes_frames() {
            return false;
        }
        let is_masked = side == Side::Client;
        let Some(whole) = from.frames.pass_whole(bytes, is_masked, allowed) else {
            return false;
        };
        to.send(cx, bytes);
        self.adapt(side, bytes.len());
        let listener = self.worker.stats(&self.control.stats).received(side);
        listener.whole(&whole);
        self.count(
            side,
            Volume {
                bytes: whole.len as u64,
                messages: whole.messages().into(),
            },
        );
        true
    }

    /// Passes on what is more than that.
    fn pass_parts(
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
        let is_closed = from.frames.is_closed();
        let dropped = to.close_sent || to.output_dead || to.fin;
        if !dropped && !out.is_empty() {
            // Behind a Close nothing may follow (RFC 6455 section 5.5.1), so nothing is put there.
            if let (Some(insert), Some(boundary), false) = (to.insert, scan.boundary, is_closed) {
                to.insert = None;
                to.send(cx, &out[..boundary]);
                out = &out[boundary..];
                self.insert(other(side), insert);
            }
            // Both have closed: the server ends its connection, and waits for nobody (RFC 6455 section 7.1.1).
            let is_last = side == Side::Backend && is_closed && self.backend.close_sent;
            let (_, to) = self.legs(side);
            if is_last && !to.close_sent {
                to.send_last(cx, out);
            } else if !to.close_sent && !out.is_empty() {
                to.send(cx, out);
            }
            self.adapt(side, n);
        } else if from.frames.at_boundary() && !dropped && !is_closed {
            self.insert_waiting(other(side));
        }
        self.charge(side, &scan);
        self.after_scan(side, &scan);
    }

    /// Reads more or less at once, after `n` bytes that were passed on.
    #[inline]
    fn adapt(&mut self, side: Side, n: usize) {
        let (from, to) = self.legs(side);
        let is_slow = to.unsent.is_some();
        from.adapt_reads(n, is_slow);
        if is_slow {
            self.watch_readers();
        }
    }

    /// Counts what came, but for what only the listener counts.
    #[inline]
    fn count(&mut self, side: Side, volume: Volume) {
        let endpoint = self.worker.endpoint_stats(&self.control.lease.endpoint);
        endpoint.received(side, volume);
        self.entry.note(|record| record.count(side, volume));
    }

    pub(super) fn scan(&mut self, side: Side, buf: &mut [u8]) -> Scan {
        let pongs = self.legs(side).0.pulse.unanswered;
        let watch = Watch {
            masked: side == Side::Client,
            pong: if pongs > 0 {
                self.ping_payload(side)
            } else {
                PingPayload::default()
            },
            pongs,
            allowance: self.allowance(side),
        };
        let from = match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        let traffic = self.worker.stats(&self.control.stats).received(side);
        let scan = from
            .frames
            .scan(buf, watch, |kind, n| traffic.frames(kind, n));
        let answered = u8::try_from(scan.own_pongs).unwrap_or(u8::MAX);
        from.pulse.unanswered = from.pulse.unanswered.saturating_sub(answered);
        scan
    }

    pub(super) fn after_scan(&mut self, side: Side, scan: &Scan) {
        let stats = self.worker.stats(&self.control.stats);
        stats.received(side).add(scan);
        if scan.own_pongs > 0 {
            stats.pongs.add(scan.own_pongs.into());
        }
        self.count(
            side,
            Volume {
                bytes: scan.ready as u64,
                messages: scan.messages.into(),
            },
        );
        if let Some(code) = scan.close {
            self.ends(match side {
                Side::Client => Ended::Client,
                Side::Backend => Ended::Backend,
            });
            self.closes_with(code);
        }
        let (from, to) = self.legs(side);
        if from.frames.is_closed() {
            to.close_sent = true;
            // The peer's own Close tells the other side what a Close of ours was to tell.
            let was_held = matches!(to.insert.take(), Some(Insert::Close(..)));
            if from.close_sent || was_held {
                self.hurry();
            }
            // It must not stay half closed for ever: that is looked at when a timer is due, if one is soon.
            let heard = self.legs(side).0.pulse.heard;
            let until = heard + self.worker.shared.patience.half;
            if self.control.timer.get().is_none_or(|at| at > until) {
                self.control.due.set(true);
            }
        }
    }
}
