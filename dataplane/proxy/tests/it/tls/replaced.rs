//! Certificates that change while sessions live.

use std::{slice::from_ref, sync::Arc};

use super::support::{
    Authority, HOST, VERSIONS, connect, echo, listener, own, rig, shown, trusting_client,
    try_secure,
};
use crate::support::{Rig, round_trip, soon, try_connect};

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_ends_none() {
    let (mut rig, authority) = rig(&[crate::support::echo().await]);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut before = Vec::new();
    for _ in 0..10 {
        before.push(connect(rig.address, &client).await);
    }
    let renewed = authority.identity(&[HOST]);
    rig.edit(|pool| pool.listeners[0].tls = Some(listener(from_ref(&renewed))));
    // One without a ticket: who resumes is not shown a certificate again.
    let client = Arc::new(authority.client(&VERSIONS));
    let mut after = connect(rig.address, &client).await;
    assert_eq!(shown(after.get_ref().get_ref().1), own(&renewed));
    for ws in before.iter_mut().chain([&mut after]) {
        round_trip(ws, "still here").await;
    }
    // Nor does the end of TLS, or its beginning.
    rig.edit(|pool| pool.listeners[0].tls = None);
    let mut plain = soon(try_connect(rig.address)).await.unwrap();
    rig.edit(|pool| pool.listeners[0].tls = Some(listener(from_ref(&renewed))));
    let looking = Arc::new(trusting_client());
    let stream = try_secure(rig.address, HOST, &looking).await.unwrap();
    assert_eq!(shown(stream.get_ref().1), own(&renewed));
    round_trip(&mut plain, "still here").await;
    for ws in &mut before {
        round_trip(ws, "still here").await;
    }
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 12);
}

#[tokio::test]
async fn another_ca_for_endpoints_is_for_new_connections_and_ends_none() {
    let [first, second] = [Authority::new(), Authority::new()];
    let backends = [
        echo(Authority::server(&first.identity(&[HOST]))).await,
        echo(Authority::server(&second.identity(&[HOST]))).await,
    ];
    let mut rig = Rig::with(&backends, |pool| {
        pool.upstreams[0].tls = Some(first.to_endpoints());
    });
    let mut before = rig.connect().await;
    round_trip(&mut before, "the first").await;
    rig.edit(|pool| pool.upstreams[0].tls = Some(second.to_endpoints()));
    // The other endpoint comes back when it is tried again, and the first is found not to be right.
    let mut after = loop {
        match soon(try_connect(rig.address)).await {
            Ok(ws) => break ws,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    round_trip(&mut after, "the second").await;
    round_trip(&mut before, "still here").await;
    let of = |address| {
        let endpoints = rig.proxy.snapshot().endpoints;
        let endpoint = endpoints.into_iter().find(|it| it.address == address);
        endpoint.unwrap().sessions
    };
    assert_eq!(backends.map(of), [1, 1]);
}
