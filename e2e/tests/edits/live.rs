//! Edits close no session; removals end their own, and say so.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{
    Cluster, Endpoint, Gateway, Manifest, Pool, SETTLE, Session, Watch, in_cluster,
};
use e2e::wait;
use node_api::RouterState;

use crate::Live;

/// What is edited, and how.
type Edit = (&'static str, fn(&mut Vec<Pool>));

/// One after another, each on top of those before.
const EDITS: [Edit; 22] = [
    ("an endpoint added", |pools| {
        pools[0].endpoints.push(Endpoint::backend(19));
    }),
    ("an endpoint removed that nobody uses", |pools| {
        pools[0].endpoints.truncate(3);
    }),
    ("another weight", |pools| pools[0].endpoints[0].weight = 5),
    ("other time-outs", |pools| {
        pools[0].upstream = vec!["connectTimeout: 1s".into(), "handshakeTimeout: 3s".into()];
    }),
    ("another way to choose", |pools| {
        pools[0]
            .upstream
            .push("loadBalancing: { type: LeastConnections }".into());
    }),
    ("a second upstream", |pools| {
        let endpoints = vec![Endpoint::backend(19)];
        pools[0].more_upstreams = vec![("more", endpoints)];
        pools[0].routes = vec!["upstreamName: echo".into()];
    }),
    ("a route there", |pools| {
        let route = "hostnames: ['*.example.com'], pathPrefix: /more, upstreamName: more";
        pools[0].routes.push(route.into());
    }),
    ("all routes there", |pools| {
        pools[0].routes = vec!["upstreamName: more".into()];
    }),
    ("one upstream again", |pools| {
        pools[0].more_upstreams.clear();
        pools[0].routes.clear();
    }),
    ("other heartbeats", |pools| {
        pools[0]
            .spec
            .push("heartbeat: { interval: 15s, timeout: 5s }".into());
    }),
    ("another drain", |pools| {
        pools[0]
            .spec
            .push("drain: { timeout: 1s, closeCode: 1012 }".into());
    }),
    ("fixed priorities", |pools| fix_priorities(pools, 180, 190)),
    ("other priorities", |pools| fix_priorities(pools, 120, 130)),
    ("preferred nodes again", |pools| {
        pools[0].virtual_ips = Manifest::article().pools.remove(0).virtual_ips;
    }),
    ("a longer interval", |pools| {
        pools[0]
            .spec
            .push("vrrp: { advertisementInterval: 300ms }".into());
    }),
    ("the default interval", |pools| pools[0].spec.truncate(2)),
    ("no preemption", |pools| {
        let mode = "vrrp: { preemption: { mode: Disabled } }";
        pools[0].spec.push(mode.into());
    }),
    ("preemption again", |pools| pools[0].spec.truncate(2)),
    ("another address", |pools| {
        let entry = format!("address: {ADDED}, preferredNodeName: server2");
        pools[0].virtual_ips.push(entry);
    }),
    ("a second pool", |pools| {
        let entry = format!("address: {SECOND}, preferredNodeName: server1");
        let listeners = vec![("other", 8021)];
        pools.push(Pool {
            listeners,
            ..Pool::new("second", vec![entry])
        });
    }),
    ("another listener", |pools| {
        pools[0].listeners.push(("more", 8022));
    }),
    ("that listener removed", |pools| {
        pools[0].listeners.truncate(1);
    }),
];

/// Address that the pool gets in the course of them.
const ADDED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 113);
/// Address of the second pool.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 111);

/// The article's priorities, written out: the address of each server goes to it.
fn fix_priorities(pools: &mut [Pool], one: u8, two: u8) {
    let entry = |address, one, two| {
        format!(
            "address: {address}, nodePriorities: [{{ nodeName: server1, priority: {one} }}, \
             {{ nodeName: server2, priority: {two} }}]"
        )
    };
    pools[0].virtual_ips = vec![entry(VIP_SERVER2, 90, two), entry(VIP_SERVER1, one, 80)];
}

#[test]
fn edits_close_no_session() -> Result<()> {
    let mut manifest = Manifest::article();
    in_cluster("edits_close_no_session", &manifest.clone(), |cluster| {
        let mut live = Live::open(cluster, VIP_SERVER1, PORT, 9)?;
        live.0.extend(Live::open(cluster, VIP_SERVER2, PORT, 9)?.0);
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let since = Instant::now();
        for (what, edit) in EDITS {
            edit(&mut manifest.pools);
            cluster.edit(&manifest).context(what)?;
            live.undisturbed().context(what)?;
        }
        cluster.wait_home()?;
        let mut of_second = Live::open(cluster, SECOND, 8021, 3)?;
        manifest.pools.pop();
        cluster.edit_in_place(&manifest)?;
        of_second
            .end_with(1001)
            .context("the second pool removed")?;
        cluster.wait_holders(SECOND, &[])?;
        live.undisturbed()?;
        for (gateway, address) in [(Gateway::One, VIP_SERVER1), (Gateway::Two, VIP_SERVER2)] {
            watch.undisturbed(address, since)?;
            ensure!(
                cluster.entered(gateway, address, RouterState::Active)? == 1,
                "an edit moved {address}"
            );
        }
        watch.never_split()
    })
}

