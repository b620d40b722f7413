//! The state of a node as a person reads it; pure.

use std::fmt::Write;

use node_api::{NodeReport, RouterState};

/// Transitions shown of each virtual router.
const TRANSITIONS: usize = 5;

/// Renders a report; `now` in milliseconds since the Unix epoch.
pub(super) fn render(report: &NodeReport, now: u64) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    write_all(&mut text, report, now).unwrap_or_default();
    text
}

fn write_all(text: &mut String, report: &NodeReport, now: u64) -> std::fmt::Result {
    writeln!(
        text,
        "Node {}, version {}",
        report.node_name, report.version
    )?;
    if let Some(reason) = &report.stale_reason {
        writeln!(text, "\nSTALE: {reason}")?;
    }
    for warning in &report.warnings {
        writeln!(text, "\nWARNING: {warning}")?;
    }
    if report.virtual_routers.is_empty() {
        return writeln!(text, "\nNo virtual address is planned on this node.");
    }
    writeln!(text)?;
    text.push_str(&columns(routers(report, now)));
    let lowered = lowerings(report, now);
    if lowered.len() > 1 {
        writeln!(text, "\nLowered priorities")?;
        text.push_str(&columns(lowered));
    }
    for pool in &report.pools {
        writeln!(text, "\nPool {}", pool.pool)?;
        text.push_str(&columns(listeners(pool)));
        writeln!(text)?;
        text.push_str(&columns(endpoints(pool, now)));
    }
    let recent = transitions(report, now);
    if recent.len() > 1 {
        writeln!(text, "\nLast transitions")?;
        text.push_str(&columns(recent));
    }
    Ok(())
}

