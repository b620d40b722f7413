//! When sessions want to be woken: one timer of the runtime for all of them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::Instant,
};

use tokio::sync::Notify;

use super::Worker;
use crate::session::Control;

/// Sessions by when they want to be woken.
pub(super) struct Timers {
    sessions: RefCell<BTreeSet<(Instant, u64)>>,
    /// When the thread looks at them again, unless it is told to look before.
    pub(super) looks_at: Cell<Instant>,
    /// It is told so.
    pub(super) changed: Notify,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self {
            sessions: RefCell::default(),
            looks_at: Cell::new(Instant::now()),
            changed: Notify::new(),
        }
    }
}

impl Worker {
    /// Wakes the sessions that are due; when the next one is.
    pub(super) fn fire_timers(&self, now: Instant) -> Option<Instant> {
        let mut timers = self.timers.sessions.borrow_mut();
        while let Some(&(at, id)) = timers.first() {
            if at > now {
                return Some(at);
            }
            timers.pop_first();
            if let Some(control) = self.sessions.borrow().get(&id) {
                control.timer.set(None);
                control.revise();
            }
        }
        None
    }

    /// Has a session woken at `at`, and perhaps once before: a time that was set is left as it is where it comes
    /// first, since most sessions end before it does.
    pub(crate) fn set_timer(&self, control: &Control, at: Option<Instant>) {
        let Some(at) = at else { return };
        if control.timer.get().is_some_and(|old| old <= at) {
            return;
        }
        self.clear_timer(control);
        control.timer.set(Some(at));
        self.timers.sessions.borrow_mut().insert((at, control.id));
        if at < self.timers.looks_at.get() {
            self.timers.changed.notify_one();
        }
    }

    /// Has a session woken by no timer.
    pub(super) fn clear_timer(&self, control: &Control) {
        if let Some(old) = control.timer.take() {
            self.timers.sessions.borrow_mut().remove(&(old, control.id));
        }
    }
}
