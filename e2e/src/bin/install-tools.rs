//! Installs what the lab, the demo and the benchmarks need beyond this repository.

use std::process::ExitCode;

use e2e::tools;

fn main() -> ExitCode {
    let mut missing = false;
    let mut report = |what: &str, outcome: anyhow::Result<()>| match outcome {
        Ok(()) => println!("ok       {what}"),
        Err(error) => {
            missing = true;
            println!("MISSING  {what}: {error:#}");
        }
    };
    report("ip, node and npm", tools::install_programs());
    report(
        "the backend's module ws",
        tools::install_backend().map(drop),
    );
    report("keepalived and nginx, the peers", tools::install_peers());
    report("FRR, a peer of virtual routers", tools::install_frr());
    report(
        "nginx, HAProxy and Envoy, the proxies",
        tools::install_proxies(),
    );
    report(
        "the Autobahn test suite",
        tools::install_autobahn().map(drop),
    );
    report(
        "Python's module websockets",
        tools::install_websockets().map(drop),
    );
    report("chromium, a browser", tools::install_chromium().map(drop));
    report(
        "containerd, runc, network plugins and nft, for nodes",
        tools::install_node_programs(),
    );
    report(
        "promtool, for the chart's alerts",
        tools::install_promtool().map(drop),
    );
    ExitCode::from(u8::from(missing))
}
