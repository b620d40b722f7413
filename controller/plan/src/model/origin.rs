//! Origins of web pages (RFC 6454 section 6.2), as users write them.

use std::collections::BTreeSet;

use super::bounds;
use crate::Problem;

/// `allowedOrigins` of the listener at `path`.
pub(super) fn check(problems: &mut Vec<Problem>, path: &str, origins: &[String]) {
    let path = format!("{path}.allowedOrigins");
    if !origins.is_empty() {
        bounds(problems, &path, origins.len(), 64);
    }
    let mut seen = BTreeSet::new();
    for (index, origin) in origins.iter().enumerate() {
        let problem = if seen.insert(origin) {
            problem_of(origin)
        } else {
            Some("stands twice; remove one of them")
        };
        problems.extend(problem.map(|problem| {
            Problem::new(format!("{path}[{index}]"), format!("{origin:?} {problem}"))
        }));
    }
}

/// Why no browser sends such an origin.
fn problem_of(origin: &str) -> Option<&'static str> {
    const FORM: &str = "is no origin as browsers send it; use scheme://host or scheme://host:port in \
                        lower case, without path, *. at most at the start of the host";
    let Some((scheme, rest)) = origin.split_once("://") else {
        return Some(FORM);
    };
    let is_in_scheme =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(is_in_scheme);
    let rest = rest.strip_prefix("*.").unwrap_or(rest);
    // Colons of an IPv6 address stand in brackets.
    let end = rest.find(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match rest.get(end..).and_then(|tail| tail.find(':')) {
        Some(colon) => rest.split_at(end + colon),
        None => (rest, ""),
    };
    if !is_scheme || !is_host(host) || !(port.is_empty() || is_port(port)) {
        return Some(FORM);
    }
    match (scheme, port) {
        ("https", ":443") => Some("names the port that browsers leave out with https; remove :443"),
        ("http", ":80") => Some("names the port that browsers leave out with http; remove :80"),
        _ => None,
    }
}

fn is_host(host: &str) -> bool {
    let is_in_label =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_in_label);
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inside {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    }
}

fn is_port(port: &str) -> bool {
    let digits = port.strip_prefix(':').unwrap_or_default();
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    is_number && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::problem_of;

    #[test]
    fn what_browsers_send_is_taken() {
        for origin in [
            "https://chat.example.com",
            "https://*.example.com",
            "http://localhost:3000",
            "https://192.168.1.110:8443",
            "http://[2001:db8::1]:8020",
            "http://[2001:db8::1]",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(problem_of(origin), None, "{origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for origin in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "https://*.",
            "https://Example.com",
            "https://example.com/",
            "https://example.com/chat",
            "https://a.*.example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example..com",
            "https://[::1",
            "https://[example]",
            "://example.com",
            "https://example.com:443",
            "http://example.com:80",
        ] {
            assert!(problem_of(origin).is_some(), "{origin}");
        }
    }
}
