//! All clients: thousands of sessions on one thread of the client's host.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::task::LocalSet;

use super::certificates::Certificates;
use super::client::{self, End};
use super::random::Random;
use super::spec::Listener;
use super::stream::Way;
use super::wire::Shared;
use crate::lab::{Host, VIP_SERVER1, VIP_SERVER2};

/// Times of a client's life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Over so long the first sessions begin.
    pub(super) arrival: Duration,
    /// How long a session lasts.
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
    /// Pauses between messages.
    pub(super) quickest: Duration,
    pub(super) slowest: Duration,
}

/// What a session brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) echoed: u64,
    pub(super) bytes: u64,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) ends: Vec<End>,
    /// Handshakes that brought no session, by what the client was told.
    pub(super) turned_away: BTreeMap<String, u64>,
    /// Their numbers.
    pub(super) without_session: BTreeSet<u64>,
    /// What must not be: an echo that was not what was sent.
    pub(super) wrong: Vec<String>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Most sessions at once.
    pub(super) peak: usize,
    /// Connections of HTTP/2.
    pub(super) connections: u64,
}

/// What clients share with each other and with who directs them.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) pace: Pace,
    pub(super) over: Arc<AtomicBool>,
    live: Arc<AtomicUsize>,
    listeners: Arc<Mutex<Vec<Listener>>>,
    ids: Cell<u64>,
    tally: RefCell<Tally>,
}

impl Crowd {
    pub(super) fn next_id(&self) -> u64 {
        self.ids.replace(self.ids.get() + 1)
    }

    pub(super) fn target(&self, random: &mut Random) -> (SocketAddrV4, Way) {
        let listeners = self.listeners.lock();
        let listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        let address: Ipv4Addr = random.one_of(&[VIP_SERVER1, VIP_SERVER2]);
        let listener = random.one_of(&listeners);
        let way = match listener.tls {
            false => Way::Plain,
            true if random.chance(50) => Way::Tls,
            true => Way::Http2,
        };
        (SocketAddrV4::new(address, listener.port), way)
    }

    pub(super) fn opened(&self) {
        let live = self.live.fetch_add(1, Relaxed) + 1;
        let mut tally = self.tally.borrow_mut();
        tally.peak = tally.peak.max(live);
    }

    pub(super) fn ended(&self, end: Result<End>, life: Life) {
        self.live.fetch_sub(1, Relaxed);
        let mut tally = self.tally.borrow_mut();
        tally.messages += life.echoed;
        tally.bytes += life.bytes;
        match end {
            Ok(end) => tally.ends.push(end),
            Err(error) => tally.wrong.push(format!("{error:#}")),
        }
    }

    pub(super) fn turned_away(&self, id: u64, error: &anyhow::Error) {
        let mut tally = self.tally.borrow_mut();
        *tally.turned_away.entry(format!("{error:#}")).or_default() += 1;
        tally.without_session.insert(id);
    }
}

/// The thread on which they are.
#[derive(Debug)]
pub(super) struct Gathering {
    over: Arc<AtomicBool>,
    live: Arc<AtomicUsize>,
    /// The listeners that there are.
    listeners: Arc<Mutex<Vec<Listener>>>,
    thread: JoinHandle<Result<Tally>>,
}

impl Gathering {
    /// Has `count` clients come, from `host`.
    pub(super) fn start(
        host: &Host,
        count: usize,
        listeners: Vec<Listener>,
        pace: Pace,
        random: Random,
        certificates: &Certificates,
    ) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let live = Arc::new(AtomicUsize::new(0));
        let listeners = Arc::new(Mutex::new(listeners));
        let (seen_over, seen_live, seen_listeners) =
            (Arc::clone(&over), Arc::clone(&live), Arc::clone(&listeners));
        let tls = [
            Arc::new(certificates.client(&[])?),
            Arc::new(certificates.client(&["h2", "http/1.1"])?),
        ];
        let gather = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let crowd = Rc::new(Crowd {
                pace,
                over: seen_over,
                live: seen_live,
                listeners: seen_listeners,
                ids: Cell::new(0),
                tally: RefCell::default(),
            });
            let shared = Rc::new(Shared::new(random.fork(u64::MAX), tls));
            let clients = LocalSet::new();
            for number in 0..count as u64 {
                let (crowd, shared) = (Rc::clone(&crowd), Rc::clone(&shared));
                clients.spawn_local(client::come_again(crowd, shared, random.fork(number)));
            }
            // Ends when the last of them has gone.
            runtime.block_on(clients);
            let mut tally = crowd.tally.take();
            tally.connections = shared.connections.count.get();
            Ok(tally)
        };
        // A thread begins in the namespaces of the one that starts it.
        let thread = host.run(|| thread::Builder::new().name("crowd".into()).spawn(gather))??;
        Ok(Self {
            over,
            live,
            listeners,
            thread,
        })
    }

    /// Sessions that are open.
    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// To which listeners new sessions go from now on.
    pub(super) fn use_listeners(&self, listeners: Vec<Listener>) {
        let used = self.listeners.lock();
        *used.unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Has all sessions end in order and waits for that.
    pub(super) fn disperse(self) -> Result<Tally> {
        self.over.store(true, Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the crowd's thread panicked"))?
    }
}
