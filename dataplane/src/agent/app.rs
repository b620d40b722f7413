//! The agent's loop: one state, one event at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use node_api::{Keys, NodeConfig, Pool, PoolRef, RouterState};
use tokio::sync::mpsc;

use crate::{
    agent::{
        checks::{Checks, Programs},
        child::{self, Child},
        claim::Claim,
        event::{Event, Role},
        files::Accepted,
        history::History,
        keys::{Found, Keyring},
        link::Link,
        notify::{self, Notifier},
        rollout::Rollout,
        stream::Controlled,
        watchdog::Watchdog,
    },
    ipc::{FailingCheck, FromProxy, FromVrrp, ProxyReport, Router, ToProxy, ToVrrp, VrrpReport},
    sys::{
        channel::{Channel, Peer},
        clock,
        memory::Shared,
        pages::{PairPage, RouterTable},
    },
};

/// How often the kernel is asked for the end of a process of which it does not tell.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where the configuration in use came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// What was accepted.
    pub(super) accepted: Accepted,
    /// Why the newest files are not in use.
    pub(super) stale_reason: Option<String>,
    /// Why the files in use are not saved.
    pub(super) unsaved_reason: Option<String>,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub(super) accepted_unix_ms: u64,
}

/// What the agent knows.
#[derive(Debug)]
pub(super) struct App {
    pub(super) claim: Claim,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) notifier: Notifier,
    notify_every: Option<Duration>,
    notified: Instant,
    ready: bool,
    status: String,
    /// Outlives each vrrp process: what the next one needs to go on.
    pub(super) table: Shared<RouterTable>,
    pub(super) vrrp: Child<ToVrrp>,
    pub(super) proxy: Child<ToProxy>,
    /// What the vrrp that is connected now was told last.
    pub(super) vrrp_has: Option<Vec<Router>>,
    /// Checks that fail, as it was told last.
    pub(super) vrrp_knows: Vec<FailingCheck>,
    pub(super) checks: Checks,
    /// What the proxy that is connected now was told last.
    pub(super) proxy_has: ProxyHas,
    pub(super) pairing: Option<Pairing>,
    pub(super) rollout: Rollout,
    pub(super) keyring: Keyring,
    /// Listeners added under running virtual routers that have not accepted so far.
    pub(super) not_yet: BTreeSet<SocketAddr>,
    /// Listeners that could not be opened, each with a sentence.
    pub(super) refused: BTreeMap<SocketAddr, String>,
    pub(super) retry_at: Option<Instant>,
    pub(super) vrrp_report: Option<VrrpReport>,
    history: History,
    pub(super) vrrp_problems: Vec<String>,
    pub(super) proxy_report: Option<ProxyReport>,
    pub(super) stale_reason: Option<String>,
    pub(super) unsaved_reason: Option<String>,
    pub(super) remarks: Vec<String>,
    pub(super) counts: Counts,
    pub(super) questions: Vec<super::questions::Question>,
    pub(super) watchdog: Watchdog,
    /// Since when addresses may be there that no vrrp has adopted.
    pub(super) orphans: Option<Instant>,
    pub(super) leaving: Option<super::leave::Leaving>,
    /// Another agent asked this one to stop, and nobody else did.
    pub(super) is_taken_over: bool,
    /// The control stream; `None` on plain hosts.
    pub(super) stream: Option<Controlled>,
}

/// What a proxy was told.
#[derive(Debug, Default)]
pub(super) struct ProxyHas {
    pub(super) workers: usize,
    pub(super) sockets: BTreeSet<SocketAddr>,
    pub(super) content: Option<ProxyContent>,
    /// When to look again whether it lost sockets.
    pub(super) resend_at: Option<Instant>,
}

/// Pools, what their TLS needs, and listeners that could not be opened.
pub(super) type ProxyContent = (Vec<(PoolRef, Pool)>, Keys, Vec<(SocketAddr, String)>);

/// Two connections that were introduced to each other.
#[derive(Debug)]
pub(super) struct Pairing {
    pub(super) vrrp: u64,
    pub(super) proxy: u64,
    pub(super) page: Shared<PairPage>,
}

/// For metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) accepted_unix_ms: u64,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flow {
    /// It does.
    Continue,
    /// All is stopped.
    Done,
}

