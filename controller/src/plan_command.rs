//! `wsha-controller plan`: what would be done for files, without a cluster.

use std::{fs, path::Path};

use anyhow::Context;
use plan::{Plan, manifests};

use crate::args::PlanArgs;

/// Prints the plan, or what is wrong with the files.
///
/// # Errors
/// If the files cannot be read or are not in order.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let files = read(&args.filename)?;
    let accepted = manifests::accept(&files).map_err(|refusals| {
        let lines: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    print!("{}", text(&accepted.plan));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = || format!("cannot read {}", path.display());
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(shown)? {
            let path = entry.with_context(shown)?.path();
            let extension = path.extension().and_then(|it| it.to_str());
            if matches!(extension, Some("yaml" | "yml")) {
                paths.push(path);
            }
        }
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let texts = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.display().to_string(), text))
    });
    texts.collect()
}

/// The plan for a reader.
pub fn text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for (name, pool) in &plan.pools {
        lines.push(format!("Pool {name}"));
        for router in &pool.virtual_routers {
            let addresses: Vec<_> = router.addresses.iter().map(ToString::to_string).collect();
            let nodes = router.nodes.iter();
            let nodes: Vec<_> = nodes
                .map(|node| format!("{} {}", node.node_name, node.priority))
                .collect();
            lines.push(format!(
                "  {}  VRID {}  {}",
                addresses.join(" "),
                router.virtual_router_id,
                if nodes.is_empty() {
                    "no node".to_owned()
                } else {
                    nodes.join(", ")
                }
            ));
        }
        for listener in &pool.listeners {
            lines.push(format!(
                "  listener {}  port {}",
                listener.name, listener.port
            ));
            for route in &listener.routes {
                let (prefix, upstream) = (&route.path_prefix, &route.upstream_name);
                let all = route.hostnames.is_empty().then_some("*");
                let hostnames = route.hostnames.iter().map(String::as_str).chain(all);
                for hostname in hostnames {
                    lines.push(format!("    {hostname}{prefix}  to {upstream}"));
                }
            }
        }
        for upstream in &pool.upstreams {
            let endpoints = upstream.endpoints.len();
            lines.push(format!(
                "  upstream {}  {endpoints} endpoints",
                upstream.name
            ));
        }
    }
    let remarks = plan.rejected.iter().map(|entry| ("refused", entry));
    let unresolved = plan.unresolved.iter().map(|entry| ("unresolved", entry));
    for (what, (name, problems)) in remarks.chain(unresolved) {
        for problem in problems {
            lines.push(format!("Pool {name} {what}: {problem}"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
