//! The proxy that serves an agent: one loop over what agent, vrrp and the relay say.
//!
//! The main thread runs it, since the life mutexes belong to a thread that must live as long as
//! the process. Threads beside it only receive and pass on.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use node_api::{Keys, Pool, PoolRef};

use crate::{
    cli::Io,
    ipc::{FromProxy, Hello, PROXY_SOCKET, ProxyReport, ToProxy, UsableEndpoints, VrrpToProxy},
    proxy::{
        Ending, LEAVE_LIMIT,
        access_log::AccessLog,
        ceilings::Ceilings,
        convert::Desired,
        made::Made,
        pairing::{Beats, Pairing},
        report,
        rings::Rings,
    },
    sys::{channel::Channel, memory::Shared, outgoing, pages::WorkerBeats, privileges, signals},
};

/// How long the agent may leave its socket full before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two reports that nobody asked for.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// With the agent gone, how long vrrp may take from one address to the next before the proxy stops
/// on its own. vrrp waits for the proxy's answer, an advertisement and the kernel: milliseconds.
const LEAD_PATIENCE: Duration = Duration::from_secs(3);

/// Inputs that may wait for the loop; whoever sends more waits too.
const QUEUE: usize = 64;

/// What the loop reacts to.
#[derive(Debug)]
pub(super) enum Input {
    Agent(ToProxy, Vec<OwnedFd>),
    AgentGone,
    /// From the vrrp of the pairing with this number.
    Vrrp(u64, VrrpToProxy),
    VrrpGone(u64),
    /// A listener or an endpoint changed.
    Changed,
}

/// Serves the agent of `run_dir` until it says to leave, or is gone. Beats on the page with the
/// descriptor `beats`, too, where the process was started with one.
pub(super) fn run(
    run_dir: &Path,
    workers: usize,
    io: Io,
    beats: Option<i32>,
    limits: proxy::GatewayLimits,
) -> anyhow::Result<Ending> {
    signals::ignore_stop().context("cannot ignore signals")?;
    let ceilings = Ceilings::find(workers);
    let parent = beats.map(|number| begin_to_beat(number, workers));
    let parent = parent.transpose().context("cannot use --beats")?;
    let path = run_dir.join(PROXY_SOCKET);
    let socket = UnixStream::connect(&path)
        .with_context(|| format!("cannot reach the agent at {}", path.display()))?;
    let watched = socket.try_clone()?;
    let agent = Channel::new(socket, PATIENCE)?;
    agent.send(&Hello::Proxy { workers }, &[])?;
    let rings = Rings::open(io, workers);
    privileges::give_up_all(rings.calls())?;
    tracing::info!(
        workers,
        open_files = ceilings.open_files,
        memory = ceilings.memory(),
        "proxy started"
    );

    let (inputs, queue) = mpsc::sync_channel(QUEUE);
    let beats = Arc::new(Beats::default());
    let (records, access_log) = AccessLog::start().context("cannot start the access log")?;
    let relay = proxy::Proxy::start(proxy::Options {
        workers,
        beat: {
            let beats = Arc::clone(&beats);
            Arc::new(move |worker| {
                beats.beat(worker);
                if let Some(page) = parent {
                    page.beat(worker);
                }
            })
        },
        events: Some(pass_events_on(&inputs)?),
        records: Some(records),
        patience: proxy::Patience::default(),
        limits,
        rings: rings.rings,
    })?;
    receive_from_agent(agent.try_clone()?, inputs.clone())?;
    let mut served = Served {
        agent,
        watched,
        relay,
        workers,
        beats,
        inputs,
        ceilings,
        without_rings: rings.refused,
        pools: BTreeMap::new(),
        made: Made::default(),
        refused: HashMap::new(),
        warnings: Vec::new(),
        pairing: None,
        pairings: 0,
        report_due: None,
        last_report: Instant::now(),
        end_by: None,
        told_to_leave: false,
    };
    served.serve(&queue);
    served.leave_all();
    let ending = if served.told_to_leave {
        Ending::Planned
    } else {
        Ending::Alone
    };
    // Sessions end with the relay.
    drop(served);
    access_log.finish();
    Ok(ending)
}

