//! The configuration in use, with the counts and health that outlive a change of it.
//!
//! A [`State`] is immutable and replaced as a whole. Endpoints and gates in it are shared with the
//! states before and after, as long as pool and address are the same: edits keep what is known.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak, atomic::AtomicUsize, mpsc},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    balance::Turn,
    config::{self, Balancing, Config, Drain, Heartbeat, Phase},
    endpoint::Endpoint,
    limits::{Admission, Limits},
    observe::{Event, ListenerProblem},
    proxy::Patience,
    proxy_protocol,
    record::Record,
    stats::WorkerStats,
    times::WorkerTimes,
    tls::ServerTls,
};

/// What is served now.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    pub(crate) routes: HashMap<SocketAddr, Arc<Route>>,
    /// Addresses in the order of the configuration.
    pub(crate) order: Vec<SocketAddr>,
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) upstream: Upstream,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) drain: Drain,
    pub(crate) access_log: Option<u8>,
    /// What each worker measured.
    pub(crate) times: Arc<[WorkerTimes]>,
    pub(crate) limits: Limits,
    pub(crate) admission: Arc<Admission>,
}

/// Its servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) balancing: Balancing,
    pub(crate) slow_start: Duration,
    /// Live sessions that an endpoint gets at most.
    pub(crate) endpoint_sessions: Option<usize>,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) proxy_protocol: Option<proxy_protocol::Version>,
    pub(crate) turn: Arc<Mutex<Turn>>,
}

/// Where clients of an address are brought.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) listener: String,
    pub(crate) allowed_origins: Arc<[String]>,
    pub(crate) trusted_proxies: Arc<[IpNet]>,
    pub(crate) proxy_protocol: bool,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) gate: Arc<Gate>,
}

/// An address on which clients are accepted, over all workers.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    pub(crate) sessions: AtomicUsize,
    standing: Mutex<Standing>,
}

/// How an address stands.
#[derive(Debug, Default)]
struct Standing {
    accepting: bool,
    /// Why it does not accept.
    problem: Option<ListenerProblem>,
    /// Acceptors, over all workers, that find no descriptors.
    starving: usize,
}

impl Standing {
    fn told(&self) -> (bool, Option<ListenerProblem>) {
        let starves = self.accepting && self.starving > 0;
        let problem = if starves {
            Some(ListenerProblem::OutOfDescriptors)
        } else {
            self.problem
        };
        (self.accepting, problem)
    }
}

impl Gate {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sessions: AtomicUsize::new(0),
            standing: Mutex::default(),
        }
    }

    /// Whether it accepts, and what is wrong.
    pub(crate) fn standing(&self) -> (bool, Option<ListenerProblem>) {
        self.locked().told()
    }

    fn locked(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identity of an endpoint: the name of its pool and where it listens.
type EndpointKey = (String, SocketAddr);

/// Builds states, and remembers what they share.
#[derive(Debug)]
pub(crate) struct Compiler {
    workers: usize,
    endpoints: HashMap<EndpointKey, Weak<Endpoint>>,
}

/// Endpoints with what the new configuration says of them; `None`: they are not in it.
pub(crate) type Listed = Vec<(Arc<Endpoint>, Option<(u16, Phase)>)>;

impl Compiler {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            endpoints: HashMap::new(),
        }
    }

    /// The state for a checked configuration. What it says of endpoints is for the caller to tell
    /// them, once the state is in use: those that served until then are to be chosen until then.
    pub(crate) fn compile(&mut self, config: &Config, old: &State) -> (State, Listed) {
        let mut listed = Listed::new();
        let mut state = State::default();
        for (name, settings) in &config.pools {
            let before = old.pools.get(name);
            let turn = before.map(|pool| Arc::clone(&pool.upstream.turn));
            let times = before.map(|pool| Arc::clone(&pool.times));
            let admission = before.map(|pool| Arc::clone(&pool.admission));
            let pool = Arc::new(Pool {
                name: name.clone(),
                upstream: Upstream {
                    name: settings.upstream.name.clone(),
                    endpoints: self.endpoints(name, &settings.upstream, &mut listed),
                    balancing: settings.upstream.balancing.clone(),
                    slow_start: settings.upstream.slow_start,
                    endpoint_sessions: settings
                        .upstream
                        .endpoint_sessions
                        .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
                    connect_timeout: settings.upstream.connect_timeout,
                    handshake_timeout: settings.upstream.handshake_timeout,
                    proxy_protocol: settings.upstream.proxy_protocol,
                    turn: turn.unwrap_or_default(),
                },
                heartbeat: settings.heartbeat,
                drain: settings.drain,
                access_log: settings.access_log,
                times: times.unwrap_or_else(|| unmeasured(self.workers)),
                limits: settings.limits,
                admission: admission.unwrap_or_default(),
            });
            for listener in &settings.listeners {
                let allowed_origins: Arc<[String]> = listener.allowed_origins.clone().into();
                let trusted_proxies: Arc<[IpNet]> = listener.trusted_proxies.clone().into();
                for address in &listener.addresses {
                    let gate = old.routes.get(address).map(|route| Arc::clone(&route.gate));
                    let route = Route {
                        listener: listener.name.clone(),
                        allowed_origins: Arc::clone(&allowed_origins),
                        trusted_proxies: Arc::clone(&trusted_proxies),
                        proxy_protocol: listener.proxy_protocol,
                        tls: listener.tls.clone(),
                        pool: Arc::clone(&pool),
                        gate: gate.unwrap_or_else(|| Arc::new(Gate::new(*address))),
                    };
                    state.routes.insert(*address, Arc::new(route));
                    state.order.push(*address);
                }
            }
            state.pools.insert(name.clone(), pool);
        }
        self.endpoints.retain(|(pool, address), endpoint| {
            let is_listed = config.pools.get(pool).is_some_and(|pool| {
                let mut endpoints = pool.upstream.endpoints.iter();
                endpoints.any(|endpoint| endpoint.address == *address)
            });
            let Some(endpoint) = endpoint.upgrade() else {
                return false;
            };
            if !is_listed {
                listed.push((endpoint, None));
            }
            true
        });
        (state, listed)
    }

    fn endpoints(
        &mut self,
        pool: &str,
        upstream: &config::Upstream,
        listed: &mut Listed,
    ) -> Vec<Arc<Endpoint>> {
        let resolve = |wanted: &config::Endpoint| {
            let key = (pool.to_owned(), wanted.address);
            let known = self.endpoints.get(&key).and_then(Weak::upgrade);
            let endpoint = known.unwrap_or_else(|| {
                let endpoint = Arc::new(Endpoint::new(wanted.address));
                self.endpoints.insert(key, Arc::downgrade(&endpoint));
                endpoint
            });
            endpoint.secure(upstream);
            let says = (wanted.weight, wanted.phase);
            listed.push((Arc::clone(&endpoint), Some(says)));
            endpoint
        };
        upstream.endpoints.iter().map(resolve).collect()
    }
}

