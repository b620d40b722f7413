//! The pool's servers come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::testing::{Event, Session};

use crate::nodes::ready;
use crate::stage::Stage;

/// Bound for a session to be told to go: the pool's drain time and the kubelet's own pace.
const TOLD: Duration = Duration::from_mins(2);

fn scale(stage: &Stage, replicas: usize) -> Result<()> {
    let word = format!("--replicas={replicas}");
    stage.kubectl(&["scale", "deployment/ws-echo", &word])?;
    let what = format!("{replicas} servers to be ready");
    stage.wait(&what, |stage| {
        let told = stage.get(&["wshap", "chat"])?;
        let told = told["status"]["endpoints"]["ready"] == replicas;
        Ok((told && ready(stage)?.len() == replicas).then_some(()))
    })
}

pub(crate) fn servers_scale_under_live_sessions(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    stage.settle()?;
    scale(stage, 0)?;
    stage.wait_condition("Degraded", "True")?;
    let client = stage.client();
    stage.wait("a new session to be refused", |_| {
        let refused = Session::open(client, vip1).err();
        Ok(refused
            .filter(|error| format!("{error:#}").contains("503"))
            .map(drop))
    })?;
    scale(stage, 3)?;
    stage.settle()?;
    let mut sessions = Vec::new();
    for number in 0..12 {
        let mut session = Session::open(client, if number % 2 == 0 { vip1 } else { vip2 })?;
        sessions.push((session.say("hello")?, session));
    }
    scale(stage, 1)?;
    let left = ready(stage)?;
    let (mut kept, mut told) = (0, 0);
    for (server, session) in &mut sessions {
        if left.contains(server) {
            session.undisturbed()?;
            ensure!(session.say("still there")? == *server);
            kept += 1;
        } else {
            let event = session.poll(TOLD)?;
            let close = matches!(event, Some(Event::Close(Some(1001), _)));
            ensure!(close, "a session of a removed server got {event:?}");
            told += 1;
        }
    }
    ensure!(kept > 0 && told > 0, "{kept} sessions kept, {told} told");
    println!(
        "    {kept} sessions of the server that stays noticed nothing, {told} others got Close 1001"
    );
    scale(stage, 3)?;
    stage.settle()
}
