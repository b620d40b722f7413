//! What a user reads whose files are refused: file, object, field, remedy, in one sentence.

mod common;

use common::{addresses, node, nodes, pool, refused};

/// Two nodes and one pool `chat` with the given parts, refused with these sentences.
fn chat(virtual_ips: &str, more: &str) -> Vec<String> {
    refused(&[
        &nodes(&["server1", "server2"]),
        &pool("chat", virtual_ips, more),
    ])
}

const CHAT: &str = "file1.yaml: WebSocketHAPool default/chat: ";

#[track_caller]
fn one(refusals: impl AsRef<[String]>, expected: &str) {
    assert_eq!(refusals.as_ref(), [format!("{CHAT}{expected}")]);
}

#[test]
fn misspelt_fields() {
    one(
        chat("  - {address: 10.0.0.9, virtualRouterId: 7}", ""),
        "spec.virtualIPs[0].virtualRouterId: is not a known field; did you mean virtualRouterID?",
    );
    one(
        chat("  - {adress: 10.0.0.9, address: 10.0.0.9}", ""),
        "spec.virtualIPs[0].adress: is not a known field; did you mean address?",
    );
    one(
        chat(&addresses(&["10.0.0.9"]), "  vrrp: {nonsense: 1}"),
        "spec.vrrp.nonsense: is not a known field; remove it or use one of advertisementInterval, \
         authentication, isolation, macAddress, peering, preemption, version",
    );
    assert_eq!(
        refused(&["apiVersion: v1\nkind: Node\nmetadata: {name: a, lables: {gw: \"yes\"}}\n"]),
        ["file0.yaml: Node a: metadata.lables: is not a known field; did you mean labels?"]
    );
    assert_eq!(
        refused(&[
            "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {a.b/gw: yes, c: 1}}\n"
        ])
        .last()
        .unwrap(),
        "file0.yaml: Node a: metadata.labels.c: is 1; put it in quotes"
    );
}

#[test]
fn further_addresses_are_of_the_first_ones_family_and_stand_once() {
    one(
        chat(
            "  - {address: 10.0.0.9, additionalAddresses: [\"fd00::1\"]}",
            "",
        ),
        "spec.virtualIPs[0].additionalAddresses[0]: fd00::1 is of another family than 10.0.0.9; a \
         virtual router has one family",
    );
    one(
        chat(
            "  - {address: 10.0.0.9, additionalAddresses: [10.0.0.8]}\n  - {address: 10.0.0.8}",
            "",
        ),
        "spec.virtualIPs[1].address: 10.0.0.8 stands in spec.virtualIPs[0] already; remove one of \
         the two",
    );
    one(
        chat(
            "  - {address: 10.0.0.9, additionalAddresses: [10.0.0.1]}",
            "",
        ),
        "spec.upstreams[0].endpoints[0].address: 10.0.0.1 is a virtual address, which would be a \
         loop; use the server's own address",
    );
}

/// RFC 3768 has no IPv6.
#[test]
fn version_2_has_no_ipv6() {
    one(
        chat("  - address: \"fd00::9\"", "  vrrp: {version: 2}"),
        "spec.vrrp.version: is 2, which has no IPv6, and fd00::9 is an IPv6 address; use 3",
    );
}

#[test]
fn ways_to_choose_that_make_no_sense() {
    let at = "spec.upstreams[0].loadBalancing";
    for (how, refusal) in [
        (
            "consistentHash: {}",
            "consistentHash: has no meaning unless type is ConsistentHash; remove it or set type to ConsistentHash",
        ),
        (
            "type: ConsistentHash, consistentHash: {key: {type: Cookie}}",
            "consistentHash.key.name: is missing; name the header, cookie or query parameter",
        ),
        (
            "type: ConsistentHash, consistentHash: {key: {name: session}}",
            "consistentHash.key.name: has no meaning with SourceAddress; remove it or choose another type",
        ),
        ("slowStart: 61m", "slowStart: is 1h1m; use at most 1h"),
    ] {
        let more = format!("    loadBalancing: {{{how}}}");
        one(
            chat(&addresses(&["10.0.0.9"]), &more),
            &format!("{at}.{refusal}"),
        );
    }
}

