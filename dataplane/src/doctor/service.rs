//! What the agent says of its addresses and ports; pure.

use node_api::NodeReport;

use super::Finding;

/// Warnings and listeners.
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
    findings
}

fn listeners(report: &NodeReport) -> Vec<Finding> {
    let all = || report.pools.iter().flat_map(|pool| &pool.listeners);
    let (accepting, others): (Vec<_>, Vec<_>) = all().partition(|one| one.accepting);
    let mut findings: Vec<_> = others
        .into_iter()
        .map(|one| {
            let subject = format!("listener {} on {}", one.name, one.address);
            match one.problem.as_deref() {
                Some(why) => Finding::problem(subject, why, "see above"),
                None => Finding::problem(
                    subject,
                    "it is not open yet",
                    "see why the proxy does not run",
                ),
            }
        })
        .collect();
    if !accepting.is_empty() {
        let what = format!("{} accept", accepting.len());
        findings.push(Finding::fine("listeners", what));
    }
    findings
}
