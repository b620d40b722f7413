//! What a host makes of its command line, and of another that runs under the same name or state directory.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Gateway, Manifest, Part, SETTLE, Watch, in_cluster, in_lab};
use e2e::wait;

use crate::Live;

/// Runs the gateway's agent to its end, which must be a failure; what it said.
fn refused(cluster: &Cluster, gateway: Gateway, node_name: &str) -> Result<String> {
    let agent = cluster
        .host(gateway)
        .spawn("refused", cluster.run_command_as(gateway, node_name))?;
    let status = agent.wait(Duration::from_secs(20))?;
    ensure!(!status.success(), "it ended with {status}");
    Ok(fs::read_to_string(agent.log())?)
}

#[test]
fn an_unknown_node_name_lists_those_present() -> Result<()> {
    in_lab("an_unknown_node_name_lists_those_present", |cluster| {
        cluster.apply(&Manifest::article())?;
        let said = refused(cluster, Gateway::One, "server9")?;
        ensure!(
            ["server9", "server1", "server2"]
                .iter()
                .all(|name| said.contains(name)),
            "it said {said}"
        );
        ensure!(
            cluster.lab.server1().addresses()?.len() == 1,
            "it took an address"
        );
        Ok(())
    })
}

#[test]
fn a_second_run_names_the_holder_and_a_take_over_follows_it() -> Result<()> {
    in_cluster(
        "a_second_run_names_the_holder_and_a_take_over_follows_it",
        &Manifest::article(),
        |cluster| {
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 6)?;
            let holder = cluster.pid(Gateway::One, Part::Agent)?;
            let said = refused(cluster, Gateway::One, "server1")?;
            ensure!(
                said.contains(&holder.to_string()),
                "pid {holder} holds the lock; it said {said}"
            );
            live.undisturbed()?;

            // An upgrade: the one that runs stops in order, the new one follows.
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let since = Instant::now();
            let mut command = cluster.run_command(Gateway::One);
            command.arg("--take-over");
            cluster.start_with(Gateway::One, command)?;
            live.end_with(1001)?;
            let successor = cluster.pid(Gateway::One, Part::Agent)?;
            ensure!(successor != holder);
            cluster.wait_home()?;
            watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
            watch.serves(VIP_SERVER1, Instant::now())?;
            Live::open(cluster, VIP_SERVER1, PORT, 3)?;
            watch.undisturbed(VIP_SERVER2, since)?;
            watch.never_split()
        },
    )
}

#[test]
fn two_hosts_under_one_name_are_reported() -> Result<()> {
    in_lab("two_hosts_under_one_name_are_reported", |cluster| {
        cluster.apply(&Manifest::article())?;
        cluster.start(Gateway::One)?;
        let command = cluster.run_command_as(Gateway::Two, "server1");
        cluster.start_with(Gateway::Two, command)?;
        // Whoever became Active hears nothing of the other, so it is for the other to tell.
        let one_of_them = |text: &str| {
            let mut hosts = Gateway::BOTH
                .into_iter()
                .map(|gateway| cluster.host(gateway).address());
            text.contains("--node-name") && hosts.any(|host| text.contains(&host.to_string()))
        };
        wait::until("a warning that names the other host", SETTLE, || {
            let mut reports = Gateway::BOTH
                .into_iter()
                .filter_map(|gateway| cluster.status(gateway).ok());
            let told = reports.any(|report| report.warnings.iter().any(|text| one_of_them(text)));
            Ok(told.then_some(()))
        })?;
        Ok(())
    })
}
