//! The client: sends a numbered message every few milliseconds, redials when an echo is late, and notes all it saw.
//!
//! One implementation for every subject. It knows nothing of who serves it.

mod seen;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::seen::{DialFailure, Loss, Outage, Seen};
use self::worker::Worker;
use crate::control::real_time;
use crate::lab::{Host, PORT};
use crate::testing::Client;

/// The probe's own timers; they bound what it can resolve.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A message goes out this often.
    pub send_every: Duration,
    /// A message without echo after this time is lost, and so is the connection.
    pub lost_after: Duration,
    /// A connection attempt is given up after this time.
    pub connect_timeout: Duration,
    /// Pause between a failure and the next attempt.
    pub redial_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            send_every: ms(5),
            lost_after: ms(12),
            connect_timeout: ms(10),
            redial_after: ms(1),
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    records: Mutex<Vec<(Instant, Seen)>>,
    changed: Condvar,
    first: OnceLock<String>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Seen)>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, seen: Seen) {
        self.lock().push((Instant::now(), seen));
        self.changed.notify_all();
    }

    /// Keeps the first of all echoes.
    fn first(&self, echo: &[u8]) {
        self.first
            .get_or_init(|| String::from_utf8_lossy(echo).into_owned());
    }
}

/// A client at work in a thread of its own.
#[derive(Debug)]
pub struct Probe {
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    timing: Timing,
}

impl Probe {
    /// Starts a client on `host` that talks to `address` at [`PORT`].
    pub fn start(host: &Host, address: impl Into<IpAddr>, timing: Timing) -> Result<Self> {
        Self::from(host.into(), SocketAddr::new(address.into(), PORT), timing)
    }

    /// Starts a client anywhere.
    pub fn from(client: Client<'_>, target: SocketAddr, timing: Timing) -> Result<Self> {
        let log = Arc::new(Log::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, entered) = mpsc::channel();
        let worker = Worker {
            target,
            timing,
            log: Arc::clone(&log),
            stop: Arc::clone(&stop),
            sent: 0,
        };
        // A thread inherits the namespaces of the one that made it.
        let thread = client.within(|| {
            Ok(thread::Builder::new().name("probe".into()).spawn(move || {
                real_time();
                ready.send(()).ok();
                worker.run();
            })?)
        })?;
        entered.recv().context("the probe's thread ended")?;
        Ok(Self {
            log,
            stop,
            thread: Some(thread),
            timing,
        })
    }

    /// Waits until `count` echoes in a row have come since `since`, with no loss among them; `None` when `bound` passes first.
    pub fn steady(&self, since: Instant, count: usize, bound: Duration) -> Option<Instant> {
        let deadline = Instant::now() + bound;
        let mut records = self.log.lock();
        loop {
            let run = records
                .iter()
                .rev()
                .take_while(|(at, seen)| *at >= since && matches!(seen, Seen::Echo(_)));
            let mut run = run.take(count);
            if run.by_ref().count() == count {
                return records.last().map(|(at, _)| *at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            records = self
                .log
                .changed
                .wait_timeout(records, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The first echo, word for word.
    pub fn first_echo(&self) -> Option<&str> {
        self.log.first.get().map(String::as_str)
    }

    /// The backend that sent the last echo.
    pub fn backend(&self) -> Option<Ipv4Addr> {
        self.log
            .lock()
            .iter()
            .rev()
            .find_map(|(_, seen)| match seen {
                Seen::Echo(backend) => *backend,
                _ => None,
            })
    }

    /// How many connections were lost since `since`.
    pub fn losses(&self, since: Instant) -> usize {
        self.log
            .lock()
            .iter()
            .filter(|(at, seen)| *at >= since && matches!(seen, Seen::Lost(_)))
            .count()
    }

    /// What happened between `from` and `to`. Silence is measured from echo to echo, so it may reach beyond both.
    pub fn outage(&self, from: Instant, to: Instant) -> Outage {
        let records = self.log.lock();
        let mut outage = Outage {
            longest: Duration::ZERO,
            between: (from, from),
            total: Duration::ZERO,
            losses: Vec::new(),
            failures: BTreeMap::new(),
        };
        let mut last_echo: Option<Instant> = None;
        for (at, seen) in records.iter() {
            match seen {
                Seen::Echo(_) => {
                    if let Some(before) = last_echo.replace(*at) {
                        outage.silence(before, *at, from, to, self.timing.lost_after);
                    }
                }
                Seen::Lost(loss) if *at >= from && *at <= to => outage.losses.push(loss.clone()),
                Seen::DialFailed(failure) if *at >= from && *at <= to => {
                    *outage.failures.entry(failure.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        // A silence that has not ended yet counts as far as it has come.
        if let Some(before) = last_echo.filter(|before| *before < to) {
            outage.silence(before, to, from, to, self.timing.lost_after);
        }
        outage
    }

    /// Forgets what was seen before `before`.
    pub fn forget(&self, before: Instant) {
        self.log.lock().retain(|(at, _)| *at >= before);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
