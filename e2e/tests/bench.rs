//! The benchmarks run to their end and show a whole table. Their figures are no matter here.

use std::collections::BTreeSet;
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
        // What went wrong comes first: where a log is cut, it is behind the tables.
        println!("{errors}\n{shown}");
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
            let mut subjects = BTreeSet::new();
            for line in samples.lines() {
                let sample: serde_json::Value = serde_json::from_str(line)?;
                subjects.insert(sample["subject"].to_string());
            }
            // Of keepalived and nginx there may be more: what did not end as it should is made again.
            ensure!(subjects.len() == 3, "samples: {samples}");
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
    let short =
        "--rounds 1 --window 50 --latency-rounds 1 --sessions 50 --live 20 --watched 500 --svg";
    let words: Vec<&str> = short.split(' ').chain([&*file]).collect();
    bench(test, env!("CARGO_BIN_EXE_bench-proxy"), &words, |text| {
        let drawn = fs::read_to_string(&svg).context("no drawing")?;
        fs::remove_file(&svg)?;
        for name in [
            "TLS, 64 KiB x4",
            "HTTP/2, handshake",
            "64 B x1, records",
            "TLS, idle session",
            "the certificate is replaced",
        ] {
            ensure!(drawn.contains(name), "{name} is not drawn: {drawn}");
        }
        for (name, columns) in [
            ("64 B x1", 6),
            ("handshake", 6),
            ("TLS, 64 KiB x4", 6),
            ("TLS, handshake", 6),
            // What reads by rings has no part in this.
            ("20000/s, p99", 5),
        ] {
            let cells = row(text, name)?;
            ensure!(cells.len() == 1 + columns, "{name}: {cells:?}");
        }
        for name in [
            "HTTP/2, 64 B x1",
            "HTTP/2, 1 KiB x16",
            "HTTP/2, 64 KiB x4",
            "HTTP/2, handshake",
        ] {
            let cells = row(text, name)?;
            let [_, wsha, "-", "-", "-", haproxy, envoy] = cells[..] else {
                anyhow::bail!("{name}: {cells:?}");
            };
            for cost in [wsha, haproxy, envoy] {
                ensure!(cost.parse::<f64>()? > 0.0, "{name}: {cells:?}");
            }
        }
        for name in ["wsha", "nginx", "nginx 64k", "HAProxy", "Envoy"] {
            let name = format!("{name}, TLS");
            let bytes: u64 = row(text, &name)?[1].parse()?;
            ensure!(bytes > 0, "{name} costs no memory");
        }
        for edit in ["a server is added", "the certificate is replaced"] {
            let (_, table) = text
                .split_once(&format!("While sessions are live {edit}"))
                .with_context(|| format!("no table: {edit}"))?;
            for name in ["nginx", "HAProxy", "Envoy"] {
                row(table, name)?;
            }
            // Whatever else: an edit costs no session, turns nobody away and starts no process.
            let cells = row(table, "wsha")?;
            ensure!(
                cells[1] == "20 of 20" && cells[3] == "0" && cells[5] == "1 -> 1",
                "{edit}: {cells:?}"
            );
        }
        let long = text.lines().find(|line| line.chars().count() > 100);
        ensure!(long.is_none(), "more than 100 columns: {long:?}");
        Ok(())
    })
}

#[test]
fn shares_with_two_workers_stand_beside_those_with_one() -> Result<()> {
    let test = "shares_with_two_workers_stand_beside_those_with_one";
    if let Err(error) = tools::install_proxies() {
        skipped(test, &format!("{error:#}"));
        return Ok(());
    }
    let short = "--rounds 1 --window 50 --workers 2 --peers wsha,nginx --loads handshake";
    let words: Vec<&str> = short.split(' ').collect();
    bench(test, env!("CARGO_BIN_EXE_bench-proxy"), &words, |text| {
        let (_, table) = text.split_once("with 2 workers").context("no table")?;
        let names = ["handshake, beside nginx", "TLS, handshake, beside nginx"];
        for name in names {
            let cells = row(table, name)?;
            let figures = cells[1..4].iter().all(|cell| cell.parse::<f64>().is_ok());
            ensure!(cells.len() == 5 && figures, "{name}: {cells:?}");
        }
        // Nothing else was asked for.
        ensure!(!text.contains("idle sessions") && !text.contains("Round trip"));
        Ok(())
    })
}