fn routers(report: &NodeReport, now: u64) -> Vec<Vec<String>> {
    let head = [
        "ADDRESS",
        "VRID",
        "INTERFACE",
        "STATE",
        "SINCE",
        "PRIORITY",
        "PEERS",
        "POOL",
        "REASON",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for router in &report.virtual_routers {
        let addresses: Vec<_> = router.addresses.iter().map(ToString::to_string).collect();
        let peers: Vec<_> = router
            .peers
            .iter()
            .map(|peer| {
                let age = short(peer.last_heard_ms);
                format!("{} ({}, {age} ago)", peer.address, peer.priority)
            })
            .collect();
        rows.push(vec![
            addresses.join(","),
            router.virtual_router_id.to_string(),
            dash(router.interface.clone().unwrap_or_default()),
            state(router.state).to_owned(),
            when(router.since_unix_ms, now),
            router.priority.to_string(),
            dash(peers.join(", ")),
            router.pool.to_string(),
            router.reason.clone(),
        ]);
    }
    rows
}

/// What lowers priorities now.
fn lowerings(report: &NodeReport, now: u64) -> Vec<Vec<String>> {
    let head = ["ADDRESS", "BY", "SINCE", "TRACKED", "PROBLEM"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for router in &report.virtual_routers {
        let address = router.addresses.first().map(ToString::to_string);
        let address = address.unwrap_or_default();
        rows.extend(router.lowered_by.iter().map(|it| {
            vec![
                address.clone(),
                it.weight.to_string(),
                when(it.since_unix_ms, now),
                format!("{} {}", it.kind, it.name),
                it.problem.clone(),
            ]
        }));
    }
    rows
}

fn listeners(pool: &node_api::PoolReport) -> Vec<Vec<String>> {
    let head = ["LISTENER", "ADDRESS", "ACCEPTS", "SESSIONS", "PROBLEM"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(pool.listeners.iter().map(|listener| {
        vec![
            listener.name.clone(),
            listener.address.to_string(),
            yes(listener.accepting),
            listener.sessions.to_string(),
            listener.problem.clone().unwrap_or_default(),
        ]
    }));
    rows
}

fn endpoints(pool: &node_api::PoolReport, now: u64) -> Vec<Vec<String>> {
    let head = ["UPSTREAM", "ENDPOINT", "USABLE", "SESSIONS", "PROBLEM"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(pool.endpoints.iter().map(|endpoint| {
        vec![
            endpoint.upstream.clone(),
            endpoint.address.to_string(),
            yes(endpoint.usable),
            endpoint.sessions.to_string(),
            problem(endpoint, now),
        ]
    }));
    rows
}

/// Why an endpoint gets no new sessions, and by when those that it has are told to go.
fn problem(endpoint: &node_api::EndpointReport, now: u64) -> String {
    let mut text = endpoint.problem.clone().unwrap_or_default();
    if let (Some(end), 1..) = (endpoint.drained_at_unix_ms, endpoint.sessions) {
        let last = match end.checked_sub(now) {
            Some(left @ 1..) => format!("; the last session is told to go in {}", short(left)),
            _ => "; all sessions were told to go".to_owned(),
        };
        text.push_str(&last);
    }
    text
}

/// Of all virtual routers, the newest first.
fn transitions(report: &NodeReport, now: u64) -> Vec<Vec<String>> {
    let mut all: Vec<_> = report
        .virtual_routers
        .iter()
        .flat_map(|router| {
            let newest = router.transitions.iter().rev().take(TRANSITIONS);
            newest.map(move |transition| (router, transition))
        })
        .collect();
    all.sort_by_key(|(_, transition)| std::cmp::Reverse(transition.at_unix_ms));
    let head = ["WHEN", "ADDRESS", "FROM", "TO", "CAUSE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(all.into_iter().map(|(router, transition)| {
        let address = router.addresses.first().map(ToString::to_string);
        vec![
            when(transition.at_unix_ms, now),
            address.unwrap_or_default(),
            state(transition.from).to_owned(),
            state(transition.to).to_owned(),
            transition.cause.clone(),
        ]
    }));
    rows
}

/// Aligns cells under each other, two blanks apart.
fn columns(rows: Vec<Vec<String>>) -> String {
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

const fn state(state: RouterState) -> &'static str {
    match state {
        RouterState::Initialize => "Initialize",
        RouterState::Backup => "Backup",
        RouterState::Active => "Active",
    }
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// How long ago, and the time of day (UTC): `3m12s ago (14:05:09Z)`.
fn when(at: u64, now: u64) -> String {
    if at == 0 {
        return "-".to_owned();
    }
    let seconds = at / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let ago = short(now.saturating_sub(at));
    format!("{ago} ago ({hour:02}:{minute:02}:{second:02}Z)")
}

/// The two largest units of a duration in milliseconds.
fn short(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use node_api::{
        EndpointReport, ListenerReport, Lowering, PeerReport, PoolRef, PoolReport, RouterReport,
        Tracked, Transition,
    };

    use super::*;

    fn endpoint(host: u8, problem: &str, sessions: u64, drained: Option<u64>) -> EndpointReport {
        EndpointReport {
            upstream: "echo".to_owned(),
            address: SocketAddr::from(([192, 168, 1, host], 8010)),
            usable: false,
            problem: Some(problem.to_owned()),
            sessions,
            drained_at_unix_ms: drained,
        }
    }

    #[test]
    fn a_person_can_read_it() {
        let now = 1_700_000_100_000;
        let pool = PoolRef {
            namespace: "default".to_owned(),
            name: "chat".to_owned(),
        };
        let report = NodeReport {
            node_name: "server1".to_owned(),
            version: "0.1.0".to_owned(),
            stale_reason: Some("pool.yaml is broken".to_owned()),
            warnings: vec!["look here".to_owned()],
            virtual_routers: vec![RouterReport {
                pool: pool.clone(),
                virtual_router_id: 110,
                sequence: 0,
                addresses: vec!["192.168.1.110".parse().unwrap()],
                interface: Some("eth0".to_owned()),
                state: RouterState::Active,
                since_unix_ms: now - 75_000,
                reason: "no other router was heard".to_owned(),
                priority: 230,
                peers: vec![PeerReport {
                    address: "192.168.1.12".parse().unwrap(),
                    priority: 235,
                    last_heard_ms: 80_000,
                }],
                transitions: vec![Transition {
                    at_unix_ms: now - 75_000,
                    from: RouterState::Backup,
                    to: RouterState::Active,
                    cause: "the active-down interval elapsed".to_owned(),
                }],
                conflicts: Vec::new(),
                lowered_by: vec![Lowering {
                    kind: Tracked::Interface,
                    name: "eth1".to_owned(),
                    weight: 20,
                    problem: "has no link".to_owned(),
                    since_unix_ms: now - 75_000,
                }],
                isolated_since_unix_ms: None,
            }],
            pools: vec![PoolReport {
                pool,
                listeners: vec![ListenerReport {
                    name: "ws".to_owned(),
                    address: "192.168.1.110:8020".parse().unwrap(),
                    accepting: true,
                    problem: None,
                    sessions: 4,
                }],
                endpoints: vec![
                    endpoint(21, "connection refused", 0, None),
                    endpoint(22, "it is terminating", 17, Some(now + 35_000)),
                    endpoint(23, "it is not listed any more", 1, Some(now)),
                    endpoint(24, "it is terminating", 0, Some(now)),
                ],
            }],
        };
        let expected = "\
Node server1, version 0.1.0

STALE: pool.yaml is broken

WARNING: look here

ADDRESS        VRID  INTERFACE  STATE   SINCE                    PRIORITY  PEERS                           POOL          REASON
192.168.1.110  110   eth0       Active  1m15s ago (22:13:45Z)  230       192.168.1.12 (235, 1m20s ago)  default/chat  no other router was heard

Lowered priorities
ADDRESS        BY  SINCE                  TRACKED         PROBLEM
192.168.1.110  20  1m15s ago (22:13:45Z)  interface eth1  has no link

Pool default/chat
LISTENER  ADDRESS             ACCEPTS  SESSIONS  PROBLEM
ws        192.168.1.110:8020  yes      4

UPSTREAM  ENDPOINT           USABLE  SESSIONS  PROBLEM
echo      192.168.1.21:8010  no      0         connection refused
echo      192.168.1.22:8010  no      17        it is terminating; the last session is told to go in 35s
echo      192.168.1.23:8010  no      1         it is not listed any more; all sessions were told to go
echo      192.168.1.24:8010  no      0         it is terminating

Last transitions
WHEN                   ADDRESS        FROM    TO      CAUSE
1m15s ago (22:13:45Z)  192.168.1.110  Backup  Active  the active-down interval elapsed
";
        let squeeze = |text: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&render(&report, now)), squeeze(expected));
        let table = render(&report, now);
        let columns: Vec<_> = table
            .lines()
            .filter_map(|line| line.find("Active").or_else(|| line.find("STATE")))
            .collect();
        assert_eq!(columns[0], columns[1], "cells stand under their heads");
    }

    #[test]
    fn durations_are_short() {
        let texts = [999, 1000, 61_000, 3_600_000, 90_000_000].map(short);
        assert_eq!(texts, ["999ms", "1s", "1m01s", "1h00m", "1d01h"]);
    }
}