/// The page of the process that started this one.
fn begin_to_beat(number: i32, workers: usize) -> anyhow::Result<&'static WorkerBeats> {
    let page = Shared::<WorkerBeats>::inherited(number)?.leak();
    page.begin(workers);
    Ok(page)
}

/// Threads that pass on what arrives elsewhere.
fn receive_from_agent(agent: Channel, inputs: SyncSender<Input>) -> io::Result<()> {
    let receive = move || {
        loop {
            let input = match agent.receive::<ToProxy>() {
                Ok(Some((message, fds))) => Input::Agent(message, fds),
                Ok(None) => Input::AgentGone,
                Err(error) => {
                    tracing::error!(%error, "cannot understand the agent");
                    Input::AgentGone
                }
            };
            let over = matches!(input, Input::AgentGone);
            if inputs.send(input).is_err() || over {
                return;
            }
        }
    };
    let named = thread::Builder::new().name("from-agent".to_owned());
    named.spawn(receive).map(drop)
}

fn pass_events_on(inputs: &SyncSender<Input>) -> io::Result<mpsc::Sender<proxy::Event>> {
    let (events, arriving) = mpsc::channel();
    let inputs = inputs.clone();
    let pass_on = move || {
        while let Ok(event) = arriving.recv() {
            // What changed is read from the relay itself: one word for all that waits is enough.
            let more = arriving.try_iter().count();
            tracing::debug!(?event, more, "the relay changed");
            if inputs.send(Input::Changed).is_err() {
                return;
            }
        }
    };
    let named = thread::Builder::new().name("from-relay".to_owned());
    named.spawn(pass_on)?;
    Ok(events)
}

struct Served {
    agent: Channel,
    /// The agent's socket once more, to see whether it reads.
    watched: UnixStream,
    relay: proxy::Proxy,
    workers: usize,
    beats: Arc<Beats>,
    inputs: SyncSender<Input>,
    ceilings: Ceilings,
    /// Why there are no rings, where they were asked for.
    without_rings: Option<String>,
    /// Pools of the configuration in force, by the relay's name for them.
    pools: BTreeMap<String, PoolRef>,
    /// What their TLS is served with.
    made: Made,
    /// Listeners that the agent could not open, with the reason.
    refused: HashMap<SocketAddr, String>,
    /// What is wrong with the newest configuration.
    warnings: Vec<String>,
    pairing: Option<Pairing>,
    pairings: u64,
    report_due: Option<Instant>,
    last_report: Instant,
    /// Set once the agent is gone: when to stop without vrrp's lead.
    end_by: Option<Instant>,
    told_to_leave: bool,
}

