//! What the agent says of its addresses and ports; pure.

use node_api::{NodeReport, RouterReport, RouterState};

use super::Finding;

/// Routers advertise several times a second, or each second in version 2.
const RECENT_MS: u64 = 3500;

/// Warnings, listeners, and whether advertisements arrive.
pub(super) fn check(report: &NodeReport) -> Vec<Finding> {
    let mut findings = vec![Finding::fine(
        "agent",
        format!(
            "serves node {}, version {}",
            report.node_name, report.version
        ),
    )];
    let said = report.stale_reason.iter().chain(&report.warnings);
    findings.extend(said.map(|what| Finding::problem("agent", what, "see above")));
    findings.extend(listeners(report));
    findings.extend(report.virtual_routers.iter().map(advertisements));
    findings
}

fn listeners(report: &NodeReport) -> Vec<Finding> {
    let all = || report.pools.iter().flat_map(|pool| &pool.listeners);
    let (accepting, others): (Vec<_>, Vec<_>) = all().partition(|one| one.accepting);
    let mut findings: Vec<_> = others
        .into_iter()
        .map(|one| {
            let why = one.problem.as_deref().unwrap_or("it is not open yet");
            let subject = format!("listener {} on {}", one.name, one.address);
            Finding::problem(
                subject,
                why,
                "free the port, or see why the proxy does not run",
            )
        })
        .collect();
    if !accepting.is_empty() {
        let what = format!("{} accept", accepting.len());
        findings.push(Finding::fine("listeners", what));
    }
    findings
}

fn advertisements(router: &RouterReport) -> Finding {
    let address = router
        .addresses
        .first()
        .map_or_else(String::new, ToString::to_string);
    let subject = format!("virtual router {} ({address})", router.virtual_router_id);
    let recent = router
        .peers
        .iter()
        .filter(|peer| peer.last_heard_ms < RECENT_MS);
    let heard: Vec<_> = recent.map(|peer| peer.address.to_string()).collect();
    let remedy = "let IP protocol 112 to 224.0.0.18 through between the gateways (firewall, switch, \
                  IGMP snooping)";
    match router.state {
        RouterState::Active if heard.is_empty() => Finding::unknown(
            subject,
            "Active here; whether the others hear it is seen there: run this on a Backup",
        ),
        RouterState::Active => Finding::problem(
            subject,
            format!("Active here, and {} advertises too", heard.join(", ")),
            format!("if that lasts, it does not hear this node: {remedy}"),
        ),
        RouterState::Backup if heard.is_empty() => Finding::problem(
            subject,
            "Backup here, and nobody is heard",
            format!("{remedy}, unless this node takes over just now"),
        ),
        RouterState::Backup => Finding::fine(subject, format!("hears {}", heard.join(", "))),
        RouterState::Initialize => Finding::problem(
            subject,
            format!("takes no part: {}", router.reason),
            "remove the cause",
        ),
    }
}

#[cfg(test)]
mod tests {
    use node_api::{PeerReport, PoolRef};

    use super::*;

    fn router(state: RouterState, heard_ms: &[u64]) -> RouterReport {
        let peer = |ms: &u64| PeerReport {
            address: "10.0.0.2".parse().unwrap(),
            priority: 250,
            last_heard_ms: *ms,
        };
        RouterReport {
            pool: PoolRef {
                namespace: "default".to_owned(),
                name: "chat".to_owned(),
            },
            virtual_router_id: 7,
            sequence: 0,
            addresses: vec!["10.0.0.7".parse().unwrap()],
            interface: None,
            state,
            since_unix_ms: 0,
            reason: "the interface is down".to_owned(),
            priority: 100,
            peers: heard_ms.iter().map(peer).collect(),
            transitions: Vec::new(),
        }
    }

    #[test]
    fn what_is_heard_is_judged_by_the_state() {
        use RouterState::{Active, Backup, Initialize};
        for (state, heard, expected) in [
            (
                Active,
                &[][..],
                "unknown  virtual router 7 (10.0.0.7): Active here",
            ),
            (Active, &[9000], "unknown"),
            (
                Active,
                &[40],
                "PROBLEM  virtual router 7 (10.0.0.7): Active here, and 10.0.0.2",
            ),
            (
                Backup,
                &[40],
                "ok       virtual router 7 (10.0.0.7): hears 10.0.0.2",
            ),
            (Backup, &[9000], "PROBLEM"),
            (
                Initialize,
                &[],
                "PROBLEM  virtual router 7 (10.0.0.7): takes no part: the interface",
            ),
        ] {
            let said = advertisements(&router(state, heard)).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
