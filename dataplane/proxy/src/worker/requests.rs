//! Connections of requests that ask for no session, and what they are told.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use tokio::{
    sync::Notify,
    time::{Instant as At, sleep_until},
};

use super::Worker;
use crate::{
    endpoint::Endpoint,
    heartbeat,
    live::{Pool, Route, State},
};

/// What such a connection is told. Between requests it ends at once when it is to carry no more; a request
/// under way has until then what a session has: nothing where its address is given up, the time of
/// `drain` where its listener or endpoint goes, that of a heartbeat where the address is lost.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) address: SocketAddr,
    pool: RefCell<Arc<Pool>>,
    /// It is to carry no more requests.
    closing: Cell<bool>,
    /// When the request under way ends at the latest, by its reasons.
    listener_at: Cell<Option<Instant>>,
    endpoint_at: Cell<Option<Instant>>,
    lost_at: Cell<Option<Instant>>,
    /// The endpoint that has the request under way.
    endpoint: RefCell<Option<Arc<Endpoint>>>,
    /// It waits for a request.
    idle: Cell<bool>,
    /// Others need its descriptor.
    needed: Cell<bool>,
    changed: Notify,
}

impl Told {
    /// Whether it is to carry no more requests.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether others wait for its descriptor: then its client has no time to hear of its end.
    pub(crate) fn is_needed(&self) -> bool {
        self.needed.get()
    }

    /// Has it end as others need its descriptor, if it waits for a request; returns whether it was not to end
    /// before.
    pub(super) fn give_way(&self) -> bool {
        let gives_way = self.idle.get() && !self.is_closing();
        if gives_way {
            self.needed.set(true);
            self.close();
        }
        gives_way
    }

    /// It waits for a request, for as long as what is returned lives.
    pub(crate) fn waits(&self) -> Waits<'_> {
        self.idle.set(true);
        Waits(self)
    }

    /// Ends when it is to carry no more requests.
    pub(crate) async fn closing(&self) {
        while !self.closing.get() {
            self.changed.notified().await;
        }
    }

    /// Ends when the request under way is to end.
    pub(crate) async fn over(&self) {
        loop {
            let changed = self.changed.notified();
            let reasons = [&self.listener_at, &self.endpoint_at, &self.lost_at];
            let first = reasons.into_iter().filter_map(Cell::get).min();
            let Some(first) = first else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(At::from_std(first)) => return,
            }
        }
    }

    /// The request under way goes there, for as long as what is returned lives.
    pub(crate) fn goes_to(&self, endpoint: &Arc<Endpoint>) -> Goes<'_> {
        *self.endpoint.borrow_mut() = Some(Arc::clone(endpoint));
        Goes(self)
    }

    fn close(&self) {
        self.closing.set(true);
        self.changed.notify_one();
    }

    fn set(&self, at: &Cell<Option<Instant>>, value: Option<Instant>) {
        at.set(value);
        self.changed.notify_one();
    }
}

/// A request is with an endpoint.
pub(crate) struct Goes<'a>(&'a Told);

impl Drop for Goes<'_> {
    fn drop(&mut self) {
        *self.0.endpoint.borrow_mut() = None;
        self.0.endpoint_at.set(None);
    }
}

/// Such a connection has no request.
pub(crate) struct Waits<'a>(&'a Told);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.idle.set(false);
    }
}

/// Such a connection in the books of its worker, until it is dropped.
pub(crate) struct Requests {
    worker: Rc<Worker>,
    id: u64,
    pub(crate) told: Rc<Told>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.worker.requests.borrow_mut().remove(&self.id);
    }
}

impl Worker {
    /// Takes such a connection in, which has come to this listener.
    pub(crate) fn take_requests(self: &Rc<Self>, route: &Route) -> Requests {
        let id = self.next_id();
        let told = Rc::new(Told {
            address: route.gate.address,
            pool: RefCell::new(Arc::clone(&route.pool)),
            closing: Cell::new(false),
            listener_at: Cell::new(None),
            endpoint_at: Cell::new(None),
            lost_at: Cell::new(None),
            endpoint: RefCell::new(None),
            idle: Cell::new(false),
            needed: Cell::new(false),
            changed: Notify::new(),
        });
        self.requests.borrow_mut().insert(id, Rc::clone(&told));
        Requests {
            worker: Rc::clone(self),
            id,
            told,
        }
    }

    /// Those that are to carry no more requests are told.
    pub(super) fn close_requests(&self, which: impl Fn(SocketAddr) -> bool) {
        for told in self.requests.borrow().values() {
            if which(told.address) {
                told.close();
            }
        }
    }

    /// What a new configuration means for them.
    pub(super) fn apply_to_requests(&self, state: &State) {
        let now = Instant::now();
        for told in self.requests.borrow().values() {
            let route = state.routes.get(&told.address);
            let mut pool = told.pool.borrow_mut();
            let Some(route) = route.filter(|route| route.pool.name == pool.name) else {
                told.close();
                if told.listener_at.get().is_none() {
                    told.set(&told.listener_at, Some(now + pool.drain.timeout));
                }
                continue;
            };
            *pool = Arc::clone(&route.pool);
            let drain = pool.drain.timeout;
            let endpoint = told.endpoint.borrow();
            let stays = endpoint.as_ref().is_none_or(|it| it.keeps_sessions());
            if stays != told.endpoint_at.get().is_none() {
                told.set(&told.endpoint_at, (!stays).then(|| now + drain));
            }
        }
    }

    /// The host holds an address again, or has lost it.
    pub(super) fn requests_held(&self, address: IpAddr, held: bool) {
        let now = Instant::now();
        for told in self.requests.borrow().values() {
            if told.address.ip() == address && held == told.lost_at.get().is_some() {
                let patience = heartbeat::timeout(told.pool.borrow().heartbeat);
                told.set(&told.lost_at, (!held).then(|| now + patience));
            }
        }
    }

    /// Has those of addresses that are given up end now, and gives them.
    pub(crate) fn end_requests(&self, addresses: &[IpAddr]) -> Vec<Rc<Told>> {
        let requests = self.requests.borrow();
        let ended = requests
            .values()
            .filter(|told| addresses.contains(&told.address.ip()));
        let ended: Vec<_> = ended.map(Rc::clone).collect();
        for told in &ended {
            told.close();
            told.set(&told.listener_at, Some(Instant::now()));
        }
        ended
    }
}
