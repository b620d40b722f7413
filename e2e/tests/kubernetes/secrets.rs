//! Secrets that pools name: who gets them, what becomes of those that cannot be used, and the keys of session
//! tickets. What a gateway was told is read from its run directory.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::lab::PORT;
use e2e::testing::{Gateway, Part, SelfSigned, Session, Trust};
use serde_json::{Value, json};

use crate::stage::{AsWhom, Stage, VIP1, VIP2, on_stage_with};
use crate::{ALL, POOL, servers};

const TLS: &str = "--tls-namespaces=default";
/// Whom certificates are for.
const NAME: &str = "chat.example";
const SECRET: &str = "secrets/default/chat-tls";
const TICKETS: &str = "ticketKeys/default/chat";

/// The pool of the other tests with a certificate, under a name and at an address of its own.
fn pool(name: &str, namespace: &str, addresses: &str, secret: &str) -> String {
    let listeners = "[{name: ws, port: 8020}]";
    let tls = format!("[{{name: ws, port: 8020, tls: {{certificateRefs: [{{name: {secret}}}]}}}}]");
    let named = format!("name: {name}, namespace: {namespace}");
    POOL.replace("name: chat, namespace: default", &named)
        .replace(
            "{address: 192.168.1.110}, {address: 192.168.1.112}",
            addresses,
        )
        .replace(listeners, &tls)
}

fn chat() -> String {
    let addresses = "{address: 192.168.1.110}, {address: 192.168.1.112}";
    pool("chat", "default", addresses, "chat-tls")
}

/// Issues a certificate and puts it with its key into a Secret; says which it is.
fn issue(stage: &Stage<'_>, secret: &str) -> Result<(String, String)> {
    let issued = SelfSigned::new(NAME)?;
    stage.apply(&issued.secret(secret))?;
    Ok((issued.chain, issued.key))
}

/// Key material that a gateway holds, by name of the resource.
fn held(stage: &Stage<'_>, gateway: Gateway) -> Result<BTreeMap<String, Value>> {
    let lock = fs::read_to_string(stage.cluster.state_dir(gateway).join("lock"))?;
    let lock: Value = serde_json::from_str(&lock)?;
    let run_dir = lock["runDir"].as_str().context("a run directory")?;
    // A host has a /run of its own.
    let agent = stage.cluster.pid(gateway, Part::Agent)?;
    let file = format!("/proc/{agent}/root{run_dir}/secrets.json");
    let Ok(text) = fs::read_to_string(file) else {
        return Ok(BTreeMap::new());
    };
    let saved: Value = serde_json::from_str(&text)?;
    let resources = saved["resources"].as_array().context("resources")?;
    let resources = resources.iter().map(|one| {
        let name = one["name"].as_str().context("a name")?;
        Ok((name.to_owned(), one["body"].clone()))
    });
    resources.collect()
}

/// Waits until a gateway holds these and nothing else, and gives what it holds.
fn wait_held(
    stage: &Stage<'_>,
    gateway: Gateway,
    names: &[&str],
) -> Result<BTreeMap<String, Value>> {
    let what = format!("{} to hold {names:?}", gateway.name());
    stage.wait(&what, |stage| {
        let held = held(stage, gateway)?;
        Ok(held.keys().eq(names).then_some(held))
    })
}

/// Waits until a gateway holds this certificate.
fn wait_certificate(
    stage: &Stage<'_>,
    gateway: Gateway,
    chain: &str,
) -> Result<BTreeMap<String, Value>> {
    let what = format!("{} to hold the certificate", gateway.name());
    stage.wait(&what, |stage| {
        let held = held(stage, gateway)?;
        let is_there = held
            .get(SECRET)
            .is_some_and(|body| body["certificate"] == chain);
        Ok(is_there.then_some(held))
    })
}

/// Reason and message of the condition `ResolvedRefs` of a pool's listener.
fn resolved(stage: &Stage<'_>, pool: &str, namespace: &str) -> Result<String> {
    let condition = "jsonpath={.status.listeners[0].conditions[?(@.type=='ResolvedRefs')]\
                     ['status','reason','message']}";
    stage.kubectl(&["get", "wshap", pool, "-n", namespace, "-o", condition])
}

fn wait_resolved(stage: &Stage<'_>, pool: &str, namespace: &str, begin: &str) -> Result<String> {
    let what = format!("ResolvedRefs of {pool} to be {begin}");
    stage.wait(&what, |stage| {
        let told = resolved(stage, pool, namespace)?;
        Ok(told.starts_with(begin).then_some(told))
    })
}

