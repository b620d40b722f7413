//! Which requests go to which upstream, as users write it.

use std::collections::{BTreeMap, BTreeSet};

use node_api::Route;

use super::{bounds, is_hostname};
use crate::Problem;

/// Most routes of a listener, and hostnames of a route.
const MOST_ROUTES: usize = 64;
const MOST_HOSTNAMES: usize = 16;

/// `routes` of the listener at `path`.
pub(super) fn routes(
    problems: &mut Vec<Problem>,
    path: &str,
    listener: &crds::Listener,
    upstreams: &[crds::Upstream],
) -> Vec<Route> {
    let path = format!("{path}.routes");
    let routes = &listener.routes;
    let known = || {
        let names = upstreams.iter().map(|upstream| upstream.name.as_str());
        names.collect::<Vec<_>>().join(" or ")
    };
    if routes.is_empty() && upstreams.len() > 1 {
        problems.push(Problem::new(
            &path,
            format!(
                "is empty, and there are several upstreams; say which requests go to {}",
                known()
            ),
        ));
    } else if !routes.is_empty() {
        bounds(problems, &path, routes.len(), MOST_ROUTES);
    }
    let mut matches = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !is_path_prefix(&route.path_prefix) {
            problems.push(Problem::new(
                format!("{path}.pathPrefix"),
                format!(
                    "is {:?}; write / or elements of letters, digits, -, ., _ and ~ behind a / each, \
                     none of them . or .., as in /chat/rooms",
                    route.path_prefix
                ),
            ));
        }
        if !upstreams.iter().any(|it| it.name == route.upstream_name) {
            problems.push(Problem::new(
                format!("{path}.upstreamName"),
                format!(
                    "is {}, which is no upstream of the pool; use {}",
                    route.upstream_name,
                    known()
                ),
            ));
        }
        hostnames(problems, &path, &route.hostnames);
        // One for all hosts has no name.
        let hostnames: BTreeSet<_> = route.hostnames.iter().map(String::as_str).collect();
        let all = hostnames.is_empty().then_some("");
        for hostname in hostnames.into_iter().chain(all) {
            let first = matches.insert((hostname, route.path_prefix.as_str()), index);
            if let Some(first) = first {
                problems.push(Problem::new(
                    &path,
                    format!(
                        "matches {hostname}{} as routes[{first}] does; remove it from one of the two",
                        route.path_prefix
                    ),
                ));
            }
        }
    }
    let routes = routes.iter().map(|route| Route {
        hostnames: route.hostnames.clone(),
        path_prefix: route.path_prefix.clone(),
        upstream_name: route.upstream_name.clone(),
    });
    routes.collect()
}

/// `hostnames` of the route at `path`.
fn hostnames(problems: &mut Vec<Problem>, path: &str, hostnames: &[String]) {
    let path = format!("{path}.hostnames");
    if !hostnames.is_empty() {
        bounds(problems, &path, hostnames.len(), MOST_HOSTNAMES);
    }
    let mut seen = BTreeSet::new();
    for (index, hostname) in hostnames.iter().enumerate() {
        let problem = if !is_host_pattern(hostname) {
            "is no host; write a name in lower case, without port, *. at most before it"
        } else if !seen.insert(hostname) {
            "stands twice; remove one of them"
        } else {
            continue;
        };
        let path = format!("{path}[{index}]");
        problems.push(Problem::new(path, format!("{hostname:?} {problem}")));
    }
}

/// A name by RFC 1123 section 2.1, perhaps with a wildcard for those below it.
pub(crate) fn is_host_pattern(text: &str) -> bool {
    text.len() <= 253 && is_hostname(text.strip_prefix("*.").unwrap_or(text))
}

/// Elements of unreserved characters (RFC 3986 section 2.3), which no server reads in two ways; dot
/// segments (section 3.3) are not among them.
fn is_path_prefix(text: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_element =
        |element: &str| !matches!(element, "" | "." | "..") && element.bytes().all(is_unreserved);
    let elements = text.strip_prefix('/');
    let elements =
        elements.map(|elements| elements.is_empty() || elements.split('/').all(is_element));
    elements == Some(true) && text.len() <= 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_names_in_lower_case() {
        for name in [
            "a",
            "chat.example.com",
            "*.example.com",
            "*.com",
            "x-1.example",
            "192.0.2.1",
        ] {
            assert!(is_host_pattern(name), "{name}");
        }
        for name in [
            "",
            "*",
            "*.",
            "*example.com",
            "a.*.example.com",
            "Chat.example.com",
            "chat.example.com.",
            ".example.com",
            "a..b",
            "-a.example",
            "a-.example",
            "a_b.example",
            "example.com:80",
            "[2001:db8::1]",
            "ex\u{e4}mple.com",
            "a/b",
        ] {
            assert!(!is_host_pattern(name), "{name}");
        }
    }

    #[test]
    fn prefixes_have_one_form() {
        for prefix in ["/", "/chat", "/Chat/v1.2/~a_b-c", "/...", "/.well-known"] {
            assert!(is_path_prefix(prefix), "{prefix}");
        }
        for prefix in [
            "",
            "chat",
            "/chat/",
            "//",
            "//chat",
            "/a//b",
            "/.",
            "/a/../b",
            "/a%20b",
            "/a b",
            "/a;b",
            "/a?b",
            "/a#b",
            "/a*",
            "/caf\u{e9}",
        ] {
            assert!(!is_path_prefix(prefix), "{prefix}");
        }
    }
}
