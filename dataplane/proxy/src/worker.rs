//! One thread: its event loop, listeners, sessions and timers.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, Semaphore, mpsc as orders},
    task::{AbortHandle, yield_now},
};

use crate::{
    drain::Schedule,
    endpoint::{self, Endpoint},
    endpoint_stats::WorkerEndpointStats,
    health::Watches,
    limits::Rate,
    listener,
    live::{Pool, Route, Shared, State, Upstream},
    proxy::{Beat, LeaveReport},
    reclaim::Reclaim,
    relay::{SCRATCH, Session, Side},
    session::{Control, End},
    shedding::Shedding,
    stats::{CodeClass, Count, Ended, HandshakeResult, ListenerStats, Open, WorkerStats},
    sys,
    times::{OpeningTimes, WorkerTimes},
    tls::ServerTls,
};

/// Pause between beats.
const BEAT: Duration = Duration::from_millis(100);

/// Handshakes of TLS in a second whose clients are only told that there is no room: they take a
/// worker some fortieth of its time.
const TELLS: u32 = 100;

/// What a worker is told.
pub(crate) enum Order {
    /// Serve this.
    Apply {
        state: Arc<State>,
        sockets: Vec<(SocketAddr, TcpListener)>,
        check: Vec<Arc<Endpoint>>,
        /// Addresses of which the worker has opened the socket it was given.
        done: mpsc::Sender<Vec<SocketAddr>>,
    },
    /// Planned stop of addresses.
    Leave {
        addresses: Arc<[IpAddr]>,
        deadline: Instant,
        done: mpsc::Sender<LeaveReport>,
    },
    /// The host holds an address, or does not.
    Held {
        address: IpAddr,
        held: bool,
        done: mpsc::Sender<()>,
    },
    /// End.
    Stop { done: mpsc::Sender<()> },
}

