//! Which route takes which request.

use super::*;
use crate::config::Balancing;

fn upstream(name: &str) -> Arc<Upstream> {
    Arc::new(Upstream::for_tests(name, Balancing::RoundRobin))
}

/// Routes, each `HOSTNAMES PREFIX`, hostnames behind commas or `-` for all.
fn routing(routes: &[&str]) -> Routing {
    let routes: Vec<_> = routes
        .iter()
        .map(|route| {
            let (hostnames, prefix) = route.split_once(' ').unwrap();
            let hostnames = hostnames.split(',').filter(|name| *name != "-");
            Route {
                hostnames: hostnames.map(str::to_owned).collect(),
                path_prefix: prefix.to_owned(),
                upstream: "all".to_owned(),
            }
        })
        .collect();
    Routing::new(&routes, &[upstream("all")])
}

/// The route of a request, else the status and what is said.
fn chosen<'a>(routing: &'a Routing, host: &str, target: &str) -> Result<&'a str, (u16, String)> {
    match routing.choose(host.as_bytes(), target.as_bytes()) {
        Ok(destination) => Ok(destination.route.as_deref().unwrap_or("")),
        Err(reject) => {
            let response = String::from_utf8(reject.response()).unwrap();
            let sentence = response.lines().last().unwrap();
            Err((reject.status(), sentence.to_owned()))
        }
    }
}

#[test]
fn the_most_specific_hostname_and_then_the_longest_prefix_is_taken_in_any_order() {
    let mut routes = [
        "- /",
        "- /chat",
        "- /chat/admin/x",
        "*.example.com /",
        "*.apps.example.com /chat",
        "a.apps.example.com,b.example.com /chat",
        "a.apps.example.com /chat/admin",
        "192.0.2.1 /",
    ];
    let expected = [
        ("other.example", "/", "/"),
        ("other.example", "/chat", "/chat"),
        ("other.example:8020", "/chat/", "/chat"),
        ("other.example", "/chats", "/"),
        ("other.example", "/Chat", "/"),
        ("other.example", "/chat/admin", "/chat"),
        ("other.example", "/chat/admin/x?y=/z", "/chat/admin/x"),
        ("other.example", "/?/chat", "/"),
        // As long as it may be, a prefix counts after the hostname.
        ("b.example.org", "/chat/admin/x", "/chat/admin/x"),
        ("c.example.com", "/chat/admin/x", "*.example.com/"),
        ("a.b.c.example.com", "/", "*.example.com/"),
        ("example.com", "/", "/"),
        ("x.apps.example.com", "/chat", "*.apps.example.com/chat"),
        // Of routes that match: what no route of a host has may be one of a less specific one.
        ("x.apps.example.com", "/", "*.example.com/"),
        ("a.apps.example.com", "/chat", "a.apps.example.com/chat"),
        ("A.Apps.Example.COM.", "/chat", "a.apps.example.com/chat"),
        ("a.apps.example.com.:80", "/chat", "a.apps.example.com/chat"),
        (
            "a.apps.example.com",
            "/chat/admin/x",
            "a.apps.example.com/chat/admin",
        ),
        ("b.example.com:1", "/chat", "b.example.com/chat"),
        ("192.0.2.1:8020", "/chat", "192.0.2.1/"),
        ("[2001:db8::1]:8020", "/chat", "/chat"),
        ("[2001:db8::1]", "/", "/"),
    ];
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        let routing = routing(&routes);
        for (host, target, route) in expected {
            assert_eq!(chosen(&routing, host, target), Ok(route), "{host}{target}");
        }
    }
}

#[test]
fn what_no_route_matches_is_not_found() {
    let routing = routing(&["chat.example.com /chat", "*.example.com /rooms"]);
    for (host, target) in [
        ("chat.example.com", "/"),
        ("chat.example.com", "/chatter"),
        ("chat.example.org", "/chat"),
        ("example.com", "/rooms"),
        (".example.com", "/rooms"),
        ("chat.example.com.example.org", "/chat"),
        ("xchat.example.com", "/chat"),
    ] {
        let (status, _) = chosen(&routing, host, target).unwrap_err();
        assert_eq!(status, 404, "{host}{target}");
    }
}

