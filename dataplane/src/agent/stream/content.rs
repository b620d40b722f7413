//! What a resource holds once it is understood.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use node_api::{
    Endpoint, Pool, Secret, TicketKeys,
    stream::{ResourceName, Revision},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tls;

/// Content of a resource; copies share it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// A pool without endpoints.
    Pool(Arc<Pool>),
    /// The endpoints of one upstream.
    Endpoints(Arc<Vec<Endpoint>>),
    /// Certificates and keys.
    Secret(Arc<Secret>),
    /// Keys of a pool's session tickets.
    TicketKeys(Arc<TicketKeys>),
}

/// A resource that is held.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// Which content it is.
    pub(super) revision: Revision,
    /// The content.
    pub(super) content: Content,
}

/// Resources by name.
pub(super) type Resources = BTreeMap<ResourceName, Held>;

/// Content that is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    /// The resource.
    pub(super) name: ResourceName,
    /// Of the content.
    pub(super) revision: Revision,
    /// Why, with the remedy.
    pub(super) reason: String,
}

/// Understands `body`; `None`: the kind of resource is not known here, and ignored.
pub(super) fn decode(name: &ResourceName, body: Value) -> Option<Result<Content, String>> {
    match name {
        ResourceName::Pool(_) => Some(read::<Pool>(body).and_then(|pool| {
            check(&pool)?;
            Ok(Content::Pool(Arc::new(pool)))
        })),
        ResourceName::Endpoints { .. } => {
            Some(read(body).map(|endpoints| Content::Endpoints(Arc::new(endpoints))))
        }
        ResourceName::Secret(name) => Some(read_hidden(body).and_then(|secret| {
            tls::check(name, &secret).map_err(|error| format!("it {error}"))?;
            Ok(Content::Secret(Arc::new(secret)))
        })),
        ResourceName::TicketKeys(_) => Some(read_hidden(body).and_then(|keys| {
            tls::check_tickets(&keys).map_err(|error| format!("it {error}"))?;
            Ok(Content::TicketKeys(Arc::new(keys)))
        })),
        ResourceName::Other(_) => None,
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body).map_err(|error| not_understood(&error.to_string()))
}

/// The same of key material: the error would quote what it found.
fn read_hidden<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body).map_err(|_| not_understood("it has another form"))
}

/// The sentence for content that this version does not understand.
pub(super) fn not_understood(what: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("data plane {version} does not understand it: {what}; update the data plane")
}

/// What no planner makes, or only one of a later release.
fn check(pool: &Pool) -> Result<(), String> {
    let unknown = pool.unknown();
    if !unknown.is_empty() {
        return Err(not_understood(&format!(
            "it requires {}",
            unknown.join(", ")
        )));
    }
    for router in &pool.virtual_routers {
        let Some(first) = router.addresses.first() else {
            let id = router.virtual_router_id;
            return Err(format!("virtual router {id} has no address"));
        };
        if router.virtual_router_id == 0 {
            return Err(format!("{first} has VRID 0; use 1 to 255"));
        }
        if router.addresses.iter().any(|one| !same_family(one, first)) {
            return Err(format!("the addresses with {first} are of two families"));
        }
    }
    if let Some(listener) = pool.listeners.iter().find(|one| one.port == 0) {
        return Err(format!("listener {} has port 0", listener.name));
    }
    pool.check_routes()
}

const fn same_family(one: &IpAddr, other: &IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        agent::stream::samples::{pool, pool_name},
        tls::samples::Identity,
    };

    #[test]
    fn what_is_not_understood_is_refused_with_a_reason() {
        let good = serde_json::to_value(pool(1, &["10.0.0.1"])).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut body = good.clone();
            *body.pointer_mut(pointer).unwrap() = value;
            body
        };
        let mut newer = good.clone();
        newer["requires"] = json!(["holograms", "telepathy"]);
        for (body, words) in [
            (json!(null), "null"),
            (
                newer,
                "it requires holograms, telepathy; update the data plane",
            ),
            (with("/upstreams/0/balancing", json!("Best")), "Best"),
            (with("/virtualRouters/0/addresses", json!([])), "no address"),
            (
                with("/virtualRouters/0/virtualRouterId", json!(0)),
                "VRID 0",
            ),
            (
                with(
                    "/virtualRouters/0/addresses",
                    json!(["10.0.0.1", "fe80::1"]),
                ),
                "two families",
            ),
            (with("/listeners/0/port", json!(0)), "port 0"),
            (with("/upstreams", json!([])), "no upstream"),
            (
                with(
                    "/upstreams",
                    json!([good["upstreams"][0], good["upstreams"][0]]),
                ),
                "no routes",
            ),
            (
                with(
                    "/listeners/0",
                    json!({"name": "ws", "port": 1, "routes": [
                        {"pathPrefix": "/", "upstreamName": "other"},
                    ]}),
                ),
                "other",
            ),
        ] {
            let reason = decode(&pool_name("a"), body).unwrap().unwrap_err();
            assert!(reason.contains(words), "{words}: {reason}");
        }
        assert!(decode(&pool_name("a"), good).unwrap().is_ok());
        assert!(decode(&ResourceName::from("later/x"), json!(1)).is_none());
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = ResourceName::from("secrets/default/chat-tls");
        let tickets = ResourceName::from("ticketKeys/default/chat");
        let Identity { certificate, key } = Identity::new("chat.example");
        let good = json!({"certificate": certificate, "key": key});
        let ticket = format!("{}=", "A".repeat(43));
        for (name, body) in [(&secret, good), (&tickets, json!([ticket]))] {
            let content = decode(name, body).unwrap().unwrap();
            let shown = format!("{content:?}");
            assert!(
                !shown.contains("BEGIN") && !shown.contains("AAA"),
                "{shown}"
            );
        }
        for (name, body, words) in [
            (&secret, json!("hidden"), "does not understand"),
            (&secret, json!({"key": "hidden"}), "has no certificate"),
            (&secret, json!({"ca": "hidden"}), "cannot be used"),
            (&tickets, json!(["hidden"]), "openssl rand"),
            (&tickets, json!([1]), "does not understand"),
        ] {
            let reason = decode(name, body).unwrap().unwrap_err();
            assert!(reason.contains(words), "{reason}");
            assert!(!reason.contains("hidden"), "{reason}");
        }
    }

    /// The last good one stays in use, since the newest is refused.
    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let name = ResourceName::from("secrets/default/chat-tls");
        let (one, other) = (Identity::new("chat.example"), Identity::new("chat.example"));
        let mixed = json!({"certificate": one.certificate, "key": other.key});
        let reason = decode(&name, mixed).unwrap().unwrap_err();
        assert!(reason.contains("default/chat-tls") && reason.contains("does not belong"));
    }
}
