//! Certificates and keys that a controller tells.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::sys::signal::Signal;
use node_api::{
    ListenerTls, NodeReport, Secret, TlsVersion,
    stream::{Revision, ToController},
};

use crate::{
    Authority, ENDPOINTS, FIRST, Host, POOL, endpoints, follow, follow_with, followed, is_active,
    pool, ready,
    server::{Connection, Replica},
    wss::{self, Client, Issued, serve_endpoint},
};

const SECRET: &str = "secrets/default/chat-tls";

fn secret(chain: &Issued, key: &Issued) -> Secret {
    Secret {
        certificate: Some(chain.chain.clone()),
        key: Some(key.key.clone()),
        ca: None,
    }
}

fn tell_pool(node: &Connection) -> Revision {
    let mut pool = pool(1, &[110]);
    pool.listeners[0].tls = Some(ListenerTls {
        certificates: vec!["default/chat-tls".to_owned()],
        minimum_version: TlsVersion::V13,
        http2: node_api::Http2::default(),
    });
    node.upsert(ENDPOINTS, &endpoints(&[20]));
    node.upsert(POOL, &pool)
}

fn lacks_its_certificate(report: &NodeReport) -> bool {
    let listener = report.pools.first().map(|pool| &pool.listeners[0]);
    let problem = listener.and_then(|listener| listener.problem.as_deref());
    problem.is_some_and(|problem| problem.contains("has no certificate: Secret default/chat-tls"))
}

fn refused(node: &Connection, revision: &Revision) -> String {
    node.hear("a refusal", |message| match message {
        ToController::Nack {
            name,
            revision: refused,
            reason,
        } if name.to_string() == SECRET && refused == *revision => Some(reason),
        _ => None,
    })
}

#[test]
fn a_node_serves_with_the_last_good_key_and_holds_nothing_without_one() {
    let Some((host, authority, replica, mut agent)) = followed() else {
        return;
    };
    serve_endpoint();
    let issuer = wss::Authority::new();
    let (one, other) = (issuer.issue(), issuer.issue());
    let node = replica.accept();
    tell_pool(&node);
    let mixed = node.upsert(SECRET, &secret(&one, &other));
    node.synced(1, &[POOL, ENDPOINTS]);
    let reason = refused(&node, &mixed);
    assert!(
        reason.contains("default/chat-tls") && reason.contains("does not belong"),
        "{reason}"
    );
    host.wait_status("what is missing", lacks_its_certificate);
    assert!(is_active(&[])(&host.status().unwrap()));

    let good = node.upsert(SECRET, &secret(&one, &one));
    node.hear_acks(&[(SECRET, Some(&good))]);
    host.wait_status("Active", is_active(&[110]));
    let client = Client::new(&issuer);
    let mut session = client.open().unwrap();
    client.round_trip(&mut session, "first");

    let mixed = node.upsert(SECRET, &secret(&other, &one));
    refused(&node, &mixed);
    assert_eq!(Client::new(&issuer).open().unwrap().certificate, one.der);
    client.round_trip(&mut session, "still");
    let saved = fs::read_to_string(host.at("state/state.json")).unwrap();
    assert!(!saved.contains("PRIVATE KEY") && !saved.contains(SECRET));
    let log = agent.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    // Without a controller, and then after a reboot, which empties the run directory.
    drop((node, replica));
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    let mut agent = follow(&host, &authority, &[FIRST]);
    host.wait_status("Active", is_active(&[110]));
    assert_eq!(Client::new(&issuer).open().unwrap().certificate, one.der);
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    fs::remove_file(host.at("run/secrets.json")).unwrap();
    let _agent = follow(&host, &authority, &[FIRST]);
    host.wait_status("what is missing", lacks_its_certificate);
    assert!(is_active(&[])(&host.status().unwrap()));
    // A rollout waits here, rather than take its keys from one node after another.
    let (status, said) = ready(&host);
    assert!(status == 503 && said.contains("no certificate"), "{said}");
}

#[test]
fn keys_on_disk_serve_a_new_pod_without_a_controller() {
    let Some(host) = Host::new() else { return };
    let authority = Authority::new();
    let replica = Replica::start(&authority, FIRST);
    let on_disk = || follow_with(&host, &authority, &[FIRST], &["--keys-on-disk"]);
    let mut agent = on_disk();
    serve_endpoint();
    let issuer = wss::Authority::new();
    let identity = issuer.issue();
    let node = replica.accept();
    tell_pool(&node);
    let good = node.upsert(SECRET, &secret(&identity, &identity));
    node.synced(1, &[POOL, ENDPOINTS, SECRET]);
    node.hear_acks(&[(SECRET, Some(&good))]);
    host.wait_status("Active", is_active(&[110]));

    drop((node, replica));
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    assert!(!fs::exists(host.at("run/secrets.json")).unwrap());
    let file = fs::metadata(host.at("state/secrets.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    // The run directory is the pod's.
    fs::remove_dir_all(host.at("run")).unwrap();
    let _agent = on_disk();
    host.wait_status("Active", is_active(&[110]));
    assert_eq!(
        Client::new(&issuer).open().unwrap().certificate,
        identity.der
    );
}