/// RFC 3986 sections 2.3, 3.3, 5.2.4 and 6.2.2.
#[test]
fn a_path_that_may_be_another_route_s_is_refused() {
    let routing = routing(&["- /", "- /public", "- /admin/keys"]);
    for (target, route) in [
        ("/public/caf%C3%A9", "/public"),
        ("/public/a%20b%40c", "/public"),
        ("/public/x;v=1/y", "/public"),
        ("/public//x", "/public"),
        ("/public/...", "/public"),
        ("/public/.hidden/..x", "/public"),
        ("/public/%252e%252e/admin/keys", "/public"),
        ("/admin", "/"),
        ("/other//x;y", "/"),
        ("/x?/../admin/keys;%zz", "/"),
        // The same path by RFC 3986 section 6.2.2.2.
        ("/%61dmin/k%65ys", "/admin/keys"),
        ("/publi%63/x", "/public"),
    ] {
        assert_eq!(chosen(&routing, "a", target), Ok(route), "{target}");
    }
    for target in [
        "/public/../admin/keys",
        "/public/..",
        "/./public",
        "/public/%2e%2e/admin/keys",
        "/public/.%2E/admin/keys",
        "/public/..;/admin/keys",
        "/public/..;x=1/admin/keys",
        "/public/..%3bx/admin/keys",
        "/public%2f..%2fadmin/keys",
        "/admin%2Fkeys",
        "/admin%5ckeys",
        "/admin\\keys",
        "/admin/keys%00",
        "/%7F",
        "//admin/keys",
        "/admin//keys",
        "/;/admin/keys",
        "/admin;x/keys",
        "/admin/keys;x",
        "/admin/keys%3Bx",
        "/public;x",
        "/%zz",
        "/%4",
        "/%",
        "/%+1",
    ] {
        let (status, told) = chosen(&routing, "a", target).unwrap_err();
        assert_eq!(status, 400, "{target}: {told}");
    }
}

#[test]
fn where_paths_or_hosts_make_no_difference_they_are_not_looked_at() {
    let only = Routing::new(&[], &[upstream("only")]);
    let by_host = routing(&["a.example /", "- /"]);
    let by_path = routing(&["- /chat", "- /"]);
    let odd = "/x/../%2e%2e/%zz//;";
    assert_eq!(chosen(&only, "a%2ea", odd), Ok(""));
    assert_eq!(chosen(&by_host, "a.example", odd), Ok("a.example/"));
    assert_eq!(chosen(&by_path, "a%2ea", "/chat"), Ok("/chat"));
    let (status, _) = chosen(&by_host, "%61.example", "/").unwrap_err();
    assert_eq!(status, 400);
}

/// A server that takes some of it away and keeps the rest finds no other route than the two extremes.
#[test]
fn readings_between_the_two_lead_nowhere_else() {
    let routes = ["- /", "- /a", "- /a/b", "- /b", "- /b/a/a"];
    let routing = routing(&routes);
    let alphabet = ["a", "b", "", ";", "a;x", "b;", "c", "%61"];
    let mut accepted = 0;
    for number in 0..alphabet.len().pow(4) {
        let digit = |at: u32| alphabet[number / alphabet.len().pow(at) % alphabet.len()];
        let target = format!("/{}/{}/{}/{}", digit(0), digit(1), digit(2), digit(3));
        let Ok(route) = chosen(&routing, "a", &target) else {
            continue;
        };
        accepted += 1;
        // Each element's parameters, and each empty element, taken away or not.
        for choice in 0_u32..1 << 8 {
            let mut read = Vec::new();
            for at in 0..4 {
                let element = digit(at).replace("%61", "a");
                let name = element.split(';').next().unwrap();
                let element = if choice >> at & 1 == 0 {
                    &*element
                } else {
                    name
                };
                if !(element.is_empty() && choice >> (4 + at) & 1 == 1) {
                    read.push(element.to_owned());
                }
            }
            let read = format!("/{}", read.join("/"));
            let below = |prefix: &&str| {
                *prefix == "/" || format!("{read}/").starts_with(&format!("{prefix}/"))
            };
            let prefixes = routes.iter().map(|route| route.trim_start_matches("- "));
            let longest = prefixes.filter(below).max_by_key(|prefix| prefix.len());
            assert_eq!(longest, Some(route), "{target} read as {read}");
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn the_longest_of_the_time_outs_holds_until_the_route_is_known() {
    let time_out = |name, seconds| {
        let mut upstream = Upstream::for_tests(name, Balancing::RoundRobin);
        upstream.handshake_timeout = Duration::from_secs(seconds);
        Arc::new(upstream)
    };
    let route = |upstream: &str, prefix: &str| Route {
        hostnames: Vec::new(),
        path_prefix: prefix.to_owned(),
        upstream: upstream.to_owned(),
    };
    let routes = [route("short", "/a"), route("long", "/b")];
    let upstreams = [
        time_out("short", 1),
        time_out("long", 7),
        time_out("unused", 9),
    ];
    let patience = Routing::new(&routes, &upstreams).patience();
    assert_eq!(patience, Duration::from_secs(7));
}
