//! What a user reads whose files are no manifests, or mean less than they seem to.

mod common;

use common::{accepted, addresses, node, nodes, pool, refused};
use proptest::prelude::*;

fn chat() -> String {
    pool("chat", &addresses(&["10.0.0.9"]), "")
}

/// What follows the file and the object in the only sentence about the second file.
#[track_caller]
fn sentence(text: &str) -> String {
    let refusals = refused(&[&nodes(&["a", "b"]), text]);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let rest = refusals[0].strip_prefix("file1.yaml: ");
    rest.unwrap_or(&refusals[0]).to_owned()
}

#[test]
fn a_file_without_objects_is_refused() {
    for text in [
        "",
        "# pools\n",
        "---\n",
        "---\n---\n# none\n",
        "null\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
    ] {
        assert_eq!(
            sentence(text),
            "holds no object; delete the file if that is meant",
            "{text:?}"
        );
    }
}

#[test]
fn lists_are_held_to_their_form() {
    let list = |rest: &str| sentence(&format!("kind: List\n{rest}"));
    assert_eq!(
        list("apiVersion: v1\nitem: []\n"),
        "List: item: is not a known field; did you mean items?"
    );
    assert_eq!(
        list("apiVersion: v1\nitems:\n"),
        "List: items: is missing; write the objects as a list, each behind a dash"
    );
    assert_eq!(
        list("apiVersion: v1\nitems: {}\n"),
        "List: items: is an object; write the objects as a list, each behind a dash"
    );
    assert_eq!(
        list("apiVersion: foo/v9\nitems: []\n"),
        "List: apiVersion: is foo/v9; write v1"
    );
    // As kubectl get writes it.
    let items = ["a", "b"]
        .iter()
        .map(|name| {
            format!("- {{apiVersion: v1, kind: Node, metadata: {{name: {name}, creationTimestamp: null}}}}\n")
        })
        .collect::<Vec<_>>().concat();
    let text =
        format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{items}");
    assert_eq!(accepted(&[&text]).nodes.len(), 2);
}

#[test]
fn a_value_left_empty_chooses_no_more_nodes() {
    let of_node = |labels: &str| {
        sentence(&format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: c\n  labels:\n{labels}"
        ))
    };
    assert_eq!(
        of_node("    node.kubernetes.io/exclude-from-external-load-balancers:\n"),
        "Node c: metadata.labels.[node.kubernetes.io/exclude-from-external-load-balancers]: has no \
         value; write \"\" for an empty one"
    );
    assert_eq!(
        of_node(""),
        "Node c: metadata.labels: has no value; write {} for none, or leave the field out"
    );
    let of_pool =
        |match_labels: &str| sentence(&chat().replace("matchLabels: {gw: \"yes\"}", match_labels));
    let field = "WebSocketHAPool default/chat: spec.gateways.nodeSelector.matchLabels";
    assert_eq!(
        of_pool("matchLabels: {gw: }"),
        format!("{field}.gw: has no value; write \"\" for an empty one")
    );
    assert_eq!(
        of_pool("matchLabels: "),
        format!("{field}: has no value; write {{}} for none, or leave the field out")
    );
    // Other fields without a value are left out, as the API has it.
    let text = chat().replace("port: 8010}", "port: 8010, weight: }");
    assert_eq!(accepted(&[&node("a"), &text]).pools.len(), 1);
    assert_eq!(
        sentence(&chat().replace("port: 8010}", "port: 8010, wait: }")),
        "WebSocketHAPool default/chat: spec.upstreams[0].endpoints[0].wait: is not a known field; \
         remove it or use one of address, port, weight, zone"
    );
}

#[test]
fn a_namespace_is_a_text() {
    let with = |namespace: &str| {
        let name = format!("{{name: chat, namespace: {namespace}}}");
        sentence(&chat().replace("{name: chat}", &name))
    };
    let field = "WebSocketHAPool default/chat: metadata.namespace";
    assert_eq!(with("5"), format!("{field}: is 5; put it in quotes"));
    assert_eq!(
        with("yes"),
        format!("{field}: is read as true, not as a text; put it in quotes")
    );
}

#[test]
fn a_file_that_was_cut_off_is_named() {
    assert_eq!(
        sentence("apiVersion: wsha.dev/v1alpha1\nkind:"),
        "object 1: kind: is missing; write one of WebSocketHAPool, Node, Service, EndpointSlice"
    );
}

