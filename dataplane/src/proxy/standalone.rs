//! The proxy alone: `--listen`, `--listen-tls` and `--upstream`, no virtual addresses.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;

use super::access_log::AccessLog;
use crate::{
    cli::ProxyArgs,
    proxy::{LEAVE_LIMIT, rings::Rings},
    sys::{limits, privileges, signals::StopSignals, tcp},
};

/// Name of the one pool, upstream and listener, and of the listener with TLS.
const NAME: &str = "standalone";
const NAME_TLS: &str = "standalone-tls";

/// Serves until asked to end.
pub(super) fn run(args: &ProxyArgs, workers: usize) -> anyhow::Result<()> {
    let stop = StopSignals::hold_back().context("cannot hold signals back")?;
    let open_files = limits::raise_open_files();
    let plain = open(&args.listen, workers)?;
    let secure = open(&args.listen_tls, workers)?;
    let mut listeners = Vec::new();
    if !plain.is_empty() {
        listeners.push(listener(NAME, &plain, None));
    }
    if let (Some(certificate), Some(key)) = (&args.certificate, &args.key) {
        let tls = server_tls(certificate, key)?;
        listeners.push(listener(NAME_TLS, &secure, Some(tls)));
    }
    let sockets: Sockets = plain.into_iter().chain(secure).collect();
    let addresses: Vec<_> = sockets.iter().map(|(address, _)| *address).collect();
    let rings = Rings::open(args.io, workers);
    // Sockets that need privilege are open.
    privileges::give_up_all(rings.calls())?;

    let access_log = args.access_log.map(|_| AccessLog::start()).transpose();
    let (records, access_log) = access_log.context("cannot start the access log")?.unzip();
    let relay = proxy::Proxy::start(proxy::Options {
        workers,
        beat: Arc::new(|_| {}),
        events: None,
        records,
        patience: proxy::Patience::default(),
        limits: args.gateway.into(),
        rings: rings.rings,
    })?;
    relay.apply(config(args, listeners), sockets)?;
    let rings = relay.snapshot().rings;
    for address in &addresses {
        tracing::info!(%address, workers, rings, open_files, "accepting");
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
    // Sessions end with the relay.
    drop(relay);
    if let Some(access_log) = access_log {
        access_log.finish();
    }
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

/// What is spoken with one certificate, and tickets of this process.
fn server_tls(certificate: &Path, key: &Path) -> anyhow::Result<proxy::tls::ServerTls> {
    let file =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let identity = proxy::tls::Identity {
        name: certificate.display().to_string(),
        chain: file(certificate)?,
        key: file(key)?,
    };
    let keys = proxy::tls::TicketKeys::default();
    Ok(proxy::tls::ServerTls::new(
        &[identity],
        proxy::tls::MinimumVersion::default(),
        &keys,
    )?)
}

fn listener(name: &str, sockets: &Sockets, tls: Option<proxy::tls::ServerTls>) -> proxy::Listener {
    proxy::Listener {
        name: name.to_owned(),
        addresses: sockets.iter().map(|(address, _)| *address).collect(),
        allowed_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
        tls,
        routes: Vec::new(),
        plain_requests: None,
    }
}

/// One pool of everything, with the defaults of a `WebSocketHAPool`.
fn config(args: &ProxyArgs, listeners: Vec<proxy::Listener>) -> proxy::Config {
    let endpoint = |address: &SocketAddr| proxy::Endpoint {
        address: *address,
        weight: 1,
        phase: proxy::Phase::Ready,
        is_near: false,
    };
    let pool = proxy::Pool {
        listeners,
        upstreams: vec![proxy::Upstream {
            name: NAME.to_owned(),
            endpoints: args.upstream.iter().map(endpoint).collect(),
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
        access_log: args.access_log,
        limits: proxy::Limits::default(),
    };
    proxy::Config {
        pools: BTreeMap::from([(NAME.to_owned(), pool)]),
    }
}
