//! What an agent does with its files.

use std::{fs, io::Write as _};

use nix::sys::signal::Signal;
use node_api::NodeReport;

use crate::{
    POOL,
    host::{Host, manifests},
};

#[test]
fn refused_files_leave_the_last_good_state_serving() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    let proxy = agent.process("proxy");

    let bad = manifests(&["server1"], &POOL).replace("192.168.7.110", "192.168.7.300");
    for (files, words) in [
        (bad.as_str(), "192.168.7.300"),
        ("{", "pool.yaml"),
        // A host that is to take no part is stopped; it does not leave by a file, which may be
        // another host's.
        (
            &manifests(&["other"], &POOL),
            "no Node is named server1; those present are other; add a Node",
        ),
    ] {
        host.write(files);
        host.wait_status("stale", |report| {
            let reason = report.stale_reason.as_deref();
            reason.is_some_and(|reason| reason.contains(words))
        });
        let (status, body) = host.get("/readyz").unwrap();
        assert_eq!(status, 503);
        assert!(body.contains(words), "{body}");
        let report = host.status().unwrap();
        assert!(report.pools[0].listeners[0].accepting);
    }
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains("wsha_config_stale 1.0\n"), "{metrics}");
    assert!(metrics.contains("wsha_config_changes_total{result=\"refused\"} 3.0\n"));

    // Back to what is in use, and then on.
    host.write(&manifests(&["server1"], &POOL));
    host.wait_ready();
    host.write(&manifests(&["server1", "server2"], &[8020, 8021]));
    host.wait_status("both listeners", |report| {
        report.stale_reason.is_none()
            && report.pools[0].listeners.iter().all(|one| one.accepting)
            && report.pools[0].listeners.len() == 2
    });
    host.wait_ready();
    assert_eq!(agent.process("proxy"), proxy, "no process was restarted");
}

#[test]
fn it_starts_with_what_was_accepted_before() {
    let Some(host) = Host::new() else { return };
    let said = host.start_in_vain("server1", &[]);
    assert!(said.contains("pool.yaml"), "{said}");
    assert!(said.contains("no files were accepted before"), "{said}");

    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    drop(agent);
    fs::remove_file(host.at("pool.yaml")).unwrap();
    let agent = host.start(&[]);
    host.wait_status("serves", |report| {
        let reason = report.stale_reason.as_deref().unwrap_or_default();
        reason.contains("pool.yaml") && report.pools[0].listeners[0].accepting
    });
    host.write(&manifests(&["server1"], &POOL));
    host.wait_ready();
    drop(agent);

    fs::write(host.at("state/accepted.json"), "{").unwrap();
    host.write("{");
    let said = host.start_in_vain("server1", &[]);
    assert!(said.contains("accepted.json is damaged"), "{said}");
}

/// Older ones would be served after a start without usable files.
#[test]
fn files_that_cannot_be_saved_are_told_of_until_they_are() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    // Root may write anywhere; what is in the way of the new file is a directory.
    let obstacle = host.at("state/accepted.json.new");
    fs::create_dir(&obstacle).unwrap();
    let text = manifests(&["server1"], &[8021]);
    host.write(&text);
    let words = "the files in use are not saved: cannot replace";
    let told = |report: &NodeReport| report.warnings.iter().any(|text| text.contains(words));
    host.wait_status("the warning", told);
    host.wait_ready();
    let (_, body) = host.get("/readyz").unwrap();
    assert!(body.contains(&format!("warning: {words}")), "{body}");
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains("wsha_config_unsaved 1.0\n"), "{metrics}");

    fs::remove_dir(&obstacle).unwrap();
    agent.signal(Signal::SIGHUP);
    host.wait_status("no warning", |report| !told(report));
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains("wsha_config_unsaved 0.0\n"), "{metrics}");
    let saved = fs::read_to_string(host.at("state/accepted.json")).unwrap();
    assert!(saved.contains("8021"), "{saved}");
}

#[test]
fn what_may_be_meant_so_is_served_with_a_warning() {
    let Some(host) = Host::new() else { return };
    let endpoints = "endpoints: [{address: 192.168.7.20, port: 8010}]";
    let text = manifests(&["server1"], &POOL).replace(endpoints, "service: {name: echo, port: 80}")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo}\n\
           spec: {ports: [{port: 80}]}\n\
           ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
           metadata: {name: echo-1, labels: {kubernetes.io/service-name: echo}}\n\
           addressType: IPv4\nendpoints: []\n";
    host.write(&text);
    let _agent = host.start(&[]);
    host.wait_status("the warning", |report| {
        let words = "WebSocketHAPool default/chat: spec.upstreams[0].service: has no endpoint now";
        report.stale_reason.is_none() && report.warnings.iter().any(|text| text.contains(words))
    });
    let table = host.status_text().unwrap();
    assert!(table.contains("has no endpoint now"), "{table}");
}

/// The objects come in such an order that half of the file is in order as well, and has no pool.
#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let Some(host) = Host::new() else { return };
    let text = manifests(&["server1"], &POOL);
    host.write(&text);
    let agent = host.start(&[]);
    host.wait_ready();
    let (nodes, _) = text.rsplit_once("---\n").unwrap();
    let mut file = fs::File::create(host.at("pool.yaml")).unwrap();
    file.write_all(nodes.as_bytes()).unwrap();
    // Said at the look every 10 s.
    agent.wait_log("has these files open");
    assert_eq!(host.status().unwrap().pools.len(), 1);
    let other = manifests(&["server1"], &[8021]);
    let (_, pool) = other.rsplit_once("---\n").unwrap();
    write!(file, "---\n{pool}").unwrap();
    drop(file);
    host.wait_status("the whole file", |report| {
        let listener = &report.pools[0].listeners[0];
        listener.address.port() == 8021 && listener.accepting
    });
    assert!(!agent.log().contains("pools=0"), "{}", agent.log());
}

#[test]
fn sighup_asks_for_a_look() {
    let Some(host) = Host::new() else { return };
    let text = manifests(&["server1"], &POOL);
    host.write(&text);
    let mut agent = host.start(&[]);
    host.wait_ready();
    let mut file = fs::File::create(host.at("pool.yaml")).unwrap();
    let other = manifests(&["server1"], &[8021]);
    file.write_all(other.as_bytes()).unwrap();
    agent.signal(Signal::SIGHUP);
    host.wait_status("the file as it is", |report| {
        report.pools[0].listeners[0].address.port() == 8021
    });
    host.wait_ready();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "it ran all the time");
}
