//! The cluster, and words for what is done with it.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cluster::Local;
use e2e::wait;
use serde_json::Value;

/// Bound against hangs for anything that the cluster is waited for.
pub(crate) const BOUND: Duration = Duration::from_mins(2);

/// The cluster at work.
pub(crate) struct Stage {
    pub(crate) local: Local,
}

impl Stage {
    pub(crate) fn start() -> Result<Self> {
        let local = Local::start()?;
        Ok(Self { local })
    }

    /// Runs `kubectl`, which must go well.
    pub(crate) fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.local.control_plane().kubectl(words)?.success()
    }

    /// What `kubectl get WORDS` shows.
    pub(crate) fn get(&self, words: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], words].concat())?;
        serde_json::from_str(&text).context("kubectl get shows no JSON")
    }

    /// `kubectl apply` of this text.
    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let answer = self.local.control_plane().kubectl_file(&["apply"], text)?;
        answer.success().map(drop)
    }

    /// Waits until `condition` gives a value.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until(what, BOUND, || {
            self.local.alive()?;
            condition(self)
        })
    }

    /// What a message about a failure should show.
    pub(crate) fn logs(&self) -> String {
        let state = self
            .kubectl(&["get", "nodes,pods,events", "--all-namespaces", "-o", "wide"])
            .context("cannot look at the cluster");
        let state = state.unwrap_or_else(|error| format!("{error:#}"));
        format!("{state}\n{}", self.local.logs())
    }
}
