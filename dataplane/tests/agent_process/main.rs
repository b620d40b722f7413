//! The agent with the real processes, each test on a host of its own.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod claim;
mod doors;
mod host;
mod manifests;
mod tls;
mod wss;

use std::{
    collections::BTreeSet, fs, net::TcpListener, os::unix::net::UnixDatagram, time::Duration,
};

use host::{Host, eventually, listed_threads, manifests, threads};
use nix::sys::signal::{Signal, kill};
use node_api::RouterState::{Active, Initialize};

const POOL: [u16; 1] = [8020];

#[test]
fn it_serves_and_leaves_nothing_behind() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let mut agent = host.start(&[]);
    host.wait_ready();
    host.wait_status("Active", |report| {
        let router = &report.virtual_routers[0];
        router.state == Active && router.interface.as_deref() == Some("eth0")
    });
    let table = host.status_text().unwrap();
    for words in ["Node server1", "192.168.7.110", "default/chat", "p8020"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let (_, metrics) = host.get("/metrics").unwrap();
    for line in [
        "wsha_config_stale 0.0\n",
        "wsha_process_up{process=\"vrrp\"} 1.0\n",
        "# EOF\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(host.get("/healthz").unwrap().0, 200);
    assert_eq!(host.get("/other").unwrap().0, 404);
    assert!(!host.at("run/proxy.sock").is_dir() && host.at("run/proxy.sock").exists());

    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    let addresses = std::process::Command::new("ip").arg("addr").output();
    let addresses = String::from_utf8(addresses.unwrap().stdout).unwrap();
    assert!(!addresses.contains("192.168.7.110"), "{addresses}");
    assert!(!host.at("run/proxy.sock").exists());
    let said = host.status_text().unwrap_err();
    assert!(said.contains("no agent runs"), "{said}");
}

#[test]
fn the_proxy_has_no_right_and_a_user_of_its_own() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&["--proxy-user", "4242"]);
    host.wait_ready();
    let status = |role| {
        let pid = agent.process(role).unwrap();
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
    };
    let proxy = status("proxy");
    for line in [
        "Uid:\t4242\t4242\t4242\t4242",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Name:\twsha-dataplane",
    ] {
        assert!(proxy.contains(line), "{line}: {proxy}");
    }
    // NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE.
    assert!(status("vrrp").contains("CapBnd:\t0000000000807000"));
}

#[test]
fn the_proxy_is_told_what_it_may_take_over_all_pools() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&["--max-sessions", "5", "--handshakes-per-second", "7"]);
    host.wait_ready();
    let pid = agent.process("proxy").unwrap();
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let told = "\0--max-sessions\x005\0--handshakes-per-second\x007\0";
    assert!(line.contains(told), "{line:?}");
}

#[test]
fn its_threads_are_those_of_the_architecture() {
    let Some(host) = Host::new() else { return };
    let mut listed = listed_threads();
    // Those of `tests/stream` and `tests/pods`.
    listed.retain(|(process, _)| !process.starts_with("run --"));

    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    let reader = ("run".to_owned(), "tokio-rt-worker".to_owned());
    let mut seen = BTreeSet::new();
    // It comes for each look and goes after a while.
    eventually("the thread that reads the files", || {
        let pid = |role| agent.process(role).unwrap().to_string();
        for (process, pid) in [
            ("run", agent.pid().to_string()),
            ("vrrp", pid("vrrp")),
            ("proxy", pid("proxy")),
        ] {
            let of_process = threads(&pid).into_iter();
            seen.extend(of_process.map(|thread| (process.to_owned(), thread)));
        }
        seen.contains(&reader)
    });
    assert_eq!(seen, listed);
}

#[test]
fn killed_processes_are_started_again() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    let begin = host.status().unwrap().virtual_routers.remove(0).transitions;
    for role in ["proxy", "vrrp"] {
        let first = agent.process(role).unwrap();
        kill(first, Signal::SIGKILL).unwrap();
        eventually("another process", || {
            agent.process(role).is_some_and(|pid| pid != first)
        });
        host.wait_ready();
        host.wait_active();
    }
    let router = &host.status().unwrap().virtual_routers[0];
    assert!(router.transitions.starts_with(&begin), "{router:?}");
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains("wsha_process_restarts_total{process=\"vrrp\"} 1.0\n"));
    assert!(metrics.contains("wsha_process_restarts_total{process=\"proxy\"} 1.0\n"));
}

