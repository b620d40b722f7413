//! What is tracked fails on one host: its address goes to the other one, with no gap and back again, and the
//! sessions of the other host's address notice nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::lab::{Host, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Gateway, Manifest, Watch, in_lab, inside};
use node_api::{RouterState, Tracked};

use crate::{at_home, wire::Wire};

/// Something tracked, and how it fails on a host and recovers.
struct Case {
    kind: Tracked,
    name: &'static str,
    fail: fn(&Host) -> Result<()>,
    recover: fn(&Host) -> Result<()>,
}

/// What the checks ask is none of the pool's: only who asks notices.
const TRACKING: &str = "tracking: { interfaces: [{ name: uplink, weight: 20 }], checks: [\
    { name: port, weight: 20, interval: 200ms, timeout: 100ms, failureThreshold: 2, successThreshold: 2, \
      tcp: { address: 192.168.1.19, port: 8010 } }, \
    { name: page, weight: 20, interval: 200ms, timeout: 200ms, failureThreshold: 2, successThreshold: 2, \
      http: { address: 192.168.1.20, port: 8088, path: /healthy, expectedStatuses: [204] } }, \
    { name: own, weight: 20, interval: 200ms, timeout: 200ms, failureThreshold: 2, successThreshold: 2, \
      command: { name: own.sh } }] }";

const CASES: [Case; 4] = [
    Case {
        kind: Tracked::Interface,
        name: "uplink",
        fail: |host| host.ip("link set uplink-peer down").map(drop),
        recover: |host| host.ip("link set uplink-peer up").map(drop),
    },
    Case {
        kind: Tracked::Check,
        name: "port",
        fail: |host| host.ip("route add unreachable 192.168.1.19/32").map(drop),
        recover: |host| host.ip("route del unreachable 192.168.1.19/32").map(drop),
    },
    Case {
        kind: Tracked::Check,
        name: "page",
        // The server tells hosts apart by their addresses.
        fail: |host| fs::write(refused(host), "").context("cannot tell the server"),
        recover: |host| fs::remove_file(refused(host)).context("cannot tell the server"),
    },
    Case {
        kind: Tracked::Check,
        name: "own",
        fail: |host| host.ip("link add broken type bridge").map(drop),
        recover: |host| host.ip("link del broken").map(drop),
    },
];

/// While it is there, the server answers 503 to this host.
fn refused(host: &Host) -> PathBuf {
    host.dir().join("refused")
}

/// Answers GETs on the client's host for as long as the test runs, by 204 unless who asks is to be refused.
fn serve_page(cluster: &Cluster, hosts: [(IpAddr, PathBuf); 2]) -> Result<()> {
    let listener = inside(cluster.lab.client(), || {
        Ok(TcpListener::bind("192.168.1.20:8088")?)
    })?;
    let answer = move |mut stream: TcpStream| -> std::io::Result<()> {
        let peer = stream.peer_addr()?.ip();
        let mut request = [0; 1024];
        let length = stream.read(&mut request)?;
        let is_it =
            request[..length].starts_with(b"GET /healthy HTTP/1.1\r\nHost: 192.168.1.20:8088\r\n");
        let mut refused = hosts.iter().filter(|(_, file)| file.exists());
        let status = if is_it && !refused.any(|(host, _)| *host == peer) {
            "204 No Content"
        } else {
            "503 Service Unavailable"
        };
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asked may have gone.
            answer(stream).ok();
        }
    });
    Ok(())
}

/// Fails while the host has an interface called `broken`.
const OWN: &str =
    "#!/bin/sh\n[ ! -e /proc/sys/net/ipv4/conf/broken ] || { echo 'broken is there'; exit 1; }\n";

/// Gives a host what is tracked there, and starts its agent.
fn start(cluster: &mut Cluster, gateway: Gateway) -> Result<()> {
    let host = cluster.host(gateway);
    host.ip("link add uplink type veth peer name uplink-peer")?;
    host.ip("link set uplink-peer up")?;
    host.ip("link set uplink up")?;
    let checks = host.dir().join("checks");
    fs::create_dir(&checks)?;
    let own = checks.join("own.sh");
    fs::write(&own, OWN)?;
    for path in [&checks, &own] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let mut command = cluster.run_command(gateway);
    command.arg("--check-dir").arg(&checks);
    cluster.start_with(gateway, command)
}

#[test]
fn what_is_tracked_moves_an_address_and_back() -> Result<()> {
    let test = "what_is_tracked_moves_an_address_and_back";
    in_lab(test, |cluster| {
        let mut manifest = Manifest::article();
        manifest.pool().spec.push(TRACKING.to_owned());
        cluster.backends.add_fourth(&cluster.lab)?;
        let hosts = Gateway::BOTH.map(|gateway| {
            let host = cluster.host(gateway);
            (IpAddr::from(host.address()), refused(host))
        });
        serve_page(cluster, hosts)?;
        cluster.apply(&manifest)?;
        for gateway in Gateway::BOTH {
            start(cluster, gateway)?;
        }
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        at_home(&watch, cluster, Wire::v3())?;
        let since = Instant::now();
        for case in CASES {
            moves_and_back(cluster, &watch, &case).with_context(|| case.name.to_owned())?;
        }
        watch.undisturbed(VIP_SERVER2, since)?;
        let entered = cluster.entered(Gateway::One, VIP_SERVER1, RouterState::Backup)?;
        ensure!(
            entered == 1 + CASES.len(),
            "server1 yielded {entered} times"
        );
        watch.never_split()
    })
}

fn moves_and_back(cluster: &Cluster, watch: &Watch, case: &Case) -> Result<()> {
    let host = cluster.host(Gateway::One);
    (case.fail)(host)?;
    let what = format!("a priority lowered by {}", case.name);
    cluster.wait_status(Gateway::One, &what, |report| {
        let mut routers = report.virtual_routers.iter();
        let router = routers.find(|it| it.addresses.contains(&VIP_SERVER1.into()))?;
        let lowered = router.lowered_by.first()?;
        let is_it = (lowered.kind, lowered.name.as_str()) == (case.kind, case.name);
        let is_lowered = router.priority == 230 && router.lowered_by.len() == 1;
        (is_it && is_lowered && router.state == RouterState::Backup).then_some(())
    })?;
    watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
    cluster.wait_state(Gateway::Two, VIP_SERVER1, RouterState::Active)?;
    watch.serves(VIP_SERVER1, Instant::now())?;
    (case.recover)(host)?;
    at_home(watch, cluster, Wire::v3())?;
    let router = cluster.router(Gateway::One, VIP_SERVER1)?;
    ensure!(
        router.priority == 250 && router.lowered_by.is_empty(),
        "{router:?}"
    );
    Ok(())
}
