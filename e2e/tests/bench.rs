//! The benchmarks run to their end and show a whole table. Their figures are no matter here.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1};
use e2e::testing::{Gateway, Manifest, Part, dataplane, in_cluster, in_lab, skipped};
use e2e::tools;

/// Runs a benchmark while no other test has a lab at work, and hands its output to `check`.
fn bench(
    test: &str,
    program: &str,
    words: &[&str],
    check: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    if nix::unistd::geteuid().is_root()
        && let Err(error) = tools::install_peers()
    {
        let why = format!("keepalived and nginx are missing and cannot be installed: {error:#}");
        skipped(test, &why);
        return Ok(());
    }
    in_lab(test, |_| {
        let output = Command::new(program)
            .args(words)
            .arg("--wsha-binary")
            .arg(dataplane()?)
            .output()?;
        let shown = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        println!("{shown}\n{errors}");
        ensure!(output.status.success(), "{}: {errors}", output.status);
        check(&shown)
    })
}

/// The cells of the row that begins with `name`.
fn row<'text>(text: &'text str, name: &str) -> Result<Vec<&'text str>> {
    let cells = |line: &'text str| -> Vec<&str> { line.split('|').map(str::trim).collect() };
    text.lines()
        .map(cells)
        .find(|cells| cells.len() > 1 && cells[0] == name)
        .with_context(|| format!("no row {name:?}"))
}

#[test]
fn failover_is_measured_for_all_subjects() -> Result<()> {
    let json = std::env::temp_dir().join(format!("wsha-bench-{}.json", std::process::id()));
    let file = json.to_string_lossy();
    let words = ["--repeat", "1", "--faults", "proxy-killed", "--json", &file];
    bench(
        "failover_is_measured_for_all_subjects",
        env!("CARGO_BIN_EXE_bench-failover"),
        &words,
        |text| {
            let samples = fs::read_to_string(&json).context("no samples")?;
            fs::remove_file(&json)?;
            ensure!(samples.lines().count() == 3, "samples: {samples}");
            let columns = row(text, "outage of a client, ms")?;
            ensure!(columns.len() == 4, "columns: {columns:?}");
            for name in ["proxy killed", "its fail-back"] {
                let cells = row(text, name)?;
                ensure!(
                    cells.len() == 4 && cells[1..].iter().all(|cell| cell.contains(" / ")),
                    "{name}: {cells:?}"
                );
            }
            Ok(())
        },
    )
}

#[test]
fn takeovers_under_load_are_counted() -> Result<()> {
    bench(
        "takeovers_under_load_are_counted",
        env!("CARGO_BIN_EXE_bench-failover"),
        &["load", "--seconds", "2"],
        |text| {
            for name in ["wsha", "keepalived, real-time", "keepalived, without"] {
                let cells = row(text, name)?;
                // Two virtual routers, an advertisement each 10 ms.
                let heard = cells.last().and_then(|cell| cell.parse::<u32>().ok());
                ensure!(heard.is_some_and(|heard| heard > 100), "{name}: {cells:?}");
            }
            Ok(())
        },
    )
}

/// As on a real network: all that the client knows is an address, and all that breaks is what it is told to run.
#[test]
fn a_client_of_a_real_network_tells_what_a_command_cost() -> Result<()> {
    let test = "a_client_of_a_real_network_tells_what_a_command_cost";
    in_cluster(test, &Manifest::article(), |cluster| {
        let proxy = cluster.pid(Gateway::One, Part::Proxy)?;
        let mut probe = Command::new(env!("CARGO_BIN_EXE_bench-failover"));
        probe.args(["probe", "--address", &format!("{VIP_SERVER1}:{PORT}")]);
        probe.args(["--repeat", "1", "--settle", "1", "--heal-command", "true"]);
        probe.args(["--fault-command", &format!("kill -9 {proxy}")]);
        let output = cluster.lab.client().output(probe)?;
        let shown = String::from_utf8_lossy(&output.stdout);
        println!("{shown}\n{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}", output.status);
        let cells = row(&shown, "fault")?;
        ensure!(cells.get(1) == Some(&"1"), "{cells:?}");
        let told = shown.lines().find(|line| line.starts_with("#1 fault"));
        let is_lost = |line: &str| line.contains("RST") || line.contains("FIN");
        ensure!(told.is_some_and(is_lost), "{told:?}");
        Ok(())
    })
}

#[test]
fn idle_gateways_are_measured() -> Result<()> {
    bench(
        "idle_gateways_are_measured",
        env!("CARGO_BIN_EXE_bench-idle"),
        &["--routers", "20", "--seconds", "1", "--sessions", "100"],
        |text| {
            for name in ["agent", "vrrp", "proxy", "keepalived", "nginx"] {
                let cells = row(text, name)?;
                let figures = cells[1..5].iter().all(|cell| cell.parse::<f64>().is_ok());
                ensure!(figures, "{name}: {cells:?}");
            }
            Ok(())
        },
    )
}

#[test]
fn proxies_are_measured_side_by_side() -> Result<()> {
    let test = "proxies_are_measured_side_by_side";
    if let Err(error) = tools::install_proxies() {
        skipped(test, &format!("{error:#}"));
        return Ok(());
    }
    let svg = std::env::temp_dir().join(format!("wsha-bench-{}.svg", std::process::id()));
    let file = svg.to_string_lossy();
    let short = "--rounds 1 --window 50 --latency-rounds 1 --sessions 50 --live 20 --svg";
    let words: Vec<&str> = short.split(' ').chain([&*file]).collect();
    bench(test, env!("CARGO_BIN_EXE_bench-proxy"), &words, |text| {
        let drawn = fs::read_to_string(&svg).context("no drawing")?;
        fs::remove_file(&svg)?;
        ensure!(
            drawn.contains("TLS, 64 KiB x4") && drawn.contains("TLS, idle session"),
            "not drawn: {drawn}"
        );
        for name in [
            "64 B x1",
            "handshake, echo, close",
            "TLS, 64 KiB x4",
            "TLS, handshake, echo, close",
            "20000/s, p99",
        ] {
            let cells = row(text, name)?;
            ensure!(cells.len() == 6, "{name}: {cells:?}");
        }
        for name in ["wsha", "nginx", "nginx 64k", "HAProxy", "Envoy"] {
            let name = format!("{name}, TLS");
            let bytes: u64 = row(text, &name)?[1].parse()?;
            ensure!(bytes > 0, "{name} costs no memory");
        }
        // Whatever else: an edit costs no session.
        for name in ["wsha", "nginx", "HAProxy", "Envoy"] {
            ensure!(text.contains(name), "no {name}");
        }
        let edit = text.lines().find(|line| line.contains("20 of 20"));
        ensure!(
            edit.is_some_and(|line| line.starts_with("wsha")),
            "{edit:?}"
        );
        Ok(())
    })
}
