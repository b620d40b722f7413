//! An API server, a controller and what they work on.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::api::{Access, trusting};
use super::fleet::Fleet;
use super::objects::{self, Size};
use crate::cluster::{ControlPlane, Programs, Settings, Site};
use crate::lab::Process;

/// Bound for whatever is waited for.
const BOUND: Duration = Duration::from_mins(3);

/// How often it is looked: the API server would answer nothing else if it were asked all the time.
const LOOK: Duration = Duration::from_millis(500);

/// Everything but the gateways.
#[derive(Debug)]
pub struct Stage {
    /// The API server.
    pub control_plane: ControlPlane,
    /// The way to it.
    pub access: Access,
    /// How much of everything.
    pub size: Size,
    binary: PathBuf,
    controller: Option<Process>,
    streams: SocketAddr,
    admin: SocketAddr,
}

impl Stage {
    /// Starts an API server with the objects of `size`, and a controller; they are not committed yet, since
    /// no gateway is there.
    pub async fn start(size: Size, binary: &Path) -> Result<Self> {
        let settings = Settings {
            api_server_flags: vec!["--max-requests-inflight=2000".to_owned()],
            ..Settings::default()
        };
        let programs = Programs::get(&settings.programs())?;
        let control_plane = ControlPlane::start(Site::loopback()?, programs, settings)?;
        let access = Access::read(&control_plane.kubeconfig())?;
        let mut stage = Self {
            control_plane,
            access,
            size,
            binary: binary.to_owned(),
            controller: None,
            streams: free()?,
            admin: free()?,
        };
        stage.define()?;
        let mut api = stage.access.connect().await?;
        api.post("/api/v1/namespaces", &json!({"metadata": {"name": "wsha"}}))
            .await?;
        let account = json!({"metadata": {"name": "wsha-dataplane"}});
        api.post("/api/v1/namespaces/wsha/serviceaccounts", &account)
            .await?;
        for objects in objects::all(size) {
            objects::make(&stage.access, objects).await?;
        }
        stage.start_controller()?;
        Ok(stage)
    }

    fn define(&self) -> Result<()> {
        let text = crds::definition_yaml()?;
        let control_plane = &self.control_plane;
        control_plane.kubectl_file(&["create"], &text)?.success()?;
        let established = [
            "wait",
            "--for=condition=Established",
            "crd/websockethapools.wsha.dev",
        ];
        control_plane.kubectl(&established)?.success()?;
        Ok(())
    }

    /// Starts the controller.
    pub fn start_controller(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            // As the chart sets it.
            .env("MALLOC_ARENA_MAX", "2")
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .env(
                "RUST_LOG",
                "warn,controller=info,controller::recompute=debug",
            )
            .args([
                "run",
                "--namespace=wsha",
                "--replica=bench",
                "--log-format=text",
            ])
            .arg(format!("--server-name={}", self.streams.ip()))
            .arg(format!("--listen={}", self.streams))
            .arg(format!("--admin={}", self.admin));
        self.controller = Some(self.control_plane.site().spawn("controller", command)?);
        Ok(())
    }

    /// Kills the controller.
    pub fn kill_controller(&mut self) -> Result<()> {
        let controller = self.controller.take().context("no controller runs")?;
        controller.signal(Signal::SIGKILL)?;
        controller.wait(BOUND).map(drop)
    }

    /// The longest computation that the controller has made since the log was this long, and how long it is
    /// now: nothing else holds all streams up.
    pub fn longest(&self, since: usize) -> Result<(Duration, usize)> {
        self.longest_of("computed", since)
    }

    /// The same of plans, which hold no stream up.
    pub fn longest_plan(&self, since: usize) -> Result<(Duration, usize)> {
        self.longest_of("planned", since)
    }

    fn longest_of(&self, what: &str, since: usize) -> Result<(Duration, usize)> {
        let controller = self.controller.as_ref().context("no controller runs")?;
        let log = fs::read_to_string(controller.log())?;
        let new = log.get(since..).unwrap_or_default();
        let what = format!("{what} elapsed=");
        let times = new.lines().filter_map(|line| line.split_once(&what));
        let times = times.filter_map(|(_, time)| milliseconds(time.trim()));
        let longest = times.fold(0.0, f64::max);
        Ok((Duration::from_secs_f64(longest / 1000.0), log.len()))
    }

    /// The controller's process, and the API server's.
    pub fn pids(&self) -> Result<(Pid, Pid)> {
        let controller = self.controller.as_ref().context("no controller runs")?;
        let api_server = self.control_plane.api_server_pid();
        Ok((controller.pid(), api_server.context("no API server runs")?))
    }

    /// Starts the gateways, and waits until every pool is programmed.
    pub async fn gateways(&self) -> Result<Fleet> {
        let tls = self.trust().await?;
        let mut fleet = Fleet::start(&self.access, self.size, self.streams, &tls).await?;
        fleet.synced(BOUND).await?;
        self.programmed().await?;
        fleet.quiet(Duration::from_secs(2), BOUND).await?;
        Ok(fleet)
    }

    async fn trust(&self) -> Result<Arc<ClientConfig>> {
        let mut api = self.access.connect().await?;
        self.until("an authority", async || {
            let path = "/api/v1/namespaces/wsha/configmaps/wsha-ca";
            let Ok(bundle) = api.get(path).await else {
                return Ok(None);
            };
            let text = bundle["data"]["ca.crt"].as_str();
            trusting(text.context("an empty bundle")?.as_bytes()).map(Some)
        })
        .await
    }

    /// Waits until every pool says that it is programmed.
    async fn programmed(&self) -> Result<()> {
        let mut api = self.access.connect().await?;
        let is_programmed = |pool: &Value| {
            let conditions = pool["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|it| it["type"] == "Programmed" && it["status"] == "True")
        };
        self.until("all pools to be programmed", async || {
            let path = "/apis/wsha.dev/v1alpha1/namespaces/default/websockethapools";
            let pools = api.get(path).await?;
            let pools = pools["items"].as_array().context("no pools")?;
            Ok(pools.iter().all(is_programmed).then_some(()))
        })
        .await
    }

    /// Waits for what `look` finds, with the controller alive.
    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            self.alive()?;
            if let Some(found) = look().await? {
                return Ok(found);
            }
            ensure!(begun.elapsed() < BOUND, "waited {BOUND:?} for {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn alive(&self) -> Result<()> {
        let controller = self.controller.as_ref().context("no controller runs")?;
        ensure!(
            controller.is_running(),
            "the controller ended:\n{}",
            controller.log_tail()
        );
        self.control_plane.alive()
    }
}

/// A time as logs write it.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ms", 1.0), ("µs", 0.001), ("ns", 0.000_001), ("s", 1000.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// An address of the loopback interface on which nobody listens.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
