//! Two Services behind one listener: each client reaches the one of its path, whatever is edited.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use e2e::lab::PORT;
use e2e::testing::Session;

use crate::{
    POOL, servers,
    stage::{Stage, VIP1, on_stage},
};

/// The server of the second Service.
const FEED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 18);

/// The pool with these routes and both Services.
fn pool(routes: &str) -> String {
    let listener = format!("{{name: ws, port: 8020, routes: [{routes}]}}");
    let pool = POOL.replace("{name: ws, port: 8020}", &listener);
    let feed = ", {name: feed, service: {name: feed, port: 8010}}]";
    let pool = pool.replace("port: 8010}}]", &format!("port: 8010}}}}{feed}"));
    pool.replace("  gateways:", "  drain: {timeout: 1s}\n  gateways:")
}

/// The second Service, with these servers.
fn feed(addresses: &[&str]) -> String {
    servers(addresses).replace("ws-echo", "feed")
}

/// A session for a path, and the server that it reached.
fn open(stage: &Stage<'_>, path: &str) -> Result<(Session, Ipv4Addr)> {
    let client = stage.cluster.lab.client();
    let mut opened = Session::open_many_for(client, VIP1, PORT, path, 1)?;
    let mut session = opened.pop().context("no session")?;
    let server = session.say("hello")?;
    Ok((session, server))
}

#[test]
fn each_path_leads_to_its_service() -> Result<()> {
    on_stage("each_path_leads_to_its_service", 1, |stage| {
        const ECHO: &str = "{upstreamName: echo}";
        const BOTH: &str = "{upstreamName: echo}, {pathPrefix: /feed, upstreamName: feed}";
        stage.apply(&servers(&["192.168.1.16"]))?;
        stage.apply(&feed(&["192.168.1.18"]))?;
        stage.apply(&pool(BOTH))?;
        stage.wait_condition("chat", "Ready", "True")?;
        stage.wait_condition("chat", "Degraded", "False")?;
        let (mut of_echo, echo) = open(stage, "/chat")?;
        let (mut of_feed, server) = open(stage, "/feed/1")?;
        ensure!(echo != FEED && server == FEED, "{echo} and {server}");

        // What no rule of the API server finds is refused by the controller, and what was served goes on.
        let twice = "{hostnames: [a.example, b.example], upstreamName: echo}, {hostnames: [b.example], \
                     upstreamName: feed}";
        stage.apply(&pool(twice))?;
        stage.wait_condition("chat", "Accepted", "False")?;
        let told = stage.kubectl(&["get", "wshap", "chat", "--output=yaml"])?;
        ensure!(
            told.contains("matches b.example/ as routes[0] does"),
            "{told}"
        );
        ensure!(
            open(stage, "/feed")?.1 == FEED,
            "it is not served as before"
        );

        // New sessions go elsewhere, and those that are open stay.
        stage.apply(&pool(ECHO))?;
        stage.wait_condition("chat", "Accepted", "True")?;
        stage.wait("the new route is taken", |stage| {
            Ok((open(stage, "/feed")?.1 == echo).then_some(()))
        })?;
        for session in [&mut of_echo, &mut of_feed] {
            session.say("still here?")?;
            session.undisturbed()?;
        }

        // The servers of one are no business of the other.
        stage.apply(&pool(BOTH))?;
        stage.wait_condition("chat", "Programmed", "True")?;
        stage.apply(&feed(&[]))?;
        stage.wait_condition("chat", "Degraded", "True")?;
        ensure!(of_feed.next_event().is_ok(), "its server is gone");
        of_echo.undisturbed()?;
        ensure!(open(stage, "/chat")?.1 == echo, "the other upstream");
        Ok(())
    })
}
