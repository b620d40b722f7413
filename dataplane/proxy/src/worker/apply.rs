//! A new configuration: listeners, and what becomes of the sessions that are there.

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::Worker;
use crate::{
    drain::Schedule,
    listener,
    live::State,
    session::{Control, End},
};

impl Worker {
    /// Gives the addresses of which the socket was opened.
    pub(super) fn apply(
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
        self.apply_to_requests(state);
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
    pub(super) fn set_age(&self, control: &Control, most: Option<Duration>) {
        let at = most.map(|most| {
            let part = self.secret.hash_one(control.id) & 0xffff;
            let part = most / 10 * u32::try_from(part).unwrap_or(0) / 0x1_0000;
            (control.begun + most.saturating_sub(part)).max(Instant::now() + part)
        });
        control.old_at.set(at);
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
