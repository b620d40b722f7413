//! What a group of wsha and keepalived goes through, whatever it is made of.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::testing::{Gateway, Part, Watch};
use node_api::RouterState;

use crate::group::{Group, calm, mixed, nothing_discarded, state};
use crate::keepalived::Keepalived;

/// wsha has the higher priority.
pub(crate) fn wsha_active(test: &str, group: Group) -> Result<()> {
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

        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("BACKUP", 1)?;
        calm(group)?;
        ensure!(
            keepalived.entered("MASTER")? == 0,
            "keepalived rose above a living wsha"
        );
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        nothing_discarded(cluster)?;

        // An orderly stop says priority 0.
        cluster.stop(Gateway::One)?;
        keepalived.wait_entered("MASTER", 1)?;
        cluster.wait_holders(shared, &["server2"])?;
        // wsha returns and takes over from a living keepalived.
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        keepalived.wait_entered("BACKUP", 2)?;
        watch.settles(cluster, shared, Gateway::One)?;
        watch.serves(shared, Instant::now())?;

        // wsha dies with all its processes.
        let pids: Vec<_> = Part::ALL
            .into_iter()
            .flat_map(|part| cluster.pids(Gateway::One, part))
            .collect();
        e2e::lab::kill_at_once(&pids);
        keepalived.wait_entered("MASTER", 2)?;
        cluster.wait_holders(shared, &["server2"])?;
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        keepalived.wait_entered("BACKUP", 3)?;
        calm(group)?;
        ensure!(keepalived.entered("MASTER")? == 2, "keepalived flapped");
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        watch.never_split()?;
        nothing_discarded(cluster)?;
        Keepalived::content(&keepalived.stop()?)
    })
}

/// keepalived has the higher priority.
pub(crate) fn wsha_backup(test: &str, group: Group) -> Result<()> {
    let group = Group {
        wsha: 100,
        peer: 200,
        ..group
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        cluster.start(Gateway::One)?;
        state(cluster, RouterState::Backup)?;
        let peer = cluster.wait_status(Gateway::One, "a peer", |report| {
            report.virtual_routers.first()?.peers.first().cloned()
        })?;
        let two = cluster.host(Gateway::Two);
        let own: IpAddr = if shared.is_ipv4() {
            two.address().into()
        } else {
            two.mac().link_local().into()
        };
        ensure!(
            peer.address == own && peer.priority == 200,
            "it heard {peer:?}"
        );
        calm(group)?;
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 0,
            "wsha rose above a living keepalived"
        );
        ensure!(
            cluster.lab.holders(shared)? == ["server2"],
            "the address is not at keepalived alone"
        );
        nothing_discarded(cluster)?;

        // An orderly stop of keepalived says priority 0.
        Keepalived::content(&keepalived.stop()?)?;
        cluster.wait_holders(shared, &["server1"])?;
        let cause = cluster.router(Gateway::One, shared)?.reason;
        let watch = Watch::start(cluster, &[shared])?;
        watch.settles(cluster, shared, Gateway::One)?;
        // keepalived returns and takes over from a living wsha.
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        state(cluster, RouterState::Backup)?;
        watch.settles(cluster, shared, Gateway::Two)?;
        ensure!(
            cluster.lab.holders(shared)? == ["server2"],
            "wsha did not let go of the address"
        );
        Keepalived::content(&keepalived.log()?)?;

        // Its host dies.
        cluster.lab.server2().power_off()?;
        watch.settles(cluster, shared, Gateway::One)?;
        let silent = cluster.router(Gateway::One, shared)?.reason;
        ensure!(silent != cause, "priority 0 and silence are both {cause:?}");
        watch.serves(shared, Instant::now())?;
        drop(keepalived);
        cluster.lab.server2().power_on()?;
        group.number(cluster, &[(cluster.lab.server2(), 15)])?;
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        state(cluster, RouterState::Backup)?;
        watch.settles(cluster, shared, Gateway::Two)?;
        calm(group)?;
        ensure!(keepalived.entered("MASTER")? == 1, "keepalived flapped");
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 2,
            "wsha flapped"
        );
        watch.never_split()?;
        nothing_discarded(cluster)?;
        Keepalived::content(&keepalived.stop()?).context("at the end")
    })
}
