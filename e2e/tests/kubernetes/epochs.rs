//! The API server loses what was committed last: an older state of it was restored.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::testing::{Gateway, Session};
use serde_json::{Value, json};

use crate::stage::{Stage, VIP1, VIP2, on_stage};
use crate::{POOL, serving};

/// The address of the pool that is made after the backup.
const VIP3: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 1, 114);

/// The pool's status as it stands.
fn status(stage: &Stage<'_>, pool: &str) -> Result<Value> {
    let shown = stage.kubectl(&["get", "wshap", pool, "-o", "json"])?;
    let object: Value = serde_json::from_str(&shown)?;
    Ok(object["status"].clone())
}

fn restore_status(stage: &Stage<'_>, pool: &str, status: &Value) -> Result<()> {
    // What a merge leaves as it is would be newer: first nothing, then what was.
    for status in [&Value::Null, status] {
        let patch = json!({"status": status});
        stage.patch("wshap", pool, &["--subresource=status"], &patch)?;
    }
    Ok(())
}

/// Of the ledger, or of what a gateway has saved.
fn epoch(text: &str) -> Result<(String, i64)> {
    let value: Value = serde_json::from_str(text)?;
    let epoch = value["epoch"].as_str().context("no epoch")?;
    let sequence = value["sequence"].as_i64().context("no sequence")?;
    Ok((epoch.to_owned(), sequence))
}

fn saved(stage: &Stage<'_>, gateway: Gateway) -> Result<(String, i64)> {
    epoch(&fs::read_to_string(
        stage.cluster.state_dir(gateway).join("state.json"),
    )?)
}

#[test]
fn gateways_follow_a_controller_whose_past_was_restored() -> Result<()> {
    on_stage(
        "gateways_follow_a_controller_whose_past_was_restored",
        2,
        |stage| {
            serving(stage)?;
            let (backup, chat) = (stage.ledger()?, status(stage, "chat")?);
            let (before, old) = epoch(&backup)?;
            let late = POOL.replace("name: chat", "name: late").replace(
                "[{address: 192.168.1.110}, {address: 192.168.1.112}]",
                &format!("[{{address: {VIP3}}}]"),
            );
            stage.apply(&late)?;
            stage.wait_condition("late", "Ready", "True")?;
            for gateway in Gateway::BOTH {
                let known = stage.wait("the gateway saves what it was told", |stage| {
                    Ok(saved(stage, gateway)
                        .ok()
                        .filter(|(_, sequence)| *sequence > old))
                })?;
                ensure!(known.0 == before, "{known:?} is not of {before}");
            }
            let addresses = [VIP1, VIP2, VIP3];
            let client = stage.cluster.lab.client();
            let mut sessions = Vec::new();
            for address in addresses {
                let mut session = Session::open(client, address)?;
                session.say("before")?;
                sessions.push(session);
            }
            let holders = addresses.map(|address| stage.holder(address).ok());

            stage.kill_controllers()?;
            let patch = json!({"data": {"ledger.json": backup}});
            stage.patch("configmap", "wsha-ledger", &["-n", "wsha"], &patch)?;
            restore_status(stage, "chat", &chat)?;
            restore_status(stage, "late", &Value::Null)?;
            for number in 0..2 {
                stage.start_controller(number)?;
            }
            let (after, _) = stage.wait("another epoch begins", |stage| {
                Ok(Some(epoch(&stage.ledger()?)?).filter(|(after, _)| *after != before))
            })?;
            for gateway in Gateway::BOTH {
                stage.wait("the gateway follows it", |stage| {
                    Ok((saved(stage, gateway)?.0 == after).then_some(()))
                })?;
            }
            for pool in ["chat", "late"] {
                stage.wait_condition(pool, "Programmed", "True")?;
            }
            // Nobody lost anything for it.
            for session in &mut sessions {
                session.undisturbed()?;
                session.say("after")?;
            }
            ensure!(addresses.map(|address| stage.holder(address).ok()) == holders);

            // And what is asked for now is done.
            stage.apply(&late.replace("port: 8020", "port: 9000"))?;
            stage.wait("the edit is carried out", |stage| {
                let client = stage.cluster.lab.client();
                Ok(Session::open_at(client, VIP3, 9000).ok().map(drop))
            })
        },
    )
}