#[test]
fn proxies_before_the_gateways_that_make_no_sense() {
    let at = "spec.listeners[0].trustedProxies";
    let form = "is no network; write it as 192.0.2.0/24, a single address with /32 or /128";
    for (how, refusal) in [
        (
            "trustedProxies: [192.0.2.1]",
            format!("{at}[0]: \"192.0.2.1\" {form}"),
        ),
        (
            "trustedProxies: [192.0.2.1/24]",
            format!("{at}[0]: \"192.0.2.1/24\" is not in its canonical form; write 192.0.2.0/24"),
        ),
        (
            "trustedProxies: [10.0.0.0/8, 10.0.0.0/8]",
            format!("{at}[1]: \"10.0.0.0/8\" stands twice; remove one of them"),
        ),
        (
            "proxyProtocol: {mode: Required}",
            format!(
                "{at}: is empty, and with proxyProtocol.mode Required nobody else may connect; name \
                 the proxies that send the header"
            ),
        ),
    ] {
        let pool = pool("chat", &addresses(&["10.0.0.9"]), "");
        let pool = pool.replace("port: 8020}", &format!("port: 8020, {how}}}"));
        one(refused(&[&nodes(&["a"]), &pool]), &refusal);
    }
    one(
        chat(&addresses(&["10.0.0.9"]), "    proxyProtocol: {version: 3}"),
        "spec.upstreams[0].proxyProtocol.version: is 3; use 1 or 2",
    );
}

#[test]
fn plain_requests_that_have_no_time_or_all_of_it() {
    for (timeout, refusal) in [
        ("0s", "is 0s; use at least 1ms"),
        ("2h", "is 2h; use at most 1h"),
    ] {
        let how = format!("port: 8020, plainRequests: {{mode: Proxied, timeout: {timeout}}}}}");
        let pool = pool("chat", &addresses(&["10.0.0.9"]), "");
        let pool = pool.replace("port: 8020}", &how);
        let at = "spec.listeners[0].plainRequests.timeout";
        one(
            refused(&[&nodes(&["a"]), &pool]),
            &format!("{at}: {refusal}"),
        );
    }
}

#[test]
fn tls_that_makes_no_sense() {
    let many: Vec<_> = (0..17)
        .map(|number| format!("{{name: c{number}}}"))
        .collect();
    let at = "spec.listeners[0].tls";
    for (how, refusal) in [
        (
            "{}".to_owned(),
            format!("{at}.certificateRefs: is missing; add it"),
        ),
        (
            "{certificateRefs: []}".to_owned(),
            format!("{at}.certificateRefs: is empty; at least one entry is needed"),
        ),
        (
            format!("{{certificateRefs: [{}]}}", many.join(", ")),
            format!("{at}.certificateRefs: has 17 entries; at most 16 are possible"),
        ),
        (
            "{certificateRefs: [{name: a}, {name: a}]}".to_owned(),
            format!(
                "{at}.certificateRefs[1]: is a second entry with name a; remove one of the two"
            ),
        ),
        (
            "{certificateRefs: [{name: a, namespace: other}]}".to_owned(),
            format!(
                "{at}.certificateRefs[0].namespace: is not a known field; remove it or use one of name"
            ),
        ),
        (
            "{certificateRefs: [{name: a}], minimumVersion: 1.2}".to_owned(),
            format!("{at}.minimumVersion: is 1.2; put it in quotes"),
        ),
        (
            "{certificateRefs: [{name: a}], minimumVersion: \"1.1\"}".to_owned(),
            format!("{at}.minimumVersion: is 1.1; use 1.2 or 1.3"),
        ),
        (
            "{certificateRefs: [{name: a}], http2: {mode: Never}}".to_owned(),
            format!("{at}.http2.mode: is Never; use Enabled or Disabled"),
        ),
    ] {
        let pool = pool("chat", &addresses(&["10.0.0.9"]), "");
        let pool = pool.replace("port: 8020}", &format!("port: 8020, tls: {how}}}"));
        one(refused(&[&nodes(&["a"]), &pool]), &refusal);
    }
    let at = "spec.upstreams[0].tls";
    let ca = "caCertificateRef: {name: ca}";
    let long = "a".repeat(64);
    for (how, refusal) in [
        (
            "hostname: chat.example".to_owned(),
            format!("{at}.caCertificateRef: is missing; add it"),
        ),
        (
            format!("hostname: Chat.example, {ca}"),
            format!(
                "{at}.hostname: is Chat.example; write the name of a host in lower case, such as \
                 chat.example.com"
            ),
        ),
        (
            format!("hostname: 192.0.2.1, {ca}"),
            format!(
                "{at}.hostname: \"192.0.2.1\" is an address, which TLS cannot ask for; use a name of \
                 the certificate"
            ),
        ),
        (
            format!("hostname: {long}, {ca}"),
            format!(
                "{at}.hostname: \"{long}\" has more than 63 characters between two dots; use a name \
                 that DNS can have"
            ),
        ),
    ] {
        let more = format!("    tls: {{{how}}}");
        one(chat(&addresses(&["10.0.0.9"]), &more), &refusal);
    }
}

