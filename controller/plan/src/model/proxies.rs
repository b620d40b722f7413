//! Proxies before the gateways, as users write them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use node_api::{ProxyProtocolMode, ProxyProtocolVersion};

use super::bounds;
use crate::Problem;

/// `trustedProxies` and `proxyProtocol` of the listener at `path`.
pub(super) fn check(problems: &mut Vec<Problem>, path: &str, listener: &crds::Listener) {
    let trusted = &listener.trusted_proxies;
    let field = format!("{path}.trustedProxies");
    if !trusted.is_empty() {
        bounds(problems, &field, trusted.len(), 64);
    }
    let mut seen = BTreeSet::new();
    for (index, network) in trusted.iter().enumerate() {
        let problem = if seen.insert(network) {
            problem_of(network)
        } else {
            Some("stands twice; remove one of them".to_owned())
        };
        problems.extend(problem.map(|problem| {
            Problem::new(
                format!("{field}[{index}]"),
                format!("{network:?} {problem}"),
            )
        }));
    }
    if mode(listener) == ProxyProtocolMode::Required && trusted.is_empty() {
        problems.push(Problem::new(
            field,
            "is empty, and with proxyProtocol.mode Required nobody else may connect; name the \
             proxies that send the header",
        ));
    }
}

/// Why a text is no network.
fn problem_of(network: &str) -> Option<String> {
    let Ok(parsed) = network.parse::<IpNet>() else {
        return Some(
            "is no network; write it as 192.0.2.0/24, a single address with /32 or /128".into(),
        );
    };
    let canonical = parsed.trunc().to_string();
    (canonical != network).then(|| format!("is not in its canonical form; write {canonical}"))
}

pub(super) fn mode(listener: &crds::Listener) -> ProxyProtocolMode {
    match listener.proxy_protocol.as_ref().map(|wanted| wanted.mode) {
        None | Some(crds::ProxyProtocolMode::Disabled) => ProxyProtocolMode::Disabled,
        Some(crds::ProxyProtocolMode::Required) => ProxyProtocolMode::Required,
    }
}

/// `proxyProtocol` of the upstream at `path`.
pub(super) fn sent(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: Option<&crds::SentProxyProtocol>,
) -> Option<ProxyProtocolVersion> {
    match spec?.version {
        1 => Some(ProxyProtocolVersion::V1),
        2 => Some(ProxyProtocolVersion::V2),
        other => {
            problems.push(Problem::new(
                format!("{path}.proxyProtocol.version"),
                format!("is {other}; use 1 or 2, or leave proxyProtocol out"),
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::problem_of;

    #[test]
    fn networks_are_canonical() {
        for network in [
            "192.0.2.0/24",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            assert_eq!(problem_of(network), None, "{network}");
        }
        for network in [
            "192.0.2.0",
            "192.0.2.0/33",
            "192.0.2.1/24",
            "2001:db8::1/32",
            "2001:DB8::/32",
            "2001:db8:0::/32",
            "192.0.2.0/024",
            "proxies",
            "",
        ] {
            assert!(problem_of(network).is_some(), "{network}");
        }
    }
}
