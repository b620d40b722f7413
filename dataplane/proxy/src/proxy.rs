//! The handle that the rest of the process holds: commands in, answers out.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc as orders;

use crate::{
    balance::locked,
    config::{Config, ConfigError},
    endpoint::Endpoint,
    limits::{Gateway, GatewayLimits, Limit},
    live::{Compiler, Shared},
    observe::{
        EndpointSnapshot, Event, LimitSnapshot, ListenerCounters, ListenerProblem,
        ListenerSnapshot, PoolSnapshot, Snapshot, UpstreamSnapshot,
    },
    record::Record,
    ring::Ring,
    stats::Counters,
    times::{PoolTimes, UpstreamTimes},
    worker::{self, Order},
};

/// How long a worker may take to obey. It does so within microseconds unless it hangs.
const OBEY: Duration = Duration::from_secs(2);

/// Orders that may wait for a worker.
const QUEUE: usize = 256;

/// Called by each worker with its number about every 100 ms.
pub type Beat = Arc<dyn Fn(usize) + Send + Sync>;

/// How long peers may take over the end of a session.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a side to answer a Close and to end its connection, and between two pieces of a frame
    /// that a Close waits for.
    pub close: Duration,
    /// Silence of both sides once one has ended its half without a Close of ours.
    pub half: Duration,
    /// For a client to keep a connection of HTTP/2 without a stream: so long at least, less than twice
    /// as long.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            close: Duration::from_secs(5),
            half: Duration::from_secs(30),
            idle: Duration::from_mins(1),
        }
    }
}

/// How to run.
pub struct Options {
    /// Threads that relay; one per core is right.
    pub workers: usize,
    /// Called by each worker's event loop with the worker's number (from 0) about every 100 ms:
    /// shows that the loop which accepts and relays still turns.
    pub beat: Beat,
    /// Where [`Event`]s go.
    pub events: Option<mpsc::Sender<Event>>,
    /// Where [`Record`]s go, of pools that want them. Those for which it has no room are counted, and
    /// gone.
    pub records: Option<mpsc::SyncSender<Box<Record>>>,
    /// Bounds of the ends of sessions.
    pub patience: Patience,
    /// What all pools together may take.
    pub limits: GatewayLimits,
    /// What sessions without TLS are read by: one for each worker, or none, and they are read by epoll.
    pub rings: Vec<Ring>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Why the proxy cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No worker was asked for.
    #[error("the proxy needs at least one worker")]
    NoWorkers,
    /// A thread could not be started.
    #[error("cannot start worker {worker}")]
    Start {
        /// Number of the worker.
        worker: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration was refused; the one before serves on.
    #[error("configuration refused")]
    Config(#[from] ConfigError),
    /// A worker did not obey in time: it hangs, or has ended.
    #[error("worker {worker} did not obey in time")]
    WorkerSilent {
        /// Number of the worker.
        worker: usize,
    },
}

/// What a planned stop of addresses achieved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LeaveReport {
    /// Sessions that were told.
    pub sessions: usize,
    /// Of these, sessions whose client acknowledged everything sent, the Close included.
    pub acknowledged: usize,
    /// Time it took.
    pub elapsed: Duration,
}

/// A running proxy. Dropping it ends all sessions and joins the workers.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    applied: Mutex<Applied>,
}

struct WorkerHandle {
    orders: orders::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// What only the caller's side knows.
struct Applied {
    /// What all workers serve; `None`: not all of them have obeyed.
    config: Option<Config>,
    compiler: Compiler,
    /// Addresses whose sockets the workers hold.
    open: BTreeSet<SocketAddr>,
    /// Addresses that were left in order and not opened since.
    left: BTreeSet<SocketAddr>,
}

impl Applied {
    fn new(workers: usize) -> Self {
        Self {
            config: None,
            compiler: Compiler::new(workers),
            open: BTreeSet::new(),
            left: BTreeSet::new(),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts the workers. They serve nothing until [`Proxy::apply`].
    pub fn start(options: Options) -> Result<Self, Error> {
        let Options {
            workers,
            beat,
            events,
            records,
            patience,
            limits,
            mut rings,
        } = options;
        if workers == 0 {
            return Err(Error::NoWorkers);
        }
        let shared = Arc::new(Shared::new(
            workers,
            events,
            records,
            patience,
            Gateway::new(limits),
        ));
        let start = |index| {
            let (sender, receiver) = orders::channel(QUEUE);
            let (shared, beat, ring) = (Arc::clone(&shared), Arc::clone(&beat), rings.pop());
            let thread = worker::spawn(index, shared, beat, ring, receiver).map_err(|source| {
                Error::Start {
                    worker: index,
                    source,
                }
            })?;
            Ok(WorkerHandle {
                orders: sender,
                thread: Some(thread),
            })
        };
        let workers = (0..workers).map(start).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            shared,
            applied: Mutex::new(Applied::new(workers.len())),
            workers,
        })
    }

