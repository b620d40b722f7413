//! Replays the fuzz corpus of what the data plane reads that is not heard on the segment: answers of the
//! kernel, manifests, messages of the control stream, and what clients, backends and other proxies send. Each file must give what is named here, and the laws
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
use proxy::{
    handshake::{Outcome, RequestParser},
    proxy_protocol,
};

#[path = "../fuzz/src/laws"]
mod laws {
    #![expect(
        unreachable_pub,
        reason = "the fuzz targets see it as a crate of its own"
    )]
    pub mod cuts;
    pub mod frames;
    pub mod http;
    pub mod http2;
    pub mod manifests;
    pub mod netlink;
    pub mod proxy_protocol;
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
        ("example-routes", "2 nodes"),
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

/// The first byte of a file says how the law cuts it.
fn behind_seed(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

#[test]
fn requests_of_clients() {
    let outcome = |bytes: &[u8]| match RequestParser::default().parse(behind_seed(bytes)) {
        Outcome::NeedMore => "more".to_owned(),
        Outcome::Bad(reject) => format!("{reject:?}"),
        Outcome::Done(request, _) => {
            let [host, target] = [request.host, request.target].map(text);
            format!("{host}{target}")
        }
    };
    let expected = [
        ("forged-absolute-form", "other.example.com/rooms/7?user=1"),
        ("forged-bare-lf", "Malformed(\"A line ends without CR.\")"),
        ("forged-early-data", "chat.example.com:8020/rooms/7?user=1"),
        (
            "forged-empty-line-before",
            "chat.example.com:8020/rooms/7?user=1",
        ),
        (
            "forged-folded",
            "Malformed(\"A field is folded over lines.\")",
        ),
        ("forged-http-2", "HttpVersion"),
        (
            "forged-length-and-chunked",
            "Malformed(\"A handshake has no Transfer-Encoding.\")",
        ),
        ("forged-lone-cr", "Malformed(\"A CR stands alone.\")"),
        ("forged-no-upgrade", "NotAnUpgrade"),
        ("forged-nul", "Malformed(\"There is a control character.\")"),
        (
            "forged-space-before-colon",
            "Malformed(\"A field's name is not a token.\")",
        ),
        ("forged-truncated", "more"),
        (
            "forged-two-hosts",
            "Malformed(\"Host is there more than once.\")",
        ),
        ("forged-upgrade", "chat.example.com:8020/rooms/7?user=1"),
        ("forged-version-8", "Version"),
        ("node-ws", "127.0.0.1:59205/rooms/7?user=1"),
    ];
    check("http_request", laws::http::request, outcome, &expected);
}

#[test]
fn requests_in_streams() {
    let expected = [
        ("forged-another-host", "400"),
        ("forged-another-protocol", "501"),
        (
            "forged-content",
            "Malformed(\"A handshake has no content.\")",
        ),
        ("forged-crumbs", "chat.example:8443/rooms/7?user=1"),
        ("forged-get", "NotAnUpgrade"),
        ("forged-http", "421"),
        ("forged-key", "chat.example:8443/rooms/7?user=1"),
        ("forged-line-in-a-value", "malformed"),
        ("forged-no-authority", "400"),
        ("forged-no-protocol", "501"),
        (
            "forged-path-of-no-ascii",
            "Malformed(\"The request line is malformed.\")",
        ),
        ("forged-star", "Malformed(\"The target is malformed.\")"),
        ("forged-upgrade", "chat.example:8443/rooms/7?user=1"),
        ("forged-user", "Malformed(\"Host is not a host.\")"),
        ("forged-version-8", "Version"),
    ];
    check(
        "http2_request",
        laws::http2::request,
        laws::http2::outcome,
        &expected,
    );
}

#[test]
fn answers_of_backends() {
    let outcome = |bytes: &[u8]| {
        let bytes = behind_seed(bytes);
        laws::http::answers(bytes, &[bytes.len()]).join(", ")
    };
    let expected = [
        ("forged-chunked", "103 40, 503 64, content of 15"),
        ("forged-frame-behind", "101 129, content of 0"),
        (
            "forged-interim-before",
            "100 25, 103 40, 101 129, content of 0",
        ),
        ("forged-length", "403 45, content of 5"),
        (
            "forged-length-and-chunked",
            "bad: the backend's answer is malformed: There are Transfer-Encoding and Content-Length.",
        ),
        ("forged-no-phrase", "204 16, content of 0"),
        (
            "forged-status-99",
            "bad: the backend's answer is malformed: The status line is not one of HTTP/1.1.",
        ),
        ("forged-switch", "101 129, content of 0"),
        (
            "forged-switch-to-h2c",
            "bad: the backend's 101 is not one to WebSocket: Upgrade is not websocket.",
        ),
        ("forged-truncated", ""),
        (
            "forged-two-lengths",
            "bad: the backend's answer is malformed: Content-Length is there more than once.",
        ),
        ("forged-until-the-end", "200 19"),
    ];
    check("http_response", laws::http::response, outcome, &expected);
}

#[test]
fn content_in_chunks() {
    let outcome = |bytes: &[u8]| {
        laws::http::chunked(behind_seed(bytes))
            .map_or_else(|| "none".to_owned(), |end| format!("{end} bytes"))
    };
    let expected = [
        ("forged-data-too-long", "none"),
        ("forged-empty", "5 bytes"),
        ("forged-extension-and-trailer", "43 bytes"),
        ("forged-extension-without-size", "none"),
        ("forged-lf-behind-size", "none"),
        ("forged-lf-in-trailer", "none"),
        ("forged-lone-cr-in-trailer", "none"),
        ("forged-no-size", "none"),
        ("forged-size-beyond-64-bits", "none"),
        ("forged-truncated", "none"),
    ];
    check("http_chunks", laws::http::chunks, outcome, &expected);
}

/// Frames, messages, violations, answers to our own pings; Close frames, what is too much, what is passed on.
#[test]
fn streams_of_frames() {
    let outcome = |bytes: &[u8]| {
        let (watch, _, stream) = laws::frames::setup(bytes).unwrap();
        let found = laws::frames::tracked(stream, watch, &[stream.len()]);
        let mut words = vec![format!("{:?}", found.counts)];
        words.extend(found.closes.iter().map(|code| format!("close {code:?}")));
        words.extend(found.excess.map(|excess| format!("too much: {excess:?}")));
        words.push(format!("{} of {} bytes", found.passed.len(), stream.len()));
        words.join(", ")
    };
    let expected = [
        ("forged-close-cut-in-code", "[1, 1, 0, 0], 3 of 6 bytes"),
        (
            "forged-close-empty",
            "[1, 0, 0, 0], close None, 2 of 2 bytes",
        ),
        (
            "forged-close-one-byte",
            "[1, 0, 0, 0], close None, 3 of 3 bytes",
        ),
        (
            "forged-close-with-reason",
            "[2, 1, 0, 0], close Some(1001), 18 of 30 bytes",
        ),
        ("forged-compressed", "[1, 1, 0, 0], 9 of 9 bytes"),
        (
            "forged-frame-too-big",
            "[3, 2, 0, 0], close Some(1000), too much: Frame, 8 of 123 bytes",
        ),
        (
            "forged-length-in-long-form",
            "[2, 1, 0, 0], close None, 35 of 35 bytes",
        ),
        ("forged-length-of-64-bits", "[1, 1, 1, 0], 13 of 13 bytes"),
        ("forged-long-ping", "[1, 0, 1, 0], 130 of 130 bytes"),
        (
            "forged-message-too-big",
            "[4, 2, 0, 0], too much: Message, 112 of 176 bytes",
        ),
        ("forged-own-pongs", "[3, 1, 0, 2], 37 of 65 bytes"),
        ("forged-reserved-opcodes", "[2, 0, 2, 0], 8 of 8 bytes"),
        (
            "forged-too-many-messages",
            "[6, 6, 0, 0], too much: Messages, 35 of 42 bytes",
        ),
        ("forged-truncated", "[0, 0, 0, 0], 0 of 5 bytes"),
        ("forged-unmasked-client", "[1, 1, 1, 0], 7 of 7 bytes"),
        ("rfc6455-256-bytes", "[1, 1, 0, 0], 260 of 260 bytes"),
        ("rfc6455-64-kib", "[1, 1, 0, 0], 65546 of 65546 bytes"),
        ("rfc6455-fragmented", "[2, 1, 0, 0], 9 of 9 bytes"),
        ("rfc6455-hello", "[1, 1, 0, 0], 7 of 7 bytes"),
        ("rfc6455-masked-hello", "[1, 1, 0, 0], 11 of 11 bytes"),
        ("rfc6455-ping-and-pong", "[2, 0, 0, 0], 22 of 22 bytes"),
    ];
    check("frames", laws::frames::stream, outcome, &expected);
}

#[test]
fn headers_of_the_proxy_protocol() {
    let outcome = |bytes: &[u8]| match proxy_protocol::parse(bytes) {
        Outcome::NeedMore => "more".to_owned(),
        Outcome::Bad(why) => why.to_owned(),
        Outcome::Done(proxy_protocol::Header::Local, end) => format!("local, {end} bytes"),
        Outcome::Done(
            proxy_protocol::Header::Proxied {
                source,
                destination,
            },
            end,
        ) => {
            format!("{source} to {destination}, {end} bytes")
        }
    };
    let expected = [
        (
            "forged-mixed-families",
            "it begins with neither PROXY nor the signature of version 2",
        ),
        (
            "forged-no-header",
            "it begins with neither PROXY nor the signature of version 2",
        ),
        ("forged-v1-endless", "its line does not end"),
        ("forged-v1-leading-zero", "its line is malformed"),
        ("forged-v1-lf", "its line does not end with CRLF"),
        ("forged-v1-other-family", "its line is malformed"),
        (
            "forged-v1-tcp4",
            "192.0.2.7:51234 to 192.168.1.110:8020, 47 bytes",
        ),
        (
            "forged-v1-tcp6",
            "[2001:db8::7]:51234 to [2001:db8::110]:8020, 49 bytes",
        ),
        ("forged-v1-truncated", "more"),
        ("forged-v1-unknown", "local, 24 bytes"),
        ("forged-v2-command-2", "its version or command is unknown"),
        ("forged-v2-local", "local, 16 bytes"),
        ("forged-v2-no-room", "it has no room for its addresses"),
        (
            "forged-v2-tcp4",
            "192.0.2.7:51234 to 192.168.1.110:8020, 28 bytes",
        ),
        (
            "forged-v2-tcp6",
            "[2001:db8::7]:51234 to [2001:db8::110]:8020, 52 bytes",
        ),
        (
            "forged-v2-tlv",
            "192.0.2.7:51234 to 192.168.1.110:8020, 35 bytes",
        ),
        ("forged-v2-too-long", "it is too long"),
        ("forged-v2-unix", "local, 232 bytes"),
    ];
    check(
        "proxy_protocol",
        laws::proxy_protocol::bytes,
        outcome,
        &expected,
    );
}
