//! One thread: its event loop, and what it has.

mod apply;
mod crew;
mod handshakes;
mod order;
mod requests;
mod room;
mod runner;
mod sessions;
mod timers;

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc as orders},
    task::{AbortHandle, yield_now},
};

use self::{crew::Crew, handshakes::Connection, runner::Runner, timers::Timers};
pub(crate) use self::{
    crew::{Asking, NewStream, Newcomer},
    handshakes::Closing,
    order::{Order, spawn},
    requests::{Requests, Told},
};
use crate::{
    endpoint::{self, Endpoint},
    endpoint_stats::WorkerEndpointStats,
    health::Watches,
    limits::Rate,
    live::{Pool, Route, Shared, Upstream},
    proxy::Beat,
    reclaim::{Reclaim, Share},
    relay::{SCRATCH, Side},
    ring::Reactor,
    session::Control,
    shedding::Shedding,
    stats::{Count, ListenerStats, Open, WorkerStats},
    sys,
    times::{OpeningTimes, WorkerTimes},
};

/// Pause between beats.
const BEAT: Duration = Duration::from_millis(100);

/// Handshakes of TLS in a second whose clients are only told that there is no room: they take a
/// worker some fortieth of its time.
const TELLS: u32 = 100;

/// State of one thread; nothing here is shared with another.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// What sessions without TLS are read by; `None`: by the event loop.
    ring: Option<Rc<Reactor>>,
    index: usize,
    listeners: RefCell<HashMap<SocketAddr, Vec<AbortHandle>>>,
    crew: Crew,
    /// Connections of several sessions, which are told when their listener closes or its address is lost.
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// Connections of requests that ask for no session, which are told the same.
    requests: RefCell<HashMap<u64, Rc<Told>>>,
    pub(crate) sessions: RefCell<BTreeMap<u64, Rc<Control>>>,
    runner: Runner,
    /// When the sessions that are turned now were begun with.
    pub(crate) turns_at: Cell<Instant>,
    /// Addresses that the host has lost, and when.
    lost: RefCell<HashMap<IpAddr, Instant>>,
    pub(crate) shedding: Shedding,
    timers: Timers,
    /// Who is the next to begin TLS with.
    pub(crate) beginnings: Semaphore,
    /// When another client would be told that there is no room, if they were told so evenly.
    tells: Cell<Option<Instant>>,
    next_id: Cell<u64>,
    secret: RandomState,
    scratch: RefCell<Box<[u8]>>,
    /// Of the first worker: the checks of all endpoints.
    watches: RefCell<Watches>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>, ring: Option<Rc<Reactor>>) -> Self {
        Self {
            shared,
            ring,
            index,
            listeners: RefCell::default(),
            crew: Crew::default(),
            connections: RefCell::default(),
            requests: RefCell::default(),
            sessions: RefCell::default(),
            runner: Runner::new(),
            turns_at: Cell::new(Instant::now()),
            lost: RefCell::default(),
            shedding: Shedding::default(),
            timers: Timers::new(),
            beginnings: Semaphore::new(1),
            tells: Cell::new(None),
            next_id: Cell::new(0),
            secret: RandomState::new(),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            watches: RefCell::default(),
        }
    }

    async fn run(self: &Rc<Self>, beat: Beat, mut orders: orders::Receiver<Order>) {
        tokio::task::spawn_local(Rc::clone(self).turn_sessions());
        let mut next_beat = Instant::now();
        let (mut reclaim, mut share) = (Reclaim::default(), Share::default());
        loop {
            let now = Instant::now();
            if now >= next_beat {
                beat(self.index);
                next_beat = now + BEAT;
                let live = self.live();
                if reclaim.is_due(now, live, share.tell(live)) {
                    self.crew.dismiss();
                    yield_now().await;
                    sys::give_memory_back();
                }
            }
            let due = [self.fire_timers(now), self.shed(now)]
                .into_iter()
                .flatten();
            let next = due.fold(next_beat, Instant::min);
            self.timers.looks_at.set(next);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => {
                        if !self.obey(order).await {
                            return;
                        }
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.timers.changed.notified() => {}
            }
        }
    }

    /// All that has memory of its own here: what ends last is what tells that the memory can go back, and a
    /// connection of HTTP/2 or of plain requests outlives its sessions.
    fn live(&self) -> usize {
        self.sessions.borrow().len()
            + self.crew.busy()
            + self.connections.borrow().len()
            + self.requests.borrow().len()
    }

    /// Whether what one worker is to do in this round is this one's to do.
    pub(crate) fn has_turn(&self, round: u64) -> bool {
        round % self.shared.workers as u64 == self.index as u64
    }

    /// Where clients of an address are brought now. The newest word, not the last order: an endpoint
    /// that is no longer listed may be gone before this worker is told.
    pub(crate) fn route(&self, address: SocketAddr) -> Option<Arc<Route>> {
        self.shared.state().routes.get(&address).cloned()
    }

    /// What this worker counts of a listener.
    pub(crate) fn stats<'a>(&self, listener: &'a ListenerStats) -> &'a WorkerStats {
        listener.of(self.index)
    }

    /// Something of a listener that is open from now on.
    pub(crate) fn open(
        &self,
        listener: &Arc<ListenerStats>,
        ended: fn(&WorkerStats) -> &Count,
    ) -> Open {
        Open {
            stats: Arc::clone(listener),
            worker: self.index,
            ended,
        }
    }

    /// What this worker counts of an endpoint.
    pub(crate) fn endpoint_stats<'a>(&self, endpoint: &'a Endpoint) -> &'a WorkerEndpointStats {
        endpoint.stats.of(self.index)
    }

    /// What this worker measures in the sessions of a pool.
    pub(crate) fn times<'a>(&self, pool: &'a Pool) -> &'a WorkerTimes {
        &pool.times[self.index]
    }

    /// What it measures when it opens sessions to an upstream.
    pub(crate) fn opening_times<'a>(&self, upstream: &'a Upstream) -> &'a OpeningTimes {
        &upstream.times[self.index]
    }

    /// The buffer that all sessions of this thread read into.
    pub(crate) fn scratch(&self) -> RefMut<'_, [u8]> {
        RefMut::map(self.scratch.borrow_mut(), |scratch| &mut **scratch)
    }

    /// Whether TLS may begin with another client only to tell it that there is no room.
    pub(crate) fn may_tell(&self) -> bool {
        let rate = Rate::new(TELLS, TELLS / 2);
        let now = Instant::now();
        let due = self.tells.get();
        let may = rate.room(due, now) > 0;
        if may {
            self.tells.set(Some(rate.after(due, 1, now)));
        }
        may
    }

    /// A number that outsiders cannot guess, the same for a side of a session for its life.
    pub(crate) fn secret(&self, id: u64, side: Side) -> u64 {
        self.secret.hash_one((id, side == Side::Client))
    }

    /// A key to mask the frame of a session that begins behind `sent` bytes. Nothing that was sent, other keys
    /// included, tells of it (RFC 6455 section 5.3).
    pub(crate) fn mask(&self, id: u64, sent: u64) -> [u8; 4] {
        let [a, b, c, d, ..] = self.secret.hash_one(("mask", id, sent)).to_ne_bytes();
        [a, b, c, d]
    }

    /// Whether a connection is one of `percent` in a hundred.
    pub(crate) fn draws(&self, percent: u8) -> bool {
        self.secret.hash_one(self.next_id()) % 100 < u64::from(percent)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// A session to this endpoint broke: is it still there?
    pub(crate) fn suspect(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.is_reachable() {
            endpoint::suspect(endpoint, &self.shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Patience;

    #[test]
    fn connections_that_come_together_are_drawn_each_by_itself() {
        let shared = Shared::new(1, None, None, Patience::default(), Arc::default());
        let worker = Worker::new(0, Arc::new(shared), None);
        let drawn = (0..64).filter(|_| worker.draws(50)).count();
        assert!((1..64).contains(&drawn), "{drawn} of 64");
    }

    #[test]
    fn a_connection_is_live_without_sessions() {
        let shared = Shared::new(1, None, None, Patience::default(), Arc::default());
        let worker = Rc::new(Worker::new(0, Arc::new(shared), None));
        assert_eq!(worker.live(), 0);
        let connection = worker.watch_closing(SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(worker.live(), 1);
        drop(connection);
        assert_eq!(worker.live(), 0);
    }
}
