//! The demo as a person runs it: it shows the whole article and leaves nothing behind, however it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::process::{command_line, holding};
use e2e::testing::{dataplane, in_lab, skipped};
use e2e::{tools, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the demo promises.
const BOUND: Duration = Duration::from_mins(3);
/// Bound against hangs of a clean-up.
const CLEAN: Duration = Duration::from_secs(30);

/// A demo at work. It is killed when dropped.
struct Demo {
    child: Child,
    pid: Pid,
    lines: Receiver<String>,
    text: String,
    began: Instant,
}

impl Demo {
    fn start() -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("--wsha-binary").arg(dataplane()?);
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            // Nobody wants the rest once the test is over.
            lines.map(|line| sender.send(line)).all(|sent| sent.is_ok());
        });
        Ok(Self {
            pid: Pid::from_raw(i32::try_from(child.id())?),
            child,
            lines,
            text: String::new(),
            began,
        })
    }

    /// Reads up to a line that begins with `wanted`.
    fn read_to(&mut self, wanted: &str) -> Result<()> {
        while let Ok(line) = self.next_line() {
            if line.starts_with(wanted) {
                return Ok(());
            }
        }
        anyhow::bail!("the demo does not say {wanted:?}:\n{}", self.text)
    }

    fn next_line(&mut self) -> Result<String> {
        let left = BOUND.saturating_sub(self.began.elapsed());
        let line = self.lines.recv_timeout(left)?;
        println!("{line}");
        self.text += &line;
        self.text += "\n";
        Ok(line)
    }

    /// Reads to the end; fails if that is late.
    fn end(&mut self) -> Result<ExitStatus> {
        while self.next_line().is_ok() {}
        ensure!(
            self.began.elapsed() < BOUND,
            "the demo takes longer than {} s",
            BOUND.as_secs()
        );
        Ok(self.child.wait()?)
    }

    /// Its labs' directories.
    fn labs(&self) -> Vec<PathBuf> {
        let own = format!("{}-", self.pid);
        let base = fs::read_dir(std::env::temp_dir().join("wsha-lab"));
        let all = base.into_iter().flatten().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own))
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Where it has ended there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What of the machine the demo changes for a time.
#[derive(Debug, Eq, PartialEq)]
struct Machine {
    policy: Option<(Vec<u8>, u32)>,
    saved: bool,
    autogroup: Option<String>,
}

impl Machine {
    fn now() -> Self {
        let policy = "/usr/sbin/policy-rc.d";
        let mode = fs::metadata(policy).map(|found| found.permissions().mode());
        Self {
            policy: fs::read(policy).ok().zip(mode.ok()),
            saved: fs::exists("/usr/sbin/policy-rc.d.wsha-saved").unwrap_or_default(),
            autogroup: fs::read_to_string("/proc/self/autogroup").ok(),
        }
    }
}

/// What is left of `labs` and of the process that `demo` had clean up after it.
fn left(demo: Pid, labs: &[PathBuf]) -> Vec<String> {
    let keeper = format!("lab-keeper {demo}-");
    let mut left: Vec<String> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(|pid| command_line(Pid::from_raw(pid)))
        .filter(|line| line.contains(&keeper))
        .collect();
    for lab in labs {
        left.extend(lab.exists().then(|| lab.display().to_string()));
        left.extend(holding(lab).into_iter().map(command_line));
    }
    left
}

/// Waits until nothing is left, and the machine is as it was.
fn leaves_nothing(demo: &Demo, labs: &[PathBuf], before: &Machine) -> Result<()> {
    wait::until("all traces to be gone", CLEAN, || {
        Ok(left(demo.pid, labs).is_empty().then_some(()))
    })
    .with_context(|| format!("left: {:?}", left(demo.pid, labs)))?;
    let after = Machine::now();
    ensure!(after == *before, "{before:?} has become {after:?}");
    Ok(())
}

/// Runs `body` while no other test has a lab at work.
fn alone(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if nix::unistd::geteuid().is_root()
        && let Err(error) = tools::install_peers()
    {
        let why = format!("keepalived and nginx are missing and cannot be installed: {error:#}");
        skipped(test, &why);
        return Ok(());
    }
    in_lab(test, |_| body())
}

/// Cells of the table at the end, without its head.
fn table(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().skip_while(|line| !line.starts_with("step "));
    rows.skip(2)
        .take_while(|line| line.contains(" | "))
        .map(|line| line.split(" | ").map(str::trim).collect())
        .collect()
}

#[test]
fn the_article_comes_true() -> Result<()> {
    alone("the_article_comes_true", || {
        let before = Machine::now();
        let mut demo = Demo::start()?;
        demo.read_to("== 3.")?;
        let greeted = demo
            .text
            .lines()
            .filter(|line| line.starts_with("client ") && line.contains("< Server 192.168.1.1"))
            .filter(|line| line.contains("  received from client: "))
            .count();
        ensure!(
            greeted == 8,
            "{greeted} of 2 x 4 clients show what they got"
        );
        let labs = demo.labs();
        ensure!(labs.len() == 2, "the demo has {} labs", labs.len());
        ensure!(
            !labs.iter().any(|lab| holding(lab).is_empty()),
            "nothing runs in a lab"
        );
        for step in 4..=7 {
            demo.read_to(&format!("== {step}."))?;
        }
        let status = demo.end()?;
        ensure!(status.success(), "the demo ended with {status}");

        let table = table(&demo.text);
        let shape: Vec<usize> = table.iter().map(Vec::len).collect();
        ensure!(shape == [3; 7], "not 7 rows with 2 columns: {table:?}");
        ensure!(
            table.iter().flatten().all(|cell| !cell.is_empty()),
            "an empty cell: {table:?}"
        );
        for row in &table[2..=5] {
            ensure!(
                row[1].contains("of 4 cut off"),
                "an address moved and nobody noticed: {row:?}"
            );
        }
        ensure!(table[6][1] == "0 of 4 sessions lost", "{:?}", table[6]);
        leaves_nothing(&demo, &labs, &before)
    })
}

#[test]
fn an_end_before_its_time_leaves_nothing() -> Result<()> {
    alone("an_end_before_its_time_leaves_nothing", || {
        for (signal, step, code) in [
            (Signal::SIGINT, "== 4.", Some(130)),
            // Nothing can be done then by the demo itself.
            (Signal::SIGKILL, "== 3.", None),
        ] {
            let before = Machine::now();
            let mut demo = Demo::start()?;
            demo.read_to(step)?;
            let labs = demo.labs();
            ensure!(labs.len() == 2, "the demo has {} labs", labs.len());
            kill(demo.pid, signal)?;
            let status = demo.end()?;
            ensure!(status.code() == code, "{signal}: {status}");
            leaves_nothing(&demo, &labs, &before).with_context(|| format!("after {signal}"))?;
        }
        Ok(())
    })
}
