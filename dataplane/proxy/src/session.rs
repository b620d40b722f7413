//! A session as its worker sees it: what it belongs to, and how it is told to end.

use std::{
    cell::{Cell, OnceCell, RefCell},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
    time::Instant,
};

use crate::{
    balance::Lease,
    limits::{GatewayPlace, Limit, Place},
    live::{Gate, Pool, Route},
    stats::{Ended, ListenerStats},
};

/// An order to end a session with a Close to both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct End {
    pub(crate) by: Ended,
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl End {
    pub(crate) fn listener_gone(pool: &Pool) -> Self {
        Self {
            by: Ended::ListenerGone,
            code: pool.drain.close_code,
            reason: "listener was removed",
        }
    }
}

/// How far a planned stop has come with a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Farewell {
    /// The Close for the client waits for a frame to end, or for the socket.
    Waiting,
    /// It was handed to the kernel; so many bytes are not acknowledged.
    Sent(u64),
    /// The session is over.
    Over,
}

/// Shared by a session's task and its worker.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) id: u64,
    pub(crate) pool: RefCell<Arc<Pool>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<ListenerStats>,
    pub(crate) lease: Lease,
    _place: (Place, GatewayPlace),
    /// When it began.
    pub(crate) begun: Instant,
    /// When it has lasted as long as its pool allows.
    pub(crate) old_at: Cell<Option<Instant>>,
    pub(crate) order: Cell<Option<End>>,
    /// When an order to end falls due because the endpoint went.
    pub(crate) drain_at: Cell<Option<Instant>>,
    /// When the address was lost, and so when the session ends unless it returns.
    pub(crate) lost_at: Cell<Option<Instant>>,
    pub(crate) farewell: Cell<Farewell>,
    /// Entry in the worker's timers.
    pub(crate) timer: Cell<Option<Instant>>,
    pub(crate) due: Cell<bool>,
    /// It was told to end.
    told: Cell<bool>,
    waker: OnceCell<Waker>,
}

impl Control {
    pub(crate) fn new(id: u64, route: &Route, lease: Lease, place: (Place, GatewayPlace)) -> Self {
        route.gate.sessions.fetch_add(1, Relaxed);
        lease.endpoint.sessions.fetch_add(1, Relaxed);
        Self {
            id,
            pool: RefCell::new(Arc::clone(&route.pool)),
            gate: Arc::clone(&route.gate),
            stats: Arc::clone(&route.stats),
            lease,
            _place: place,
            begun: Instant::now(),
            old_at: Cell::new(None),
            order: Cell::new(None),
            drain_at: Cell::new(None),
            lost_at: Cell::new(None),
            farewell: Cell::new(Farewell::Waiting),
            timer: Cell::new(None),
            due: Cell::new(false),
            told: Cell::new(false),
            waker: OnceCell::new(),
        }
    }

    /// It is told to end.
    pub(crate) fn tell(&self) {
        if !self.told.replace(true) {
            self.lease.endpoint.leaving.fetch_add(1, Relaxed);
        }
    }

    /// Whether it was told to end.
    pub(crate) fn is_told(&self) -> bool {
        self.told.get()
    }

    /// It ran into a limit of its pool.
    pub(crate) fn hit(&self, limit: Limit) {
        self.pool.borrow().admission.hit(limit);
    }

    /// Remembers what wakes it. That does not change.
    pub(crate) fn attach(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Has the session look at its timers anew.
    pub(crate) fn revise(&self) {
        self.due.set(true);
        self.wake();
    }

    /// Tells the session to end. The first order stands.
    pub(crate) fn end(&self, end: End) {
        if self.order.get().is_none() {
            self.order.set(Some(end));
        }
        self.revise();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.gate.sessions.fetch_sub(1, Relaxed);
        let endpoint = &self.lease.endpoint;
        if self.told.get() {
            endpoint.leaving.fetch_sub(1, Relaxed);
        }
        if endpoint.sessions.fetch_sub(1, Relaxed) == 1 && !endpoint.keeps_sessions() {
            let (pool, endpoint) = (self.pool.borrow(), endpoint.address);
            tracing::info!(pool = pool.name, %endpoint, "no session is left on an endpoint that goes");
        }
    }
}
