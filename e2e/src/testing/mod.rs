//! What the integration tests share: a lab with wsha on both gateways, driven and read from outside.
//!
//! A test gets a [`Cluster`] by [`in_cluster`] or [`in_lab`], one at a time on the machine, as what is
//! tested is timing; where the machine cannot run it, the test says SKIPPED and why. [`on_api_server`] gives
//! a real API server instead.

mod api;
mod binary;
mod cluster;
pub mod forge;
mod manifest;
mod observe;
mod secret;
mod session;
mod watch;
mod wire;

use std::fs::File;
use std::io::Write as _;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

pub use self::api::{Api, on_api_server};
pub use self::binary::dataplane;
pub use self::cluster::{Cluster, Gateway, Part};
pub use self::manifest::{Endpoint, Manifest, Pool};
pub use self::secret::SelfSigned;
pub use self::session::{Event, Session};
pub use self::watch::{SETTLE, SPLIT, Watch};
pub use self::wire::Trust;
use crate::lab::Host;
use crate::tools;

/// Held while a test has a lab. Only root writes there: who else could make the file could keep tests from running.
const LOCK: &str = "/run/wsha-lab.lock";

/// Runs `body` in a lab with the article's backends, and nothing on the gateways yet.
pub fn in_lab(test: &str, body: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    in_locked_lab(FlockArg::LockExclusive, test, body)
}

/// As [`in_lab`], for a test that mostly waits for timers of seconds: others of this kind may have a lab meanwhile.
pub fn in_lab_beside_others(
    test: &str,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_locked_lab(FlockArg::LockShared, test, body)
}

fn in_locked_lab(
    lock: FlockArg,
    test: &str,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    if let Some(why) = cannot_run() {
        skipped(test, &why);
        return Ok(());
    }
    let _lock = locked(lock)?;
    if let Err(error) = tools::install_backend() {
        skipped(test, &format!("needs the backends' module: {error:#}"));
        return Ok(());
    }
    let mut cluster = Cluster::new(dataplane()?)?;
    let outcome = body(&mut cluster).and_then(|()| cluster.sound());
    if outcome.is_err() {
        eprintln!("{}", cluster.logs());
    }
    outcome
}

/// As [`in_lab`], with wsha on both gateways and each address of `manifest` at its preferred node.
pub fn in_cluster(
    test: &str,
    manifest: &Manifest,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_lab(test, |cluster| {
        cluster.apply(manifest)?;
        cluster.start_both()?;
        body(cluster)
    })
}

/// Says on standard error, past the capture of the test harness, that `test` did not run.
pub fn skipped(test: &str, why: &str) {
    // One write, so that no other thread's words come between. With standard error closed, nothing is left to do.
    drop(std::io::stderr().write_all(format!("\nSKIPPED: {test}: {why}\n").as_bytes()));
}

/// Why no lab can be built here, if so.
fn cannot_run() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for network namespaces and raw sockets".into());
    }
    let programs = ["ip", "node", "npm", "unshare"];
    if let Some(missing) = programs
        .into_iter()
        .find(|program| tools::find(program).is_none())
    {
        return Some(format!("needs {missing}"));
    }
    // A container's root often is not allowed to.
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "true"])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "needs network namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("needs unshare: {error}")),
    }
}

/// Waits until no other test has a lab, or only those that share.
fn locked(lock: FlockArg) -> Result<Flock<File>> {
    let file = File::create(LOCK).with_context(|| format!("cannot make {LOCK}"))?;
    Flock::lock(file, lock)
        .map_err(|(_, errno)| anyhow!("cannot take the lock of the tests: {errno}"))
}

/// Runs `job` on a thread inside the namespaces of `host`: sockets made there belong to the host.
pub fn inside<T: Send>(host: &Host, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            host.enter()?;
            job()
        });
        worker
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread on {} panicked", host.name())))
    })
}

/// Where a client is.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// On a host of a lab.
    Host(&'a Host),
    /// On this machine's own network.
    Here,
}

impl<'a> From<&'a Host> for Client<'a> {
    fn from(host: &'a Host) -> Self {
        Self::Host(host)
    }
}

impl Client<'_> {
    /// Runs `job` there: sockets made by it are the client's.
    pub fn within<T: Send>(self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Host(host) => inside(host, job),
            Self::Here => job(),
        }
    }
}
