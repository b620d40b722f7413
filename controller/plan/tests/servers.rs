//! Services and their slices: what is found, what is refused and what is only said.

mod common;

use common::{addresses, node, pool, pool_ref, refused};
use plan::{Reason, manifests};

/// A pool whose sessions go to a port of Service echo.
fn chat(port: &str) -> String {
    pool("chat", &addresses(&["10.0.0.9"]), "").replace(
        "endpoints: [{address: 10.0.0.1, port: 8010}]",
        &format!("service: {{name: echo, port: {port}}}"),
    )
}

fn service(ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: echo}}\nspec: {{ports: [{ports}]}}\n"
    )
}

fn slice(kind: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: echo-1, labels: \
         {{kubernetes.io/service-name: echo}}}}\naddressType: {kind}\nports: {ports}\nendpoints: {endpoints}\n"
    )
}

/// One server.
fn server(ports: &str) -> String {
    slice("IPv4", ports, "[{addresses: [10.1.0.1]}]")
}

fn endpoints(texts: &[&str]) -> Vec<String> {
    let plan = common::planned(texts);
    let endpoints = plan.pools[&pool_ref("chat")].upstreams[0].endpoints.iter();
    endpoints
        .map(|it| format!("{}:{}", it.address, it.port))
        .collect()
}

/// What follows the name of the pool in the only sentence.
#[track_caller]
fn sentence(service: &str, slice: &str, port: &str) -> String {
    let refusals = refused(&[&node("a"), service, slice, &chat(port)]);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let start = "file3.yaml: WebSocketHAPool default/chat: spec.upstreams[0].service";
    let rest = refusals[0].strip_prefix(start);
    rest.unwrap_or(&refusals[0]).to_owned()
}

#[test]
fn slices_that_lead_nowhere_are_named() {
    let http = service("{port: 80}");
    let misspelt = server("[{port: 8010}]").replace("service-name: echo", "service-name: ehco");
    assert_eq!(
        sentence(&http, &misspelt, "80"),
        ".name: names Service default/echo, which has no EndpointSlice; add one that carries the \
         label kubernetes.io/service-name: echo in namespace default"
    );
    assert_eq!(
        sentence(
            &http,
            &server("[{name: ws, port: 8010}, {name: h3, port: 8010, protocol: UDP}]"),
            "80"
        ),
        ": has no EndpointSlice with a TCP port without a name; they have h3 (UDP), ws; name ports \
         there as the Service does"
    );
    assert_eq!(
        sentence(&service("{name: ws, port: 80}"), &server("[]"), "ws"),
        ": has no EndpointSlice with a TCP port named ws; they have none; name ports there as the \
         Service does"
    );
    for (port, shown) in [
        ("{port: 70000}", "port 70000"),
        ("{}", "a port that has no number"),
    ] {
        assert_eq!(
            sentence(&http, &server(&format!("[{port}]")), "80"),
            format!(
                ": has EndpointSlice default/echo-1 with {shown}; write a number from 1 to \
                 65535"
            )
        );
    }
    assert_eq!(
        sentence(
            &http,
            &server("[{port: 8010}]").replace("IPv4", "ipv4"),
            "80"
        ),
        ": has EndpointSlice default/echo-1 of addressType ipv4; list addresses in slices of type \
         IPv4 or IPv6"
    );
    assert_eq!(
        sentence(
            &http,
            &slice("IPv4", "[{port: 8010}]", "[{addresses: [\"2001:db8::1\"]}]"),
            "80"
        ),
        ": has an endpoint in EndpointSlice default/echo-1 that is refused: 2001:db8::1 does not \
         fit the addressType; move it to a slice of type IPv6"
    );
}

#[test]
fn only_tcp_ports_count() {
    let h3 = "{name: h3, port: 443, protocol: UDP}";
    let both = format!("{h3}, {{name: https, port: 443, protocol: TCP}}");
    let ports = "[{name: h3, port: 8444, protocol: UDP}, {name: https, port: 8443, protocol: TCP}]";
    assert_eq!(
        endpoints(&[&node("a"), &service(&both), &server(ports), &chat("443")]),
        ["10.1.0.1:8443"]
    );
    assert_eq!(
        sentence(&service(h3), &server(ports), "443"),
        ".port: is 443, which is no TCP port of Service default/echo; it has 443/UDP (h3)"
    );
}

#[test]
fn a_number_in_quotes_is_a_name() {
    assert_eq!(
        sentence(&service("{port: 80}"), &server("[{port: 8010}]"), "\"80\""),
        ".port: is \"80\", which is no TCP port of Service default/echo; it has 80; for a number \
         write it without quotes"
    );
}