#[test]
fn a_secret_reaches_the_gateways_of_its_pools_alone_and_is_renewed_alone() -> Result<()> {
    let test = "a_secret_reaches_the_gateways_of_its_pools_alone_and_is_renewed_alone";
    on_stage_with(test, 2, &[TLS], AsWhom::Administrator, |stage| {
        stage.apply(&servers(ALL))?;
        let (chain, _) = issue(stage, "chat-tls")?;
        issue(stage, "other-tls")?;
        stage.apply(&chat())?;
        let alone =
            "{address: 192.168.1.114, nodePriorities: [{nodeName: server2, priority: 100}]}";
        stage.apply(&pool("other", "default", alone, "other-tls"))?;
        wait_held(stage, Gateway::One, &[SECRET, TICKETS])?;
        let all = [
            SECRET,
            "secrets/default/other-tls",
            TICKETS,
            "ticketKeys/default/other",
        ];
        let before = wait_held(stage, Gateway::Two, &all)?;
        ensure!(before[SECRET]["certificate"] == chain.as_str());
        let told = wait_resolved(stage, "chat", "default", "True")?;
        ensure!(told.contains("every Secret is there"), "{told}");

        let (chain, key) = issue(stage, "chat-tls")?;
        let one = wait_certificate(stage, Gateway::One, &chain)?;
        let two = wait_certificate(stage, Gateway::Two, &chain)?;
        ensure!(one[SECRET]["key"] == key.as_str() && one[SECRET] == two[SECRET]);
        ensure!(
            one[TICKETS] == two[TICKETS],
            "tickets are opened everywhere"
        );
        for name in &all[1..] {
            ensure!(two[*name] == before[*name], "{name} has changed, too");
        }

        // Nothing of it is where people look.
        let secret = key.lines().nth(1).context("a key")?;
        let mut shown = stage.kubectl(&["get", "wshap,events", "-A", "-o", "yaml"])?;
        for number in 0..2 {
            let log = format!("controller{number}.log");
            shown += &fs::read_to_string(stage.control_plane.site().dir().join(log))?;
        }
        for gateway in Gateway::BOTH {
            shown += &fs::read_to_string(stage.cluster.log(gateway))?;
            for entry in fs::read_dir(stage.cluster.state_dir(gateway))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    shown += &String::from_utf8_lossy(&fs::read(entry.path())?);
                }
            }
        }
        ensure!(
            shown.contains("ResolvedRefs") && !shown.contains(secret),
            "a key shows"
        );

        // With its pool it goes.
        stage.kubectl(&["delete", "wshap", "chat"])?;
        wait_held(stage, Gateway::One, &[])?;
        wait_held(stage, Gateway::Two, &[all[1], all[3]]).map(drop)
    })
}

#[test]
fn a_secret_that_cannot_be_used_is_told_and_the_last_good_one_stays() -> Result<()> {
    let test = "a_secret_that_cannot_be_used_is_told_and_the_last_good_one_stays";
    on_stage_with(test, 1, &[TLS], AsWhom::Administrator, |stage| {
        stage.apply(&servers(ALL))?;
        stage.apply(&chat())?;
        let missing = "there is no Secret default/chat-tls; create it: kubectl create secret tls";
        let told = wait_resolved(stage, "chat", "default", "False")?;
        ensure!(
            told.contains("InvalidCertificateRef") && told.contains(missing),
            "{told}"
        );
        let degraded = |stage: &Stage<'_>, status| stage.wait_condition("chat", "Degraded", status);
        degraded(stage, "True")?;
        let (chain, _) = issue(stage, "chat-tls")?;
        wait_certificate(stage, Gateway::One, &chain)?;
        degraded(stage, "False")?;

        stage.kubectl(&["delete", "secret", "chat-tls"])?;
        degraded(stage, "True")?;
        let stays = |stage: &Stage<'_>| -> Result<()> {
            for gateway in Gateway::BOTH {
                let held = held(stage, gateway)?;
                ensure!(held.contains_key(SECRET), "{} lost it", gateway.name());
                ensure!(held[SECRET]["certificate"] == chain.as_str());
            }
            Ok(())
        };
        stays(stage)?;
        // A controller that has never seen it takes it from nobody.
        stage.kill_controllers()?;
        stage.start_controller(0)?;
        let edited = chat().replace("port: 8020", "port: 8021");
        stage.apply(&edited)?;
        stage.wait("the gateways to follow the new controller", |stage| {
            let state =
                |gateway| fs::read_to_string(stage.cluster.state_dir(gateway).join("state.json"));
            let mut both = Gateway::BOTH.into_iter();
            let follow =
                both.all(|gateway| state(gateway).is_ok_and(|text| text.contains("\"port\":8021")));
            Ok(follow.then_some(()))
        })?;
        stays(stage)?;
        let events = "--field-selector=regarding.name=chat,reason=InvalidCertificateRef";
        let notes = "--output=jsonpath={range .items[*]}{.note}{'\\n'}{end}";
        let notes = stage.kubectl(&["get", "events.events.k8s.io", events, notes])?;
        let count = notes.matches(missing).count();
        ensure!(count == 2, "an event each time that it is missing: {notes}");
        issue(stage, "chat-tls")?;
        degraded(stage, "False")?;

        // Secrets of other namespaces are not looked at.
        stage.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
        stage.apply(&pool(
            "shop",
            "shop",
            "{address: 192.168.1.114}",
            "chat-tls",
        ))?;
        let told = wait_resolved(stage, "shop", "shop", "False")?;
        ensure!(told.contains("RefNotPermitted"), "{told}");
        ensure!(
            told.contains("add it to the chart's value tls.namespaces"),
            "{told}"
        );
        Ok(())
    })
}