#[test]
fn numbers_and_times_are_held_to_their_types() {
    let service = |port: &str| {
        sentence(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{port}]}}\n"
        ))
    };
    assert_eq!(
        service("{port: 3000000000}"),
        "Service default/s: spec.ports[0].port: is 3000000000; use a number from -2147483648 to \
         2147483647"
    );
    let whole = "write a whole number of at most 2147483647 or a name";
    assert_eq!(
        service("{port: 80, targetPort: 99999999999}"),
        format!("Service default/s: spec.ports[0].targetPort: is 99999999999; {whole}")
    );
    let upstream = "service: {name: echo, port: 99999999999}";
    assert_eq!(
        sentence(&chat().replace("endpoints: [{address: 10.0.0.1, port: 8010}]", upstream)),
        format!(
            "WebSocketHAPool default/chat: spec.upstreams[0].service.port: is 99999999999; {whole}"
        )
    );
    let dated = |at: &str| {
        format!("apiVersion: v1\nkind: Node\nmetadata: {{name: c, creationTimestamp: {at}}}\n")
    };
    assert_eq!(
        sentence(&dated("yesterday")),
        "Node c: metadata.creationTimestamp: is yesterday; write a time such as \
         2026-01-31T12:00:00Z or leave the field out"
    );
    assert_eq!(accepted(&[&dated("2026-01-31T12:00:00Z")]).nodes.len(), 1);
    let generation = dated("null").replace("name: c", "name: c, generation: 18446744073709551615");
    assert_eq!(
        sentence(&generation),
        "Node c: metadata.generation: is 18446744073709551615; write a smaller number"
    );
}

#[test]
fn a_number_for_a_duration_wants_a_unit() {
    let text = format!("{}  heartbeat: {{timeout: 10}}\n", chat());
    assert_eq!(
        sentence(&text),
        "WebSocketHAPool default/chat: spec.heartbeat.timeout: is 10; add a unit, such as 10s"
    );
}

#[test]
fn what_is_wrong_with_the_text_is_said_in_words_for_users() {
    assert_eq!(
        sentence(&chat().replace("port: 8020", "port: 8020, port: 8021")),
        "is no valid YAML at line 9 column 38: port is there twice; remove one of the two"
    );
    assert_eq!(
        sentence("apiVersion: v1\n~: b\n"),
        "is no valid YAML at line 2 column 1: a field has no name; write one before the colon, in \
         quotes if it is null or ~"
    );
    assert_eq!(
        sentence("a: *b\n"),
        "is no valid YAML at line 1 column 4: an alias (*) has no anchor (&) before it in its \
         document; add it or write the value out"
    );
    // However long what stands there is.
    let long = "9".repeat(100_000);
    for text in [
        chat().replace("10.0.0.9", &long),
        chat().replace("port: 8020", &format!("port: {long}")),
        format!("!!int {}", "x".repeat(100_000)),
        format!("{long}: 1\n{long}: 2\n"),
    ] {
        let sentence = sentence(&text);
        assert!(sentence.len() < 400, "{}", &sentence[..400]);
    }
}

