//! The configuration in use, with the counts and health that outlive a change of it.
//!
//! A [`State`] is immutable and replaced as a whole. Endpoints and gates in it are shared with the
//! states before and after, as long as pool and address are the same: edits keep what is known.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    balance::{SharedState, rebalance::Rebalancing},
    config::{self, Balancing, Config, Drain, Heartbeat, PlainRequests},
    endpoint::Endpoint,
    health::Health,
    limits::{Admission, Gateway, Limits},
    observe::{Event, ListenerProblem},
    proxy::Patience,
    proxy_protocol,
    record::Record,
    roster::{Listed, Roster},
    routing::Routing,
    stats::{Ledger, ListenerStats},
    times::{OpeningTimes, WorkerTimes},
    tls::ServerTls,
};

/// What is served now.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    // A handshake looks here several times, mostly among few.
    pub(crate) routes: BTreeMap<SocketAddr, Arc<Route>>,
    /// Addresses in the order of the configuration.
    pub(crate) order: Vec<SocketAddr>,
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Endpoints that are not listed any more and had sessions when it was said so.
    pub(crate) gone: Vec<Gone>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) drain: Drain,
    pub(crate) access_log: Option<u8>,
    /// What each worker measured.
    pub(crate) times: Arc<[WorkerTimes]>,
    pub(crate) limits: Limits,
    pub(crate) admission: Arc<Admission>,
}

/// An endpoint that was taken away.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// The upstream it belonged to, which may be gone as well.
    pub(crate) upstream: String,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// A group of its servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Whether any request goes there.
    pub(crate) is_routed: bool,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) balancing: Balancing,
    pub(crate) slow_start: Duration,
    /// Live sessions that an endpoint gets at most.
    pub(crate) endpoint_sessions: Option<usize>,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) proxy_protocol: Option<proxy_protocol::Version>,
    pub(crate) health: Health,
    pub(crate) min_near_percent: Option<u8>,
    pub(crate) turn: Arc<Mutex<SharedState>>,
    pub(crate) rebalancing: Option<Rebalancing>,
    /// What each worker measured.
    pub(crate) times: Arc<[OpeningTimes]>,
}

/// Where clients of an address are brought.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) listener: String,
    pub(crate) allowed_origins: Arc<[String]>,
    pub(crate) trusted_proxies: Arc<[IpNet]>,
    pub(crate) proxy_protocol: bool,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) plain_requests: Option<PlainRequests>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<ListenerStats>,
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

/// Builds states, and remembers what they share.
#[derive(Debug)]
pub(crate) struct Compiler {
    workers: usize,
    roster: Roster,
}

impl Compiler {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            roster: Roster::new(workers),
        }
    }

    /// The state for a checked configuration. What it says of endpoints is for the caller to tell
    /// them, once the state is in use: those that served until then are to be chosen until then.
    pub(crate) fn compile(
        &mut self,
        config: &Config,
        old: &State,
        ledger: &Ledger,
    ) -> (State, Listed) {
        let mut listed = Listed::new();
        let mut state = State::default();
        for (name, settings) in &config.pools {
            let before = old.pools.get(name);
            let times = before.map(|pool| Arc::clone(&pool.times));
            let admission = before.map(|pool| Arc::clone(&pool.admission));
            let endpoints = self.roster.enrol(name, &settings.upstreams, &mut listed);
            let gone = before.map(|pool| pool.gone(&endpoints));
            let upstreams = settings.upstreams.iter().zip(endpoints);
            let upstreams = upstreams.map(|(upstream, endpoints)| {
                let before = before.and_then(|pool| pool.upstream(&upstream.name));
                let is_routed = settings.is_routed(&upstream.name);
                Arc::new(Upstream::new(
                    upstream,
                    endpoints,
                    is_routed,
                    before,
                    self.workers,
                ))
            });
            let pool = Arc::new(Pool {
                name: name.clone(),
                upstreams: upstreams.collect(),
                gone: gone.unwrap_or_default(),
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
                let routing = Arc::new(Routing::new(&listener.routes, &pool.upstreams));
                let counters = ledger.of(name, &listener.name);
                for address in &listener.addresses {
                    let gate = old.routes.get(address).map(|route| Arc::clone(&route.gate));
                    let route = Route {
                        listener: listener.name.clone(),
                        allowed_origins: Arc::clone(&allowed_origins),
                        trusted_proxies: Arc::clone(&trusted_proxies),
                        proxy_protocol: listener.proxy_protocol,
                        tls: listener.tls.clone(),
                        routing: Arc::clone(&routing),
                        plain_requests: listener.plain_requests,
                        pool: Arc::clone(&pool),
                        gate: gate.unwrap_or_else(|| Arc::new(Gate::new(*address))),
                        stats: Arc::clone(&counters),
                    };
                    state.routes.insert(*address, Arc::new(route));
                    state.order.push(*address);
                }
            }
            state.pools.insert(name.clone(), pool);
        }
        self.roster.dismiss_others(config, &mut listed);
        (state, listed)
    }
}

