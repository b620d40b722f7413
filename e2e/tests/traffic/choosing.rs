//! Which server a session goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Endpoint, Manifest, Session, in_cluster};

/// Rooms that clients ask for.
const ROOMS: usize = 60;

/// The server that has each room, for clients of `address`.
fn servers(cluster: &Cluster, address: Ipv4Addr) -> Result<BTreeMap<usize, Ipv4Addr>> {
    let server = |room| {
        let path = format!("/chat?user=7&room=r{room}");
        let client = cluster.lab.client();
        let mut opened = Session::open_many_for(client, address, PORT, &path, 2)?;
        let servers = opened
            .iter_mut()
            .map(|session| session.say("where"))
            .collect::<Result<BTreeSet<_>>>()?;
        ensure!(servers.len() == 1, "room {room} is on {servers:?}");
        Ok((room, servers.into_iter().next().unwrap_or(address)))
    };
    (0..ROOMS).map(server).collect()
}

#[test]
fn a_room_is_on_one_server_by_whichever_gateway_and_few_move() -> Result<()> {
    let test = "a_room_is_on_one_server_by_whichever_gateway_and_few_move";
    let mut manifest = Manifest::article();
    manifest.pool().upstream.push(
        "loadBalancing: { type: ConsistentHash, consistentHash: { key: { type: QueryParameter, name: room } } }"
            .to_owned(),
    );
    in_cluster(test, &manifest.clone(), |cluster| {
        let before = servers(cluster, VIP_SERVER1)?;
        let used: BTreeSet<_> = before.values().collect();
        ensure!(used.len() == 3, "all rooms are on {used:?}");
        ensure!(
            before == servers(cluster, VIP_SERVER2)?,
            "the gateways do not agree"
        );
        let added = Endpoint::backend(19);
        cluster.backends.add_fourth(&cluster.lab)?;
        manifest.pool().endpoints.push(added);
        cluster.edit(&manifest)?;
        let after = servers(cluster, VIP_SERVER1)?;
        let moved = after
            .iter()
            .filter(|(room, server)| before[room] != **server);
        let moved: Vec<_> = moved.collect();
        ensure!(
            (1..ROOMS / 2).contains(&moved.len()),
            "{} of {ROOMS} rooms moved",
            moved.len()
        );
        ensure!(
            moved.iter().all(|(_, server)| **server == added.address),
            "a room moved between servers that were there before"
        );
        Ok(())
    })
}

#[test]
fn full_servers_get_no_more_until_one_has_room() -> Result<()> {
    let mut manifest = Manifest::article();
    let limit = "loadBalancing: { type: LeastConnections, maxSessionsPerEndpoint: 2 }";
    manifest.pool().upstream.push(limit.to_owned());
    in_cluster(
        "full_servers_get_no_more_until_one_has_room",
        &manifest,
        |cluster| {
            let open = |count| Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, count);
            let mut sessions = open(6)?;
            let mut on: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
            for session in &mut sessions {
                *on.entry(session.say("where")?).or_default() += 1;
            }
            ensure!(on.values().all(|count| *count == 2), "{on:?}");
            let refused = open(1).err().map(|error| format!("{error:#}"));
            ensure!(
                refused.as_ref().is_some_and(|told| told.contains("503")),
                "a seventh session: {refused:?}"
            );
            // The other gateway has a count of its own.
            Session::open(cluster.lab.client(), VIP_SERVER2)?.say("where")?;
            Ok(())
        },
    )
}