    /// Makes `config` what is served, and returns once every worker does so.
    ///
    /// `sockets` are listening sockets for addresses that [`Proxy::missing_sockets`] named, bound
    /// with `SO_REUSEPORT`, one per worker. Those of an address that is open already or not
    /// configured are closed. An address without sockets that can be used does not accept and says
    /// so; it stays among the missing.
    ///
    /// New connections see the change at once. Established sessions end only when their endpoint
    /// was removed or is terminating (over `drain.timeout`), or their address or pool was removed.
    pub fn apply(
        &self,
        config: Config,
        sockets: Vec<(SocketAddr, Vec<TcpListener>)>,
    ) -> Result<(), Error> {
        config.check()?;
        let mut applied = self.applied();
        if applied.config.as_ref() == Some(&config) && sockets.is_empty() {
            return Ok(());
        }
        let old = self.shared.state();
        let ledger = &self.shared.ledger;
        let (state, listed) = applied.compiler.compile(&config, &old, ledger);
        let state = Arc::new(state);
        self.shared.replace_state(Arc::clone(&state));
        let check = listed
            .into_iter()
            .filter_map(|(endpoint, says)| endpoint.update(says).then_some(endpoint));
        // One worker is enough to look whether endpoints answer.
        let mut check = Some(check.collect::<Vec<_>>());

        let routes = &state.routes;
        applied.open.retain(|address| routes.contains_key(address));
        applied.left.retain(|address| routes.contains_key(address));
        let mut shares: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut opening = BTreeSet::new();
        for (address, listeners) in sockets {
            if listeners.is_empty()
                || !routes.contains_key(&address)
                || !applied.open.insert(address)
            {
                continue;
            }
            applied.left.remove(&address);
            opening.insert(address);
            for (i, listener) in listeners.into_iter().enumerate() {
                shares[i % self.workers.len()].push((address, listener));
            }
        }

        let mut shares = shares.into_iter();
        let answers = self.order(OBEY, |done| Order::Apply {
            state: Arc::clone(&state),
            sockets: shares.next().unwrap_or_default(),
            check: check.take().unwrap_or_default(),
            done,
        });
        // One worker that accepts on an address is enough for its clients to be served.
        for address in answers.iter().flatten().flatten() {
            opening.remove(address);
        }
        for address in &opening {
            applied.open.remove(address);
        }
        for (address, route) in routes {
            let problem = if applied.open.contains(address) {
                None
            } else if opening.contains(address) {
                Some(ListenerProblem::BadSocket)
            } else if applied.left.contains(address) {
                Some(ListenerProblem::Left)
            } else {
                Some(ListenerProblem::NoSocket)
            };
            self.shared.gate_is(&route.gate, problem.is_none(), problem);
        }
        self.shared.publish_usable();
        let obeyed: Result<Vec<_>, Error> = answers.into_iter().collect();
        applied.config = obeyed.is_ok().then_some(config);
        obeyed.map(drop)
    }