#[test]
fn rebalancing_that_makes_no_sense() {
    let at = "spec.upstreams[0].rebalance";
    for (how, refusal) in [
        (
            "rebalance: {mode: Enabled, percentPerMinute: 0}",
            format!("{at}.percentPerMinute: is 0; use a number from 1 to 100"),
        ),
        (
            "rebalance: {tolerancePercent: 101}",
            format!("{at}.tolerancePercent: is 101; use a number from 1 to 100"),
        ),
        (
            "rebalance: {mode: Enabled}\n    loadBalancing: {type: ConsistentHash}",
            format!(
                "{at}: has no meaning with loadBalancing.type ConsistentHash, by which each client \
                 comes back to its server; remove it or choose another type"
            ),
        ),
    ] {
        let more = format!("    {how}");
        one(chat(&addresses(&["10.0.0.9"]), &more), &refusal);
    }
}

#[test]
fn limits_that_make_no_sense() {
    for (limits, refusal) in [
        (
            "maxSessions: 0",
            "maxSessions: is 0; use a number from 1 to 1000000",
        ),
        (
            "maxFrameSize: 124",
            "maxFrameSize: is 124; use a number from 125 to 9007199254740991",
        ),
        (
            "maxFrameSize: 1Mi",
            "maxFrameSize: is 1Mi; write a number without quotes",
        ),
        (
            "messageBurst: 5",
            "messageBurst: has no meaning without messagesPerSecond; remove it or set messagesPerSecond",
        ),
        ("maxSessionAge: 0s", "maxSessionAge: is 0s; use 1s to 8760h"),
        (
            "maxSessionAge: 8761h",
            "maxSessionAge: is 8761h; use 1s to 8760h",
        ),
        (
            "slowReaderTimeout: 61m",
            "slowReaderTimeout: is 1h1m; use at most 1h",
        ),
        (
            "maxBufferedBytes: 65535",
            "maxBufferedBytes: is 65535; use a number from 65536 to 9007199254740991",
        ),
        (
            "slowReaderTimeout: 0s, maxBufferedBytes: 65536",
            "maxBufferedBytes: has no meaning with slowReaderTimeout 0s, as it ends nothing at once; remove it or set slowReaderTimeout",
        ),
    ] {
        one(
            chat(
                &addresses(&["10.0.0.9"]),
                &format!("  limits: {{{limits}}}"),
            ),
            &format!("spec.limits.{refusal}"),
        );
    }
}

#[test]
fn several_mistakes_are_named_at_once() {
    let refusals = chat(
        "  - {address: 10.0.0.300}\n  - {address: 10.0.0.9, virtualRouterID: 256}",
        "  drain: {closeCode: 7}",
    );
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    let refusals = chat(
        "  - {address: 10.0.0.300}",
        "  drain: {closeCode: 1005}\n  heartbeat: {timeout: 2h}",
    );
    assert_eq!(
        refusals,
        [
            format!(
                "{CHAT}spec.virtualIPs[0].address: \"10.0.0.300\" is no IP address; write it like 192.168.1.110"
            ),
            format!("{CHAT}spec.heartbeat.timeout: is 2h; use at most 1h"),
            format!(
                "{CHAT}spec.drain.closeCode: is 1005, which may not be sent; use 1000-1003, 1007-1014 or 3000-4999"
            ),
        ]
    );
}

