//! The agent with the real processes and a controller that the test plays, each test on a host of its
//! own.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod again;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent_process/host.rs"]
mod host;
mod server;
mod tls;
#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent_process/wss.rs"]
mod wss;

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use host::{Agent, Host, eventually, listed_threads, threads};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use node_api::{
    Balancing, Drain, Endpoint, EndpointPhase, Heartbeat, Listener, NodeReport, Pool, Preemption,
    Protocol, RankedNode,
    RouterState::Active,
    Upstream, VirtualRouter, VrrpVersion,
    stream::{EndpointsDelta, ResourceName, Revision, ToController, ToNode},
};
use server::{Authority, Connection, Replica, write_token};

const FIRST: &str = "127.0.0.1:8443";
const SECOND: &str = "127.0.0.2:8443";
const POOL: &str = "pools/default/chat";
const ENDPOINTS: &str = "endpoints/default/chat/echo";

/// Virtual router N has address 192.168.7.N.
fn pool(sequence: i64, routers: &[u8]) -> Pool {
    let router = |id: &u8| VirtualRouter {
        virtual_router_id: *id,
        addresses: vec![[192, 168, 7, *id].into()],
        interface: None,
        version: VrrpVersion::V3,
        advertisement_interval: Duration::from_millis(100),
        preemption: Preemption::Enabled {
            delay: Duration::ZERO,
        },
        mac_address: node_api::MacAddress::Interface,
        nodes: vec![RankedNode {
            node_name: "server1".to_owned(),
            priority: 250,
            priority_without_endpoint: 10,
            address: None,
        }],
        peering: node_api::Peering::Multicast,
        password: None,
        sequence,
    };
    Pool {
        virtual_routers: routers.iter().map(router).collect(),
        listeners: vec![Listener {
            name: "ws".to_owned(),
            port: 8020,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: node_api::ProxyProtocolMode::Disabled,
            routes: Vec::new(),
            plain_requests: None,
            tls: None,
        }],
        upstreams: vec![Upstream {
            name: "echo".to_owned(),
            endpoints: Vec::new(),
            balancing: Balancing::RoundRobin,
            slow_start: Duration::ZERO,
            endpoint_sessions: None,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            proxy_protocol: None,
            tls: None,
            health: node_api::Health::default(),
            zone_preference: None,
            rebalance: None,
        }],
        heartbeat: Heartbeat {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
        },
        drain: Drain {
            timeout: Duration::ZERO,
            sessions_per_second: None,
            close_code: 1001,
        },
        tracking: node_api::Tracking::default(),
        access_log: None,
        limits: node_api::Limits::default(),
        requires: Vec::new(),
    }
}

fn endpoints(lasts: &[u8]) -> Vec<Endpoint> {
    let endpoint = |last: &u8| Endpoint {
        address: [192, 168, 7, *last].into(),
        port: 8010,
        weight: 1,
        phase: EndpointPhase::Ready,
        zone: None,
    };
    lasts.iter().map(endpoint).collect()
}

/// Tells one pool with one endpoint.
fn tell(node: &Connection, sequence: i64, routers: &[u8]) -> (Revision, Revision) {
    let endpoints = node.upsert(ENDPOINTS, &endpoints(&[20]));
    let pool = node.upsert(POOL, &pool(sequence, routers));
    node.synced(sequence, &[POOL, ENDPOINTS]);
    (pool, endpoints)
}

fn follow(host: &Host, authority: &Authority, replicas: &[&str]) -> Agent {
    follow_with(host, authority, replicas, &[])
}

fn follow_with(host: &Host, authority: &Authority, replicas: &[&str], more: &[&str]) -> Agent {
    write_token(&host.at("token"), "the-token\n");
    let authorities = authority.write(host.at("ca.crt"));
    let token = host.at("token");
    let mut arguments = vec![
        "--controller-ca",
        authorities.to_str().unwrap(),
        "--token-file",
        token.to_str().unwrap(),
    ];
    for address in replicas {
        arguments.extend(["--controller", address]);
    }
    arguments.extend(more);
    host.start_bare(&arguments)
}

/// A host whose agent follows one replica.
fn followed() -> Option<(Host, Authority, Replica, Agent)> {
    let host = Host::new()?;
    let authority = Authority::new();
    let replica = Replica::start(&authority, FIRST);
    let agent = follow(&host, &authority, &[FIRST]);
    Some((host, authority, replica, agent))
}

