//! etcd and the API server, and the controllers of Kubernetes where they are asked for.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;

use super::pki::{self, Authority, Purpose};
use super::site::{Reserved, Site};
use super::tools::{Program, Programs};
use crate::lab::Process;
use crate::wait;

/// Bound against hangs: a loaded machine takes 20 s from nothing to ready.
const READY: Duration = Duration::from_mins(2);
/// Bound for the end of a process that was killed.
const GONE: Duration = Duration::from_secs(20);
/// Sockets by which the API server reaches etcd, in the directory both run in.
const ETCD: &str = "unix://etcd:0";
const ETCD_PEER: &str = "unix://etcd-peer:0";
/// Addresses of Services, and the first of them, which is the API server's own.
const SERVICES: &str = "10.96.0.0/16";
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Who may do everything.
const ADMIN: &str = "admin";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// What a control plane consists of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Also run kube-controller-manager and kube-scheduler.
    pub controllers: bool,
    /// Users beside those of the control plane itself, with their groups; each gets a token.
    pub users: Vec<(String, Vec<String>)>,
    /// Flags for the API server beside the usual ones.
    pub api_server_flags: Vec<String>,
}

impl Settings {
    /// The programs that this takes.
    pub fn programs(&self) -> Vec<Program> {
        let mut programs = vec![Program::Etcd, Program::KubeApiserver, Program::Kubectl];
        if self.controllers {
            programs.extend([Program::KubeControllerManager, Program::KubeScheduler]);
        }
        programs
    }
}

/// A control plane that runs. Dropping it ends all of it and removes its files, on a panic or a signal too.
#[derive(Debug)]
pub struct ControlPlane {
    api_server: Mutex<Option<Process>>,
    controllers: Vec<Process>,
    etcd: Process,
    settings: Settings,
    programs: Programs,
    authority: Authority,
    kubeconfigs: PathBuf,
    port: Reserved,
    // Last: it removes what the processes above use.
    site: Site,
}

impl ControlPlane {
    /// Starts one and waits until it is ready.
    pub fn start(site: Site, programs: Programs, settings: Settings) -> Result<Self> {
        let pki_dir = site.dir().join("pki");
        let authority = Authority::new(&pki_dir)?;
        let addresses = [site.address(), Ipv4Addr::LOCALHOST, FIRST_SERVICE].map(IpAddr::V4);
        let names = pki::server_names(&addresses)?;
        authority.issue("apiserver", Purpose::Server, "kube-apiserver", &[], &names)?;
        authority.key("sa")?;
        let master = ["system:masters"];
        authority.issue(
            "kubelet-client",
            Purpose::Client,
            "kube-apiserver",
            &master,
            &[],
        )?;
        let port = site.reserve()?;
        let kubeconfigs = site.dir().join("kubeconfig");
        fs::create_dir_all(&kubeconfigs)?;

        let mut etcd = programs.command(Program::Etcd)?;
        etcd.args(["--name", "e0", "--data-dir", "etcd"])
            .args([
                "--listen-client-urls",
                ETCD,
                "--advertise-client-urls",
                ETCD,
            ])
            .args(["--listen-peer-urls", ETCD_PEER])
            .args(["--initial-advertise-peer-urls", ETCD_PEER])
            .arg(format!("--initial-cluster=e0={ETCD_PEER}"))
            // The data ends with the test.
            .args(["--unsafe-no-fsync", "--log-level=warn"]);
        let etcd = site.spawn("etcd", etcd)?;
        let mut control_plane = Self {
            api_server: Mutex::new(None),
            controllers: Vec::new(),
            etcd,
            settings,
            programs,
            authority,
            kubeconfigs,
            port,
            site,
        };
        control_plane.write_users()?;
        control_plane.start_api_server()?;
        if control_plane.settings.controllers {
            // Earlier the roles are not there that they need, and they exit.
            control_plane.start_controllers()?;
        }
        Ok(control_plane)
    }