#[test]
fn ranges() {
    let simple = addresses(&["10.0.0.9"]);
    one(
        chat("  - {address: 10.0.0.9, virtualRouterID: 256}", ""),
        "spec.virtualIPs[0].virtualRouterID: is 256; use a number from 1 to 255",
    );
    one(
        chat("  - {address: 10.0.0.9, virtualRouterID: \"7\"}", ""),
        "spec.virtualIPs[0].virtualRouterID: is 7; write a number without quotes",
    );
    one(
        chat(&simple, "  accessLog: {mode: Enabled, samplePercent: 0}"),
        "spec.accessLog.samplePercent: is 0; use a number from 1 to 100",
    );
    one(
        chat(&simple, "  drain: {sessionsPerSecond: 0}"),
        "spec.drain.sessionsPerSecond: is 0; use a number from 1 to 1000000",
    );
    one(
        chat(&simple, "  vrrp: {version: 4}"),
        "spec.vrrp.version: is 4; use 2 or 3",
    );
    one(
        chat(&simple, "  vrrp: {advertisementInterval: 1.5s}"),
        "spec.vrrp.advertisementInterval: is 1.5s; write numbers with a unit (h, m, s or ms), such \
         as 100ms or 1m30s",
    );
    one(
        chat(&simple, "  vrrp: {advertisementInterval: 15ms}"),
        "spec.vrrp.advertisementInterval: is 15ms; version 3 counts in steps of 10ms",
    );
    one(
        chat(&simple, "  vrrp: {advertisementInterval: 41s}"),
        "spec.vrrp.advertisementInterval: is 41000ms; version 3 allows 10ms to 40950ms",
    );
    one(
        chat(
            &simple,
            "  vrrp: {version: 2, advertisementInterval: 100ms}",
        ),
        "spec.vrrp.advertisementInterval: is 100ms; version 2 counts in steps of 1000ms: use whole \
         seconds or version 3",
    );
    one(
        chat(&simple, "  vrrp: {preemption: {mode: Disabled, delay: 1s}}"),
        "spec.vrrp.preemption.delay: has no meaning while mode is Disabled; remove it or set mode \
         to Enabled",
    );
    one(
        chat("    []", ""),
        "spec.virtualIPs: is empty; at least one entry is needed",
    );
}

#[test]
fn addresses_and_nodes() {
    one(
        chat(&addresses(&["10.0.0.9/24"]), ""),
        "spec.virtualIPs[0].address: 10.0.0.9/24 carries a prefix length; leave out /24",
    );
    one(
        chat(&addresses(&["10.0.0.9", "10.0.0.9"]), ""),
        "spec.virtualIPs[1]: is a second entry with address 10.0.0.9; remove one of the two",
    );
    one(
        chat(&addresses(&["127.0.0.1"]), ""),
        "spec.virtualIPs[0].address: 127.0.0.1 is a loopback address; use a free address of the \
         gateway nodes' subnet",
    );
    one(
        chat("  - {address: 10.0.0.9, preferredNodeName: server3}", ""),
        "spec.virtualIPs[0].preferredNodeName: names node server3, which does not exist; the nodes \
         present are server1, server2",
    );
    one(
        chat(
            "  - {address: 10.0.0.9, preferredNodeName: server1, nodePriorities: [{nodeName: server1, priority: 100}]}",
            "",
        ),
        "spec.virtualIPs[0].nodePriorities: stands beside preferredNodeName; keep one of the two",
    );
    let both = |one: u8, other: u8| {
        format!(
            "  - address: 10.0.0.9\n    nodePriorities:\n    - {{nodeName: server1, priority: {one}}}\n    - {{nodeName: server2, priority: {other}}}"
        )
    };
    one(
        chat(&both(2, 100), ""),
        "spec.virtualIPs[0].nodePriorities[0].priority: is 2; with 2 nodes listed, use a number \
         from 3 to 255, since lower ones are for nodes without a usable endpoint",
    );
    one(
        chat(&both(100, 100), ""),
        "spec.virtualIPs[0].nodePriorities[1].priority: is 100 for server1 and server2 alike; give \
         each node its own",
    );
    let own = "---\napiVersion: v1\nkind: Node\nmetadata: {name: server1, labels: {gw: \"yes\"}}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.9}]}\n";
    one(
        refused(&[own, &pool("chat", &addresses(&["10.0.0.9"]), "")]),
        "spec.virtualIPs[0].address: 10.0.0.9 is node server1's own address; use one that no host owns",
    );
    let other = "---\napiVersion: v1\nkind: Node\nmetadata: {name: server1}\n";
    one(
        refused(&[other, &pool("chat", &addresses(&["10.0.0.9"]), "")]),
        "spec.gateways.nodeSelector.matchLabels: matches no Node that may take part; label the \
         gateway nodes or correct the labels",
    );
}