fn unmeasured(workers: usize) -> Arc<[WorkerTimes]> {
    (0..workers).map(|_| WorkerTimes::default()).collect()
}

/// What all threads of the proxy see.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<Arc<State>>,
    events: Option<mpsc::Sender<Event>>,
    usable: Mutex<BTreeMap<String, usize>>,
    pub(crate) records: Option<mpsc::SyncSender<Box<Record>>>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    pub(crate) patience: Patience,
}

impl Shared {
    pub(crate) fn new(
        workers: usize,
        events: Option<mpsc::Sender<Event>>,
        records: Option<mpsc::SyncSender<Box<Record>>>,
        patience: Patience,
    ) -> Self {
        Self {
            patience,
            state: RwLock::default(),
            events,
            records,
            usable: Mutex::default(),
            stats: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace_state(&self, state: Arc<State>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn emit(&self, event: Event) {
        if let Some(events) = &self.events {
            // A caller that no longer listens does not want to know.
            drop(events.send(event));
        }
    }

    /// Tells of pools whose number of usable endpoints is not what was told last.
    pub(crate) fn publish_usable(&self) {
        let mut told = self.told();
        let state = self.state();
        told.retain(|pool, _| state.pools.contains_key(pool));
        for (name, pool) in &state.pools {
            let endpoints = &pool.upstream.endpoints;
            let mut count = endpoints.iter().filter(|e| e.is_sound()).count();
            let before = told.get(name).copied();
            // Nothing is known yet of those that took the place of the others: no reason to think
            // that this host has lost its way to all of them.
            if count == 0 && endpoints.iter().any(|e| e.is_untried()) {
                count = before.unwrap_or(0);
            }
            if before != Some(count) {
                told.insert(name.clone(), count);
                self.emit(Event::UsableEndpoints {
                    pool: name.clone(),
                    count,
                });
            }
        }
    }

    /// Usable endpoints by pool, as told last.
    pub(crate) fn told(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.usable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records and tells whether an address accepts, if that is news.
    pub(crate) fn gate_is(&self, gate: &Gate, accepting: bool, problem: Option<ListenerProblem>) {
        self.change(gate, |standing| {
            standing.accepting = accepting;
            standing.problem = problem;
        });
    }

    /// One more acceptor of an address finds no descriptors, or one less.
    pub(crate) fn gate_starves(&self, gate: &Gate, starves: bool) {
        self.change(gate, |standing| {
            standing.starving = if starves {
                standing.starving + 1
            } else {
                standing.starving.saturating_sub(1)
            };
        });
    }

    fn change(&self, gate: &Gate, change: impl FnOnce(&mut Standing)) {
        let mut standing = gate.locked();
        let before = standing.told();
        change(&mut standing);
        let (accepting, problem) = standing.told();
        if before != (accepting, problem) {
            self.emit(Event::ListenerState {
                address: gate.address,
                accepting,
                problem,
            });
        }
    }
}