    /// Where it runs.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The programs it was started with.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The authority that signed the API server's certificate, and signs those of kubelets.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// URL of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.site.address(), self.port.port)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(ADMIN)
    }

    /// The kubeconfig of one of the users that were asked for.
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.kubeconfigs.join(format!("{user}.yaml"))
    }

    /// Starts the API server after [`Self::stop_api_server`], under the same address, and waits until it is
    /// ready.
    pub fn start_api_server(&self) -> Result<()> {
        let mut running = self.api_server();
        ensure!(running.is_none(), "the API server runs already");
        let mut command = self.programs.command(Program::KubeApiserver)?;
        command.args(self.api_server_words());
        *running = Some(self.site.spawn("kube-apiserver", command)?);
        drop(running);
        self.wait_ready()
    }

    /// Takes the API server away: `kill -9`, and its port refuses connections.
    pub fn stop_api_server(&self) -> Result<()> {
        let process = self.api_server().take();
        let process = process.context("the API server does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(GONE).map(drop)
    }

    /// Waits until the API server says that it is ready.
    pub fn wait_ready(&self) -> Result<()> {
        let mut port_open = false;
        let ready = wait::until("the API server to be ready", READY, || {
            self.alive()?;
            // A look at the port costs nothing; kubectl costs a tenth of a second of CPU.
            port_open = port_open || self.site.listens(self.port.port)?;
            if !port_open {
                return Ok(None);
            }
            let answer = self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"])?;
            if !answer.ok || answer.stdout != "ok" {
                return Ok(None);
            }
            // It says so before its own namespaces are made, by a loop that is only started by then.
            let made = self.kubectl(&["get", "namespace", "default", "--request-timeout=5s"])?;
            Ok(made.ok.then_some(()))
        });
        ready.with_context(|| self.logs())
    }

    /// Fails when one of the processes has ended by itself.
    pub fn alive(&self) -> Result<()> {
        let api_server = self.api_server();
        let processes = api_server
            .iter()
            .chain(&self.controllers)
            .chain([&self.etcd]);
        for process in processes {
            if !process.is_running() {
                bail!("{} ended:\n{}", process.name(), process.log_tail());
            }
        }
        Ok(())
    }

    /// The last lines of all logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let api_server = self.api_server();
        for process in api_server
            .iter()
            .chain(&self.controllers)
            .chain([&self.etcd])
        {
            // Writing to a string cannot fail.
            writeln!(text, "--- {}\n{}", process.name(), process.log_tail()).ok();
        }
        text
    }

    /// The API server's process, while it runs.
    pub fn api_server_pid(&self) -> Option<Pid> {
        self.api_server().as_ref().map(Process::pid)
    }

    fn api_server(&self) -> MutexGuard<'_, Option<Process>> {
        self.api_server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens and kubeconfigs.
    fn write_users(&self) -> Result<()> {
        let own = [
            (ADMIN, vec!["system:masters".to_owned()]),
            (CONTROLLER_MANAGER, Vec::new()),
            (SCHEDULER, Vec::new()),
        ];
        let own = own.map(|(user, groups)| (user.to_owned(), groups));
        let mut lines = String::new();
        for (user, groups) in own.iter().chain(&self.settings.users) {
            // As random as a token has to be.
            let token = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
            let token = token.trim();
            writeln!(lines, "{token},{user},{user},\"{}\"", groups.join(",")).ok();
            let config = json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "e2e", "cluster": {
                    "server": self.url(),
                    "certificate-authority": self.authority.certificate(),
                }}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
                "current-context": "e2e",
            });
            // JSON is YAML.
            pki::private_file(&self.kubeconfig_of(user), &config.to_string())?;
        }
        pki::private_file(&self.pki("tokens.csv"), &lines).map(drop)
    }

    fn pki(&self, file: &str) -> PathBuf {
        self.site.dir().join("pki").join(file)
    }

    fn api_server_words(&self) -> Vec<String> {
        let pki = |file: &str| self.pki(file).display().to_string();
        let mut words = vec![
            format!("--etcd-servers={ETCD}"),
            format!("--bind-address={}", self.site.bind_address()),
            format!("--advertise-address={}", self.site.address()),
            format!("--secure-port={}", self.port.port),
            "--permit-port-sharing=true".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--token-auth-file={}", pki("tokens.csv")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--requestheader-client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--api-audiences=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            // Five minutes each by default.
            "--default-not-ready-toleration-seconds=5".to_owned(),
            "--default-unreachable-toleration-seconds=5".to_owned(),
        ];
        if let Site::Loopback(_) = self.site {
            // A loopback address may not stand in the endpoints of the Service kubernetes.
            words.push("--endpoint-reconciler-type=none".to_owned());
        }
        words.extend(self.settings.api_server_flags.iter().cloned());
        words
    }

    fn start_controllers(&mut self) -> Result<()> {
        let config = |user: &str| {
            let path = self.kubeconfig_of(user).display().to_string();
            ["", "authentication-", "authorization-"]
                .map(|kind| format!("--{kind}kubeconfig={path}"))
        };
        let pki = |file: &str| self.pki(file).display().to_string();
        let mut manager = self.programs.command(Program::KubeControllerManager)?;
        manager
            .args(config(CONTROLLER_MANAGER))
            // Nobody asks them, and two control planes may share an interface.
            .args(["--bind-address=127.0.0.1", "--secure-port=0"])
            .arg("--leader-elect=false")
            .arg(format!(
                "--service-account-private-key-file={}",
                pki("sa.key")
            ))
            .arg(format!("--root-ca-file={}", pki("ca.crt")))
            .arg("--use-service-account-credentials=true")
            .args([
                "--node-monitor-period=2s",
                "--node-monitor-grace-period=40s",
            ])
            // With fewer the default ServiceAccount is 5 s late.
            .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
        let mut scheduler = self.programs.command(Program::KubeScheduler)?;
        scheduler
            .args(config(SCHEDULER))
            .args(["--bind-address=127.0.0.1", "--secure-port=0"])
            .arg("--leader-elect=false");
        let manager = self.site.spawn("kube-controller-manager", manager)?;
        let scheduler = self.site.spawn("kube-scheduler", scheduler)?;
        self.controllers = vec![manager, scheduler];
        // No pod can be made before.
        let account = ["get", "serviceaccount", "default", "--namespace=default"];
        wait::until("the default ServiceAccount", READY, || {
            self.alive()?;
            Ok(self.kubectl(&account)?.ok.then_some(()))
        })
        .with_context(|| self.logs())
    }
}
