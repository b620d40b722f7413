//! A pod as a kubelet makes it: two containers, each with a PID namespace and rights of its own, in the
//! host's network, and a volume that lasts as long as the pod.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::host::{Host, eventually};

/// User and group of the proxy.
pub(crate) const PROXY: &str = "4242";
/// What the chart gives the agent.
const RIGHTS: &str = "-all,+net_admin,+net_raw,+net_bind_service,+ipc_lock,+sys_nice";

/// A container; killed with all its processes when dropped.
pub(crate) struct Container {
    /// Makes the namespace and waits for its first process.
    shim: Child,
    /// `None`: it ended at once.
    init: Option<Pid>,
}

impl Container {
    fn start(arguments: &[&str], program: &Path, of_program: &[&str], log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log);
        let mut shim = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "setpriv"])
            .args(arguments)
            .arg(program)
            .args(of_program)
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let mut init = None;
        eventually("the first process of a container", || {
            init = child(shim.id().try_into().unwrap());
            init.is_some() || shim.try_wait().unwrap().is_some()
        });
        Self { shim, init }
    }

    fn init(&self) -> Pid {
        self.init.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.init(), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.shim.try_wait().unwrap()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of a container", || {
            status = self.has_ended();
            status.is_some()
        });
        status.unwrap()
    }

    /// The command line of its first process.
    pub(crate) fn command_line(&self) -> String {
        command_line(self.init())
    }

    /// The process that its first one started as `role`, by its number on the host.
    pub(crate) fn process(&self, role: &str) -> Option<Pid> {
        let wanted = format!("wsha-dataplane {role} ");
        children(self.init()).find(|pid| command_line(*pid).starts_with(&wanted))
    }

    /// A line of its first process' status.
    pub(crate) fn status_of(pid: Pid, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its first process takes the others along. The kernel forgets to do so by itself once the
        // process has changed its user.
        if let (None, Some(init)) = (self.has_ended(), self.init) {
            kill(init, Signal::SIGKILL).ok();
        }
        drop(self.shim.wait());
    }
}

fn children(of: Pid) -> impl Iterator<Item = Pid> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let pids: Vec<_> = list
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect();
    pids.into_iter()
}

fn child(of: i32) -> Option<Pid> {
    children(Pid::from_raw(of)).next()
}

fn command_line(pid: Pid) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Containers are started one by one, as a kubelet does after an end.
pub(crate) struct Pod<'a> {
    host: &'a Host,
    volume: PathBuf,
    program: PathBuf,
}

impl<'a> Pod<'a> {
    pub(crate) fn new(host: &'a Host, name: &str) -> Self {
        let volume = host.at(name);
        for directory in [volume.clone(), volume.join("pod"), volume.join("shared")] {
            fs::create_dir(&directory).unwrap();
            // As an emptyDir.
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        }
        // Where it was built others may not come. A process that another test starts meanwhile would have a file
        // that is written here open, and what is open for writing cannot be executed (ETXTBSY of execve(2)).
        let program = host.at("program");
        if !program.exists() {
            let mut copy = Command::new("cp");
            copy.arg(env!("CARGO_BIN_EXE_wsha-dataplane")).arg(&program);
            assert!(copy.status().unwrap().success());
        }
        Self {
            host,
            volume,
            program,
        }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.volume.join("shared/run")
    }

    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.volume.join("agent.log")).unwrap_or_default()
    }

    pub(crate) fn proxy_log(&self) -> String {
        fs::read_to_string(self.volume.join("proxy.log")).unwrap_or_default()
    }

    pub(crate) fn agent(&self) -> Container {
        self.agent_as(&["--regid", PROXY, "--clear-groups"])
    }

    /// With what else there is to say of its identity.
    pub(crate) fn agent_as(&self, identity: &[&str]) -> Container {
        let [state, files] = ["state", "pool.yaml"].map(|name| self.host.at(name));
        let (run_dir, created) = (self.run_dir(), self.volume.join("pod"));
        let rights = ["--bounding-set", RIGHTS, "--no-new-privs"];
        Container::start(
            &[identity, &rights].concat(),
            &self.program,
            &[
                "run",
                "--node-name",
                "server1",
                "--state-dir",
                state.to_str().unwrap(),
                "--run-dir",
                run_dir.to_str().unwrap(),
                "--manifests",
                files.to_str().unwrap(),
                "--pod-created-at",
                created.to_str().unwrap(),
                "--proxy",
                "external",
                "--proxy-user",
                PROXY,
                "--take-over",
                "--stay",
            ],
            &self.volume.join("agent.log"),
        )
    }

    pub(crate) fn proxy(&self, more: &[&str]) -> Container {
        let run_dir = self.run_dir();
        let arguments = ["proxy", "--workers", "2", "--restart", "--run-dir"];
        Container::start(
            &[
                "--reuid",
                PROXY,
                "--regid",
                PROXY,
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
                "--no-new-privs",
            ],
            &self.program,
            &[&arguments[..], &[run_dir.to_str().unwrap()], more].concat(),
            &self.volume.join("proxy.log"),
        )
    }

    pub(crate) fn probe(&self, what: &str) -> Result<(), String> {
        let run_dir = self.run_dir();
        let mut command = Command::new(&self.program);
        command.args(["probe", what, "--run-dir"]).arg(run_dir);
        let Output { status, stderr, .. } = command.output().unwrap();
        if status.success() {
            Ok(())
        } else {
            Err(String::from_utf8(stderr).unwrap())
        }
    }

    pub(crate) fn wait_ready(&self) {
        eventually("ready", || self.probe("ready").is_ok());
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\nagent:\n{}", self.volume.display(), self.agent_log());
            println!("proxy:\n{}", self.proxy_log());
        }
    }
}
