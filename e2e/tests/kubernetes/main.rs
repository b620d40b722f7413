//! A real API server, controllers and data planes as processes of a lab: what `kubectl apply` does to
//! gateways and to sessions.

mod authorities;
mod claims;
mod ends;
mod epochs;
mod given;
mod rights;
mod routes;
mod secrets;
mod stage;
mod strangers;
mod tokens;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::testing::{Gateway, Part, Session};
use nix::sys::signal::Signal;
use stage::{Stage, VIP1, VIP2, on_stage};

const POOL: &str = "
apiVersion: wsha.dev/v1alpha1
kind: WebSocketHAPool
metadata: {name: chat, namespace: default}
spec:
  virtualIPs: [{address: 192.168.1.110}, {address: 192.168.1.112}]
  gateways: {nodeSelector: {matchLabels: {wsha.dev/gateway: \"true\"}}}
  listeners: [{name: ws, port: 8020}]
  upstreams: [{name: echo, service: {name: ws-echo, port: 8010}}]
";

/// The Service of the article's servers, with these of them behind it.
fn servers(addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| format!("  - {{addresses: [{address}], conditions: {{ready: true}}}}\n"))
        .collect();
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: ws-echo, namespace: default}}
spec: {{clusterIP: None, ports: [{{name: ws, port: 8010}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: ws-echo-1
  namespace: default
  labels: {{kubernetes.io/service-name: ws-echo}}
addressType: IPv4
ports: [{{name: ws, port: 8010, protocol: TCP}}]
endpoints:
{}",
        if endpoints.is_empty() {
            "  []\n".to_owned()
        } else {
            endpoints.concat()
        }
    )
}

const ALL: &[&str] = &["192.168.1.16", "192.168.1.17", "192.168.1.18"];

/// Applies the pool and its servers, and waits until it serves.
fn serving(stage: &mut Stage<'_>) -> Result<()> {
    stage.apply(&servers(ALL))?;
    stage.apply(POOL)?;
    stage.wait_condition("chat", "Programmed", "True")?;
    stage.wait_condition("chat", "Ready", "True")
}

#[test]
fn an_applied_pool_is_served_and_shown() -> Result<()> {
    on_stage("an_applied_pool_is_served_and_shown", 1, |stage| {
        serving(stage)?;
        let active = |address| stage.active("chat", address);
        let (one, two) = (active(VIP1)?, active(VIP2)?);
        ensure!(one != two, "both addresses are {one}'s");
        stage.cluster.wait_holders(VIP1, &[&one])?;
        stage.cluster.wait_holders(VIP2, &[&two])?;
        for address in [VIP1, VIP2] {
            Session::open(stage.cluster.lab.client(), address)?.say("hello")?;
        }
        let shown = stage.kubectl(&["get", "wshap", "chat"])?;
        ensure!(shown.contains("2/2") && shown.contains("3/3"), "{shown}");
        let events = [
            "get",
            "events.events.k8s.io",
            "--output=jsonpath={.items[*].note}",
        ];
        stage.wait("an event for each address", |stage| {
            let notes = stage.kubectl(&events)?;
            let both = [VIP1, VIP2].map(|address| notes.contains(&format!("{address} is held by")));
            Ok((both == [true, true]).then_some(()))
        })
    })
}

#[test]
fn servers_come_and_go_under_live_sessions() -> Result<()> {
    on_stage("servers_come_and_go_under_live_sessions", 1, |stage| {
        stage.apply(&servers(&[]))?;
        stage.apply(POOL)?;
        stage.wait_condition("chat", "Programmed", "True")?;
        stage.wait_condition("chat", "Degraded", "True")?;
        stage.apply(&servers(ALL))?;
        stage.wait_condition("chat", "Degraded", "False")?;
        let client = stage.cluster.lab.client();
        let mut sessions = Vec::new();
        for number in 0..6 {
            let mut session = Session::open(client, if number < 3 { VIP1 } else { VIP2 })?;
            let server = session.say("hello")?;
            sessions.push((server, session));
        }
        stage.apply(&servers(&["192.168.1.17"]))?;
        let stays = Ipv4Addr::new(192, 168, 1, 17);
        stage.wait("sessions of removed servers are told to go", |stage| {
            Ok(
                (stage.cluster.sessions(Gateway::One)? + stage.cluster.sessions(Gateway::Two)?
                    == 2)
                    .then_some(()),
            )
        })?;
        for (server, session) in &mut sessions {
            if *server == stays {
                session.undisturbed()?;
            }
        }
        ensure!(
            sessions
                .iter()
                .filter(|(server, _)| *server == stays)
                .count()
                == 2
        );
        Ok(())
    })
}

#[test]
fn without_controllers_and_api_server_gateways_go_on() -> Result<()> {
    on_stage(
        "without_controllers_and_api_server_gateways_go_on",
        2,
        |stage| {
            serving(stage)?;
            let client = stage.cluster.lab.client();
            let mut session = Session::open(client, VIP2)?;
            session.say("before")?;
            stage.stop_api_server()?;
            stage.kill_controllers()?;
            session.say("without controllers")?;

            // A controller that starts while the API server is away pushes nothing.
            stage.start_controller(0)?;
            session.say("with a blind controller")?;

            // Fail-over is the gateways' own business.
            let holder = stage.holder(VIP1)?;
            let (gateway, other) = match holder.as_str() {
                "server1" => (Gateway::One, "server2"),
                _ => (Gateway::Two, "server1"),
            };
            stage
                .cluster
                .signal(gateway, Part::Proxy, Signal::SIGKILL)?;
            stage.cluster.wait_holders(VIP1, &[other])?;
            stage.cluster.wait_holders(VIP1, &[&holder])?;

            // A node that starts now serves what it knew.
            stage.cluster.stop(gateway)?;
            stage.start_gateway(gateway)?;
            stage.cluster.wait_holders(VIP1, &[&holder])?;
            Session::open(stage.cluster.lab.client(), VIP1)?.say("after its restart")?;

            stage.start_api_server()?;
            stage.wait_condition("chat", "Programmed", "True")
        },
    )
}

#[test]
fn a_pool_that_goes_leaves_nothing() -> Result<()> {
    on_stage("a_pool_that_goes_leaves_nothing", 1, |stage| {
        serving(stage)?;
        stage.kubectl(&["delete", "wshap", "chat"])?;
        for address in [VIP1, VIP2] {
            stage.cluster.wait_holders(address, &[])?;
        }
        stage.wait("nothing is left to be given up", |stage| {
            let ledger = stage.ledger()?;
            Ok(ledger.contains("\"retirements\":[]").then_some(()))
        })?;
        // Its address is free for another.
        stage.apply(&POOL.replace("chat", "other"))?;
        stage.wait_condition("other", "Ready", "True")
    })
}

#[test]
fn another_replica_goes_on_when_the_leading_one_dies() -> Result<()> {
    on_stage(
        "another_replica_goes_on_when_the_leading_one_dies",
        2,
        |stage| {
            serving(stage)?;
            let mut session = Session::open(stage.cluster.lab.client(), VIP1)?;
            let before = stage.leader()?;
            stage.kill_controller(&before)?;
            stage.wait("another leads", |stage| {
                Ok((stage.leader()? != before).then_some(()))
            })?;
            stage.apply(&POOL.replace("port: 8020", "port: 9000"))?;
            stage.wait("the edit is carried out", |stage| {
                let client = stage.cluster.lab.client();
                let opened = Session::open_at(client, VIP2, 9000);
                Ok(opened.ok().map(drop))
            })?;
            // Its listener is gone: the session was told, as an edit of its own listener does.
            ensure!(session.poll(Duration::from_secs(10))?.is_some());
            Ok(())
        },
    )
}
