//! A proxy that dies again and again: its host leaves the address where it is, for longer each time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Gateway, Manifest, Part, SETTLE, Watch, in_cluster};
use e2e::wait;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use node_api::RouterState;

use crate::at_home;
use crate::wire::Wire;

const HIT: Gateway = Gateway::One;

/// How long a proxy must have accepted before its host takes an address back, after so many deaths in a row.
fn hold(deaths: u32) -> Duration {
    Duration::from_secs(3) * 2_u32.pow(deaths - 1)
}

/// Kills the proxy and waits until its successor accepts, so that only its past speaks against it.
fn crash(cluster: &Cluster, proxy: &mut Pid) -> Result<Instant> {
    let killed = Instant::now();
    cluster.signal(HIT, Part::Proxy, Signal::SIGKILL)?;
    *proxy = cluster.wait_restarted(HIT, Part::Proxy, *proxy)?;
    cluster.wait_status(HIT, "an accepting proxy", |report| {
        let mut listeners = report.pools.iter().flat_map(|pool| &pool.listeners);
        listeners.all(|listener| listener.accepting).then_some(())
    })?;
    Ok(killed)
}

#[test]
fn a_crash_looping_proxy_moves_its_address_once() -> Result<()> {
    in_cluster(
        "a_crash_looping_proxy_moves_its_address_once",
        &Manifest::article(),
        |cluster| {
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let struck = Instant::now();
            let risen = |gateway| cluster.entered(gateway, VIP_SERVER1, RouterState::Active);
            let before = [risen(HIT)?, risen(Gateway::Two)?];
            let mut proxy = cluster.pid(HIT, Part::Proxy)?;
            // Two deaths in quick succession, then one when the hold of a single death would be over.
            crash(cluster, &mut proxy).context("crash 1")?;
            let second = crash(cluster, &mut proxy).context("crash 2")?;
            let until = Instant::now() + Duration::from_secs(4);
            wait::until("the first hold to pass", SETTLE, || {
                Ok((Instant::now() >= until).then_some(()))
            })?;
            let is_back = risen(HIT)? > before[0];
            // A machine that stood still may have let the second hold pass, too.
            let is_held = second.elapsed() < hold(2);
            ensure!(
                !(is_back && is_held),
                "server1 took the address back while it was held off"
            );
            let third = crash(cluster, &mut proxy).context("crash 3")?;
            watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
            let moves = if is_held { 1 } else { 2 };
            let found = risen(Gateway::Two)? - before[1];
            ensure!(found <= moves, "the address moved {found} times");
            let lost = watch.losses(VIP_SERVER1, struck)?;
            ensure!(
                lost < 2 * moves,
                "the client of the moved address lost {lost} sessions"
            );
            // It is not forgotten either.
            at_home(&watch, cluster, Wire::V3)?;
            ensure!(
                third.elapsed() >= hold(3),
                "server1 took the address back {} ms after the third crash",
                third.elapsed().as_millis()
            );
            watch.serves(VIP_SERVER1, Instant::now())?;
            watch.undisturbed(VIP_SERVER2, struck)?;
            watch.never_split()
        },
    )
}