/// Nothing else removes the address before its lease of 2 s ends; by then others have long taken
/// over.
#[test]
fn an_address_that_no_vrrp_adopts_is_removed() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    eventually("the address removed", || {
        // As soon as it is started.
        if let Some(vrrp) = agent.process("vrrp") {
            kill(vrrp, Signal::SIGKILL).ok();
        }
        let removed = "removed an address that vrrp left behind";
        agent.log().contains(removed)
    });
    host.wait_active();
}

#[test]
fn a_vrrp_that_hangs_is_ended_and_its_address_removed() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    let first = agent.process("vrrp").unwrap();
    kill(first, Signal::SIGSTOP).unwrap();
    eventually("another process", || {
        agent.process("vrrp").is_some_and(|pid| pid != first)
    });
    assert!(agent.log().contains("the vrrp process hangs"));
    assert!(
        agent
            .log()
            .contains("removed an address that vrrp left behind")
    );
    host.wait_active();
}

#[test]
fn a_taken_port_is_named_and_tried_again() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let taken = TcpListener::bind("0.0.0.0:8020").unwrap();
    let _agent = host.start(&[]);
    host.wait_status("the problem", |report| {
        let problem = report.pools[0].listeners[0].problem.as_deref();
        problem.is_some_and(|text| text.contains("ss -Hltnp 'sport = :8020'"))
    });
    // A host takes part for an address only while it accepts there.
    host.wait_status("no part", |report| {
        report.virtual_routers[0].state == Initialize
    });
    drop(taken);
    host.wait_ready();
    host.wait_active();
}

/// A listener that cannot be opened must not take the address from those that can.
#[test]
fn an_added_listener_that_fails_leaves_the_others_alone() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let _agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    let since = host.status().unwrap().virtual_routers[0].since_unix_ms;
    let taken = TcpListener::bind("0.0.0.0:8021").unwrap();
    host.write(&manifests(&["server1"], &[8020, 8021]));
    host.wait_status("the problem", |report| {
        report.pools[0].listeners.len() == 2 && report.pools[0].listeners[1].problem.is_some()
    });
    drop(taken);
    host.wait_ready();
    let router = &host.status().unwrap().virtual_routers[0];
    assert_eq!((router.state, router.since_unix_ms), (Active, since));
}

#[test]
fn the_service_manager_hears_of_it() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let manager = UnixDatagram::bind(host.at("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut agent = host.start_with(
        &[],
        &[
            ("NOTIFY_SOCKET", host.at("notify").to_str().unwrap()),
            ("WATCHDOG_USEC", "200000"),
        ],
    );
    let mut buffer = [0; 256];
    let mut hear = |wanted: &str| {
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            if buffer[..length].starts_with(wanted.as_bytes()) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    agent.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(agent.wait().success());
}

#[test]
fn a_process_that_does_not_answer_is_quoted() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    let proxy = agent.process("proxy").unwrap();
    kill(proxy, Signal::SIGSTOP).unwrap();
    let report = host.status().unwrap();
    kill(proxy, Signal::SIGCONT).unwrap();
    let words = "the proxy process did not answer";
    assert!(report.warnings.iter().any(|text| text.contains(words)));
    assert_eq!(report.pools[0].listeners.len(), 1);
    host.wait_status("no warning", |report| {
        report.warnings.iter().all(|text| !text.contains(words))
    });
}

/// vrrp stops the old router in order, with which the proxy closes the listener of its address; the
/// new router needs one again.
#[test]
fn a_router_that_changes_its_vrid_serves_again() {
    let Some(host) = Host::new() else { return };
    let with = |id| {
        let address = "address: 192.168.7.110";
        manifests(&["server1"], &POOL)
            .replace(address, &format!("{address}, virtualRouterID: {id}"))
    };
    host.write(&with(51));
    let _agent = host.start(&[]);
    for id in [51, 52, 53] {
        host.write(&with(id));
        host.wait_status("Active", |report| {
            let router = &report.virtual_routers[0];
            router.virtual_router_id == id && router.state == Active
        });
        host.wait_ready();
    }
}

#[test]
fn files_and_a_controller_exclude_each_other() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let controller = ["--controller", "localhost:8443", "--token-file", "token"];
    let said = host.start_in_vain("server1", &controller);
    assert!(said.contains("--controller-ca"), "{said}");
    let both = [&controller[..], &["--controller-ca", "ca.crt"]].concat();
    let said = host.start_in_vain("server1", &both);
    assert!(said.contains("cannot be used with"), "{said}");
}
