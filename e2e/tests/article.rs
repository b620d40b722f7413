//! The article's set-up as one manifest, and each of its claims.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::lab::{VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Endpoint, Event, Gateway, Manifest, Part, Session, Watch, in_cluster};
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

/// server2 has both addresses since server1 was struck: `ip addr` shows them there, clients of both are served, that of server1's address lost the one session that it had, and that of server2's noticed nothing.
fn all_at_server2(cluster: &Cluster, watch: &Watch, struck: Instant) -> Result<()> {
    watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
    for address in [VIP_SERVER1, VIP_SERVER2] {
        ensure!(
            shows(cluster, Gateway::Two, address)?,
            "server2 does not show {address}"
        );
    }
    four_clients(cluster)?;
    watch.serves(VIP_SERVER1, Instant::now())?;
    let lost = watch.losses(VIP_SERVER1, struck)?;
    ensure!(
        lost == 1,
        "the client of server1's address lost {lost} sessions"
    );
    watch.undisturbed(VIP_SERVER2, struck)
}

/// Each host holds its own address, as `ip addr` shows it, and the client of server2's never noticed anything.
fn each_at_its_own(cluster: &Cluster, watch: &Watch, struck: Instant) -> Result<()> {
    watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
    cluster.wait_home()?;
    for (address, home, other) in [
        (VIP_SERVER1, Gateway::One, Gateway::Two),
        (VIP_SERVER2, Gateway::Two, Gateway::One),
    ] {
        ensure!(
            shows(cluster, home, address)? && !shows(cluster, other, address)?,
            "{address} is not at {} alone",
            home.name()
        );
    }
    watch.serves(VIP_SERVER1, Instant::now())?;
    watch.undisturbed(VIP_SERVER2, struck)
}

#[test]
fn the_whole_article() -> Result<()> {
    let mut manifest = Manifest::article();
    in_cluster("the_whole_article", &manifest.clone(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        each_at_its_own(cluster, &watch, Instant::now())?;

        // Both addresses lead to all three backends, in turn.
        let answered = four_clients(cluster)?;
        ensure!(
            answered[0] != answered[2] && answered[1] != answered[3],
            "not in turn: {answered:?}"
        );
        in_turn(cluster)?;

        // `killall -9 nginx` on server1, and nobody is there to start it again: both addresses at server2.
        cluster.signal(Gateway::One, Part::Agent, Signal::SIGSTOP)?;
        let struck = Instant::now();
        cluster.signal(Gateway::One, Part::Proxy, Signal::SIGKILL)?;
        all_at_server2(cluster, &watch, struck)?;
        ensure!(
            !shows(cluster, Gateway::One, VIP_SERVER1)?,
            "server1 kept its address without a proxy"
        );
        // It is started again, and the initial state comes back by itself.
        cluster.signal(Gateway::One, Part::Agent, Signal::SIGCONT)?;
        each_at_its_own(cluster, &watch, struck)?;

        // server1 is shut down: the same.
        let struck = Instant::now();
        cluster.lab.server1().power_off()?;
        all_at_server2(cluster, &watch, struck)?;
        // It returns: the initial state once more.
        cluster.lab.server1().power_on()?;
        cluster.start(Gateway::One)?;
        each_at_its_own(cluster, &watch, struck)?;

        fourth_backend(cluster, &mut manifest, &watch)?;
        watch.never_split()
    })
}

/// The article's clients must send heartbeats, or the proxy cuts them; here the proxy asks, and only who is dead is cut.
#[test]
fn a_quiet_session_lives_and_a_dead_client_is_found() -> Result<()> {
    let mut manifest = Manifest::article();
    manifest
        .pool()
        .spec
        .push("heartbeat: { interval: 1s, timeout: 1s }".into());
    let test = "a_quiet_session_lives_and_a_dead_client_is_found";
    in_cluster(test, &manifest, |cluster| {
        let client = cluster.lab.client();
        let mut quiet = Session::open(client, VIP_SERVER1)?;
        let mut dead = Session::open(client, VIP_SERVER1)?;
        let server = quiet.say("hello")?;
        dead.say("hello")?;
        dead.never_pong();
        cluster.wait_sessions(Gateway::One, 2)?;
        // Longer than the dead one is given. It takes the pings and answers them, and nothing else comes.
        if let Some(event) = quiet.poll(Duration::from_secs(5))? {
            bail!("the quiet session got {event:?}");
        }
        ensure!(
            quiet.say("still here")? == server,
            "the quiet session moved to another backend"
        );
        let end = dead.next_event()?;
        ensure!(
            matches!(end, Event::Close(..) | Event::Fin | Event::Reset),
            "the client that answers no ping got {end:?}"
        );
        cluster.wait_sessions(Gateway::One, 1)?;
        let silent = [("by", "client_silent")];
        let found = cluster.count(Gateway::One, "wsha_proxy_sessions_ended", &silent)?;
        ensure!(found == 1, "{found} sessions were ended as silent");
        Ok(())
    })
}
