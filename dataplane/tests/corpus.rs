//! Replays the fuzz corpus of what the data plane reads that is not heard on the segment: answers of the
//! kernel, manifests, messages of the control stream. Each file must give what is named here, and the laws
//! of the fuzz targets hold for each, whole and cut short. `kernel-*` were captured from Linux 6.18,
//! `recorded-*` between wsha's own controller and gateways; `example-*` are the manifests of `e2e`.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test it is an assertion"
)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use dataplane::sys::netlink::{Change, said};
use node_api::{
    Decoded,
    stream::{ToController, ToNode},
};

#[path = "../fuzz/src/laws"]
mod laws {
    #![expect(
        unreachable_pub,
        reason = "the fuzz targets see it as a crate of its own"
    )]
    pub mod manifests;
    pub mod netlink;
    pub mod stream;
}

/// Files by name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).unwrap();
    let files = files.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap())
    });
    files.collect()
}

/// What each file gives, by its name, and all lengths of each for the law.
fn check(
    target: &str,
    law: fn(&[u8]),
    outcome: impl Fn(&[u8]) -> String,
    expected: &[(&str, &str)],
) {
    let files = corpus(target);
    let given: BTreeMap<_, _> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), outcome(bytes)))
        .collect();
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(name, outcome)| (*name, (*outcome).to_owned()))
        .collect();
    assert_eq!(given, expected, "{target}");
    for bytes in files.values() {
        // Of long files every tenth length or so.
        for end in (0..=bytes.len()).step_by(1 + bytes.len() / 200) {
            law(&bytes[..end]);
        }
        law(bytes);
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Interfaces, addresses, what is gone, default routes, neighbours, errors.
fn netlink_outcome(bytes: &[u8]) -> String {
    let said = said(bytes);
    let mut words = Vec::new();
    for change in said.changes {
        words.push(match change {
            Change::Link(link) => format!("{}{}", link.name, if link.is_up { "+" } else { "" }),
            Change::LinkGone(_) => "link gone".to_owned(),
            Change::Address(it) => {
                format!("{}{}", it.address, if it.is_own { " (own)" } else { "" })
            }
            Change::AddressGone(it) => format!("{} gone", it.address),
        });
    }
    for route in said.default_routes {
        words.push(format!("via {}", route.gateway));
    }
    for (_, address) in said.unresolved {
        words.push(format!("{address}?"));
    }
    for error in said.errors {
        words.push(format!("error {error}"));
    }
    words.join(", ")
}

/// rtnetlink(7).
#[test]
fn netlink() {
    let addresses = "127.0.0.1, 192.168.7.11, 192.168.7.110 (own), ::1, \
        fe80::f8cb:efff:fe24:b222, fe80::f8cb:efff:fe24:b222, fd00:7::110 (own), fd00:7::11, \
        fe80::40e1:44ff:fe3d:813, fe80::14bd:aeff:fed4:22e6";
    let routes = "via 192.168.7.1, via 192.168.7.2, via 192.168.7.3, via fd00:7::1";
    let expected = [
        ("kernel-links", "lo+, br0+"),
        ("kernel-links-2", "peer0+, eth0+, vrrp4+"),
        ("kernel-done", ""),
        ("kernel-addresses", addresses),
        ("kernel-routes", routes),
        (
            "kernel-neighbours",
            "192.168.7.77?, 192.168.7.78?, fd00:7::77?",
        ),
        ("kernel-event-address-added", "192.168.7.99"),
        ("kernel-event-address-removed", "192.168.7.99 gone"),
        ("kernel-event-left-bridge", ""),
        ("kernel-event-link-down", "eth0"),
        ("kernel-event-link-gone", "link gone"),
        ("kernel-acknowledgement", "error 0"),
        ("kernel-error", "error 99"),
        ("kernel-error-link", "error 19"),
    ];
    check(
        "netlink",
        laws::netlink::datagram,
        netlink_outcome,
        &expected,
    );
}

/// How many nodes, or the first refusal.
fn manifests_outcome(bytes: &[u8]) -> String {
    let files = [("pool.yaml".to_owned(), text(bytes).to_owned())];
    match plan::manifests::accept(&files) {
        Ok(accepted) => format!("{} nodes", accepted.objects.nodes.len()),
        Err(refusals) => refusals[0].to_string(),
    }
}

#[test]
fn manifests() {
    let expected = [
        ("example-article", "2 nodes"),
        ("example-demo", "2 nodes"),
        ("example-dual-stack", "2 nodes"),
        ("example-simple", "2 nodes"),
        ("forged-list", "1 nodes"),
        (
            "forged-aliases",
            "pool.yaml: Node server1: a: is not a known field; remove it or use one of apiVersion, kind, \
             metadata, spec, status",
        ),
        (
            "forged-misspelt",
            "pool.yaml: Node server1: metadata.lables: is not a known field; did you mean labels?",
        ),
        (
            "forged-nothing",
            "pool.yaml: holds no object; delete the file if that is meant",
        ),
        (
            "forged-tab",
            "pool.yaml: is no valid YAML at line 4 column 2: tabs disallowed within this context (block \
             indentation)",
        ),
        (
            "forged-twice",
            "pool.yaml: Node server1: is a second one of that name, after that in pool.yaml; remove one \
             of the two",
        ),
    ];
    check(
        "manifests",
        laws::manifests::file,
        manifests_outcome,
        &expected,
    );
}

fn stream_outcome<M>(decoded: &Result<Decoded<M>, node_api::DecodeError>) -> String {
    match decoded {
        Ok(Decoded::Message(_)) => "message",
        Ok(Decoded::UnknownKind(_)) => "unknown kind",
        Ok(Decoded::Refused { .. }) => "refused",
        Err(_) => "none",
    }
    .to_owned()
}

#[test]
fn messages_to_a_node() {
    let outcome = |bytes: &[u8]| stream_outcome(&ToNode::decode(text(bytes)));
    let expected = [
        ("recorded-welcome", "message"),
        ("recorded-watching", "message"),
        ("recorded-upsert-pools", "message"),
        ("recorded-upsert-endpoints", "message"),
        ("recorded-upsert-endpoints-short", "message"),
        ("recorded-endpointsDelta", "message"),
        ("recorded-endpointsDelta-short", "message"),
        ("recorded-synced", "message"),
        ("recorded-synced-short", "message"),
        ("recorded-retire", "message"),
        ("forged-unknown-kind", "unknown kind"),
        ("forged-without-content", "refused"),
        ("forged-truncated", "none"),
    ];
    check("stream_to_node", laws::stream::to_node, outcome, &expected);
}

#[test]
fn messages_to_a_controller() {
    let outcome = |bytes: &[u8]| stream_outcome(&ToController::decode(text(bytes)));
    let expected = [
        ("recorded-facts", "message"),
        ("recorded-facts-short", "message"),
        ("recorded-report", "message"),
        ("recorded-report-short", "message"),
        ("recorded-ack", "message"),
        ("recorded-ack-short", "message"),
        ("recorded-trusts", "message"),
        ("recorded-retired", "message"),
        ("forged-without-revision", "message"),
        ("forged-number", "none"),
    ];
    check(
        "stream_to_controller",
        laws::stream::to_controller,
        outcome,
        &expected,
    );
}
