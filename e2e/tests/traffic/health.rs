//! Servers that take connections and are not well.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Gateway, Manifest, Session, in_cluster};
use nix::sys::signal::Signal;
use node_api::{EndpointReport, RouterState};

const GATEWAYS: [Gateway; 2] = [Gateway::One, Gateway::Two];

const HUNG: &str = "its health check fails: it does not answer in time";

/// Waits until both gateways, one of which has no client, find these servers and no others hung.
fn wait_hung(cluster: &Cluster, hung: &[u8]) -> Result<()> {
    let fits = |endpoint: &EndpointReport| {
        let IpAddr::V4(address) = endpoint.address.ip() else {
            return false;
        };
        let is_hung = hung.contains(&address.octets()[3]);
        let problem = is_hung.then_some(HUNG);
        endpoint.problem.as_deref() == problem && endpoint.usable != is_hung
    };
    for gateway in GATEWAYS {
        cluster.wait_status(gateway, &format!("{hung:?} hung"), |report| {
            report.pools[0].endpoints.iter().all(fits).then_some(())
        })?;
    }
    Ok(())
}

/// The server of `ws` answers the check's Ping. One whose process is stopped takes connections, as its kernel does, and
/// says nothing: clients are kept from it. With all like that no address moves, since no other gateway would do better.
#[test]
fn a_hung_server_gets_no_clients_and_with_all_hung_no_address_moves() -> Result<()> {
    let test = "a_hung_server_gets_no_clients_and_with_all_hung_no_address_moves";
    let mut manifest = Manifest::article();
    manifest.pool().upstream.push(
        "healthCheck: { interval: 300ms, timeout: 250ms, failureThreshold: 2, successThreshold: 2, webSocket: { path: /chat } }"
            .to_owned(),
    );
    in_cluster(test, &manifest, |cluster| {
        wait_hung(cluster, &[])?;
        let entered = |gateway, address| cluster.entered(gateway, address, RouterState::Active);
        let homes = [(Gateway::One, VIP_SERVER1), (Gateway::Two, VIP_SERVER2)];
        let before = homes.map(|(gateway, address)| entered(gateway, address).ok());
        let servers = cluster.backends.processes();
        servers[0].signal(Signal::SIGSTOP)?;
        wait_hung(cluster, &[16])?;
        let hung = Ipv4Addr::new(192, 168, 1, 16);
        for address in [VIP_SERVER1, VIP_SERVER2] {
            let mut sessions = Session::open_many(cluster.lab.client(), address, PORT, 6)?;
            for session in &mut sessions {
                ensure!(session.say("who")? != hung, "a hung server answered");
            }
        }
        servers[1].signal(Signal::SIGSTOP)?;
        servers[2].signal(Signal::SIGSTOP)?;
        wait_hung(cluster, &[16, 17, 18])?;
        for server in servers {
            server.signal(Signal::SIGCONT)?;
        }
        wait_hung(cluster, &[])?;
        let after = homes.map(|(gateway, address)| entered(gateway, address).ok());
        ensure!(before == after, "an address moved: {before:?}, {after:?}");
        let mut sessions = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 9)?;
        for session in &mut sessions {
            session.say("all is well")?;
        }
        Ok(())
    })
}
