//! What breaks, and what must hold after each: one host answers for each address, two never do for longer than
//! the lease and one second, the hosts say what they are, and the sessions of the other host's address notice
//! nothing.

mod both_hosts;
mod crash_loop;
mod one_host;

use anyhow::Result;
use e2e::lab::{VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Gateway, Part, Watch};
use nix::unistd::Pid;
use node_api::RouterState;

/// All processes of a host.
fn all(cluster: &Cluster, gateway: Gateway) -> Vec<Pid> {
    Part::ALL
        .into_iter()
        .flat_map(|part| cluster.pids(gateway, part))
        .collect()
}

/// Waits until each address is at its host and nowhere else: by the hosts' tables, by ARP, and by what they say.
fn at_home(watch: &Watch, cluster: &Cluster) -> Result<()> {
    cluster.wait_home()?;
    for (address, home, other) in [
        (VIP_SERVER1, Gateway::One, Gateway::Two),
        (VIP_SERVER2, Gateway::Two, Gateway::One),
    ] {
        watch.settles(cluster, address, home)?;
        cluster.wait_state(home, address, RouterState::Active)?;
        cluster.wait_state(other, address, RouterState::Backup)?;
    }
    Ok(())
}
