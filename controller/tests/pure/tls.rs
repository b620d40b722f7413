//! Secrets that pools name: what nodes are told of them, and what users are told where they cannot be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use controller::{
    commit,
    desired::{Body, NodeState},
    status::{self, ACCEPTED, DEGRADED},
    tls::{Look, Reader, Ring, SecretName},
};
use crds::WebSocketHAPoolStatus;
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use node_api::stream::ResourceName;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::world::World;

const NOW: i64 = 1_700_000_000;

/// The Secrets of a cluster, of which the controller may read those of namespace `default`.
struct Vault {
    world: World,
    secrets: BTreeMap<String, Arc<Secret>>,
    is_permitted: bool,
    ring: Option<Ring>,
    reader: Reader,
}

/// A certificate that is good for so long from now, and its key.
fn issue(life: Duration) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["chat.example".to_owned()]).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch;
    params.not_after = epoch + Duration::from_secs(u64::try_from(NOW).unwrap()) + life;
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn secret(type_: &str, parts: &[(&str, &str)]) -> Secret {
    let parts = parts.iter();
    let data = parts.map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret {
        type_: Some(type_.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn tls(chain: &str, key: &str) -> Secret {
    secret("kubernetes.io/tls", &[("tls.crt", chain), ("tls.key", key)])
}

fn good() -> Secret {
    let (chain, key) = issue(Duration::from_hours(24));
    tls(&chain, &key)
}

impl Vault {
    fn new(nodes: &[&str]) -> Self {
        Self {
            world: World::new(nodes),
            secrets: BTreeMap::new(),
            is_permitted: true,
            ring: Some(Ring::new(SystemTime::now()).unwrap()),
            reader: Reader::default(),
        }
    }

    fn put(&mut self, name: &str, secret: Secret) {
        self.secrets.insert(name.to_owned(), Arc::new(secret));
        self.look();
    }

    /// A pool on `node` alone that serves with the Secret `certificate`.
    fn pool(&mut self, name: &str, node: &str, address: &str, certificate: &str) {
        self.pool_with(
            name,
            node,
            address,
            json!({"certificateRefs": [{"name": certificate}]}),
        );
    }

    fn pool_with(&mut self, name: &str, node: &str, address: &str, tls: serde_json::Value) {
        self.world.edit(name, |spec| {
            let nodes = json!([{"nodeName": node, "priority": 100}]);
            spec["virtualIPs"] = json!([{"address": address, "nodePriorities": nodes}]);
            spec["listeners"][0]["tls"] = tls;
        });
        self.look();
        self.world.settle();
    }

    /// The controller reads what there is.
    fn look(&mut self) {
        let (secrets, is_permitted) = (&self.secrets, self.is_permitted);
        let look = |name: &SecretName| match secrets.get(&name.name) {
            _ if !is_permitted => Look::NotPermitted,
            Some(secret) => Look::Here(Arc::clone(secret)),
            None => Look::Missing,
        };
        let (pools, ring) = (&self.world.snapshot.pools, self.ring.clone());
        let now = Timestamp::from_second(NOW).unwrap();
        let keyring = self.reader.read(pools, ring, look, now).unwrap();
        self.world.snapshot.keyring = Arc::new(keyring);
    }

    fn state(&self, node: &str) -> Arc<NodeState> {
        self.world.desired().nodes[node].clone()
    }

    fn status(&self, pool: &str, second: i64) -> WebSocketHAPoolStatus {
        let pool = self.world.pool(pool);
        let committed = commit::committed_part(pool);
        let now = Timestamp::from_second(second).unwrap();
        let desired = self.world.desired();
        status::status(pool, &committed, &self.world.snapshot, &desired, now)
    }
}

/// Names of the key material that a node is told.
fn told(state: &NodeState) -> Vec<String> {
    let names = state.resources().map(|(name, _)| name.to_string());
    let is_key = |name: &String| name.starts_with("secrets/") || name.starts_with("ticketKeys/");
    names.filter(is_key).collect()
}

fn secret_of(state: &NodeState, name: &str) -> node_api::Secret {
    match &state.resource(&ResourceName::from(name)).unwrap().body {
        Body::Secret(secret) => node_api::Secret::clone(secret),
        _ => panic!("{name} is a Secret"),
    }
}

fn condition(status: &WebSocketHAPoolStatus, type_: &str) -> (String, String, String) {
    let of_listener = status.listeners.iter().flat_map(|it| &it.conditions);
    let mut all = status.conditions.iter().chain(of_listener);
    let one = all.find(|it| it.type_ == type_).unwrap();
    (one.status.clone(), one.reason.clone(), one.message.clone())
}

#[test]
fn a_node_gets_what_its_pools_name_and_no_more() {
    let mut vault = Vault::new(&["n1", "n2", "n3"]);
    let (chain, key) = issue(Duration::from_hours(24));
    vault.put("one", tls(&chain, &key));
    vault.put("two", good());
    // An authority's own Secret, as cert-manager keeps it, with the key that signs.
    let (root, signs) = issue(Duration::from_hours(24));
    let parts = [
        ("tls.crt", &*root),
        ("tls.key", &*signs),
        ("ca.crt", &*root),
    ];
    vault.put("root", secret("kubernetes.io/tls", &parts));
    vault.pool("one", "n1", "192.168.1.110", "one");
    vault.pool("two", "n2", "192.168.1.112", "two");
    vault.world.edit("three", |spec| {
        let nodes = json!([{"nodeName": "n3", "priority": 100}]);
        spec["virtualIPs"] = json!([{"address": "192.168.1.113", "nodePriorities": nodes}]);
        let tls = json!({"hostname": "chat.example", "caCertificateRef": {"name": "root"}});
        spec["upstreams"][0]["tls"] = tls;
    });
    vault.look();
    vault.world.settle();

    let state = vault.state("n1");
    assert_eq!(
        told(&state),
        ["secrets/default/one", "ticketKeys/default/one"]
    );
    let one = secret_of(&state, "secrets/default/one");
    assert_eq!(
        (one.certificate, one.key, one.ca),
        (Some(chain), Some(key), None)
    );
    let state = vault.state("n2");
    assert_eq!(
        told(&state),
        ["secrets/default/two", "ticketKeys/default/two"]
    );
    // Who only trusts the authority does not get its key.
    let state = vault.state("n3");
    assert_eq!(told(&state), ["secrets/default/root"]);
    let authority = secret_of(&state, "secrets/default/root");
    assert_eq!(
        (authority.certificate, authority.key, authority.ca),
        (None, None, Some(root))
    );
    for pool in ["one", "two"] {
        let (holds, reason, _) = condition(&vault.status(pool, NOW), "ResolvedRefs");
        assert_eq!((&*holds, &*reason), ("True", "ResolvedRefs"));
        assert_eq!(condition(&vault.status(pool, NOW), DEGRADED).0, "False");
    }
}

#[test]
fn a_renewed_secret_changes_nothing_else_and_nobody_else() {
    let mut vault = Vault::new(&["n1", "n2"]);
    vault.put("one", good());
    vault.put("two", good());
    vault.pool("one", "n1", "192.168.1.110", "one");
    vault.pool("two", "n2", "192.168.1.112", "two");
    let mut teller = controller::desired::Teller::default();
    let before = teller.tell(&vault.world.snapshot).unwrap().nodes;
    vault.look();
    let same = teller.tell(&vault.world.snapshot).unwrap().nodes;
    assert!(
        Arc::ptr_eq(&before["n1"], &same["n1"]),
        "read again, and the same"
    );
    vault.put("one", good());
    let after = teller.tell(&vault.world.snapshot).unwrap().nodes;
    assert_eq!(after, vault.world.desired().nodes, "as if computed at once");
    assert!(Arc::ptr_eq(&before["n2"], &after["n2"]));
    let changed = after["n1"].resources();
    let changed = changed.filter(|(name, it)| before["n1"].resource(name) != Some(it));
    let changed: Vec<_> = changed.map(|(name, _)| name.to_string()).collect();
    assert_eq!(changed, ["secrets/default/one"]);
}

#[test]
fn what_cannot_be_used_is_named_with_the_remedy_and_told_once() {
    let (chain, key) = issue(Duration::from_hours(24));
    let (_, other) = issue(Duration::from_hours(24));
    let (old, old_key) = issue(Duration::ZERO);
    let cases = [
        (
            None,
            "InvalidCertificateRef",
            "there is no Secret default/cert; create it: kubectl",
        ),
        (
            Some(secret("Opaque", &[("tls.crt", &chain), ("tls.key", &key)])),
            "InvalidCertificateRef",
            "Secret default/cert is of type Opaque, not kubernetes.io/tls; delete it",
        ),
        (
            Some(tls("none", &key)),
            "InvalidCertificateRef",
            "tls.crt of Secret default/cert is no chain of certificates in PEM form; put it there",
        ),
        (
            Some(tls(&chain, "none")),
            "InvalidCertificateRef",
            "tls.key of Secret default/cert is no private key in PEM form; put",
        ),
        (
            Some(tls(&chain, &other)),
            "InvalidCertificateRef",
            "tls.key of Secret default/cert is not the key of the first certificate in tls.crt",
        ),
        (
            Some(tls(&old, &old_key)),
            "CertificateExpired",
            "the certificate in Secret default/cert ended at 2023-11-14T22:13:20Z; have",
        ),
    ];
    for (bad, reason, words) in cases {
        let mut vault = Vault::new(&["n1"]);
        vault.put("cert", good());
        vault.pool("chat", "n1", "192.168.1.110", "cert");
        let (before, well) = (vault.state("n1"), vault.status("chat", NOW));
        vault.secrets.clear();
        vault.look();
        if let Some(bad) = bad {
            vault.put("cert", bad);
        }
        let status = vault.status("chat", NOW);
        for (type_, expected) in [("ResolvedRefs", "False"), (DEGRADED, "True")] {
            let (holds, said, message) = condition(&status, type_);
            assert_eq!((&*holds, &*said), (expected, reason), "{message}");
            let path = "spec.listeners[0].tls.certificateRefs[0]: ";
            assert!(message.starts_with(&format!("{path}{words}")), "{message}");
        }
        assert_eq!(condition(&status, ACCEPTED).0, "True");
        let news = status::news(&well, &status);
        assert_eq!(news.len(), 1, "{news:?}");
        assert!(news[0].warns && news[0].note.contains(words), "{news:?}");
        assert_eq!(status::news(&status, &status), []);
        // Neither status nor events have anything of what is in it.
        let shown = format!("{}{news:?}", serde_json::to_string(&status).unwrap());
        for text in [&chain, &key, &other, &old, &old_key] {
            let inner = text.lines().nth(1).unwrap();
            assert!(!shown.contains(inner), "{shown}");
        }
        // Who has the last good one goes on with it, and is told nothing.
        let after = vault.state("n1");
        let name = ResourceName::from("secrets/default/cert");
        assert!(before.resource(&name).is_some() && after.resource(&name).is_none());
        assert!(after.keeps(&name));
        // It is well again once the Secret is.
        vault.put("cert", good());
        assert_eq!(condition(&vault.status("chat", NOW), DEGRADED).0, "False");
        assert!(vault.state("n1").resource(&name).is_some());
    }
}

#[test]
fn a_certificate_that_ends_while_it_serves_is_told() {
    let mut vault = Vault::new(&["n1"]);
    let (chain, key) = issue(Duration::from_mins(1));
    vault.put("cert", tls(&chain, &key));
    vault.pool("chat", "n1", "192.168.1.110", "cert");
    assert_eq!(
        condition(&vault.status("chat", NOW + 59), "ResolvedRefs").0,
        "True"
    );
    let (_, reason, _) = condition(&vault.status("chat", NOW + 60), "ResolvedRefs");
    assert_eq!(reason, "CertificateExpired");
}

#[test]
fn a_namespace_that_is_not_permitted_is_told_the_chart_s_value() {
    let mut vault = Vault::new(&["n1"]);
    vault.is_permitted = false;
    vault.put("cert", good());
    vault.pool("chat", "n1", "192.168.1.110", "cert");
    assert_eq!(told(&vault.state("n1")), ["ticketKeys/default/chat"]);
    let status = vault.status("chat", NOW);
    let (holds, reason, message) = condition(&status, "ResolvedRefs");
    assert_eq!((&*holds, &*reason), ("False", "RefNotPermitted"));
    assert!(
        message.contains("add it to the chart's value tls.namespaces"),
        "{message}"
    );
}

#[test]
fn certificates_of_servers_are_of_an_authority_that_is_named() {
    let mut vault = Vault::new(&["n1"]);
    vault.world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
        let tls = json!({
            "hostname": "chat.example",
            "caCertificateRef": {"name": "root"},
            "clientCertificateRef": {"name": "client"},
        });
        spec["upstreams"][0]["tls"] = tls;
    });
    vault.put("client", good());
    vault.put("root", secret("Opaque", &[("ca.pem", "x")]));
    vault.world.settle();
    let (_, reason, message) = condition(&vault.status("chat", NOW), DEGRADED);
    assert_eq!(reason, "InvalidCertificateRef");
    let words = "spec.upstreams[0].tls.caCertificateRef: Secret default/root has no ca.crt with";
    assert!(message.starts_with(words), "{message}");
    let (root, _) = issue(Duration::from_hours(24));
    vault.put("root", secret("Opaque", &[("ca.crt", &root)]));
    assert_eq!(condition(&vault.status("chat", NOW), DEGRADED).0, "False");
    let names: BTreeSet<_> = told(&vault.state("n1")).into_iter().collect();
    let expected = ["secrets/default/client", "secrets/default/root"];
    assert_eq!(names, expected.map(str::to_owned).into());
}

#[test]
fn a_pool_that_is_refused_has_its_certificate_renewed() {
    let mut vault = Vault::new(&["n1"]);
    vault.put("cert", good());
    vault.pool("chat", "n1", "192.168.1.110", "cert");
    vault.world.edit("chat", |spec| {
        let nodes = json!([{"nodeName": "n1", "priority": 100}]);
        spec["virtualIPs"] = json!([{"address": "192.168.1.110", "nodePriorities": nodes}]);
        spec["listeners"][0]["tls"] = json!({"certificateRefs": [{"name": "cert"}]});
        spec["upstreams"][0]["endpoints"][0]["address"] = "192.168.1.110".into();
    });
    vault.look();
    assert_eq!(condition(&vault.status("chat", NOW), ACCEPTED).0, "False");
    let before = vault.state("n1");
    vault.put("cert", good());
    let after = vault.state("n1");
    let name = ResourceName::from("secrets/default/cert");
    assert!(after.resource(&name).is_some() && after.resource(&name) != before.resource(&name));
    assert!(after.keeps(&ResourceName::from("pools/default/chat")));
    assert_eq!(
        told(&after),
        ["secrets/default/cert", "ticketKeys/default/chat"]
    );
}

#[test]
fn ticket_keys_follow_the_ring_and_stay_where_it_is_not_read() {
    let mut vault = Vault::new(&["n1"]);
    vault.put("cert", good());
    vault.pool("chat", "n1", "192.168.1.110", "cert");
    let name = ResourceName::from("ticketKeys/default/chat");
    let keys = |vault: &Vault| match &vault.state("n1").resource(&name).unwrap().body {
        Body::TicketKeys(keys) => keys.0.clone(),
        _ => panic!("these are ticket keys"),
    };
    let before = keys(&vault);
    let ring = vault.ring.take().unwrap();
    vault.look();
    let state = vault.state("n1");
    assert!(state.resource(&name).is_none() && state.keeps(&name));
    vault.ring = ring
        .turn(SystemTime::now() + Duration::from_hours(12))
        .unwrap();
    vault.look();
    let after = keys(&vault);
    assert_eq!(
        (&after[0], &after[2]),
        (&before[1], &before[0]),
        "next is first, and the first is last"
    );
}
