//! The one agent of a host, and those that would be another.

use std::{fs, net::TcpListener};

use nix::sys::signal::Signal;

use crate::{
    POOL,
    host::{Host, Places, STRANGER, eventually, manifests},
};

#[test]
fn a_second_run_is_refused_and_may_take_over() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let mut first = host.start(&[]);
    host.wait_ready();
    let said = host.start_in_vain("server1", &[]);
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("node server1"), "{said}");
    assert!(said.contains("--take-over"), "{said}");

    let second = host.start(&["--take-over"]);
    assert!(first.wait().success(), "the first stopped in order");
    host.wait_ready();
    let lock = fs::read_to_string(host.at("state/lock")).unwrap();
    assert!(
        lock.contains(&format!("\"pid\":{},", second.pid())),
        "{lock}"
    );
}

#[test]
fn an_unknown_node_is_told_which_there_are() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1", "server2"], &POOL));
    let said = host.start_in_vain("server3", &[]);
    for words in ["--node-name", "server3", "server1, server2"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_taken_admin_port_is_named() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let _taken = TcpListener::bind("127.0.0.1:9101").unwrap();
    let said = host.start_in_vain("server1", &[]);
    assert!(said.contains("--admin"), "{said}");
    assert!(said.contains("127.0.0.1:9101"), "{said}");
}

#[test]
fn a_take_over_with_nothing_to_serve_leaves_the_running_agent_alone() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let mut agent = host.start(&[]);
    host.wait_ready();
    fs::remove_file(host.at("state/accepted.json")).unwrap();
    host.write("{");
    host.start_in_vain("server1", &["--take-over"]);
    host.write(&manifests(&["server1"], &POOL));
    host.wait_ready();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "it ran all the time");
}

#[test]
fn a_take_over_whose_admin_port_is_taken_leaves_the_running_agent_alone() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let mut agent = host.start(&[]);
    host.wait_ready();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let said = host.start_in_vain("server1", &["--take-over", "--admin", &admin]);
    assert!(said.contains(&admin) && said.contains("--admin"), "{said}");
    host.wait_ready();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success(), "it ran all the time");
}

#[test]
fn whoever_has_the_directories_or_the_network_is_named() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    let pid = format!("process {}", agent.pid());
    let other = Places {
        state: "other",
        run: "run",
    };
    let said = host.start_in_vain_in(other, "server1", &[]);
    assert!(said.contains(&pid) && said.contains("--run-dir"), "{said}");
    let other = Places {
        run: "other-run",
        ..other
    };
    let said = host.start_in_vain_in(other, "server1", &[]);
    let words = "another state directory, runs in this network namespace";
    assert!(said.contains(&pid) && said.contains(words), "{said}");
}

#[test]
fn a_stranger_who_has_the_network_is_named() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let stranger = host.stranger(
        "socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"\\0wsha-dataplane\")) or die; \
         listen(S, 5); print \"ready\\n\"; <STDIN>;",
    );
    assert_eq!(stranger.said, "ready");
    let said = host.start_in_vain("server1", &[]);
    let words = format!("process {} of user {STRANGER} holds", stranger.pid());
    assert!(said.contains(&words), "{said}");
    drop(stranger);
    let _agent = host.start(&[]);
    host.wait_ready();
}

#[test]
fn a_run_directory_is_made_with_all_that_is_missing() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let places = Places {
        state: "state",
        run: "much/deeper/run",
    };
    let agent = host.start_in(places);
    host.wait_ready();
    drop(agent);
    let closed = "must belong to user 0 and be writable by no other";
    let said = host.start_in_vain_in(
        Places {
            run: "/tmp",
            ..places
        },
        "server1",
        &[],
    );
    assert!(said.contains(closed), "{said}");
}

#[test]
fn a_state_directory_that_was_removed_comes_back() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let mut agent = host.start(&[]);
    host.wait_ready();
    fs::remove_dir_all(host.at("state")).unwrap();
    let said = host.start_in_vain("server1", &[]);
    let pid = agent.pid();
    assert!(said.contains(&format!("process {pid} already")), "{said}");
    // It looks every 10 s, or when asked to.
    agent.signal(Signal::SIGHUP);
    eventually("its own lock", || {
        let lock = fs::read_to_string(host.at("state/lock")).unwrap_or_default();
        lock.contains(&format!("\"pid\":{pid},"))
    });
    eventually("what it serves", || host.at("state/accepted.json").exists());

    fs::remove_dir_all(host.at("state")).unwrap();
    let _second = host.start(&["--take-over"]);
    assert!(agent.wait().success(), "the first stopped in order");
    host.wait_ready();
}

#[test]
fn the_last_words_have_the_form_of_the_log() {
    let Some(host) = Host::new() else { return };
    let said = host.start_in_vain("server1", &["--log-format", "json"]);
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "ERROR", "{said}");
    }
    assert!(said.contains("pool.yaml"), "{said}");
}
