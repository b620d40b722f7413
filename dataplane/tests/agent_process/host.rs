//! A host for one test: a network namespace of the test's own thread, and a directory.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use node_api::{NodeReport, RouterState};

/// Against hangs; what is waited for takes moments, but the machine may pause for half a minute.
const PATIENCE: Duration = Duration::from_mins(1);
const PROGRAM: &str = env!("CARGO_BIN_EXE_wsha-dataplane");

/// The threads that ARCHITECTURE.md lists: the process and the name of each.
pub(crate) fn listed_threads() -> BTreeSet<(String, String)> {
    let document = include_str!("../../../ARCHITECTURE.md");
    let (_, section) = document.split_once("\n## Threads\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut names = row.split('`').step_by(2);
        let mut next = || names.next().unwrap().to_owned();
        (next(), next())
    })
    .collect()
}

/// Names of the threads of a process, without the numbers of those that there are several of.
pub(crate) fn threads(pid: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names
        .map(|name| {
            let name = name.trim_end();
            let kind = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
            kind.trim_end_matches('-').to_owned()
        })
        .collect()
}

/// The manifests of one pool, for one or more nodes.
pub(crate) fn manifests(nodes: &[&str], ports: &[u16]) -> String {
    let mut text = String::new();
    for node in nodes {
        let labels = "labels: {gateway: \"true\"}";
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}, {labels}}}"
        )
        .unwrap();
    }
    let listeners: Vec<_> = ports
        .iter()
        .map(|port| format!("{{name: p{port}, port: {port}}}"))
        .collect();
    writeln!(
        text,
        "---\napiVersion: wsha.dev/v1alpha1\nkind: WebSocketHAPool\nmetadata: {{name: chat}}\n\
         spec:\n  virtualIPs: [{{address: 192.168.7.110}}]\n  \
         gateways: {{nodeSelector: {{matchLabels: {{gateway: \"true\"}}}}}}\n  \
         listeners: [{}]\n  \
         upstreams: [{{name: echo, endpoints: [{{address: 192.168.7.20, port: 8010}}]}}]",
        listeners.join(", ")
    )
    .unwrap();
    text
}

/// Names of an agent's directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) state: &'a str,
    pub(crate) run: &'a str,
}

/// Those of the agent that most tests have.
const PLACES: Places<'static> = Places {
    state: "state",
    run: "run",
};

#[derive(Debug)]
pub(crate) struct Host {
    dir: PathBuf,
}