/// Starts a worker's thread.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    beat: Beat,
    orders: orders::Receiver<Order>,
) -> io::Result<JoinHandle<()>> {
    let runtime = || {
        Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
    };
    let (started, wait) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(format!("proxy-{index}"))
        .spawn(move || match runtime() {
            Ok(runtime) => {
                drop(started.send(Ok(())));
                let worker = Rc::new(Worker::new(index, shared));
                runtime.block_on(worker.run(beat, orders));
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(io::Error::other("the thread ended at its start")),
    }
}

/// State of one thread; nothing here is shared with another.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    index: usize,
    listeners: RefCell<HashMap<SocketAddr, Vec<AbortHandle>>>,
    /// Handshakes under way.
    opening: RefCell<HashMap<u64, (SocketAddr, AbortHandle)>>,
    /// Connections of several sessions, which are told when their listener closes or its address is lost.
    connections: RefCell<HashMap<u64, (SocketAddr, Rc<Notify>)>>,
    pub(crate) sessions: RefCell<BTreeMap<u64, Rc<Control>>>,
    /// Addresses that the host has lost, and when.
    lost: RefCell<HashMap<IpAddr, Instant>>,
    pub(crate) shedding: Shedding,
    /// Sessions by when they want to be woken.
    timers: RefCell<BTreeSet<(Instant, u64)>>,
    /// When the thread looks at them again, unless it is told to look before.
    looks_at: Cell<Instant>,
    timers_changed: Notify,
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
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            index,
            listeners: RefCell::default(),
            opening: RefCell::default(),
            connections: RefCell::default(),
            sessions: RefCell::default(),
            lost: RefCell::default(),
            shedding: Shedding::default(),
            timers: RefCell::default(),
            looks_at: Cell::new(Instant::now()),
            timers_changed: Notify::new(),
            beginnings: Semaphore::new(1),
            tells: Cell::new(None),
            next_id: Cell::new(0),
            secret: RandomState::new(),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            watches: RefCell::default(),
        }
    }

    async fn run(self: &Rc<Self>, beat: Beat, mut orders: orders::Receiver<Order>) {
        let mut next_beat = Instant::now();
        let mut reclaim = Reclaim::default();
        loop {
            let now = Instant::now();
            if now >= next_beat {
                beat(self.index);
                next_beat = now + BEAT;
                let live = self.sessions.borrow().len() + self.opening.borrow().len();
                if reclaim.is_due(now, live) {
                    sys::give_memory_back();
                }
            }
            let due = [self.fire_timers(now), self.shed(now)]
                .into_iter()
                .flatten();
            let next = due.fold(next_beat, Instant::min);
            self.looks_at.set(next);
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
                () = self.timers_changed.notified() => {}
            }
        }
    }

    /// `false`: the worker is to end.
    async fn obey(self: &Rc<Self>, order: Order) -> bool {
        match order {
            Order::Apply {
                state,
                sockets,
                check,
                done,
            } => {
                let opened = self.apply(&state, sockets);
                for endpoint in check {
                    endpoint::check(&endpoint, &self.shared);
                }
                if self.index == 0 {
                    self.watches.borrow_mut().follow(&state, &self.shared);
                }
                // Tasks that were aborted give up their sockets at their next turn.
                yield_now().await;
                answer(&done, opened);
            }
            Order::Leave {
                addresses,
                deadline,
                done,
            } => {
                let worker = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let report = worker.leave(&addresses, deadline).await;
                    answer(&done, report);
                });
            }
            Order::Held {
                address,
                held,
                done,
            } => {
                self.address_held(address, held);
                answer(&done, ());
            }
            Order::Stop { done } => {
                answer(&done, ());
                return false;
            }
        }
        true
    }

    /// Whether what one worker is to do in this round is this one's to do.
    pub(crate) fn has_turn(&self, round: u64) -> bool {
        round % self.shared.workers as u64 == self.index as u64
    }

    /// Gives the addresses of which the socket was opened.
    fn apply(
        self: &Rc<Self>,
        state: &State,
        sockets: Vec<(SocketAddr, TcpListener)>,
    ) -> Vec<SocketAddr> {
        self.close_listeners(|address| !state.routes.contains_key(&address));
        let mut opened = Vec::new();
        for (address, socket) in sockets {
            let gate = state.routes.get(&address).map(|route| &route.gate);
            if let Some(task) = gate.and_then(|gate| listener::open(self, Arc::clone(gate), socket))
            {
                opened.push(address);
                let mut listeners = self.listeners.borrow_mut();
                listeners.entry(address).or_default().push(task);
            }
        }
        let mut going: BTreeMap<String, Going> = BTreeMap::new();
        for control in self.sessions.borrow().values() {
            let pool = Arc::clone(&control.pool.borrow());
            let route = state.routes.get(&control.gate.address);
            let Some(route) = route.filter(|route| route.pool.name == pool.name) else {
                control.end(End::listener_gone(&pool));
                continue;
            };
            if route.pool.limits.session_age != pool.limits.session_age {
                self.set_age(control, route.pool.limits.session_age);
            }
            if route.pool.heartbeat != pool.heartbeat || route.pool.limits != pool.limits {
                control.revise();
            }
            *control.pool.borrow_mut() = Arc::clone(&route.pool);
            if control.lease.endpoint.keeps_sessions() {
                // An endpoint that came back keeps what it still has.
                control.drain_at.set(None);
                continue;
            }
            if control.is_told() {
                continue;
            }
            let going = going.entry(route.pool.name.clone()).or_default();
            match control.drain_at.get() {
                None => going.sessions.push(Rc::clone(control)),
                told => going.busy = going.busy.max(told),
            }
        }
        for (pool, going) in &going {
            self.drain(pool, going);
        }
        opened
    }

    /// Says when each session of a pool whose endpoints go is told.
    fn drain(&self, pool: &str, going: &Going) {
        let Some(first) = going.sessions.first() else {
            return;
        };
        let now = Instant::now();
        let wall = SystemTime::now();
        let busy = going.busy.map(|at| at.saturating_duration_since(now));
        let schedule = Schedule {
            drain: first.pool.borrow().drain,
            sessions: going.sessions.len(),
            busy: busy.unwrap_or_default(),
            worker: self.index,
            workers: self.shared.workers,
        };
        for (index, control) in going.sessions.iter().enumerate() {
            let wait = schedule.wait(index);
            control.drain_at.set(Some(now + wait));
            control.lease.endpoint.drains_until(wall + wait);
            control.revise();
        }
        let over = schedule.wait(schedule.sessions - 1);
        let (sessions, worker) = (schedule.sessions, self.index);
        tracing::info!(
            pool,
            sessions,
            ?over,
            worker,
            "sessions end, as their endpoints go"
        );
    }

    /// Says when a session is too old: in the last tenth of its time, each at another moment, so that
    /// clients which came together do not come back together. Those that are that old already when it
    /// is said are spread in the same way.
    fn set_age(&self, control: &Control, most: Option<Duration>) {
        let at = most.map(|most| {
            let part = self.secret.hash_one(control.id) & 0xffff;
            let part = most / 10 * u32::try_from(part).unwrap_or(0) / 0x1_0000;
            (control.begun + most.saturating_sub(part)).max(Instant::now() + part)
        });
        control.old_at.set(at);
    }

    pub(crate) fn close_listeners(&self, which: impl Fn(SocketAddr) -> bool) {
        self.listeners.borrow_mut().retain(|address, tasks| {
            if which(*address) {
                for task in tasks {
                    task.abort();
                }
                return false;
            }
            true
        });
        for (address, task) in self.opening.borrow().values() {
            if which(*address) {
                task.abort();
            }
        }
        self.close_connections(which);
    }

    /// Connections of several sessions are told that they get no more.
    fn close_connections(&self, which: impl Fn(SocketAddr) -> bool) {
        for (address, closing) in self.connections.borrow().values() {
            if which(*address) {
                closing.notify_one();
            }
        }
    }

    fn address_held(&self, address: IpAddr, held: bool) {
        let now = Instant::now();
        if held {
            self.lost.borrow_mut().remove(&address);
        } else if let Entry::Vacant(lost) = self.lost.borrow_mut().entry(address) {
            lost.insert(now);
            // Clients that cannot be reached never end them.
            self.close_connections(|at| at.ip() == address);
        }
        for control in self.sessions.borrow().values() {
            if control.gate.address.ip() != address {
                continue;
            }
            let lost = control.lost_at.get();
            if held == lost.is_some() {
                control.lost_at.set((!held).then_some(now));
                control.revise();
            }
        }
    }

    /// Wakes the sessions that are due; when the next one is.
    fn fire_timers(&self, now: Instant) -> Option<Instant> {
        let mut timers = self.timers.borrow_mut();
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

    /// Has a session woken at `at` and not before; `None`: by no timer.
    pub(crate) fn set_timer(&self, control: &Control, at: Option<Instant>) {
        let old = control.timer.replace(at);
        if old == at {
            return;
        }
        let mut timers = self.timers.borrow_mut();
        if let Some(old) = old {
            timers.remove(&(old, control.id));
        }
        if let Some(at) = at {
            timers.insert((at, control.id));
            if at < self.looks_at.get() {
                self.timers_changed.notify_one();
            }
        }
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

    /// Runs a handshake, which ends with its listener.
    pub(crate) fn begin<F>(self: &Rc<Self>, route: &Route, handshake: impl FnOnce() -> F + 'static)
    where
        F: Future<Output = HandshakeResult>,
    {
        let id = self.next_id();
        let guard = Opening {
            worker: Rc::clone(self),
            id,
            stats: Arc::clone(&route.stats),
            result: Cell::new(HandshakeResult::ListenerGone),
        };
        // Made where it is awaited: one that was made before would have its room twice in the task.
        let task = tokio::task::spawn_local(async move {
            guard.result.set(handshake().await);
        });
        self.opening
            .borrow_mut()
            .insert(id, (route.gate.address, task.abort_handle()));
    }

    /// The listener at `address`, if its clients that offer HTTP/2 get it now.
    pub(crate) fn http2_route(&self, address: SocketAddr) -> Option<Arc<Route>> {
        let offers = |route: &Arc<Route>| route.tls.as_ref().is_some_and(ServerTls::offers_http2);
        self.route(address).filter(offers)
    }

    /// What a connection of several sessions learns from that no more of them are to begin.
    pub(crate) fn watch_closing(self: &Rc<Self>, address: SocketAddr) -> Closing {
        let id = self.next_id();
        let closing = Rc::new(Notify::new());
        let watched = (address, Rc::clone(&closing));
        self.connections.borrow_mut().insert(id, watched);
        Closing {
            worker: Rc::clone(self),
            id,
            told: closing,
        }
    }

    /// Takes a session in, whose client came at `begun`; it runs until it is over.
    pub(crate) fn adopt(self: &Rc<Self>, control: &Rc<Control>, session: Session, begun: Instant) {
        self.stats(&control.stats).opened.add(1);
        self.sessions
            .borrow_mut()
            .insert(control.id, Rc::clone(control));
        // While the handshake was under way the configuration may have changed.
        let pool = Arc::clone(&control.pool.borrow());
        match self.route(control.gate.address) {
            Some(route) if route.pool.name == pool.name => {
                *control.pool.borrow_mut() = Arc::clone(&route.pool);
                self.set_age(control, route.pool.limits.session_age);
                if !control.lease.endpoint.keeps_sessions() {
                    control.drain_at.set(Some(Instant::now()));
                }
            }
            _ => control.end(End::listener_gone(&pool)),
        }
        // One that came later has come by an address that is there again.
        let lost = self.lost.borrow().get(&control.gate.address.ip()).copied();
        control.lost_at.set(lost.filter(|lost| *lost >= begun));
        control.due.set(true);
        tokio::task::spawn_local(session);
    }

    /// A session is over.
    pub(crate) fn forget(&self, control: &Control, by: Ended, class: CodeClass) {
        self.set_timer(control, None);
        self.sessions.borrow_mut().remove(&control.id);
        let stats = self.stats(&control.stats);
        stats.closed.add(1);
        stats.ended(by, class);
        self.endpoint_stats(&control.lease.endpoint).ended(by);
    }

    /// A session to this endpoint broke: is it still there?
    pub(crate) fn suspect(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.is_reachable() {
            endpoint::check(endpoint, &self.shared);
        }
    }
}

fn answer<T>(done: &mpsc::Sender<T>, report: T) {
    if done.send(report).is_err() {
        tracing::debug!("nobody waits for the answer to an order any more");
    }
}

/// Sessions of a pool whose endpoints go.
#[derive(Default)]
struct Going {
    /// Those that do not know yet when they are told.
    sessions: Vec<Rc<Control>>,
    /// When the last of the others is.
    busy: Option<Instant>,
}

/// A handshake under way, in the books of its worker until it is dropped.
struct Opening {
    worker: Rc<Worker>,
    id: u64,
    stats: Arc<ListenerStats>,
    result: Cell<HandshakeResult>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.worker.opening.borrow_mut().remove(&self.id);
        let stats = self.worker.stats(&self.stats);
        stats.handshake(self.result.get());
    }
}

/// Whether the listener of a connection was closed, or its address lost, since it came.
pub(crate) struct Closing {
    worker: Rc<Worker>,
    id: u64,
    told: Rc<Notify>,
}

impl Closing {
    /// Ends when it is.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Patience;

    #[test]
    fn connections_that_come_together_are_drawn_each_by_itself() {
        let shared = Shared::new(1, None, None, Patience::default());
        let worker = Worker::new(0, Arc::new(shared));
        let drawn = (0..64).filter(|_| worker.draws(50)).count();
        assert!((1..64).contains(&drawn), "{drawn} of 64");
    }
}