/// As the controller of Kubernetes leaves a slice whose Service is scaled to nothing.
#[test]
fn a_service_scaled_to_nothing_is_a_remark() {
    for (ports, endpoints) in [("[{port: 8010}]", "[]"), ("null", "null"), ("", "")] {
        let texts = [
            node("a"),
            service("{port: 80}"),
            slice("IPv4", ports, endpoints),
            chat("80"),
        ];
        let files: Vec<_> = texts.map(|text| ("f.yaml".to_owned(), text)).into();
        let plan = manifests::accept(&files).unwrap().plan;
        let remarks = &plan.unresolved[&pool_ref("chat")];
        assert_eq!(remarks.len(), 1);
        assert_eq!(remarks[0].reason, Reason::NoEndpoints);
        assert_eq!(
            remarks[0].to_string(),
            "spec.upstreams[0].service: has no endpoint now, so that no session can be opened; \
             start a server or list one in its EndpointSlice"
        );
        assert!(
            plan.pools[&pool_ref("chat")].upstreams[0]
                .endpoints
                .is_empty()
        );
    }
}

#[test]
fn slices_may_write_ipv6_as_they_like() {
    let six = slice(
        "IPv6",
        "[{port: 8010}]",
        "[{addresses: [\"2001:db8:0::1\", \"2001:DB8::2\"]}]",
    );
    assert_eq!(
        endpoints(&[&node("a"), &service("{port: 80}"), &six, &chat("80")]),
        ["2001:db8::1:8010", "2001:db8::2:8010"]
    );
}

/// A pod of a cluster with both families stands in slices of both.
#[test]
fn a_pod_with_an_address_of_either_family_is_one_server() {
    let pod = |address: &str, uid: &str| {
        format!("{{addresses: [\"{address}\"], targetRef: {{kind: Pod, name: {uid}, uid: {uid}}}}}")
    };
    let both = slice(
        "IPv4",
        "[{name: ws, port: 8010}]",
        &format!("[{}, {}]", pod("10.0.0.1", "a"), pod("10.0.0.2", "b")),
    );
    let other = slice(
        "IPv6",
        "[{name: ws, port: 8010}]",
        &format!(
            "[{}, {}, {{addresses: [\"fd00::4\"]}}]",
            pod("fd00::1", "a"),
            pod("fd00::3", "c")
        ),
    )
    .replace("name: echo-1", "name: echo-2");
    let found = endpoints(&[
        &node("a"),
        &chat("8010"),
        &service("{name: ws, port: 8010}"),
        &both,
        &other,
    ]);
    assert_eq!(
        found,
        [
            "10.0.0.1:8010",
            "10.0.0.2:8010",
            "fd00::3:8010",
            "fd00::4:8010"
        ]
    );
}

#[test]
fn no_virtual_address_of_any_pool_is_an_endpoint() {
    let other = pool("other", &addresses(&["10.0.0.8"]), "");
    let refused_for = |slice: &str| {
        refused(&[
            &node("a"),
            &service("{port: 80}"),
            slice,
            &chat("80"),
            &other,
        ])
    };
    let start = "file3.yaml: WebSocketHAPool default/chat: spec.upstreams[0].service: has an endpoint \
                 in EndpointSlice default/echo-1 that is refused:";
    assert_eq!(
        refused_for(&slice(
            "IPv4",
            "[{port: 8010}]",
            "[{addresses: [10.0.0.8]}]"
        )),
        [format!(
            "{start} 10.0.0.8 is a virtual address; use the server's own"
        )]
    );
    assert_eq!(
        refused_for(&slice(
            "IPv6",
            "[{port: 8010}]",
            "[{addresses: [\"64:ff9b::10.0.0.8\"]}]"
        )),
        [format!(
            "{start} 64:ff9b::a00:8 stands for 10.0.0.8, a virtual address; use the server's own"
        )]
    );
    // Listed in the pool.
    let listed = pool("chat", &addresses(&["10.0.0.9"]), "").replace("10.0.0.1,", "10.0.0.8,");
    assert_eq!(
        refused(&[&node("a"), &other, &listed]),
        [
            "file1.yaml: WebSocketHAPool default/other: spec.virtualIPs[0].address: 10.0.0.8 is an \
             endpoint of WebSocketHAPool default/chat; use one that no server has"
        ]
    );
}

#[test]
fn refused_endpoints_are_not_named_without_end() {
    let list: Vec<String> = (1..=200)
        .map(|host| format!("{{addresses: [127.0.0.{host}]}}"))
        .collect();
    let slice = slice("IPv4", "[{port: 8010}]", &format!("[{}]", list.join(", ")));
    let refusals = refused(&[&node("a"), &service("{port: 80}"), &slice, &chat("80")]);
    assert_eq!(refusals.len(), 21);
    assert!(
        refusals
            .iter()
            .any(|it| it.ends_with("has 180 more endpoints that are refused"))
    );
}
