//! More sessions to one server than the kernel has source ports for it.

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1};
use e2e::testing::{Endpoint, Gateway, Manifest, Session, in_cluster, inside};

/// Source ports that the kernel may choose on the gateway.
const PORTS: usize = 200;

#[test]
fn one_server_takes_more_sessions_than_a_port_range_holds() -> Result<()> {
    let test = "one_server_takes_more_sessions_than_a_port_range_holds";
    let mut manifest = Manifest::article();
    manifest.pool().endpoints = vec![Endpoint::backend(16)];
    in_cluster(test, &manifest, |cluster| {
        let range = format!("40000 {}", 40000 + PORTS - 1);
        inside(cluster.host(Gateway::One), || {
            let file = "/proc/sys/net/ipv4/ip_local_port_range";
            std::fs::write(file, &range).context("cannot narrow the range of ports")
        })?;
        let client = cluster.lab.client();
        let mut sessions = Session::open_many(client, VIP_SERVER1, PORT, 3 * PORTS)?;
        ensure!(sessions.len() == 3 * PORTS);
        for session in &mut sessions {
            session.say("through")?;
        }
        Ok(())
    })
}