#[test]
fn clashes_within_a_pool() {
    let spec = pool("chat", &addresses(&["10.0.0.9"]), "");
    one(
        refused(&[
            &node("a"),
            &spec.replace(
                "[{name: ws, port: 8020}]",
                "[{name: a, port: 80}, {name: b, port: 80}]",
            ),
        ]),
        "spec.listeners[1].port: 80 is also that of listener a, on the same addresses; give one of \
         them another port",
    );
    one(
        refused(&[
            &node("a"),
            &spec.replace("address: 10.0.0.1,", "address: 10.0.0.9,"),
        ]),
        "spec.upstreams[0].endpoints[0].address: 10.0.0.9 is a virtual address, which would be a loop; use the \
         server's own address",
    );
    one(
        refused(&[
            &node("a"),
            &spec.replace("address: 10.0.0.1,", "address: 169.254.0.1,"),
        ]),
        "spec.upstreams[0].endpoints[0].address: 169.254.0.1 is a link-local address; use an \
         address under which the server is reached from other hosts",
    );
    one(
        chat(&addresses(&["10.0.0.9", "10.0.1.9"]), ""),
        "spec.virtualIPs[1].virtualRouterID: is left out, and the last byte of 10.0.1.9 is also the \
         VRID of 10.0.0.9 of WebSocketHAPool default/chat; set virtualRouterID to a number from 1 to \
         255 that no other virtual router of the network has",
    );
    one(
        chat(&addresses(&["10.0.1.0"]), ""),
        "spec.virtualIPs[0].virtualRouterID: is left out, and the last byte of 10.0.1.0 is 0 or \
         heard from a router that is none of ours; set virtualRouterID to a number from 1 to 255 \
         that no other virtual router of the network has",
    );
}

#[test]
fn clashes_between_objects() {
    let chat = pool("chat", "  - {address: 10.0.0.9, virtualRouterID: 51}", "");
    let other = pool("other", "  - {address: 10.0.0.8, virtualRouterID: 51}", "");
    assert_eq!(
        refused(&[&node("a"), &other, &chat]),
        [
            "file1.yaml: WebSocketHAPool default/other: spec.virtualIPs[0].virtualRouterID: 51 is also \
          that of 10.0.0.9 of WebSocketHAPool default/chat; choose another from 1 to 255"
        ]
    );
    let other = pool("other", &addresses(&["10.0.0.9"]), "");
    let refusals = refused(&[&node("a"), &other, &chat]);
    assert!(
        refusals[0].starts_with(
            "file1.yaml: WebSocketHAPool default/other: spec.virtualIPs[0].address: 10.0.0.9 is also \
             an address of WebSocketHAPool default/chat;"
        ),
        "{refusals:?}"
    );
    assert_eq!(
        refused(&[&node("a"), &node("a")]),
        [
            "file1.yaml: Node a: is a second one of that name, after that in file0.yaml; remove one of the two"
        ]
    );
}

#[test]
fn servers_that_are_not_there() {
    let listed = "    endpoints: [{address: 10.0.0.1, port: 8010}]";
    let spec = pool("chat", &addresses(&["10.0.0.9"]), "");
    let with = |upstream: &str| spec.replace(listed, upstream);
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo}\nspec: {ports: [{name: web, port: 80}, {name: ws, port: 8010}]}\n";
    one(
        refused(&[&node("a"), &with("    connectTimeout: 1s")]),
        "spec.upstreams[0]: names no servers; add service or endpoints",
    );
    one(
        refused(&[
            &node("a"),
            &with(&format!("{listed}\n    service: {{name: echo, port: 80}}")),
        ]),
        "spec.upstreams[0]: has service and endpoints; keep one of the two",
    );
    one(
        refused(&[&node("a"), &with("    service: {name: echo, port: 80}")]),
        "spec.upstreams[0].service.name: names Service default/echo, which does not exist; create \
         it or correct the name",
    );
    one(
        refused(&[
            service,
            &format!(
                "{}{}",
                node("a"),
                with("    service: {name: echo, port: sw}")
            ),
        ]),
        "spec.upstreams[0].service.port: is sw, which is no TCP port of Service default/echo; it has \
         80 (web), 8010 (ws)",
    );
    let slice = |kind: &str, address: &str| {
        format!(
            "{service}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: echo-1, labels: {{kubernetes.io/service-name: echo}}}}\naddressType: {kind}\nports: [{{name: ws, port: 8010}}]\nendpoints: [{{addresses: [\"{address}\"]}}]\n"
        )
    };
    let chat = format!(
        "{}{}",
        node("a"),
        with("    service: {name: echo, port: ws}")
    );
    one(
        refused(&[&slice("FQDN", "echo.example"), &chat]),
        "spec.upstreams[0].service: has EndpointSlice default/echo-1 of addressType FQDN; list \
         addresses in slices of type IPv4 or IPv6",
    );
    one(
        refused(&[&slice("IPv4", "127.0.0.1"), &chat]),
        "spec.upstreams[0].service: has an endpoint in EndpointSlice default/echo-1 that is \
         refused: 127.0.0.1 is a loopback address; use an address under which the server is reached \
         from other hosts",
    );
    one(
        refused(&[&slice("IPv4", "10.0.0.9"), &chat]),
        "spec.upstreams[0].service: has an endpoint in EndpointSlice default/echo-1 that is \
         refused: 10.0.0.9 is a virtual address; use the server's own",
    );
}