impl App {
    /// An agent that has started nothing yet.
    ///
    /// # Errors
    /// If there is no memory for the shared table.
    pub(super) fn new(
        claim: Claim,
        origins: (child::Origin, child::Origin),
        origin: Origin,
        keyring: Keyring,
        events: mpsc::Sender<Event>,
        programs: Programs,
    ) -> std::io::Result<Self> {
        let accepted = u64::from(origin.stale_reason.is_none());
        Ok(Self {
            claim,
            events,
            notifier: Notifier::from_environment(),
            notify_every: notify::watchdog_interval(),
            notified: Instant::now(),
            ready: false,
            status: String::new(),
            table: RouterTable::create()?,
            vrrp: Child::new(origins.0),
            proxy: Child::new(origins.1),
            vrrp_has: None,
            vrrp_knows: Vec::new(),
            checks: Checks::new(programs),
            proxy_has: ProxyHas::default(),
            pairing: None,
            rollout: Rollout::new(origin.accepted.config),
            keyring,
            not_yet: BTreeSet::new(),
            refused: BTreeMap::new(),
            retry_at: None,
            vrrp_report: None,
            history: History::default(),
            orphans: None,
            vrrp_problems: Vec::new(),
            proxy_report: None,
            stale_reason: origin.stale_reason,
            unsaved_reason: origin.unsaved_reason,
            remarks: origin.accepted.remarks,
            counts: Counts {
                accepted,
                refused: 1 - accepted,
                accepted_unix_ms: origin.accepted_unix_ms,
            },
            questions: Vec::new(),
            watchdog: Watchdog::default(),
            leaving: None,
            is_taken_over: false,
            stream: None,
        })
    }

    /// Turns until all is stopped.
    pub(super) async fn run(&mut self, mut events: mpsc::Receiver<Event>) {
        self.start(Role::Proxy);
        self.start(Role::Vrrp);
        while let Some(event) = events.recv().await {
            if self.handle(event) == Flow::Done {
                break;
            }
        }
        self.claim.remove_sockets();
    }

    fn handle(&mut self, event: Event) -> Flow {
        // Nothing is desired or known that was not before.
        let idle = matches!(event, Event::Tick | Event::Ping(_) | Event::Snapshot(_))
            && self.rollout.is_settled()
            && self.retry_at.is_none()
            && self.proxy_has.resend_at.is_none();
        match event {
            Event::Arrived {
                id,
                peer,
                workers,
                channel,
            } => self.arrived(id, peer, workers, channel),
            Event::Vrrp(id, message) if self.vrrp.has_link(id) => self.hear_vrrp(message),
            Event::Proxy(id, message) if self.proxy.has_link(id) => self.hear_proxy(message),
            // Of a connection that was refused or replaced.
            Event::Vrrp(..) | Event::Proxy(..) => {}
            Event::Closed(id) => self.closed(id),
            Event::Ended(role, start) => self.ended(role, start),
            Event::Start(role) => self.start(role),
            Event::Orphans => self.remove_orphans(),
            Event::Accepted(accepted) => self.accepted(*accepted),
            Event::Refused(sentences) => self.refused(&sentences),
            Event::Keys(found) => self.hear_keys(*found),
            Event::Stream(message) => self.hear_stream(message),
            Event::Check(found) => self.hear_check(found),
            Event::Saved(saved) => self.saved(saved),
            Event::Snapshot(reply) => self.ask(reply),
            Event::SnapshotDue(id) => self.answer_overdue(id),
            Event::Stop(why) => {
                self.is_taken_over = false;
                self.leave(&why);
            }
            Event::TakeOver(other) => self.make_way(other),
            Event::Tick => self.tick(),
            Event::Ping(reply) => drop(reply.send(())),
        }
        if self.leaving.is_some() {
            return self.go_on_leaving();
        }
        if !idle {
            self.reconcile();
            self.say_ready();
            self.tell_stream();
        }
        Flow::Continue
    }

    fn start(&mut self, role: Role) {
        if self.leaving.is_some() {
            return;
        }
        let started = match role {
            Role::Vrrp if self.vrrp.runs() => Ok(()),
            Role::Proxy if self.proxy.runs() => Ok(()),
            Role::Vrrp => self.vrrp.start(&self.events),
            Role::Proxy => self.proxy.start(&self.events),
        };
        if let Err(error) = started {
            tracing::error!(process = role.name(), %error, "cannot start a process");
            self.start_later(role);
        }
    }

    fn start_later(&mut self, role: Role) {
        let wait = match role {
            Role::Vrrp => self.vrrp.wait_before_restart(),
            Role::Proxy => self.proxy.wait_before_restart(),
        };
        if wait.is_zero() {
            self.start(role);
            return;
        }
        self.send_later(wait, Event::Start(role));
    }

