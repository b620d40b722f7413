//! The measurements: each takes a proxy and tells what something cost it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::EpollTimeout;
use serde::Serialize;

use super::engine::Engine;
use super::load::{Load, Transport, Work};
use super::peer::Running;
use super::session::Doing;
use crate::cost;

/// Sessions that are opened before memory is measured: what is there once is not theirs.
const FIRST: usize = 100;

/// Load before a window, at most.
const WARM_UP: Duration = Duration::from_millis(200);

/// CPU time of the proxy for each message or session of `load`, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn cpu(engine: &mut Engine, proxy: &Running, load: Load, window: Duration) -> Result<f64> {
    let (doing, payload) = match load.work {
        Work::Messages { payload, depth } => (Doing::Closed(depth), payload),
        Work::Handshakes => (Doing::Churn, 64),
    };
    let address = proxy.entry(load.transport)?;
    engine.begin(address, load.transport, doing, payload);
    let measured = (|| {
        engine.open(load.sessions())?;
        engine.run_for(WARM_UP.min(window))?;
        let done = |engine: &Engine| match load.work {
            Work::Messages { .. } => engine.counts.echoes,
            Work::Handshakes => engine.counts.ended,
        };
        let pids = proxy.processes();
        let (before, first) = (cost::cpu_time(&pids)?, done(engine));
        engine.run_for(window)?;
        // On a busy machine none of us may have had a turn.
        engine.run_while("anything to come back", |engine| done(engine) == first)?;
        let (after, last) = (cost::cpu_time(&pids)?, done(engine));
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
    let transport = if tls {
        Transport::Tls
    } else {
        Transport::Plain
    };
    let address = proxy.entry(transport)?;
    engine.begin(address, transport, Doing::Open, 64);
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
    let address = proxy.entry(Transport::Plain)?;
    engine.begin(address, Transport::Plain, Doing::Open, 64);
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
