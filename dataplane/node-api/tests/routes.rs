//! Routes between versions that know them and versions that do not, and where they lead.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use node_api::{Pool, stream::Revision};
use serde_json::{Value, json};

/// A pool with these listeners and upstreams of these names, as it travels.
fn told(listeners: &Value, upstreams: &[&str]) -> Value {
    let upstream = |name: &&str| {
        json!({
            "name": name, "endpoints": [], "balancing": "RoundRobin", "connectTimeout": 2000,
            "handshakeTimeout": 5000,
        })
    };
    json!({
        "virtualRouters": [],
        "listeners": listeners,
        "upstreams": upstreams.iter().map(upstream).collect::<Vec<_>>(),
        "heartbeat": {"interval": 0, "timeout": 0},
        "drain": {"timeout": 0, "closeCode": 1001},
    })
}

fn pool(listeners: &Value, upstreams: &[&str]) -> Pool {
    serde_json::from_value(told(listeners, upstreams)).unwrap()
}

/// Equal content has an equal revision, also between releases with routes and without.
#[test]
fn what_releases_without_routes_tell_and_save_stays_as_it_is() {
    let before = told(&json!([{"name": "ws", "port": 8020}]), &["chat"]);
    let pool: Pool = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(pool.check_routes(), Ok(()));
    assert!(pool.is_routed("chat"));
    assert_eq!(serde_json::to_value(&pool).unwrap(), before);
    assert_eq!(Revision::of(&pool).unwrap(), Revision::of(&before).unwrap());
}

#[test]
fn each_route_leads_somewhere() {
    let route = |upstream: &str| json!({"pathPrefix": "/", "upstreamName": upstream});
    let listener = |routes: Value| json!({"name": "ws", "port": 1, "routes": routes});
    let both = json!([listener(json!([route("chat"), route("feed")]))]);
    let both = pool(&both, &["chat", "feed", "unused"]);
    assert_eq!(both.check_routes(), Ok(()));
    assert!(both.is_routed("chat") && both.is_routed("feed") && !both.is_routed("unused"));
    for (listeners, upstreams, words) in [
        (json!([listener(json!([]))]), &[][..], "no upstream"),
        (json!([listener(json!([]))]), &["a", "b"], "no routes"),
        (
            json!([listener(json!([route("a")])), listener(json!([]))]),
            &["a", "b"],
            "no routes",
        ),
        (json!([listener(json!([route("c")]))]), &["a"], "to c"),
    ] {
        let problem = pool(&listeners, upstreams).check_routes().unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
}
