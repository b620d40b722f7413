//! Each host's kernel, and the thread that talks to it by the product's rules for leases.

use std::time::Duration;

use vrrp::{Input, Instant, State, lease::Todo};

use super::{Event, World};
use crate::host::{Op, Process};

/// How long a router that lost its addresses does not preempt, at least; doubled each time.
const HOLD_AFTER_LOSS: Duration = Duration::from_secs(5);

impl World {
    /// How long a call takes.
    fn call(&mut self) -> Duration {
        if self.random.chance(300) {
            self.random.millis(5, 60)
        } else {
            self.random.millis(0, 2)
        }
    }

    pub(super) fn ask_kernel(&mut self, host: usize, op: Op) {
        let takes = self.call();
        let it = &mut self.hosts[host];
        it.netlink_free_at = it.netlink_free_at.max(self.now) + takes;
        let incarnation = it.incarnation;
        let span = it.netlink_free_at.since(self.now);
        let event = Event::Netlink {
            host,
            incarnation,
            op,
        };
        self.after(span, event);
    }

    pub(super) fn netlink(&mut self, host: usize, incarnation: u32, op: Op) {
        let it = &mut self.hosts[host];
        if it.incarnation != incarnation || !it.powered || it.process == Process::Dead {
            return;
        }
        if !it.netlink_runs() {
            // Done after the wake.
            let event = Event::Netlink {
                host,
                incarnation,
                op,
            };
            self.after(Duration::from_millis(1), event);
            return;
        }
        match op {
            Op::Add { term } => {
                it.lease.want();
                it.lease_term = term;
            }
            Op::Remove => {
                it.lease.end();
                it.held_until = None;
                self.answer(host, Input::AddressesRemoved);
            }
        }
        self.look(host);
    }

    /// The thread looks at its lease, and plans the next look.
    pub(super) fn look(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        if !it.netlink_runs() || it.sets {
            return;
        }
        match it.lease.todo(now, it.last_advertisement) {
            Todo::Nothing => {}
            Todo::Set => {
                it.sets = true;
                let (incarnation, began) = (it.incarnation, now);
                let takes = self.call();
                let it = &mut self.hosts[host];
                it.netlink_free_at = it.netlink_free_at.max(now + takes);
                let event = Event::Set {
                    host,
                    incarnation,
                    began,
                };
                self.after(takes, event);
                return;
            }
            Todo::Lose => self.lose(host),
        }
        self.plan_look(host);
    }

    fn plan_look(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.looks += 1;
        let number = it.looks;
        if let Some(at) = it.lease.wake_at(self.now) {
            self.after(at.since(self.now), Event::Look { host, number });
        }
    }

    pub(super) fn set(&mut self, host: usize, incarnation: u32, began: Instant) {
        // A kernel lifetime of 2 s ends up to half a second late.
        let until = self.now + self.random.millis(2_000, 2_500);
        let now = self.now;
        let it = &mut self.hosts[host];
        if it.incarnation != incarnation || !it.powered || it.process == Process::Dead {
            return;
        }
        if !it.netlink_runs() {
            let event = Event::Set {
                host,
                incarnation,
                began,
            };
            self.after(Duration::from_millis(1), event);
            return;
        }
        it.sets = false;
        // An order to remove it has overtaken the call here, which it cannot in the product.
        if it.lease.is_wanted() {
            it.held_until = Some(until);
            let was_held = it.lease.is_held();
            if !it.lease.set(began, now) {
                self.lose(host);
            } else if !was_held {
                self.answer(host, Input::AddressesAdded);
            }
        }
        self.plan_look(host);
    }

    /// The addresses are removed, and the machine is told that they are lost.
    pub(super) fn lose(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.lease.end();
        it.held_until = None;
        self.answer(host, Input::AddressesLost);
    }

    /// To a machine that stands still it comes when it runs again.
    fn answer(&mut self, host: usize, answer: Input<'static>) {
        let it = &mut self.hosts[host];
        let term = it.lease_term;
        if it.runs() {
            self.hand_over_answer(host, term, answer);
        } else {
            it.answers.push_back((term, answer));
        }
    }

    /// One that is about addresses that were asked for before is void.
    pub(super) fn hand_over_answer(&mut self, host: usize, term: u32, answer: Input<'static>) {
        let it = &mut self.hosts[host];
        let is_removed = matches!(answer, Input::AddressesRemoved);
        if term != it.term && !is_removed {
            return;
        }
        if matches!(answer, Input::AddressesLost) && it.state() == State::Active {
            self.note_loss(host);
        }
        self.tell(host, answer);
    }

    /// It holds off for so long, and comes back after.
    fn note_loss(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.link {
            self.judge.left(self.now, host, it);
        }
        let until = self.now + HOLD_AFTER_LOSS * 2_u32.pow(it.losses);
        (it.losses, it.lost_at) = (it.losses + 1, self.now);
        it.hold_until = it.hold_until.max(self.now + HOLD_AFTER_LOSS);
        it.timid_until = it.timid_until.max(until);
        self.calm.all = self.calm.all.max(until);
    }
}