impl Host {
    /// `None`, and the word SKIPPED, where this is not permitted.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Of this thread, and of the processes that it starts.
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIPPED: cannot make a network namespace: {error}");
            return None;
        }
        for words in [
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "addr add 192.168.7.11/24 dev eth0",
            "link set eth0 up",
            "link set peer0 up",
        ] {
            let done = Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(done.success(), "ip {words}");
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsha-agent-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Some(Self { dir })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces the manifests as an editor does.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.at("new"), text).unwrap();
        fs::rename(self.at("new"), self.at("pool.yaml")).unwrap();
    }

    fn run_command(&self, node: &str, places: Places<'_>, more: &[&str]) -> Command {
        let mut command = self.bare_command(node, places, more);
        command.arg("--manifests").arg(self.at("pool.yaml"));
        command
    }

    /// Without a source of configuration.
    fn bare_command(&self, node: &str, places: Places<'_>, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["run", "--node-name", node])
            .arg("--state-dir")
            .arg(self.at(places.state))
            .arg("--run-dir")
            .arg(self.at(places.run))
            .args(["--workers", "2"])
            .args(more);
        command
    }

    /// Starts an agent.
    pub(crate) fn start(&self, more: &[&str]) -> Agent {
        self.start_with(more, &[])
    }

    /// Starts an agent with directories of its own.
    pub(crate) fn start_in(&self, places: Places<'_>) -> Agent {
        self.spawn(self.run_command("server1", places, &[]))
    }

    /// Starts an agent with more in its environment.
    pub(crate) fn start_with(&self, more: &[&str], environment: &[(&str, &str)]) -> Agent {
        let mut command = self.run_command("server1", PLACES, more);
        command.envs(environment.iter().copied());
        self.spawn(command)
    }

    /// Starts an agent that follows what `more` names.
    #[allow(dead_code, reason = "not every test follows a controller")]
    pub(crate) fn start_bare(&self, more: &[&str]) -> Agent {
        self.spawn(self.bare_command("server1", PLACES, more))
    }

    fn spawn(&self, mut command: Command) -> Agent {
        let log = self.at("log");
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command.stderr(file).spawn().unwrap();
        Agent { child, log }
    }

    /// Runs an agent that is to fail, and returns what it says.
    pub(crate) fn start_in_vain(&self, node: &str, more: &[&str]) -> String {
        self.start_in_vain_in(PLACES, node, more)
    }

    /// The same, with directories of its own.
    pub(crate) fn start_in_vain_in(&self, places: Places<'_>, node: &str, more: &[&str]) -> String {
        let mut command = self.run_command(node, places, more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let status = wait_for_end(&mut child);
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(!status.success(), "{said}");
        said
    }

    fn status_output(&self, form: &str) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(["status", "--output", form, "--state-dir"]);
        command.arg(self.at("state")).output().unwrap()
    }

    /// What `status` says to somebody else.
    pub(crate) fn status_of_stranger(&self) -> String {
        // Where it was built others may not come. A process that another test starts meanwhile would have a file
        // that is written here open, and what is open for writing cannot be executed (ETXTBSY of execve(2)).
        let copied = Command::new("cp")
            .arg(PROGRAM)
            .arg(self.at("program"))
            .status();
        assert!(copied.unwrap().success());
        let mut command = Command::new(self.at("program"));
        let command = command.uid(STRANGER).args(["status", "--state-dir"]);
        let output = command.arg(self.at("state")).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn status(&self) -> Option<NodeReport> {
        let output = self.status_output("json");
        let report = serde_json::from_slice(&output.stdout);
        output.status.success().then(|| report.unwrap())
    }

    pub(crate) fn status_text(&self) -> Result<String, String> {
        let output = self.status_output("table");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    pub(crate) fn wait_status(&self, what: &str, wanted: impl Fn(&NodeReport) -> bool) {
        eventually(what, || self.status().is_some_and(|report| wanted(&report)));
    }

    /// A script in Perl, which every Debian has, as a user who is nobody here; it says a line when it
    /// is ready.
    pub(crate) fn stranger(&self, script: &str) -> Stranger {
        let program = format!("use Socket; $| = 1; {script}");
        let mut child = Command::new("perl")
            .args(["-e", &program])
            .current_dir(&self.dir)
            .uid(STRANGER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        Stranger {
            child,
            said: line.trim().to_owned(),
        }
    }

    /// Status and body of an answer of the admin port.
    #[expect(clippy::unused_self, reason = "this thread is in the host's namespace")]
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect("127.0.0.1:9101").ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    pub(crate) fn wait_active(&self) {
        self.wait_status("Active", |report| {
            report.virtual_routers[0].state == RouterState::Active
        });
    }

    pub(crate) fn wait_ready(&self) {
        eventually("ready", || {
            self.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.at("log")).unwrap_or_default();
            println!("log of the agents:\n{log}");
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A user without rights.
pub(crate) const STRANGER: u32 = 65534;

/// A process of somebody else; ended when dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    child: Child,
    pub(crate) said: String,
}

impl Stranger {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A running agent; stopped in order when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The process that it started as `role`.
    pub(crate) fn process(&self, role: &str) -> Option<Pid> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let pids = fs::read_to_string(children).ok()?;
        let is_it = |pid: &&str| {
            let line = fs::read(Path::new("/proc").join(pid).join("cmdline"));
            let line = line.unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            words.starts_with(&[b"wsha-dataplane", role.as_bytes()])
        };
        let pid = pids.split_whitespace().find(is_it)?;
        Some(Pid::from_raw(pid.parse().ok()?))
    }

    /// Waits until the log of all agents of the host holds these words.
    pub(crate) fn wait_log(&self, words: &str) {
        eventually(words, || self.log().contains(words));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for_end(&mut self.child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + PATIENCE;
            while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn wait_for_end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the end of a process", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