#[test]
fn removals_end_their_own_sessions_with_a_close() -> Result<()> {
    let mut manifest = Manifest::article();
    manifest.pool().listeners.push(("more", 8022));
    manifest
        .pool()
        .spec
        .push("drain: { timeout: 1s, closeCode: 1012 }".into());
    in_cluster(
        "removals_end_their_own_sessions_with_a_close",
        &manifest.clone(),
        |cluster| {
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 9)?;
            let mut of_address = Live::open(cluster, VIP_SERVER2, PORT, 9)?;

            let mut of_listener = Live::open(cluster, VIP_SERVER1, 8022, 4)?;
            manifest.pool().listeners.pop();
            cluster.edit(&manifest)?;
            of_listener.end_with(1012).context("a listener removed")?;
            ensure!(
                Session::open_at(cluster.lab.client(), VIP_SERVER1, 8022).is_err(),
                "the removed listener accepts"
            );
            live.undisturbed()?;
            of_address.undisturbed()?;

            let gone = Ipv4Addr::new(192, 168, 1, 16);
            manifest
                .pool()
                .endpoints
                .retain(|endpoint| endpoint.address != gone);
            let (mut first, mut second) = (live.split(gone), of_address.split(gone));
            ensure!(
                !first.0.is_empty() && !second.0.is_empty(),
                "{gone} served nobody"
            );
            cluster.edit(&manifest)?;
            first.end_with(1012).context("an endpoint removed")?;
            second.end_with(1012).context("an endpoint removed")?;
            live.undisturbed()?;
            of_address.undisturbed()?;
            for (_, server) in Live::open(cluster, VIP_SERVER1, PORT, 4)?.0 {
                ensure!(server != gone, "a new session went to the removed endpoint");
            }

            manifest.pool().virtual_ips.remove(0);
            cluster.edit(&manifest)?;
            of_address
                .end_with(1012)
                .context("a virtual address removed")?;
            cluster.wait_holders(VIP_SERVER2, &[])?;
            live.undisturbed()
        },
    )
}

/// Fails unless both hosts agree on the virtual router of an address: its VRID, and who is Active.
fn wait_router(cluster: &Cluster, address: Ipv4Addr, vrid: u8, home: Gateway) -> Result<()> {
    for gateway in Gateway::BOTH {
        let state = if gateway == home {
            RouterState::Active
        } else {
            RouterState::Backup
        };
        let what = format!("{state:?} for {address} with VRID {vrid}");
        cluster.wait_status(gateway, &what, |report| {
            let mut routers = report.virtual_routers.iter();
            let found = routers.find(|router| router.addresses.contains(&address.into()))?;
            (found.virtual_router_id == vrid && found.state == state).then_some(())
        })?;
    }
    Ok(())
}

/// Another VRID or version is another virtual router on the wire, but for a client it is the same address.
#[test]
fn another_vrid_or_version_closes_no_session() -> Result<()> {
    let mut manifest = Manifest::article();
    let test = "another_vrid_or_version_closes_no_session";
    in_cluster(test, &manifest.clone(), |cluster| {
        let mut live = Live::open(cluster, VIP_SERVER1, PORT, 9)?;
        live.0.extend(Live::open(cluster, VIP_SERVER2, PORT, 9)?.0);
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let since = Instant::now();
        manifest.pool().virtual_ips[1].push_str(", virtualRouterID: 77");
        cluster.edit(&manifest)?;
        wait_router(cluster, VIP_SERVER1, 77, Gateway::One)?;
        watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
        // Server1 goes on as Active under the new number, and server2 listens before it would rise.
        live.undisturbed().context("another VRID")?;
        for address in [VIP_SERVER1, VIP_SERVER2] {
            watch.undisturbed(address, since)?;
        }

        let since = Instant::now();
        manifest.pool().spec.push("vrrp: { version: 2 }".into());
        cluster.edit(&manifest)?;
        // For longer than a Backup of version 2 waits that hears nothing.
        let sent = |gateway| cluster.count(gateway, "wsha_vrrp_advertisements_sent", &[]);
        let before = [sent(Gateway::One)?, sent(Gateway::Two)?];
        wait::until("five seconds of advertisements", SETTLE, || {
            let now = [sent(Gateway::One)?, sent(Gateway::Two)?];
            let enough = now
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + 5);
            Ok(enough.then_some(()))
        })?;
        for (address, vrid, home) in [
            (VIP_SERVER1, 77, Gateway::One),
            (VIP_SERVER2, 110, Gateway::Two),
        ] {
            wait_router(cluster, address, vrid, home)?;
            watch.settles(cluster, address, home)?;
            watch.undisturbed(address, since)?;
        }
        live.undisturbed().context("version 2")?;
        watch.never_split()
    })
}
