//! What a group of wsha and a peer goes through, whatever it is made of.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::testing::{Cluster, Gateway, Part, Watch};
use node_api::RouterState;

use crate::group::{Group, calm, mixed, nothing_discarded, state};
use crate::keepalived::Keepalived;
use crate::peer::{Peer, Role};

/// Beside keepalived.
pub(crate) fn wsha_active(test: &str, group: Group) -> Result<()> {
    wsha_active_beside::<Keepalived>(test, group)
}

/// Behind keepalived.
pub(crate) fn wsha_backup(test: &str, group: Group) -> Result<()> {
    wsha_backup_behind::<Keepalived>(test, group)
}

/// Waits until the peer answers for the shared address, and nobody else.
fn settles_at<P: Peer>(cluster: &Cluster, watch: &Watch, group: Group) -> Result<()> {
    let mac = P::mac(cluster.host(Gateway::Two), group);
    watch.settles_at(group.shared(), mac, Instant::now())
}

/// wsha has the higher priority.
pub(crate) fn wsha_active_beside<P: Peer>(test: &str, group: Group) -> Result<()> {
    let group = Group {
        wsha: 200,
        peer: 100,
        ..group
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        let watch = Watch::start(cluster, &[shared])?;

        let peer = P::start(cluster, group)?;
        peer.wait_entered(Role::Backup, 1)?;
        calm(group)?;
        ensure!(
            peer.entered(Role::Active)? == 0,
            "{} rose above a living wsha",
            P::NAME
        );
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        nothing_discarded(cluster)?;

        // An orderly stop says priority 0.
        cluster.stop(Gateway::One)?;
        peer.wait_entered(Role::Active, 1)?;
        cluster.wait_holders(shared, P::HOLDERS)?;
        // wsha returns and takes over from a living peer.
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        peer.wait_entered(Role::Backup, 2)?;
        watch.settles(cluster, shared, Gateway::One)?;
        watch.serves(shared, Instant::now())?;

        // wsha dies with all its processes.
        let pids: Vec<_> = Part::ALL
            .into_iter()
            .flat_map(|part| cluster.pids(Gateway::One, part))
            .collect();
        e2e::lab::kill_at_once(&pids);
        peer.wait_entered(Role::Active, 2)?;
        cluster.wait_holders(shared, P::HOLDERS)?;
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        peer.wait_entered(Role::Backup, 3)?;
        calm(group)?;
        ensure!(peer.entered(Role::Active)? == 2, "{} flapped", P::NAME);
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        watch.never_split()?;
        nothing_discarded(cluster)?;
        P::content(&peer.stop()?)
    })
}

/// The peer has the higher priority.
pub(crate) fn wsha_backup_behind<P: Peer>(test: &str, group: Group) -> Result<()> {
    let group = Group {
        wsha: 100,
        peer: 200,
        ..group
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        let peer = P::start(cluster, group)?;
        peer.wait_entered(Role::Active, 1)?;
        cluster.start(Gateway::One)?;
        state(cluster, RouterState::Backup)?;
        let heard = cluster.wait_status(Gateway::One, "a peer", |report| {
            report.virtual_routers.first()?.peers.first().cloned()
        })?;
        let source = P::source(cluster.host(Gateway::Two), group);
        ensure!(
            heard.address == source && heard.priority == 200,
            "it heard {heard:?}"
        );
        calm(group)?;
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 0,
            "wsha rose above a living {}",
            P::NAME
        );
        ensure!(
            cluster.lab.holders(shared)? == P::HOLDERS,
            "the address is not at {} alone",
            P::NAME
        );
        nothing_discarded(cluster)?;

        // An orderly stop of the peer says priority 0.
        P::content(&peer.stop()?)?;
        cluster.wait_holders(shared, &["server1"])?;
        let cause = cluster.router(Gateway::One, shared)?.reason;
        let watch = Watch::start(cluster, &[shared])?;
        watch.settles(cluster, shared, Gateway::One)?;
        // The peer returns and takes over from a living wsha.
        let peer = P::start(cluster, group)?;
        peer.wait_entered(Role::Active, 1)?;
        state(cluster, RouterState::Backup)?;
        settles_at::<P>(cluster, &watch, group)?;
        ensure!(
            cluster.lab.holders(shared)? == P::HOLDERS,
            "wsha did not let go of the address"
        );
        P::content(&peer.log()?)?;

        // Its host dies.
        cluster.lab.server2().power_off()?;
        watch.settles(cluster, shared, Gateway::One)?;
        let silent = cluster.router(Gateway::One, shared)?.reason;
        ensure!(silent != cause, "priority 0 and silence are both {cause:?}");
        watch.serves(shared, Instant::now())?;
        drop(peer);
        cluster.lab.server2().power_on()?;
        group.number(&[cluster.lab.server2()])?;
        let peer = P::start(cluster, group)?;
        peer.wait_entered(Role::Active, 1)?;
        state(cluster, RouterState::Backup)?;
        settles_at::<P>(cluster, &watch, group)?;
        calm(group)?;
        ensure!(peer.entered(Role::Active)? == 1, "{} flapped", P::NAME);
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 2,
            "wsha flapped"
        );
        watch.never_split()?;
        nothing_discarded(cluster)?;
        P::content(&peer.stop()?).context("at the end")
    })
}
