//! The proxy alone: `--listen` and `--upstream`, no virtual addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;

use crate::{
    proxy::LEAVE_LIMIT,
    sys::{limits, privileges, signals::StopSignals, tcp},
};

/// Name of the one pool, listener and upstream.
const NAME: &str = "standalone";

/// Serves until asked to end.
pub(super) fn run(
    listen: &[SocketAddr],
    upstream: &[SocketAddr],
    workers: usize,
) -> anyhow::Result<()> {
    let stop = StopSignals::hold_back().context("cannot hold signals back")?;
    let open_files = limits::raise_open_files();
    let sockets = open(listen, workers)?;
    let addresses: Vec<_> = sockets.iter().map(|(address, _)| *address).collect();
    // Sockets that need privilege are open.
    privileges::give_up_all()?;

    let relay = proxy::Proxy::start(proxy::Options {
        workers,
        beat: Arc::new(|_| {}),
        events: None,
        records: None,
        patience: proxy::Patience::default(),
    })?;
    relay.apply(config(&addresses, upstream), sockets)?;
    for address in &addresses {
        tracing::info!(%address, workers, open_files, "accepting");
    }

    let signal = stop.wait().context("cannot wait for signals")?;
    let hosts: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    let left = relay.leave(&hosts, LEAVE_LIMIT)?;
    let proxy::LeaveReport {
        sessions,
        acknowledged,
        elapsed,
    } = left;
    tracing::info!(%signal, sessions, acknowledged, ?elapsed, "left");
    Ok(())
}

type Sockets = Vec<(SocketAddr, Vec<TcpListener>)>;

/// Opens the sockets of each address, once.
fn open(listen: &[SocketAddr], workers: usize) -> anyhow::Result<Sockets> {
    let mut sockets = Sockets::new();
    for address in listen {
        let group = tcp::listen_group(*address, workers)
            .with_context(|| format!("cannot listen on {address}"))?;
        // The port that was chosen, where it was left open.
        let bound = group
            .first()
            .map_or(Ok(*address), TcpListener::local_addr)?;
        sockets.push((bound, group));
    }
    Ok(sockets)
}

/// One pool of everything, with the defaults of a `WebSocketHAPool`.
fn config(listen: &[SocketAddr], upstream: &[SocketAddr]) -> proxy::Config {
    let endpoint = |address: &SocketAddr| proxy::Endpoint {
        address: *address,
        weight: 1,
        phase: proxy::Phase::Ready,
        is_near: false,
    };
    let pool = proxy::Pool {
        listeners: vec![proxy::Listener {
            name: NAME.to_owned(),
            addresses: listen.to_vec(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
            routes: Vec::new(),
        }],
        upstreams: vec![proxy::Upstream {
            name: NAME.to_owned(),
            endpoints: upstream.iter().map(endpoint).collect(),
            balancing: proxy::Balancing::RoundRobin,
            slow_start: Duration::ZERO,
            endpoint_sessions: None,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            proxy_protocol: None,
            tls: None,
            health: proxy::Health::default(),
            min_near_percent: None,
            rebalance: None,
        }],
        heartbeat: proxy::Heartbeat {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
        },
        drain: proxy::Drain {
            timeout: Duration::from_secs(30),
            sessions_per_second: None,
            close_code: 1001,
        },
        access_log: None,
        limits: proxy::Limits::default(),
    };
    proxy::Config {
        pools: BTreeMap::from([(NAME.to_owned(), pool)]),
    }
}