/// What a file of 16 MiB can hold is read; what only a text made to hurt has is refused by name.
#[test]
fn files_may_be_large_and_texts_may_not_explode() {
    let many = (0..1_100)
        .map(|index| node(&format!("n{index}")))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(accepted(&[&many]).nodes.len(), 1_100);

    let endpoints = (0..100)
        .map(|host| {
            format!(
                "  - {{addresses: [10.1.0.{host}], conditions: {{ready: true, serving: true, \
                 terminating: false}}, nodeName: n{host}, targetRef: {{kind: Pod, name: p{host}}}}}\n"
            )
        })
        .collect::<Vec<_>>().concat();
    let slices = (0..140)
        .map(|index| {
            format!(
                "- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {{name: s{index}}}\n  \
                 addressType: IPv4\n  endpoints:\n{endpoints}"
            )
        })
        .collect::<Vec<_>>().concat();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{slices}");
    assert_eq!(accepted(&[&node("a"), &list]).endpoint_slices.len(), 140);

    let shared = (0..600)
        .map(|index| format!("- {{<<: *n, metadata: {{name: n{index}, labels: *l}}}}\n"))
        .collect::<Vec<_>>()
        .concat();
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- &n {{apiVersion: v1, kind: Node, metadata: {{name: \
         base, labels: &l {{gw: \"yes\"}}}}}}\n{shared}"
    );
    assert_eq!(accepted(&[&list]).nodes.len(), 601);

    let bomb = (1..40).fold("a0: &a0 [x, x, x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        format!("{text}a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    });
    let refusal = sentence(&bomb);
    assert!(refusal.starts_with("holds too much at line "), "{refusal}");
    assert!(
        refusal.ends_with("; write out what they stand for"),
        "{refusal}"
    );
    let values = format!("[{}]", "1,".repeat(2_200_000));
    let refusal = sentence(&values);
    assert!(
        refusal.ends_with("more than 2097152 values; split the file"),
        "{refusal}"
    );
    for depth in [200, 2_000, 50_000] {
        let deep = format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        let refusal = sentence(&deep);
        assert!(
            refusal.ends_with("correct the indentation or the brackets"),
            "{refusal}"
        );
    }
}

#[test]
fn bad_yaml_is_named_by_line() {
    let refusals = refused(&["kind: Node\n  - wrong: [\n"]);
    assert_eq!(refusals.len(), 1);
    assert!(
        refusals[0].starts_with("file0.yaml: is no valid YAML at line 2"),
        "{refusals:?}"
    );
    assert!(!refusals[0].contains('\n'));
    let refusals = refused(&["a: 1\na: 2\n"]);
    assert!(
        refusals[0].starts_with("file0.yaml: is no valid YAML at line 2"),
        "{refusals:?}"
    );
}

#[test]
fn nothing_is_not_taken_for_drop_all() {
    let expected = "there is no Node in the manifests; list each host as an object of kind Node";
    let pool = pool("chat", &addresses(&["10.0.0.9"]), "");
    assert_eq!(refused(&[&pool]), [format!("file0.yaml: {expected}")]);
    assert_eq!(refused(&[]), [format!("the manifests: {expected}")]);
}

#[test]
fn unknown_kinds_and_versions() {
    assert_eq!(
        refused(&["kind: WebsocketHAPool\nmetadata: {name: a}\n"]),
        ["file0.yaml: object 1: kind: WebsocketHAPool is not known; did you mean WebSocketHAPool?"]
    );
    assert_eq!(
        refused(&[&format!("{}---\nkind: Deployment\n", node("a"))]),
        [
            "file0.yaml: object 2: kind: Deployment is not known; use one of WebSocketHAPool, Node, \
          Service, EndpointSlice or remove the object"
        ]
    );
    assert_eq!(
        refused(&["- a\n"]),
        ["file0.yaml: object 1: is no object; start it with apiVersion, kind and metadata"]
    );
    assert_eq!(
        refused(&["apiVersion: v2\nkind: Node\nmetadata: {name: a}\n"]),
        ["file0.yaml: Node a: apiVersion: is v2; write v1"]
    );
    assert_eq!(
        refused(&["apiVersion: v1\nkind: Node\n"]),
        ["file0.yaml: object 1: metadata.name: is missing; name the Node"]
    );
}

/// A valid text with one piece replaced by another.
fn damaged() -> impl Strategy<Value = String> {
    let valid = format!(
        "{}{}",
        nodes(&["a", "b"]),
        pool("chat", &addresses(&["10.0.0.9"]), "  vrrp: {version: 3}")
    );
    let length = valid.len();
    let piece = prop_oneof![
        ".{0,8}",
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("&a [*a]".to_owned()),
        Just("!!binary AA==".to_owned()),
        Just(".nan".to_owned()),
        Just("? ".to_owned()),
    ];
    (0..length, 0_usize..12, piece).prop_map(move |(start, cut, piece)| {
        let end = (start + cut).min(valid.len());
        format!("{}{piece}{}", &valid[..start], &valid[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_accepted_or_refused(text in "(?s).{0,200}") {
        let refusals = common::parse(&[&text]);
        prop_assert!(refusals.is_err(), "accepted without a Node");
    }

    #[test]
    fn damaged_manifests_are_accepted_or_refused(text in damaged()) {
        if let Err(refusals) = common::parse(&[&text]) {
            prop_assert!(!refusals.is_empty());
            for refusal in refusals {
                let sentence = refusal.to_string();
                prop_assert!(sentence.starts_with("file0.yaml: "), "{}", sentence);
                prop_assert!(!sentence.contains('\n'), "{}", sentence);
            }
        }
    }
}

#[test]
fn words_that_yaml_takes_for_booleans() {
    assert_eq!(
        refused(&["apiVersion: v1\nkind: Node\nmetadata: {name: n}\n"]),
        ["file0.yaml: object 1: metadata.name: is read as false, not as a text; put it in quotes"]
    );
    assert_eq!(
        refused(&["apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {gw: yes}}\n"]),
        [
            "file0.yaml: Node a: metadata.labels.gw: is read as true, not as a text; put it in quotes"
        ]
    );
}

#[test]
fn texts_made_to_hurt_are_refused() {
    let deep = format!("a: {}{}", "[".repeat(50_000), "]".repeat(50_000));
    let bomb = (1..40).fold("a0: &a0 [x, x, x, x]\n".to_owned(), |text, level| {
        let last = level - 1;
        format!("{text}a{level}: &a{level} [*a{last}, *a{last}, *a{last}, *a{last}]\n")
    });
    for text in [
        deep,
        bomb,
        "\0".to_owned(),
        "\u{feff}".to_owned(),
        "--- ".repeat(10_000),
    ] {
        let refusals = refused(&[&text]);
        assert!(
            refusals.iter().all(|it| it.len() < 500),
            "{:?}",
            refusals[0].get(..200)
        );
    }
}
