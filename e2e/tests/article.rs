//! The article's set-up as one manifest, and each of its claims.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::lab::{VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Endpoint, Gateway, Manifest, Part, Session, Watch, in_cluster};
use nix::sys::signal::Signal;

/// The lines of `ip addr` that the article looks at.
fn shows(cluster: &Cluster, gateway: Gateway, address: Ipv4Addr) -> Result<bool> {
    let text = cluster.host(gateway).ip_addr()?;
    Ok(text.lines().any(|line| {
        line.trim_start()
            .starts_with(&format!("inet {address}/32 "))
    }))
}

/// `wscat -c` on both addresses, twice each, as the article does; who answered.
fn four_clients(cluster: &Cluster) -> Result<Vec<Ipv4Addr>> {
    let addresses = [VIP_SERVER2, VIP_SERVER1, VIP_SERVER2, VIP_SERVER1];
    let mut sessions = Vec::new();
    for address in addresses {
        sessions.push(Session::open(cluster.lab.client(), address)?);
    }
    sessions
        .iter_mut()
        .enumerate()
        .map(|(number, session)| session.say(&format!("hello {number}")))
        .collect()
}

/// Six clients of each address, one after another: each backend answers in its turn.
fn in_turn(cluster: &Cluster) -> Result<()> {
    for address in [VIP_SERVER1, VIP_SERVER2] {
        // One after another: it is their order that is looked at.
        let mut sessions = Vec::new();
        let mut turn = Vec::new();
        for number in 0..6 {
            let mut session = Session::open(cluster.lab.client(), address)?;
            turn.push(session.say(&format!("client {number}"))?);
            sessions.push(session);
        }
        ensure!(
            turn[..3].iter().collect::<BTreeSet<_>>().len() == 3,
            "not all backends answer: {turn:?}"
        );
        ensure!(turn[..3] == turn[3..], "not round robin: {turn:?}");
    }
    Ok(())
}

/// A fourth backend by one edit: new clients reach it, and nobody's session is closed.
fn fourth_backend(cluster: &mut Cluster, manifest: &mut Manifest, watch: &Watch) -> Result<()> {
    for address in [VIP_SERVER1, VIP_SERVER2] {
        watch.serves(address, Instant::now())?;
    }
    let before = Instant::now();
    let mut live = Session::open_many(cluster.lab.client(), VIP_SERVER1, e2e::lab::PORT, 12)?;
    live.extend(Session::open_many(
        cluster.lab.client(),
        VIP_SERVER2,
        e2e::lab::PORT,
        12,
    )?);
    let serving = live
        .iter_mut()
        .map(|session| session.say("before"))
        .collect::<Result<Vec<_>>>()?;
    cluster.backends.add_fourth(&cluster.lab)?;
    manifest.pool().endpoints.push(Endpoint::backend(19));
    cluster.apply(manifest)?;
    let fourth = Ipv4Addr::new(192, 168, 1, 19);
    for gateway in Gateway::BOTH {
        cluster.wait_status(gateway, "the fourth backend", |report| {
            let mut endpoints = report.pools.iter().flat_map(|pool| &pool.endpoints);
            endpoints
                .any(|endpoint| endpoint.address.ip() == fourth && endpoint.usable)
                .then_some(())
        })?;
    }
    for address in [VIP_SERVER1, VIP_SERVER2] {
        let mut fresh = Session::open_many(cluster.lab.client(), address, e2e::lab::PORT, 4)?;
        let turn = fresh
            .iter_mut()
            .map(|session| session.say("after"))
            .collect::<Result<BTreeSet<_>>>()?;
        ensure!(
            turn.len() == 4 && turn.contains(&fourth),
            "four new clients of {address} reached {turn:?}"
        );
    }
    for (session, server) in live.iter_mut().zip(serving) {
        ensure!(
            session.say("after")? == server,
            "a session moved to another backend"
        );
    }
    watch.undisturbed(VIP_SERVER1, before)?;
    watch.undisturbed(VIP_SERVER2, before)
}

#[test]
fn the_whole_article() -> Result<()> {
    let mut manifest = Manifest::article();
    in_cluster("the_whole_article", &manifest.clone(), |cluster| {
        // Each host holds its address, as `ip addr` shows it.
        ensure!(
            shows(cluster, Gateway::One, VIP_SERVER1)?
                && !shows(cluster, Gateway::One, VIP_SERVER2)?
        );
        ensure!(
            shows(cluster, Gateway::Two, VIP_SERVER2)?
                && !shows(cluster, Gateway::Two, VIP_SERVER1)?
        );
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;

        // Both addresses lead to all three backends, in turn.
        let answered = four_clients(cluster)?;
        ensure!(
            answered[0] != answered[2] && answered[1] != answered[3],
            "not in turn: {answered:?}"
        );
        in_turn(cluster)?;

        // `killall -9 nginx` on server1: both addresses at server2.
        cluster.signal(Gateway::One, Part::Proxy, Signal::SIGKILL)?;
        watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
        ensure!(
            shows(cluster, Gateway::Two, VIP_SERVER1)?
                && shows(cluster, Gateway::Two, VIP_SERVER2)?
        );
        four_clients(cluster)?;
        // The initial state comes back by itself.
        watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
        cluster.wait_home()?;

        // server1 is shut down: the same.
        cluster.lab.server1().power_off()?;
        watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
        ensure!(
            shows(cluster, Gateway::Two, VIP_SERVER1)?
                && shows(cluster, Gateway::Two, VIP_SERVER2)?
        );
        four_clients(cluster)?;
        // It returns: the initial state once more.
        cluster.lab.server1().power_on()?;
        cluster.start(Gateway::One)?;
        watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
        cluster.wait_home()?;
        ensure!(
            shows(cluster, Gateway::One, VIP_SERVER1)?
                && !shows(cluster, Gateway::Two, VIP_SERVER1)?
        );

        fourth_backend(cluster, &mut manifest, &watch)?;
        watch.never_split()
    })
}
