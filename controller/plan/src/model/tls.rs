//! TLS of listeners and upstreams, as users write it.

use std::{collections::BTreeSet, net::IpAddr};

use node_api::{Http2, ListenerTls, TlsVersion, UpstreamTls};

use super::bounds;
use crate::Problem;

/// Longest label of a host's name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// `tls` of the listener at `path`, of a pool in `namespace`.
pub(super) fn listener(
    problems: &mut Vec<Problem>,
    path: &str,
    namespace: &str,
    spec: Option<&crds::ListenerTls>,
) -> Option<ListenerTls> {
    let spec = spec?;
    let path = format!("{path}.tls.certificateRefs");
    bounds(problems, &path, spec.certificate_refs.len(), 16);
    let mut seen = BTreeSet::new();
    for (index, reference) in spec.certificate_refs.iter().enumerate() {
        if !seen.insert(&reference.name) {
            problems.push(Problem::new(
                format!("{path}[{index}]"),
                format!("{} is named twice; remove one of the two", reference.name),
            ));
        }
    }
    let certificates = spec.certificate_refs.iter();
    Some(ListenerTls {
        certificates: certificates.map(|one| secret(namespace, one)).collect(),
        minimum_version: match spec.minimum_version {
            crds::TlsVersion::V12 => TlsVersion::V12,
            crds::TlsVersion::V13 => TlsVersion::V13,
        },
        http2: match spec.http2.mode {
            crds::Http2Mode::Enabled => Http2::Enabled,
            crds::Http2Mode::Disabled => Http2::Disabled,
        },
    })
}

/// `tls` of the upstream at `path`, of a pool in `namespace`.
pub(super) fn upstream(
    problems: &mut Vec<Problem>,
    path: &str,
    namespace: &str,
    spec: Option<&crds::UpstreamTls>,
) -> Option<UpstreamTls> {
    let spec = spec?;
    if let Some(problem) = problem_of(&spec.hostname) {
        problems.push(Problem::new(
            format!("{path}.tls.hostname"),
            format!("{:?} {problem}", spec.hostname),
        ));
    }
    let client = spec.client_certificate_ref.as_ref();
    Some(UpstreamTls {
        hostname: spec.hostname.clone(),
        ca: secret(namespace, &spec.ca_certificate_ref),
        client_certificate: client.map(|one| secret(namespace, one)),
    })
}

/// References stay in the pool's namespace: whoever writes a pool may not use what belongs to others.
fn secret(namespace: &str, reference: &crds::SecretReference) -> String {
    format!("{namespace}/{}", reference.name)
}

/// Why TLS cannot ask for such a name (RFC 6066 section 3).
fn problem_of(hostname: &str) -> Option<&'static str> {
    if hostname.parse::<IpAddr>().is_ok() {
        return Some("is an address, which TLS cannot ask for; use a name of the certificate");
    }
    if !is_hostname(hostname) {
        return Some("is no name of a host; use lower-case letters, digits and - between dots");
    }
    let mut labels = hostname.split('.');
    labels
        .any(|label| label.len() > LONGEST_LABEL)
        .then_some("has more than 63 characters between two dots; use a name that DNS can have")
}

/// Whether a text is the name of a host in lower case, whatever the length of its parts.
pub(crate) fn is_hostname(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split('.').all(|label| {
        label.starts_with(is_plain)
            && label.ends_with(is_plain)
            && label.chars().all(|c| is_plain(c) || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::problem_of;

    #[test]
    fn names_that_tls_can_ask_for() {
        for name in [
            "chat.example.com",
            "localhost",
            "1.example",
            "a-b.c",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(problem_of(name), None, "{name}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for name in [
            "",
            "192.0.2.1",
            "2001:db8::1",
            "Chat.example",
            "chat.example.",
            ".example",
            "a..b",
            "-a.example",
            "a-.example",
            "*.example",
            "a_b",
            long.as_str(),
        ] {
            assert!(problem_of(name).is_some(), "{name}");
        }
    }
}
