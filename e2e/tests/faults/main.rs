//! What breaks, and what must hold after each: one host answers for each address, two never do for longer than
//! the lease and one second, the hosts say what they are and what happened, and the sessions of the other host's
//! address notice nothing.

/// Makes tests of a row of the matrix, one for each wire. Those after `nightly` tell little that the others do not,
/// and run in `make nightly` alone.
macro_rules! row {
    ($row:ident: $($wire:ident),*; nightly: $($late:ident),*) => {
        mod $row {
            $(#[test]
            fn $wire() -> anyhow::Result<()> {
                super::$row(
                    concat!(stringify!($row), "::", stringify!($wire)),
                    crate::wire::Wire::$wire(),
                )
            })*
            $(#[test]
            #[ignore = "make nightly"]
            fn $late() -> anyhow::Result<()> {
                super::$row(
                    concat!(stringify!($row), "::", stringify!($late)),
                    crate::wire::Wire::$late(),
                )
            })*
        }
    };
}

mod both_hosts;
mod crash_loop;
mod large_proxy;
mod links;
mod one_host;
mod processes;
mod state;
mod strangers;
mod tracked;
mod wire;

use anyhow::Result;
use e2e::testing::{Cluster, Gateway, Part, Watch};
use nix::unistd::Pid;
use node_api::RouterState;

use self::wire::Wire;

/// All processes of a host.
fn all(cluster: &Cluster, gateway: Gateway) -> Vec<Pid> {
    Part::ALL
        .into_iter()
        .flat_map(|part| cluster.pids(gateway, part))
        .collect()
}

/// Waits until each address is at its host and nowhere else: by the hosts' tables, by ARP or neighbour discovery, and
/// by what they say.
fn at_home(watch: &Watch, cluster: &Cluster, wire: Wire) -> Result<()> {
    cluster.wait_home()?;
    for (address, home, other) in [
        (wire.one(), Gateway::One, Gateway::Two),
        (wire.two(), Gateway::Two, Gateway::One),
    ] {
        watch.settles(cluster, address, home)?;
        cluster.wait_state(home, address, RouterState::Active)?;
        cluster.wait_state(other, address, RouterState::Backup)?;
    }
    Ok(())
}
