//! The end of an installation.

use anyhow::{Result, ensure};
use e2e::testing::{Gateway, Session};

use crate::serving;
use crate::stage::{Stage, VIP1, VIP2, on_stage};

/// Names of what is in a gateway's state directory, but for the lock of a process that runs.
fn left(stage: &Stage<'_>, gateway: Gateway) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(stage.cluster.state_dir(gateway))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>> = names.collect();
    // What an agent that runs has: by these another one finds it.
    let own = |name: &String| name == "lock" || name == "holder.sock";
    Ok(names?.into_iter().filter(|name| !own(name)).collect())
}

#[test]
fn every_gateway_is_retired_before_wsha_goes() -> Result<()> {
    on_stage("every_gateway_is_retired_before_wsha_goes", 2, |stage| {
        serving(stage)?;
        ensure!(!left(stage, Gateway::One)?.is_empty(), "nothing was saved");
        let told = stage.retire(&["--timeout=30s", "--strict"])?.success()?;
        ensure!(told.contains("server1, server2"), "{told}");
        for address in [VIP1, VIP2] {
            ensure!(
                stage.cluster.lab.holders(address)?.is_empty(),
                "{address} is held"
            );
        }
        for gateway in Gateway::BOTH {
            let left = left(stage, gateway)?;
            ensure!(left.is_empty(), "{} keeps {left:?}", gateway.name());
        }
        // Nothing is pushed any more, whoever leads: a node that starts now stays empty.
        let leader = stage.leader()?;
        stage.kill_controller(&leader)?;
        stage.cluster.stop(Gateway::One)?;
        stage.start_gateway(Gateway::One)?;
        stage.wait("another leads", |stage| {
            Ok((stage.leader()? != leader).then_some(()))
        })?;
        let again = stage.retire(&["--timeout=30s", "--strict"])?.success()?;
        ensure!(again.contains("server1, server2"), "{again}");
        ensure!(
            stage.cluster.lab.holders(VIP1)?.is_empty(),
            "{VIP1} is held"
        );
        Ok(())
    })
}

#[test]
fn a_retirement_can_be_undone() -> Result<()> {
    on_stage("a_retirement_can_be_undone", 2, |stage| {
        serving(stage)?;
        let held = |stage: &Stage<'_>| {
            let holders = [VIP1, VIP2].map(|address| stage.cluster.lab.holders(address));
            let [one, two] = holders;
            Ok::<_, anyhow::Error>([one?.len(), two?.len()])
        };
        stage.retire(&["--timeout=30s", "--strict"])?.success()?;
        ensure!(held(stage)? == [0, 0], "addresses are held");
        // As when an uninstallation is given up after its hook has run: a gateway that comes meanwhile stays
        // empty, too.
        stage.cluster.stop(Gateway::Two)?;
        stage.start_gateway(Gateway::Two)?;
        let told = stage.retire(&["--cancel"])?.success()?;
        ensure!(told.contains("withdrawn"), "{told}");
        stage.wait("each address to be held again", |stage| {
            Ok((held(stage)? == [1, 1]).then_some(()))
        })?;
        stage.wait_condition("chat", "Programmed", "True")?;
        stage.wait_condition("chat", "Ready", "True")?;
        for address in [VIP1, VIP2] {
            Session::open(stage.cluster.lab.client(), address)?.say("again")?;
        }
        for gateway in Gateway::BOTH {
            ensure!(!left(stage, gateway)?.is_empty(), "nothing was saved");
        }
        // And can be asked for anew.
        stage.retire(&["--timeout=30s", "--strict"])?.success()?;
        ensure!(held(stage)? == [0, 0], "addresses are held");
        Ok(())
    })
}

#[test]
fn a_gateway_that_cannot_be_reached_is_named() -> Result<()> {
    on_stage("a_gateway_that_cannot_be_reached_is_named", 1, |stage| {
        serving(stage)?;
        stage.cluster.stop(Gateway::Two)?;
        let told = stage.retire(&["--timeout=3s"])?.success()?;
        ensure!(told.contains("not reached within 3s: server2\n"), "{told}");
        ensure!(
            stage.cluster.lab.holders(VIP1)?.is_empty(),
            "{VIP1} is held"
        );
        let refusal = stage.retire(&["--timeout=1s", "--strict"])?.refusal()?;
        ensure!(refusal.contains("not every gateway"), "{refusal}");
        // A node that left the cluster holds nothing.
        stage.kubectl(&["delete", "node", "server2"])?;
        stage.retire(&["--timeout=10s", "--strict"])?.success()?;
        Ok(())
    })
}