impl Pool {
    fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// Those of this pool that are not among `listed`, which its upstreams have from now on, and still
    /// have sessions, or soon will.
    fn gone(&self, listed: &[Vec<Arc<Endpoint>>]) -> Vec<Gone> {
        let own = self.upstreams.iter().flat_map(|upstream| {
            let endpoints = upstream.endpoints.iter();
            endpoints.map(move |endpoint| Gone {
                upstream: upstream.name.clone(),
                endpoint: Arc::clone(endpoint),
            })
        });
        let is_gone = |gone: &Gone| {
            let endpoint = &gone.endpoint;
            let mut listed = listed.iter().flatten();
            let is_listed = listed.any(|other| Arc::ptr_eq(other, endpoint));
            !is_listed && endpoint.load.load(Relaxed) > 0
        };
        let all = own.chain(self.gone.iter().cloned());
        all.filter(is_gone).collect()
    }
}

impl Upstream {
    /// `before`: the one with its name in the state before.
    fn new(
        settings: &config::Upstream,
        endpoints: Vec<Arc<Endpoint>>,
        is_routed: bool,
        before: Option<&Arc<Self>>,
        workers: usize,
    ) -> Self {
        let turn = before.map(|upstream| Arc::clone(&upstream.turn));
        let times = before.map(|upstream| Arc::clone(&upstream.times));
        Self {
            name: settings.name.clone(),
            is_routed,
            endpoints,
            balancing: settings.balancing.clone(),
            slow_start: settings.slow_start,
            endpoint_sessions: settings
                .endpoint_sessions
                .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            connect_timeout: settings.connect_timeout,
            handshake_timeout: settings.handshake_timeout,
            proxy_protocol: settings.proxy_protocol,
            health: settings.health.clone(),
            min_near_percent: settings.min_near_percent,
            turn: turn.unwrap_or_default(),
            rebalancing: settings.rebalance.map(|settings| {
                let before = before.and_then(|upstream| upstream.rebalancing.as_ref());
                Rebalancing::new(settings, before)
            }),
            times: times.unwrap_or_else(|| unmeasured(workers)),
        }
    }

    /// One without endpoints.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, balancing: Balancing) -> Self {
        let settings = config::Upstream::for_tests(name, balancing);
        Self::new(&settings, Vec::new(), true, None, 1)
    }
}

fn unmeasured<Times: Default>(workers: usize) -> Arc<[Times]> {
    (0..workers).map(|_| Times::default()).collect()
}

/// Usable endpoints by pool and upstream.
pub(crate) type Told = BTreeMap<(String, String), usize>;

/// What all threads of the proxy see.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<Arc<State>>,
    events: Option<mpsc::Sender<Event>>,
    usable: Mutex<Told>,
    pub(crate) records: Option<mpsc::SyncSender<Box<Record>>>,
    /// When the proxy was started.
    pub(crate) begun: Instant,
    /// How many workers there are.
    pub(crate) workers: usize,
    pub(crate) ledger: Ledger,
    /// Access records that were lost.
    pub(crate) unrecorded: AtomicU64,
    /// Workers whose sessions are read by a ring.
    pub(crate) rings: AtomicUsize,
    pub(crate) patience: Patience,
    pub(crate) gateway: Arc<Gateway>,
}

impl Shared {
    pub(crate) fn new(
        workers: usize,
        events: Option<mpsc::Sender<Event>>,
        records: Option<mpsc::SyncSender<Box<Record>>>,
        patience: Patience,
        gateway: Arc<Gateway>,
    ) -> Self {
        Self {
            patience,
            gateway,
            state: RwLock::default(),
            events,
            records,
            usable: Mutex::default(),
            begun: Instant::now(),
            workers,
            ledger: Ledger::new(workers),
            unrecorded: AtomicU64::new(0),
            rings: AtomicUsize::new(0),
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

    /// Tells of upstreams whose number of usable endpoints is not what was told last.
    pub(crate) fn publish_usable(&self) {
        let mut told = self.told();
        let state = self.state();
        told.retain(|(pool, upstream), _| {
            let pool = state.pools.get(pool);
            pool.is_some_and(|pool| pool.upstream(upstream).is_some())
        });
        for (name, pool) in &state.pools {
            for upstream in &pool.upstreams {
                let key = (name.clone(), upstream.name.clone());
                let endpoints = &upstream.endpoints;
                let mut count = endpoints.iter().filter(|e| e.is_sound()).count();
                let before = told.get(&key).copied();
                // Nothing is known yet of those that took the place of the others: no reason to think
                // that this host has lost its way to all of them.
                if count == 0 && endpoints.iter().any(|e| e.is_untried()) {
                    count = before.unwrap_or(0);
                }
                if before != Some(count) {
                    told.insert(key, count);
                    self.emit(Event::UsableEndpoints {
                        pool: name.clone(),
                        upstream: upstream.name.clone(),
                        count,
                    });
                }
            }
        }
    }

    /// Tells that an endpoint is found well, or no longer.
    pub(crate) fn endpoint_changed(&self, address: SocketAddr) {
        self.emit(Event::EndpointHealth { address });
    }

    /// Usable endpoints by pool and upstream, as told last.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
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