#[test]
fn a_certificate_is_replaced_under_an_open_session_and_tickets_are_good_everywhere() -> Result<()> {
    let test = "a_certificate_is_replaced_under_an_open_session_and_tickets_are_good_everywhere";
    on_stage_with(test, 1, &[TLS], AsWhom::Administrator, |stage| {
        stage.apply(&servers(ALL))?;
        let (first, _) = issue(stage, "chat-tls")?;
        stage.apply(&chat())?;
        stage.wait_condition("chat", "Ready", "True")?;
        stage.wait_condition("chat", "Programmed", "True")?;
        let holders = (stage.holder(VIP1)?, stage.holder(VIP2)?);
        ensure!(
            holders.0 != holders.1,
            "both addresses are on {}",
            holders.0
        );
        let client = stage.cluster.lab.client();
        let open = |address, trust: &Trust| Session::open_tls(client, address, PORT, trust);
        let trust = Trust::new(NAME, &first)?;
        let mut session = open(VIP1, &trust)?;
        session.say("by the first certificate")?;
        ensure!(!session.is_resumed());
        // What was got from one gateway is good at the other, whoever sealed it.
        let mut other = open(VIP2, &trust)?;
        other.say("by a ticket")?;
        ensure!(
            other.is_resumed(),
            "{} does not open a ticket of {}",
            holders.1,
            holders.0
        );

        let (second, _) = issue(stage, "chat-tls")?;
        let trust = Trust::new(NAME, &second)?;
        for address in [VIP1, VIP2] {
            stage.wait("the second certificate", |_| {
                let opened = open(address, &trust).ok();
                Ok(opened.and_then(|mut session| session.say("by the second one").ok()))
            })?;
        }
        for session in [&mut session, &mut other] {
            session.say("by the first certificate, still")?;
        }
        Ok(())
    })
}

/// A value in the Secret of the ticket keys.
fn kept(stage: &Stage<'_>, key: &str) -> Result<String> {
    let path = format!("jsonpath={{.data.{key}}}");
    stage.kubectl(&[
        "get",
        "secret",
        "wsha-ticket-keys",
        "-n",
        "wsha",
        "-o",
        &path,
    ])
}

#[test]
fn ticket_keys_outlive_controllers_and_are_known_before_they_seal() -> Result<()> {
    let test = "ticket_keys_outlive_controllers_and_are_known_before_they_seal";
    on_stage_with(test, 2, &[TLS], AsWhom::Administrator, |stage| {
        stage.apply(&servers(ALL))?;
        issue(stage, "chat-tls")?;
        stage.apply(&chat())?;
        let first = wait_held(stage, Gateway::One, &[SECRET, TICKETS])?;
        let (current, next) = (kept(stage, "current")?, kept(stage, "next")?);
        let keys = |held: &BTreeMap<String, Value>| -> Result<Vec<String>> {
            Ok(serde_json::from_value(held[TICKETS].clone())?)
        };
        let before = keys(&first)?;
        ensure!(before.len() == 2, "one that seals and the next one");
        // A gateway's keys are derived from what is kept: who has the one has not the other.
        ensure!(!before.contains(&current));

        stage.kill_controllers()?;
        // As if a key's time were over, which controllers look at when they begin.
        let over = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() - 12 * 3600;
        let patch = json!({"stringData": {"since": over.to_string()}});
        stage.patch("secret", "wsha-ticket-keys", &["-n", "wsha"], &patch)?;
        for number in 0..2 {
            stage.start_controller(number)?;
        }
        stage.wait("the next key to seal", |stage| {
            Ok((kept(stage, "current")? == next).then_some(()))
        })?;
        ensure!(
            kept(stage, "previous")? == current,
            "new keys for a new controller"
        );
        for gateway in Gateway::BOTH {
            let what = format!("{} to have the keys that follow", gateway.name());
            let after = stage.wait(&what, |stage| {
                let after = keys(&held(stage, gateway)?)?;
                Ok((after.len() == 3).then_some(after))
            })?;
            ensure!(after[0] == before[1], "told before it seals");
            ensure!(after[2] == before[0], "opened after it has sealed");
        }
        Ok(())
    })
}
