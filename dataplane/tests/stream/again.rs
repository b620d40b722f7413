//! What a node goes on with: after a restored backup, after an uninstall that was undone, after a stop.

use std::{collections::BTreeSet, fs};

use nix::sys::signal::Signal;
use node_api::stream::{ToController, ToNode};

use crate::{
    ENDPOINTS, FIRST, POOL, active, addresses, endpoints, follow, followed,
    host::{Host, eventually},
    is_active, pool, ready,
    server::{Authority, Connection, Replica},
    tell,
};

#[test]
fn a_controller_whose_history_began_anew_is_followed() {
    let Some(host) = Host::new() else { return };
    let authority = Authority::new();
    let replica = Replica::start(&authority, FIRST);
    replica.behave(|manners| manners.epoch = "e1");
    let mut agent = follow(&host, &authority, &[FIRST]);
    let node = replica.accept();
    assert_eq!(node.hello.epoch, "");
    let (revision, _) = tell(&node, 7, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[110]));
    // Over a restart of the node, too.
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    replica.behave(|manners| manners.epoch = "e2");
    let _agent = follow(&host, &authority, &[FIRST]);
    let node = replica.accept();
    let known = (node.hello.epoch.as_str(), node.hello.sequence);
    assert_eq!(known, ("e1", 7));
    let (revision, _) = tell(&node, 2, &[112]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[112]));
    let saved = fs::read_to_string(host.at("state/state.json")).unwrap();
    assert!(saved.contains("\"sequence\":2,\"epoch\":\"e2\""), "{saved}");
}

#[test]
fn an_uninstall_leaves_no_address_and_no_file() {
    let Some((host, _, replica, mut agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.upsert("ticketKeys/default/chat", &[format!("{}=", "A".repeat(43))]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[110]));
    assert!(host.at("state/state.json").exists());
    eventually("the secret is kept", || {
        host.at("run/secrets.json").exists()
    });

    node.tell(&ToNode::Retire);
    node.hear("the end", |message| {
        matches!(message, ToController::Retired).then_some(())
    });
    assert!(!addresses().contains("192.168.7.110"));
    let left = |name| {
        let entries = fs::read_dir(host.at(name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let in_use = BTreeSet::from(["holder.sock".to_owned(), "lock".to_owned()]);
    assert_eq!(left("state").into_iter().collect::<BTreeSet<_>>(), in_use);
    assert!(!host.at("run/secrets.json").exists());
    let (status, body) = ready(&host);
    assert_eq!(status, 503);
    assert!(body.contains("uninstalled"), "{body}");

    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    assert_eq!(left("state"), [""; 0]);
    assert!(!agent.log().contains("hidden"));
}

#[test]
fn a_node_that_gave_up_everything_comes_back_on_a_new_stream() {
    let Some((host, _, replica, _agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[110]));
    let retired = |node: &Connection| {
        node.hear("the end", |message| {
            matches!(message, ToController::Retired).then_some(())
        });
    };
    node.tell(&ToNode::Retire);
    retired(&node);
    // Asked again on another stream, it answers again.
    node.close(1012, "restart");
    let node = replica.accept();
    assert!(node.hello.held.is_empty());
    node.tell(&ToNode::Retire);
    retired(&node);
    // What follows on that one changes nothing.
    tell(&node, 4, &[110]);
    node.tell(&ToNode::Retire);
    retired(&node);
    assert_eq!(active(&host.status().unwrap()), [0; 0]);
    assert!(!host.at("state/state.json").exists());

    node.close(1012, "restart");
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    host.wait_status("Active", is_active(&[110]));
    assert!(host.at("state/state.json").exists());
    host.wait_ready();
}

#[test]
fn endpoints_that_were_not_saved_are_at_a_stop() {
    let Some((host, _, replica, mut agent)) = followed() else {
        return;
    };
    let node = replica.accept();
    let (revision, _) = tell(&node, 3, &[110]);
    node.hear_acks(&[(POOL, Some(&revision))]);
    // Some of these within one second, whatever else the machine does.
    for last in 21..60 {
        let revision = node.upsert(ENDPOINTS, &endpoints(&[20, last]));
        node.hear_acks(&[(ENDPOINTS, Some(&revision))]);
    }
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    let saved = fs::read_to_string(host.at("state/state.json")).unwrap();
    assert!(saved.contains("192.168.7.59"), "{saved}");
    assert!(saved.contains(&serde_json::to_string(&pool(3, &[110]).virtual_routers).unwrap()));
}
