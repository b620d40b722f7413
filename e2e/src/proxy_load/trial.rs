//! The measurements: each takes a proxy and tells what something cost it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::EpollTimeout;
use serde::Serialize;

use super::client::Doing;
use super::engine::Engine;
use super::peer::Running;
use crate::cost;

/// Sessions that are opened before memory is measured: what is there once is not theirs.
const FIRST: usize = 100;

/// Load before the window.
const WARM_UP: Duration = Duration::from_millis(200);

/// What sessions do while CPU time is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Messages of so many bytes, so many under way in each session.
    Messages {
        /// Bytes of payload.
        payload: usize,
        /// Messages under way in each session.
        depth: usize,
    },
    /// Sessions that open, echo once and close.
    Handshakes,
}

/// A load that is measured by CPU time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Load {
    /// What sessions do.
    pub work: Work,
    /// Whether clients speak TLS.
    pub tls: bool,
}

impl Load {
    /// The rows of the table.
    pub const ALL: [Self; 10] = [
        Self::messages(64, 1),
        Self::messages(64, 16),
        Self::messages(1024, 1),
        Self::messages(1024, 16),
        Self::messages(65_536, 4),
        Self::HANDSHAKES,
        Self::messages(64, 1).over_tls(),
        Self::messages(1024, 16).over_tls(),
        Self::messages(65_536, 4).over_tls(),
        Self::HANDSHAKES.over_tls(),
    ];

    /// Sessions that open, echo once and close.
    pub const HANDSHAKES: Self = Self {
        work: Work::Handshakes,
        tls: false,
    };

    /// Messages without TLS.
    pub const fn messages(payload: usize, depth: usize) -> Self {
        Self {
            work: Work::Messages { payload, depth },
            tls: false,
        }
    }

    const fn over_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    fn sessions(self) -> usize {
        match self.work {
            Work::Messages { payload, .. } if payload > 16_384 => 16,
            Work::Messages { .. } => 64,
            Work::Handshakes => 32,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls {
            f.write_str("TLS, ")?;
        }
        match self.work {
            Work::Messages { payload, depth } if payload.is_multiple_of(1024) => {
                write!(f, "{} KiB x{depth}", payload / 1024)
            }
            Work::Messages { payload, depth } => write!(f, "{payload} B x{depth}"),
            Work::Handshakes => f.write_str("handshake, echo, close"),
        }
    }
}

/// CPU time of the proxy for each message or session of `load`, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn cpu(engine: &mut Engine, proxy: &Running, load: Load, window: Duration) -> Result<f64> {
    let (doing, payload) = match load.work {
        Work::Messages { payload, depth } => (Doing::Closed(depth), payload),
        Work::Handshakes => (Doing::Churn, 64),
    };
    let (address, trusted) = proxy.entry(load.tls);
    engine.begin(address, trusted, doing, payload);
    let measured = (|| {
        engine.open(load.sessions())?;
        engine.run_for(WARM_UP)?;
        let done = |engine: &Engine| match load.work {
            Work::Messages { .. } => engine.counts.echoes,
            Work::Handshakes => engine.counts.ended,
        };
        let pids = proxy.processes();
        let (before, first) = (cost::cpu_time(&pids)?, done(engine));
        engine.run_for(window)?;
        let (after, last) = (cost::cpu_time(&pids)?, done(engine));
        ensure!(last > first, "nothing came back");
        Ok(after.saturating_sub(before).as_secs_f64() * 1e6 / (last - first) as f64)
    })();
    finish(engine, proxy, measured).with_context(|| format!("{}, {load}", proxy.peer))
}

/// After the last session, until the proxy's memory is looked at: none gives it back at once.
const SETTLED: Duration = Duration::from_secs(2);

/// What a session that is open and quiet costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Bytes of user memory for each session.
    pub session: u64,
    /// The proxy's memory before, and a moment after all sessions have ended, in bytes.
    pub before: u64,
    /// As `before`, at the end.
    pub after: u64,
}

/// Growth of the proxy's memory by `count` sessions that have echoed once and are quiet.
pub fn memory(engine: &mut Engine, proxy: &Running, tls: bool, count: usize) -> Result<Memory> {
    let (address, trusted) = proxy.entry(tls);
    engine.begin(address, trusted, Doing::Open, 64);
    let measured = (|| {
        let size = || cost::proportional(&proxy.processes());
        engine.open(FIRST)?;
        engine.send_round()?;
        let before = size()?;
        engine.open(count)?;
        engine.send_round()?;
        let full = size()?;
        // All are still there.
        engine.send_round()?;
        Ok((before, full))
    })();
    let (before, full) = finish(engine, proxy, measured).with_context(|| proxy.peer.to_string())?;
    std::thread::sleep(SETTLED);
    Ok(Memory {
        session: full.saturating_sub(before) / count.max(1) as u64,
        before,
        after: cost::proportional(&proxy.processes())?,
    })
}

/// Times from when a message was due until its echo came, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// What one in a hundred exceeds.
    pub p99: f64,
}

/// Latency at `rate` messages of 64 bytes a second over 64 sessions.
///
/// The loop never sleeps, so neither its timer nor its own waking is in the figure.
pub fn latency(
    engine: &mut Engine,
    proxy: &Running,
    rate: u32,
    window: Duration,
) -> Result<Latency> {
    const SESSIONS: u32 = 64;
    let (address, trusted) = proxy.entry(false);
    engine.begin(address, trusted, Doing::Open, 64);
    let measured = (|| {
        engine.open(SESSIONS as usize)?;
        let begun = Instant::now();
        let mut number = 0;
        loop {
            let due = begun + Duration::from_secs(1) * number / rate;
            if due >= begun + WARM_UP + window {
                break;
            }
            while Instant::now() < due {
                engine.turn(EpollTimeout::ZERO)?;
            }
            let measured = due >= begun + WARM_UP;
            engine.send((number % SESSIONS) as usize, measured.then_some(due))?;
            number += 1;
        }
        engine.run_for(WARM_UP)?;
        let mut all = std::mem::take(&mut engine.counts.latencies);
        all.sort_unstable();
        let at = |share: usize| {
            let index = (all.len() * share / 1000).min(all.len().saturating_sub(1));
            all.get(index).map(|time| time.as_secs_f64() * 1e6)
        };
        let (Some(p50), Some(p99)) = (at(500), at(990)) else {
            anyhow::bail!("nothing came back");
        };
        Ok(Latency { p50, p99 })
    })();
    finish(engine, proxy, measured).with_context(|| format!("{}, {rate}/s", proxy.peer))
}

/// Ends the sessions, whatever came of them.
fn finish<T>(engine: &mut Engine, proxy: &Running, measured: Result<T>) -> Result<T> {
    let value = measured.with_context(|| proxy.log())?;
    engine.end_all()?;
    Ok(value)
}