    /// Addresses of `config` for which [`Proxy::apply`] needs sockets: those not open now.
    pub fn missing_sockets(&self, config: &Config) -> Vec<SocketAddr> {
        let applied = self.applied();
        let mut missing: Vec<_> = config
            .addresses()
            .filter(|address| !applied.open.contains(address))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Planned stop of the addresses of one virtual router: closes their listeners, sends Close with
    /// the pool's code to their sessions, and waits until the clients have acknowledged everything:
    /// until 5 ms after the last progress and for `limit` at most. Returns as soon as all is
    /// acknowledged. To accept there again, [`Proxy::apply`] with new sockets.
    pub fn leave(&self, addresses: &[IpAddr], limit: Duration) -> Result<LeaveReport, Error> {
        let begun = Instant::now();
        let mut applied = self.applied();
        let closed: Vec<_> = applied
            .open
            .iter()
            .copied()
            .filter(|address| addresses.contains(&address.ip()))
            .collect();
        for address in &closed {
            applied.open.remove(address);
            applied.left.insert(*address);
        }
        drop(applied);
        let addresses: Arc<[IpAddr]> = addresses.into();
        let reports = self.order(limit + OBEY, |done| Order::Leave {
            addresses: Arc::clone(&addresses),
            deadline: begun + limit,
            done,
        });
        let state = self.shared.state();
        for route in closed
            .iter()
            .filter_map(|address| state.routes.get(address))
        {
            self.shared
                .gate_is(&route.gate, false, Some(ListenerProblem::Left));
        }
        let mut sum = LeaveReport::default();
        for report in reports {
            let report: LeaveReport = report?;
            sum.sessions += report.sessions;
            sum.acknowledged += report.acknowledged;
        }
        sum.elapsed = begun.elapsed();
        Ok(sum)
    }

    /// Says whether the host holds an address. Sessions of an address that went without plan are
    /// kept for one heartbeat time-out in case it returns, then ended on the backend's side. Connections
    /// of HTTP/2 take no more of them, and end with those they have.
    pub fn address_held(&self, address: IpAddr, held: bool) -> Result<(), Error> {
        self.order(OBEY, |done| Order::Held {
            address,
            held,
            done,
        })
        .into_iter()
        .collect()
    }

    /// Says whether there is memory left for more sessions; while there is none, those that ask for one are
    /// answered 503.
    pub fn lacks_memory(&self, lacks: bool) {
        self.shared.gateway.lacks_memory(lacks);
    }

    /// What the proxy does at this moment. Never waits for a worker.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.state();
        let mut snapshot = Snapshot::default();
        let routes = state
            .order
            .iter()
            .filter_map(|address| state.routes.get(address));
        snapshot.listeners.extend(routes.map(|route| {
            let (accepting, problem) = route.gate.standing();
            ListenerSnapshot {
                pool: route.pool.name.clone(),
                name: route.listener.clone(),
                address: route.gate.address,
                accepting,
                problem,
                sessions: route.gate.sessions.load(Relaxed) as u64,
            }
        }));
        let told = self.shared.told().clone();
        for (name, pool) in &state.pools {
            let look = |upstream: &String, endpoint: &Endpoint| EndpointSnapshot {
                pool: name.clone(),
                upstream: upstream.clone(),
                address: endpoint.address,
                usable: endpoint.is_usable(),
                problem: endpoint.problem(),
                sessions: endpoint.sessions.load(Relaxed) as u64,
                drained: endpoint.drained(),
                counters: endpoint.stats.sum(),
            };
            for upstream in &pool.upstreams {
                let usable = told.get(&(name.clone(), upstream.name.clone()));
                let mut times = UpstreamTimes::default();
                for worker in upstream.times.iter() {
                    worker.add_to(&mut times);
                }
                snapshot.upstreams.push(UpstreamSnapshot {
                    pool: name.clone(),
                    name: upstream.name.clone(),
                    routed: upstream.is_routed,
                    usable: usable.copied().unwrap_or(0),
                    times,
                    health: locked(&upstream.turn).counts,
                });
                let endpoints = upstream.endpoints.iter();
                let endpoints = endpoints.map(|endpoint| look(&upstream.name, endpoint));
                snapshot.endpoints.extend(endpoints);
            }
            let gone = pool.gone.iter();
            let gone = gone.map(|gone| look(&gone.upstream, &gone.endpoint));
            let gone = gone.filter(|endpoint| endpoint.sessions > 0);
            snapshot.endpoints.extend(gone);
            let mut times = PoolTimes::default();
            for worker in pool.times.iter() {
                worker.add_to(&mut times);
            }
            snapshot.pools.push(PoolSnapshot {
                name: name.clone(),
                times,
            });
            let limits = Limit::ALL.iter().map(|limit| LimitSnapshot {
                pool: name.clone(),
                limit: *limit,
                hits: pool.admission.hits(*limit),
            });
            snapshot
                .limits
                .extend(limits.filter(|limit| limit.hits > 0));
        }
        let books = self.shared.ledger.books();
        snapshot.counters = books.closed().clone();
        for ((pool, listener), stats) in books.each() {
            let mut counters = Counters::default();
            stats.add_to(&mut counters);
            stats.add_to(&mut snapshot.counters);
            snapshot.traffic.push(ListenerCounters {
                pool: pool.clone(),
                listener: listener.clone(),
                counters,
            });
        }
        drop(books);
        snapshot.unrecorded = self.shared.unrecorded.load(Relaxed);
        snapshot.rings = self.shared.rings.load(Relaxed);
        snapshot
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every worker an order and waits for all answers.
    fn order<T>(
        &self,
        limit: Duration,
        mut order: impl FnMut(mpsc::Sender<T>) -> Order,
    ) -> Vec<Result<T, Error>> {
        let deadline = Instant::now() + limit;
        let give = |worker: &WorkerHandle| {
            let (done, answer) = mpsc::channel();
            // A full queue or an ended worker drops `done`: the wait below tells.
            drop(worker.orders.try_send(order(done)));
            answer
        };
        let answers: Vec<_> = self.workers.iter().map(give).collect();
        let wait = |(worker, answer): (usize, mpsc::Receiver<T>)| {
            let left = deadline.saturating_duration_since(Instant::now());
            answer.recv_timeout(left).map_err(
                |(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)| {
                    Error::WorkerSilent { worker }
                },
            )
        };
        answers.into_iter().enumerate().map(wait).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let stopped = self.order(OBEY, |done| Order::Stop { done });
        // A thread that hangs is not waited for: it would take the caller along.
        let all_stopped = stopped.iter().all(Result::is_ok);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take().filter(|_| all_stopped) {
                drop(thread.join());
            }
        }
    }
}
