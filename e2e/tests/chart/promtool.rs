//! What Prometheus itself makes of the alerts: their form, and when they fire (`alerts.yaml`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::testing::skipped;
use e2e::tools;

use crate::{ALL, render};

/// promtool, with the chart's rules in a directory of the test's own.
struct Rules {
    promtool: PathBuf,
    dir: PathBuf,
}

impl Rules {
    fn of_chart(test: &str) -> Result<Option<Self>> {
        let promtool = match tools::install_promtool() {
            Ok(promtool) => promtool,
            Err(error) => {
                skipped(test, &format!("{error:#}"));
                return Ok(None);
            }
        };
        let Some(objects) = render(test, &ALL)? else {
            return Ok(None);
        };
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::create_dir_all(&dir)?;
        let rule = objects.get("PrometheusRule", "wsha")?;
        fs::write(dir.join("rules.yaml"), rule["spec"].to_string())?;
        Ok(Some(Self { promtool, dir }))
    }

    /// `promtool WORDS`, which must find nothing to remark.
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.promtool);
        command.args(words).current_dir(&self.dir);
        let output = command.output().context("cannot run promtool")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success(),
            "promtool {}: {said}",
            words.join(" ")
        );
        Ok(said)
    }
}

#[test]
fn prometheus_takes_the_alerts() -> Result<()> {
    let Some(rules) = Rules::of_chart("prometheus_takes_the_alerts")? else {
        return Ok(());
    };
    let said = rules.run(&["check", "rules", "rules.yaml"])?;
    ensure!(said.contains("SUCCESS"), "{said}");
    Ok(())
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() -> Result<()> {
    let Some(rules) = Rules::of_chart("alerts_fire_when_they_should_and_not_otherwise")? else {
        return Ok(());
    };
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/alerts.yaml");
    fs::copy(&cases, rules.dir.join("alerts.yaml"))?;
    rules.run(&["test", "rules", "alerts.yaml"]).map(drop)
}