    /// Brings an event to the loop after a while.
    pub(super) fn send_later(&self, wait: Duration, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            drop(events.send(event).await);
        });
    }

    fn ended(&mut self, role: Role, start: u64) {
        let (pid, status) = match role {
            Role::Vrrp => (self.vrrp.pid(), self.vrrp.reap(start)),
            Role::Proxy => (self.proxy.pid(), self.proxy.reap(start)),
        };
        let Some(status) = status else {
            let lives = match role {
                Role::Vrrp => self.vrrp.is_running(start),
                Role::Proxy => self.proxy.is_running(start),
            };
            if lives {
                // The kernel could not tell of its end; it is asked.
                self.send_later(ASK_AGAIN, Event::Ended(role, start));
            }
            return;
        };
        let how = child::describe(status);
        if self.leaving.is_some() {
            tracing::debug!(process = role.name(), "the {} process {how}", role.name());
            return;
        }
        tracing::warn!(
            process = role.name(),
            pid,
            "the {} process {how}; it is started again",
            role.name()
        );
        self.pairing = None;
        match role {
            Role::Vrrp => {
                self.vrrp_has = None;
                if std::mem::take(&mut self.watchdog.vrrp_hung) {
                    // Others took over long ago; the next vrrp must not find them and go on.
                    self.remove_addresses(|_| true);
                } else {
                    self.expect_adoption();
                }
            }
            Role::Proxy => self.proxy_has = ProxyHas::default(),
        }
        self.start_later(role);
    }

    fn arrived(&mut self, id: u64, peer: Peer, workers: Option<usize>, channel: Channel) {
        let role = workers.map_or(Role::Vrrp, |_| Role::Proxy);
        if let Err(why) = self.admit(role, peer) {
            tracing::warn!(process = role.name(), pid = peer.pid, "{why}");
            channel.shutdown();
            return;
        }
        let connected = match role {
            Role::Vrrp => Link::start(id, channel).map(|link| {
                self.vrrp.connect(link);
                self.vrrp_has = None;
                let last = self.vrrp_report.as_ref();
                self.history.keep(last.map_or(&[], |last| &last.routers));
                self.introduce_table();
            }),
            Role::Proxy => Link::start(id, channel).map(|link| {
                self.proxy.connect(link);
                self.proxy_has = ProxyHas {
                    workers: workers.unwrap_or(1).clamp(1, 1024),
                    ..ProxyHas::default()
                };
            }),
        };
        if let Err(error) = connected {
            tracing::error!(process = role.name(), %error, "cannot serve a process; it is ended");
            match role {
                Role::Vrrp => self.vrrp.kill(),
                Role::Proxy => self.proxy.kill(),
            }
        }
    }

    fn admit(&self, role: Role, peer: Peer) -> Result<(), &'static str> {
        let ours = match role {
            Role::Vrrp => self.vrrp.pid(),
            // Of another PID namespace, its number means nothing here.
            Role::Proxy if self.proxy.is_elsewhere() => {
                return if self.proxy.link.is_some() {
                    Err("refused a second proxy process while one is connected")
                } else if self.leaving.is_some() {
                    Err("refused a proxy process, as this agent is stopping in order")
                } else {
                    Ok(())
                };
            }
            Role::Proxy => self.proxy.pid(),
        };
        if ours.and_then(|pid| i32::try_from(pid).ok()) == Some(peer.pid) {
            return Ok(());
        }
        Err(match role {
            Role::Vrrp => "refused a vrrp process that this agent did not start",
            Role::Proxy => "refused a proxy process that this agent did not start",
        })
    }

    fn closed(&mut self, id: u64) {
        // The end of the process follows; one that lives on without us is ended by the watchdog.
        if self.vrrp.has_link(id) {
            self.vrrp.link = None;
            self.vrrp_has = None;
            self.pairing = None;
        } else if self.proxy.has_link(id) {
            if self.proxy.is_elsewhere() && self.leaving.is_none() {
                tracing::warn!(
                    process = "proxy",
                    "the proxy process is gone; it is waited for"
                );
            }
            self.proxy.link = None;
            self.proxy_has = ProxyHas::default();
            self.pairing = None;
        }
    }

    fn hear_vrrp(&mut self, message: FromVrrp) {
        match message {
            FromVrrp::Applied { sequence, problems } => {
                self.vrrp.applied = sequence;
                // It has adopted or removed what it found.
                self.orphans = None;
                for problem in &problems {
                    if !self.vrrp_problems.contains(problem) {
                        tracing::warn!(process = "vrrp", "{problem}");
                    }
                }
                self.vrrp_problems = problems;
            }
            FromVrrp::Report(mut report) => {
                self.history.complete(&mut report.routers);
                self.vrrp_report = Some(report);
                self.answered(Role::Vrrp);
            }
            FromVrrp::Left => self.left(Role::Vrrp),
        }
    }

    fn hear_proxy(&mut self, message: FromProxy) {
        self.proxy_turns();
        match message {
            FromProxy::Applied { sequence } => self.proxy.applied = sequence,
            FromProxy::Report(report) => {
                self.look_for_lost_sockets(&report);
                self.proxy_report = Some(report);
                self.answered(Role::Proxy);
            }
            FromProxy::Left => self.left(Role::Proxy),
        }
    }

    fn accepted(&mut self, accepted: Accepted) {
        self.counts.accepted += 1;
        self.counts.accepted_unix_ms = clock::now_unix_ms();
        self.stale_reason = None;
        for sentence in &accepted.remarks {
            if !self.remarks.contains(sentence) {
                tracing::warn!("{sentence}");
            }
        }
        self.remarks = accepted.remarks;
        let config = NodeConfig {
            keys: self.keyring.keys().clone(),
            ..accepted.config
        };
        if config == *self.rollout.newest() {
            tracing::info!("accepted the files; nothing changes for this node");
            return;
        }
        tracing::info!(
            pools = config.pools.len(),
            "accepted the files; they take effect now"
        );
        let added = super::desired::added_under_way(self.rollout.for_vrrp(), &config);
        self.not_yet.extend(added);
        self.rollout.begin(config, Instant::now());
    }

    fn hear_keys(&mut self, found: Found) {
        self.keyring.renew(found);
        let config = NodeConfig {
            keys: self.keyring.keys().clone(),
            ..self.rollout.newest().clone()
        };
        if config != *self.rollout.newest() {
            tracing::info!("certificates or keys have changed; they take effect now");
            self.rollout.begin(config, Instant::now());
        }
    }

    fn refused(&mut self, sentences: &[String]) {
        self.counts.refused += 1;
        for sentence in sentences {
            tracing::error!("refused the files: {sentence}");
        }
        self.stale_reason = Some(format!(
            "the newest files were refused and those accepted before are in use: {}",
            sentences.join("; ")
        ));
    }

    fn saved(&mut self, saved: Result<(), String>) {
        match &saved {
            Ok(()) => tracing::info!("the files in use are saved now"),
            Err(sentence) => tracing::error!("{sentence}"),
        }
        self.unsaved_reason = saved.err();
    }

    fn tick(&mut self) {
        let every = self.notify_every;
        if every.is_some_and(|every| self.notified.elapsed() >= every) {
            self.notified = Instant::now();
            self.notifier.send("WATCHDOG=1");
        }
        self.claim.answer_strangers();
        self.say_status();
        let due = self
            .proxy_has
            .resend_at
            .is_some_and(|at| Instant::now() >= at);
        if let Some(report) = self.proxy_report.take_if(|_| due) {
            self.look_for_lost_sockets(&report);
            self.proxy_report = Some(report);
        }
        self.look_for_hangs();
    }

    fn say_ready(&mut self) {
        let configured = |sent, applied| sent > 0 && sent == applied;
        if self.ready
            || !configured(self.vrrp.sent, self.vrrp.applied)
            || !configured(self.proxy.sent, self.proxy.applied)
        {
            return;
        }
        self.ready = true;
        tracing::info!(node = self.rollout.newest().node_name, "serving");
        self.notifier.send("READY=1");
    }

    /// One line for `systemctl status`, when it changes.
    fn say_status(&mut self) {
        if !self.ready || self.leaving.is_some() {
            return;
        }
        let routers = self
            .vrrp_report
            .as_ref()
            .map_or(&[][..], |report| &report.routers);
        let active = routers
            .iter()
            .filter(|router| router.state == RouterState::Active);
        let status = format!(
            "STATUS=Active for {} of {} virtual routers{}",
            active.count(),
            routers.len(),
            match (&self.stale_reason, &self.stream) {
                (None, _) => "",
                (Some(_), None) => "; the newest files were refused",
                (Some(_), Some(_)) => "; no controller is followed",
            }
        );
        if status != self.status {
            self.notifier.send(&status);
            self.status = status;
        }
    }
}