impl Served {
    /// Returns when the process is to leave.
    fn serve(&mut self, queue: &Receiver<Input>) {
        loop {
            let now = Instant::now();
            if self.told_to_leave || self.end_by.is_some_and(|at| at <= now || self.is_led_out()) {
                return;
            }
            if self.report_due.is_some_and(|at| at <= now) {
                self.push_report();
            }
            if let Some(lacks) = self.ceilings.look_at_memory(now) {
                self.relay.lacks_memory(lacks);
                self.report_soon();
            }
            let wake = [self.end_by, self.report_due, self.ceilings.look_due()];
            let wake = wake.into_iter().flatten().min();
            let input = match wake {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => queue.recv_timeout(at.saturating_duration_since(now)),
            };
            match input {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether nothing is left that vrrp could lead out, or no vrrp is there to do so.
    fn is_led_out(&self) -> bool {
        self.pairing.is_none() || self.accepting().is_empty()
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Agent(ToProxy::Pair, fds) => self.pair(fds),
            Input::Agent(
                ToProxy::Configure {
                    sequence,
                    pools,
                    keys,
                    sockets,
                    refused,
                },
                fds,
            ) => {
                let sockets = self.group(sockets, fds);
                self.configure(sequence, (&pools, &keys), sockets, refused);
            }
            Input::Agent(ToProxy::Report, _) => {
                self.send_report();
                return;
            }
            Input::Agent(ToProxy::Leave, _) => {
                self.told_to_leave = true;
                return;
            }
            Input::AgentGone => {
                tracing::info!("the agent is gone: leaving in order");
                self.end_by = Some(Instant::now() + LEAD_PATIENCE);
                self.report_due = None;
                return;
            }
            Input::Vrrp(number, message) if self.is_current(number) => self.obey(message),
            Input::VrrpGone(number) if self.is_current(number) => {
                if self.accepting().is_empty() {
                    tracing::info!("vrrp has left");
                } else {
                    tracing::warn!("vrrp is gone");
                }
                self.pairing = None;
                return;
            }
            // Of a pairing that was replaced.
            Input::Vrrp(..) | Input::VrrpGone(_) => return,
            Input::Changed => {}
        }
        self.tell_vrrp();
        self.report_soon();
    }

    fn report_soon(&mut self) {
        if self.end_by.is_none() {
            let earliest = self.last_report + REPORT_PAUSE;
            self.report_due.get_or_insert(earliest);
        }
    }

    fn is_current(&self, number: u64) -> bool {
        let pairing = self.pairing.as_ref();
        pairing.is_some_and(|pairing| pairing.number == number)
    }

    fn pair(&mut self, fds: Vec<OwnedFd>) {
        self.pairings += 1;
        self.pairing = None;
        let begun = <[OwnedFd; 2]>::try_from(fds)
            .map_err(|fds| io::Error::other(format!("two descriptors expected, not {}", fds.len())))
            .and_then(|fds| {
                Pairing::begin(self.pairings, fds, self.workers, &self.beats, &self.inputs)
            });
        match begun {
            Ok(pairing) => self.pairing = Some(pairing),
            // vrrp sees its end closed, and the agent pairs anew with whoever it starts.
            Err(error) => tracing::error!(%error, "cannot pair with vrrp"),
        }
    }

    /// The sockets that came along, by address.
    fn group(
        &self,
        addresses: Vec<SocketAddr>,
        fds: Vec<OwnedFd>,
    ) -> Vec<(SocketAddr, Vec<TcpListener>)> {
        if fds.len() != addresses.len() * self.workers {
            tracing::error!(
                descriptors = fds.len(),
                addresses = addresses.len(),
                workers = self.workers,
                "sockets do not fit their addresses, none is used"
            );
            return Vec::new();
        }
        let mut fds = fds.into_iter().map(TcpListener::from);
        addresses
            .into_iter()
            .map(|address| (address, fds.by_ref().take(self.workers).collect()))
            .collect()
    }

    fn configure(
        &mut self,
        sequence: u64,
        (pools, keys): (&[(PoolRef, Pool)], &Keys),
        sockets: Vec<(SocketAddr, Vec<TcpListener>)>,
        refused: Vec<(SocketAddr, String)>,
    ) {
        self.made.renew(keys);
        let desired = Desired::new(pools, &mut self.made);
        self.warnings = desired.problems;
        self.refused = refused.into_iter().collect();
        match self.relay.apply(desired.config, sockets) {
            Ok(()) => {}
            // In force all the same, but for a worker that hangs: its missing beats tell vrrp.
            Err(error @ proxy::Error::WorkerSilent { .. }) => {
                tracing::error!(%error, sequence, "configuration is not in force everywhere");
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!("{error:#}");
                self.warnings.push(format!("{error:#}"));
                return;
            }
        }
        self.pools = desired.pools;
        tracing::info!(sequence, pools = pools.len(), "configuration in force");
        self.send(&FromProxy::Applied { sequence });
    }

    fn obey(&mut self, message: VrrpToProxy) {
        match message {
            VrrpToProxy::Leave { addresses } => {
                self.leave(&addresses);
                if self.end_by.is_some() {
                    self.end_by = Some(Instant::now() + LEAD_PATIENCE);
                }
                let answered = self.pairing.as_ref().map(|pairing| pairing.left(addresses));
                if let Some(Err(error)) = answered {
                    self.unpair(&error);
                }
            }
            VrrpToProxy::Held { addresses, held } => {
                for address in addresses {
                    if let Err(error) = self.relay.address_held(address, held) {
                        tracing::error!(%address, held, %error, "cannot pass on what is held");
                    }
                }
            }
        }
    }

    fn leave(&self, addresses: &[IpAddr]) {
        match self.relay.leave(addresses, LEAVE_LIMIT) {
            Ok(proxy::LeaveReport {
                sessions,
                acknowledged,
                elapsed,
            }) => {
                tracing::info!(?addresses, sessions, acknowledged, ?elapsed, "left");
            }
            Err(error) => tracing::error!(?addresses, %error, "cannot leave in order"),
        }
    }

    /// Leaves what no vrrp has led out.
    fn leave_all(&self) {
        let listeners = self.relay.snapshot().listeners;
        let mut addresses: Vec<_> = listeners.iter().map(|l| l.address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.leave(&addresses);
        self.send(&FromProxy::Left);
    }

    fn accepting(&self) -> Vec<SocketAddr> {
        let listeners = self.relay.snapshot().listeners.into_iter();
        let accepting = listeners.filter(|listener| listener.accepting);
        accepting.map(|listener| listener.address).collect()
    }

    fn usable(&self) -> BTreeMap<PoolRef, UsableEndpoints> {
        let pools = self.pools.values();
        let mut usable: BTreeMap<_, _> = pools
            .map(|pool| (pool.clone(), UsableEndpoints::default()))
            .collect();
        for upstream in self.relay.snapshot().upstreams {
            let pool = self.pools.get(&upstream.pool);
            if let Some(pool) = pool.and_then(|pool| usable.get_mut(pool)) {
                if upstream.routed {
                    pool.routed += upstream.usable;
                }
                pool.upstreams.insert(upstream.name, upstream.usable);
            }
        }
        usable
    }

    fn tell_vrrp(&mut self) {
        let (accepting, usable) = (self.accepting(), self.usable());
        let pairing = self.pairing.as_mut();
        if let Some(Err(error)) = pairing.map(|pairing| pairing.tell(accepting, &usable)) {
            self.unpair(&error);
        }
    }

    fn unpair(&mut self, error: &io::Error) {
        tracing::error!(%error, "vrrp does not listen: it is no longer told anything");
        self.pairing = None;
    }

    fn push_report(&mut self) {
        // An agent that hangs is not flooded: its socket would fill, and a full one ends the
        // connection. The newest report follows once it reads again.
        if outgoing::unread(&self.watched).is_ok_and(|bytes| bytes > 0) {
            self.report_due = Some(Instant::now() + REPORT_PAUSE);
        } else {
            self.send_report();
        }
    }

    fn send_report(&mut self) {
        self.report_due = None;
        self.last_report = Instant::now();
        self.send(&FromProxy::Report(self.report()));
    }

    fn report(&self) -> ProxyReport {
        let snapshot = self.relay.snapshot();
        let usage = self.ceilings.usage(&snapshot);
        let warnings = self.warnings.iter().chain(&self.without_rings).cloned();
        let warnings = warnings.chain(usage.warnings());
        let mut report = report::report(&snapshot, &self.pools, &self.refused, warnings.collect());
        report.samples.extend(usage.samples());
        report
    }

    /// Half a message would garble what follows, so a failure ends the connection: the thread that
    /// receives then says that the agent is gone.
    fn send(&self, message: &FromProxy) {
        if let Err(error) = self.agent.send(message, &[]) {
            if self.end_by.is_none() {
                tracing::error!(%error, "cannot reach the agent");
            }
            self.agent.shutdown();
        }
    }
}
