//! `--tls-dir`: certificates and keys as files.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nix::sys::signal::Signal;
use node_api::{NodeReport, RouterState::Active};

use crate::{
    host::{Agent, Host, eventually, manifests},
    wss::{Authority, Client, END, Issued, serve_endpoint},
};

const SECRET: &str = "tls/default/chat-tls";

/// The manifests of one pool with TLS, and with sessions that nobody pings.
fn pool() -> String {
    let tls = "tls: {certificateRefs: [{name: chat-tls}]}";
    let text = manifests(&["server1"], &[8020]);
    text.replace("port: 8020}", &format!("port: 8020, {tls}}}"))
}

fn write_file(host: &Host, name: &str, text: &str, mode: u32) {
    let path = host.at(&format!("{SECRET}/{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// As whoever renews them does: one after the other, in place.
fn write_identity(host: &Host, identity: &Issued) {
    write_file(host, "tls.crt", &identity.chain, 0o644);
    write_file(host, "tls.key", &identity.key, 0o600);
}

fn start(host: &Host, more: &[&str]) -> Agent {
    let directory = host.at("tls");
    let arguments = [&["--tls-dir", directory.to_str().unwrap()], more].concat();
    host.start(&arguments)
}

fn warns(report: &NodeReport, words: &str) -> bool {
    report.warnings.iter().any(|one| one.contains(words))
}

fn problem(report: &NodeReport) -> &str {
    let listener = &report.pools[0].listeners[0];
    listener.problem.as_deref().unwrap_or_default()
}

#[test]
fn certificates_are_replaced_under_open_sessions_and_outlive_their_files() {
    let Some(host) = Host::new() else { return };
    serve_endpoint();
    let authority = Authority::new();
    let first = authority.issue();
    write_identity(&host, &first);
    let ticket = host.at("tls/ticket.keys");
    fs::write(&ticket, format!("{}=\n", "A".repeat(43))).unwrap();
    fs::set_permissions(&ticket, fs::Permissions::from_mode(0o600)).unwrap();
    host.write(&pool());
    let mut agent = start(&host, &[]);
    host.wait_ready();
    host.wait_active();
    let old = Client::new(&authority);
    let mut session = old.open().unwrap();
    assert_eq!(session.certificate, first.der);
    old.round_trip(&mut session, "before");
    let (_, metrics) = host.get("/metrics").unwrap();
    let line =
        format!("wsha_certificate_not_after_seconds{{secret=\"default/chat-tls\"}} {END}.0\n");
    assert!(metrics.contains(&line), "{metrics}");

    let second = authority.issue();
    write_identity(&host, &second);
    eventually("the second certificate", || {
        let session = Client::new(&authority).open();
        session.is_some_and(|session| session.certificate == second.der)
    });
    old.round_trip(&mut session, "after");

    // Not its key: the one before stays, and somebody is told.
    write_file(&host, "tls.key", &first.key, 0o600);
    host.wait_status("a warning", |report| {
        warns(report, "default/chat-tls") && warns(report, "does not belong to")
    });
    assert_eq!(
        Client::new(&authority).open().unwrap().certificate,
        second.der
    );
    old.round_trip(&mut session, "still");

    // What was good is there without the files, and so are the keys of tickets.
    fs::remove_dir_all(host.at("tls")).unwrap();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    let kept = fs::metadata(host.at("run/keys.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    assert!(!host.at("state/keys.json").exists());
    let _agent = start(&host, &[]);
    host.wait_active();
    let mut session = old.open().unwrap();
    assert!(session.is_resumed);
    old.round_trip(&mut session, "resumed");
    let session = Client::new(&authority).open().unwrap();
    assert_eq!(session.certificate, second.der);
    assert!(!session.is_resumed);
    host.wait_status("a warning", |report| {
        warns(report, "Secret default/chat-tls") && warns(report, "is not there; put tls.crt")
    });
}

#[test]
fn a_host_without_the_key_leaves_the_address_to_others() {
    let Some(host) = Host::new() else { return };
    let authority = Authority::new();
    host.write(&pool());
    let _agent = start(&host, &[]);
    host.wait_status("what is missing", |report| {
        problem(report).contains("Secret default/chat-tls is not there; put tls.crt and tls.key")
    });
    let report = host.status().unwrap();
    assert_ne!(report.virtual_routers[0].state, Active);
    let (status, body) = host.get("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(
        body.contains("listener p8020 of default/chat has no certificate"),
        "{body}"
    );

    let identity = authority.issue_until(2020);
    write_file(&host, "tls.crt", &identity.chain, 0o644);
    write_file(&host, "tls.key", &identity.key, 0o644);
    host.wait_status("a key that all can read", |report| {
        problem(report).contains("chmod o-rwx")
    });
    assert_ne!(host.status().unwrap().virtual_routers[0].state, Active);

    write_identity(&host, &identity);
    host.wait_active();
    host.wait_ready();
    let report = host.status().unwrap();
    assert_eq!(problem(&report), "");
    assert!(
        warns(&report, "has ended, and clients refuse it"),
        "{report:?}"
    );
}

/// An edit is no reason to lose clients.
#[test]
fn a_listener_whose_new_secret_is_missing_goes_on_as_it_was() {
    let Some(host) = Host::new() else { return };
    serve_endpoint();
    let authority = Authority::new();
    write_identity(&host, &authority.issue());
    host.write(&pool());
    let _agent = start(&host, &["--keys-on-disk"]);
    host.wait_ready();
    host.wait_active();
    let client = Client::new(&authority);
    let mut session = client.open().unwrap();
    host.write(&pool().replace("chat-tls", "chat-new"));
    host.wait_status("a warning", |report| {
        warns(report, "Secret default/chat-new is not there") && warns(report, "goes on as it was")
    });
    client.round_trip(&mut session, "after");
    assert!(Client::new(&authority).open().is_some());
    assert!(host.at("state/keys.json").exists() && !host.at("run/keys.json").exists());
}
