//! What the suite found, and whether a way through the proxy did worse than the way without.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The suite's verdicts by agent and case.
#[derive(Debug, Deserialize)]
pub(crate) struct Report(BTreeMap<String, BTreeMap<String, Verdict>>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

impl Report {
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("index.json");
        let text = fs::read(&file).with_context(|| format!("no report: {}", file.display()))?;
        serde_json::from_slice(&text).context("cannot read the suite's report")
    }

    /// Compares agent `proxied` with agent `direct`, case by case.
    pub(crate) fn compare(&self, least: usize) -> Result<()> {
        let of = |agent: &str| {
            self.0
                .get(agent)
                .with_context(|| format!("nothing of {agent}"))
        };
        let (direct, proxied) = (of("direct")?, of("proxied")?);
        ensure!(
            direct.len() >= least,
            "{} cases were run, {least} were wanted",
            direct.len()
        );
        let mut worse = Vec::new();
        let mut passed = 0;
        for (case, direct) in direct {
            let proxied = proxied
                .get(case)
                .with_context(|| format!("case {case} was not run by way of the proxy"))?;
            passed += usize::from(rank(&proxied.behavior)? == 0);
            let pairs = [
                (&direct.behavior, &proxied.behavior),
                (&direct.behavior_close, &proxied.behavior_close),
            ];
            for (direct, proxied) in pairs {
                if rank(proxied)? > rank(direct)? {
                    worse.push(format!(
                        "case {case}: {direct} directly, {proxied} by way of the proxy"
                    ));
                }
            }
        }
        println!(
            "{passed} of {} cases passed by way of the proxy",
            direct.len()
        );
        ensure!(worse.is_empty(), "{}", worse.join("\n"));
        ensure!(
            passed * 10 > direct.len() * 9,
            "the proxy is not what was tried"
        );
        Ok(())
    }
}

/// How bad a verdict is.
fn rank(verdict: &str) -> Result<u8> {
    Ok(match verdict {
        "OK" | "INFORMATIONAL" => 0,
        "NON-STRICT" => 1,
        "UNIMPLEMENTED" => 2,
        "UNCLEAN" | "WRONG CODE" | "FAILED BY CLIENT" => 3,
        "FAILED" => 4,
        other => bail!("the suite says {other}, which is not known here"),
    })
}