/// The addresses that the kernel has.
fn addresses() -> String {
    let output = Command::new("ip").args(["-4", "addr"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn active(report: &NodeReport) -> Vec<u8> {
    let routers = report.virtual_routers.iter();
    let active = routers.filter(|router| router.state == Active);
    active.map(|router| router.virtual_router_id).collect()
}

fn is_active(wanted: &[u8]) -> impl Fn(&NodeReport) -> bool {
    move |report| active(report) == wanted
}

fn ready(host: &Host) -> (u16, String) {
    host.get("/readyz").unwrap_or_default()
}

#[test]
fn a_whole_state_a_delta_a_refusal_and_a_removal() {
    let Some((host, _, replica, _agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    assert_eq!((node.hello.held.len(), node.hello.sequence), (0, 0));
    let facts = &node.hello.facts.interfaces;
    assert_eq!(facts.len(), 1, "{facts:?}");
    assert_eq!(
        (facts[0].name.as_str(), &facts[0].prefixes[..]),
        ("eth0", &["192.168.7.0/24".to_owned()][..])
    );

    // What is not understood costs no more than itself.
    node.tell_text(r#"{"kind":"later","name":"x"}"#.to_owned());
    node.upsert("later/x", &1);
    let bad = node.upsert("pools/default/bad", &"no pool");
    let (pool_revision, endpoints_revision) = tell(&node, 3, &[110]);
    let (name, revision, reason) = node.hear("a nack", |message| match message {
        ToController::Nack {
            name,
            revision,
            reason,
        } => Some((name.to_string(), revision, reason)),
        _ => None,
    });
    assert_eq!((name.as_str(), revision), ("pools/default/bad", bad));
    assert!(reason.contains("no pool"), "{reason}");
    node.hear_acks(&[
        (POOL, Some(&pool_revision)),
        (ENDPOINTS, Some(&endpoints_revision)),
    ]);
    host.wait_status("Active", is_active(&[110]));
    let report = node.hear("Active in a report", |message| match message {
        ToController::Report(report) if active(&report) == [110] => Some(report),
        _ => None,
    });
    assert_eq!(report.virtual_routers[0].sequence, 3);
    host.wait_ready();
    let (_, metrics) = host.get("/metrics").unwrap();
    for line in ["wsha_controller_connected 1.0\n", "wsha_config_stale 0.0\n"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    let (old, new) = (endpoints(&[20]), endpoints(&[20, 21]));
    let new_revision = Revision::of(&new).unwrap();
    let name = || ResourceName::from(ENDPOINTS);
    let delta = EndpointsDelta::between(
        name(),
        (endpoints_revision.clone(), &old),
        (new_revision.clone(), &new),
    );
    node.tell(&ToNode::EndpointsDelta(delta.clone()));
    node.hear_acks(&[(ENDPOINTS, Some(&new_revision))]);
    host.wait_status("two endpoints", |report| {
        report.pools[0].endpoints.len() == 2
    });
    // For another base: the whole is asked for.
    node.tell(&ToNode::EndpointsDelta(delta));
    node.hear("a nack", |message| {
        matches!(message, ToController::Nack { .. }).then_some(())
    });

    for name in [POOL, ENDPOINTS] {
        let name = ResourceName::from(name);
        node.tell(&ToNode::Remove { name });
    }
    node.hear_acks(&[(POOL, None), (ENDPOINTS, None)]);
    assert!(
        !addresses().contains("192.168.7.110"),
        "acknowledged means given up"
    );
}

#[test]
fn of_two_replicas_the_one_that_has_read_more_is_followed() {
    let Some(host) = Host::new() else { return };
    let authority = Authority::new();
    let replicas = [FIRST, SECOND].map(|address| Replica::start(&authority, address));
    let _agent = follow(&host, &authority, &[FIRST, SECOND]);
    let [behind, ahead] = [&replicas[0], &replicas[1]].map(Replica::accept);
    let (revision, _) = tell(&ahead, 7, &[110, 112]);
    ahead.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("both", is_active(&[110, 112]));
    // It would take 112 away, and give 110 another VRID.
    let mut older = pool(6, &[110]);
    older.virtual_routers[0].virtual_router_id = 99;
    behind.upsert(ENDPOINTS, &endpoints(&[20]));
    let old_revision = behind.upsert(POOL, &older);
    behind.synced(6, &[POOL, ENDPOINTS]);
    host.wait_status("a warning", |report| {
        let warning = |text: &String| text.contains("up to sequence 6");
        report.warnings.iter().any(warning)
    });
    // Not even when the other is gone.
    ahead.close(1012, "restart");
    host.wait_status("stale", |report| report.stale_reason.is_some());
    assert_eq!(active(&host.status().unwrap()), [110, 112]);
    let acked = behind.heard_so_far().into_iter().any(|message| {
        matches!(message, ToController::Ack { revision: Some(one), .. } if one == old_revision)
    });
    assert!(!acked);
    // It catches up.
    let revision = behind.upsert(POOL, &pool(8, &[112]));
    behind.tell(&ToNode::Synced {
        sequence: 8,
        keep: None,
    });
    behind.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("one", is_active(&[112]));
    assert!(host.status().unwrap().stale_reason.is_none());
}

/// A name service of this thread's own: the file, in a mount namespace.
fn name(host: &Host, lines: &str) {
    let path = host.at("hosts");
    let is_first = !path.exists();
    fs::write(&path, lines).unwrap();
    if !is_first {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    for arguments in [
        &["--make-rprivate", "/"][..],
        &["--bind", path.to_str().unwrap(), "/etc/hosts"],
    ] {
        let done = Command::new("mount").args(arguments).status().unwrap();
        assert!(done.success(), "mount {arguments:?}");
    }
}

#[test]
fn a_stream_is_kept_to_each_address_of_a_name() {
    let Some(host) = Host::new() else { return };
    name(
        &host,
        "127.0.0.1 wsha-controller\n127.0.0.2 wsha-controller\n",
    );
    let authority = Authority::new();
    let replicas = [FIRST, SECOND].map(|address| Replica::start(&authority, address));
    let _agent = follow(&host, &authority, &["wsha-controller:8443"]);
    let [first, second] = [&replicas[0], &replicas[1]].map(Replica::accept);
    let (revision, _) = tell(&first, 3, &[110]);
    first.hear_acks(&[(POOL, Some(&revision))]);
    tell(&second, 3, &[110]);
    second.hear_acks(&[(POOL, Some(&revision))]);
    for node in [&first, &second] {
        node.hear("Active in a report", |message| match message {
            ToController::Report(report) if active(&report) == [110] => Some(()),
            _ => None,
        });
    }
    let connected = |number: u8| {
        eventually("that many streams", || {
            // Those of the first that came while it was still looked for.
            replicas[0]
                .newcomers()
                .for_each(|node| node.close(1012, "restart"));
            let (_, metrics) = host.get("/metrics").unwrap();
            metrics.contains(&format!("wsha_controller_connected {number}.0\n"))
        });
    };
    connected(2);
    // One that left the name keeps its stream to the end, and has no other after it.
    name(&host, "127.0.0.2 wsha-controller\n");
    first.close(1012, "restart");
    host.wait_status("no word of it", |report| {
        replicas[0]
            .newcomers()
            .for_each(|node| node.close(1012, "restart"));
        let of_first = |text: &String| text.contains(FIRST);
        !report.warnings.iter().any(of_first)
    });
    connected(1);
    drop(second);
}

#[test]
fn a_reconnect_tells_only_what_differs_and_disturbs_nothing() {
    let Some((host, _, replica, agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (pool_revision, endpoints_revision) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&pool_revision))]);
    host.wait_status("Active", is_active(&[110]));
    let before = host.status().unwrap();
    let processes = ["vrrp", "proxy"].map(|role| agent.process(role));

    node.close(1012, "restart");
    let node = replica.accept();
    assert_eq!(node.hello.sequence, 3);
    let held = [(POOL, pool_revision), (ENDPOINTS, endpoints_revision)];
    let held = held.map(|(name, revision)| (ResourceName::from(name), revision));
    assert_eq!(node.hello.held, held.clone().into());
    node.synced(3, &[POOL, ENDPOINTS]);
    node.hear_acks(&[(POOL, Some(&held[0].1)), (ENDPOINTS, Some(&held[1].1))]);
    let after = host.status().unwrap();
    let since = |report: &NodeReport| report.virtual_routers[0].since_unix_ms;
    assert_eq!(since(&before), since(&after));
    assert_eq!(processes, ["vrrp", "proxy"].map(|role| agent.process(role)));
    let log = agent.log();
    assert_eq!(
        log.matches("it closed the stream (1012").count(),
        1,
        "{log}"
    );

    // A replica that is killed, and one that hangs.
    drop(node);
    let node = replica.accept();
    replica.behave(|manners| manners.silence = Duration::from_millis(300));
    node.close(1012, "restart");
    let node = replica.accept();
    node.hang();
    replica.accept().synced(3, &[POOL, ENDPOINTS]);
    assert!(agent.log().contains("it said nothing for 300 ms"));
    assert_eq!(active(&host.status().unwrap()), [110]);
}

#[test]
fn a_node_that_starts_while_no_controller_answers_serves_as_before() {
    let Some((host, authority, replica, agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[110]));
    drop((agent, node, replica));
    assert!(!addresses().contains("192.168.7.110"));

    let agent = follow(&host, &authority, &[FIRST]);
    host.wait_status("Active", is_active(&[110]));
    host.wait_ready();
    host.wait_status("the cause", |report| {
        let reason = report.stale_reason.as_deref().unwrap_or_default();
        reason.contains("what was told before is in use") && reason.contains("cannot connect")
    });
    let (status, body) = ready(&host);
    assert_eq!(status, 200, "away means stale, not unready");
    assert!(body.contains("stale: no controller is followed"), "{body}");
    let (_, metrics) = host.get("/metrics").unwrap();
    for line in ["wsha_controller_connected 0.0\n", "wsha_config_stale 1.0\n"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    let replica = Replica::start(&authority, FIRST);
    let node = replica.accept();
    assert_eq!(node.hello.held[&ResourceName::from(POOL)], revision);
    node.synced(3, &[POOL, ENDPOINTS]);
    host.wait_status("not stale", |report| report.stale_reason.is_none());
    drop(agent);
}

#[test]
fn each_cause_of_having_no_stream_is_said_once() {
    let Some(host) = Host::new() else { return };
    let authority = Authority::new();
    let agent = follow(&host, &authority, &[FIRST]);
    let says = |words: &str| {
        host.wait_status(words, |report| {
            let reason = report.stale_reason.as_deref().unwrap_or_default();
            reason.contains(words) && reason.contains("there is nothing to serve")
        });
        let (status, body) = ready(&host);
        assert_eq!(status, 503);
        assert!(body.contains(words), "{body}");
    };
    says("cannot connect");
    says("no controller has told this node anything before");

    let other = Authority::new();
    other.write(host.at("ca.crt"));
    let replica = Replica::start(&authority, FIRST);
    says("its certificate is not accepted");
    says(host.at("ca.crt").to_str().unwrap());
    authority.write(host.at("ca.crt"));

    replica.behave(|manners| manners.token = "another".to_owned());
    authority.write(host.at("ca.crt"));
    says("it refused our token (401");
    says("token expired");

    replica.behave(|manners| manners.subprotocol = "v9.stream.wsha.dev".to_owned());
    write_token(&host.at("token"), "another");
    says(&format!(
        "it takes none of the versions that this node speaks ({})",
        Protocol::spoken_in_words()
    ));

    replica.behave(|manners| *manners = server::Manners::default());
    write_token(&host.at("token"), "the-token");
    let node = replica.accept();
    says("has not told its whole state yet");
    node.tell_text("{".to_owned());
    says("cannot be understood");

    let node = replica.accept();
    node.synced(0, &[]);
    host.wait_ready();
    let log = agent.log();
    for words in [
        "cannot connect",
        "its certificate is not accepted",
        "it refused our token",
        "it takes none of the versions that this node speaks",
        "cannot be understood",
    ] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
    assert!(
        !log.contains("the-token") && !log.contains("another\""),
        "{log}"
    );
}

#[test]
fn a_removed_state_directory_is_made_again_and_its_threads_are_those_of_the_architecture() {
    let Some((host, _, replica, agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_ready();
    let before = fs::read(host.at("state/state.json")).unwrap();
    fs::remove_dir_all(host.at("state")).unwrap();
    // There are no files to look at; it goes on.
    agent.signal(Signal::SIGHUP);
    eventually("lock and state are there again", || {
        let saved = fs::read(host.at("state/state.json"));
        host.at("state/lock").exists() && saved.is_ok_and(|saved| saved == before)
    });
    host.wait_status("Active", is_active(&[110]));

    let mut listed = listed_threads();
    listed.retain(|(process, _)| ["run", "run --controller"].contains(&process.as_str()));
    let listed: BTreeSet<String> = listed.into_iter().map(|(_, thread)| thread).collect();
    // Those that read and save come and go.
    let mut seen = threads(&agent.pid().to_string());
    seen.insert("tokio-rt-worker".to_owned());
    assert_eq!(seen, listed);
}
