//! The command lines as a user types them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::controlplane::ControlPlane;
use super::site::Site;
use super::tools::{Program, Programs};

/// What a call of `kubectl` or `helm` gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The call.
    pub words: String,
    /// Whether it ended with success.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error: what a user reads when something is refused.
    pub stderr: String,
}

impl Answer {
    /// Standard output of a call that must have gone well.
    pub fn success(self) -> Result<String> {
        ensure!(
            self.ok,
            "{} failed:\n{}{}",
            self.words,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }

    /// Standard error of a call that must have been refused.
    pub fn refusal(self) -> Result<String> {
        ensure!(!self.ok, "{} was not refused:\n{}", self.words, self.stdout);
        Ok(self.stderr)
    }
}

/// Where an administrator of a cluster sits.
#[derive(Clone, Debug)]
pub struct Console<'a> {
    pub(super) site: &'a Site,
    pub(super) programs: &'a Programs,
    pub(super) kubeconfig: PathBuf,
}

impl Console<'_> {
    /// A directory that goes with the cluster.
    pub fn dir(&self) -> &Path {
        self.site.dir()
    }

    /// A call of `kubectl`, to be run at the console's site.
    fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.programs.command(Program::Kubectl)?;
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.site.dir().join("kubectl-cache"))
            // No preferences of the user who runs the tests.
            .env("KUBERC", "off");
        Ok(command)
    }

    /// Runs `kubectl WORDS`.
    pub fn kubectl(&self, words: &[&str]) -> Result<Answer> {
        self.call("kubectl", self.kubectl_command()?, words)
    }

    /// Runs `kubectl WORDS -f FILE` with a file of this content.
    pub fn kubectl_file(&self, words: &[&str], content: &str) -> Result<Answer> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = self.site.dir().join(format!("manifest-{count}.yaml"));
        fs::write(&file, content).context("cannot write a manifest")?;
        let file = file.to_string_lossy().into_owned();
        self.kubectl(&[words, &["-f", &file]].concat())
    }

    /// Runs `helm WORDS`.
    pub fn helm(&self, words: &[&str]) -> Result<Answer> {
        let mut command = self.programs.command(Program::Helm)?;
        command.env("KUBECONFIG", &self.kubeconfig);
        for (variable, name) in [
            ("HELM_CACHE_HOME", "helm-cache"),
            ("HELM_CONFIG_HOME", "helm-config"),
            ("HELM_DATA_HOME", "helm-data"),
        ] {
            command.env(variable, self.site.dir().join(name));
        }
        self.call("helm", command, words)
    }

    fn call(&self, name: &str, mut command: Command, words: &[&str]) -> Result<Answer> {
        command.args(words);
        let output = self.site.output(command)?;
        Ok(Answer {
            words: format!("{name} {}", words.join(" ")),
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl ControlPlane {
    /// The administrator's place.
    pub fn console(&self) -> Console<'_> {
        Console {
            site: self.site(),
            programs: self.programs(),
            kubeconfig: self.kubeconfig(),
        }
    }

    /// A call of `kubectl` as administrator, to be run at the control plane's [site](Self::site).
    pub fn kubectl_command(&self) -> Result<Command> {
        self.console().kubectl_command()
    }

    /// Runs `kubectl WORDS` as administrator.
    pub fn kubectl(&self, words: &[&str]) -> Result<Answer> {
        self.console().kubectl(words)
    }

    /// Runs `kubectl WORDS -f FILE` with a file of this content.
    pub fn kubectl_file(&self, words: &[&str], content: &str) -> Result<Answer> {
        self.console().kubectl_file(words, content)
    }
}
