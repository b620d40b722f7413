//! Processes on the machine's own network, in a directory that is theirs alone.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::cleanup::{self, TearDown};
use super::host::kill_all;
use super::process::{self, Process};

/// A directory and what was started there. Dropping it ends those processes and removes the directory; a
/// signal does the same, and after `kill -9` the next lab or room sweeps. Needs no root.
#[derive(Debug)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
}

impl Room {
    /// Makes the directory.
    pub fn new() -> Result<Self> {
        let inner = Arc::new(Inner {
            dir: cleanup::lab_dir()?,
        });
        let weak = Arc::downgrade(&inner);
        cleanup::register(weak);
        Ok(Self(inner))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Starts `command` in the directory. Output goes to `NAME.log` there.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.0.dir.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // By this a process is known to be of the room.
            .current_dir(&self.0.dir)
            .process_group(0);
        let _open = cleanup::hold_open()?;
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Process::watch(name, &log, child)
    }

    /// Runs `command` in the directory to its end.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        command.current_dir(&self.0.dir).stdin(Stdio::null());
        command
            .output()
            .with_context(|| format!("cannot run {}", command.get_program().display()))
    }
}

impl TearDown for Inner {
    fn tear_down(&self) {
        let ours = || {
            let mut found = process::holding(&self.dir);
            // A thread of ours may be reading a log.
            found.retain(|pid| *pid != nix::unistd::getpid());
            found
        };
        if let Err(error) = kill_all(ours) {
            eprintln!("room: {error:#}");
        }
        if let Err(error) = cleanup::remove(&self.dir) {
            eprintln!("room: cannot remove {}: {error:#}", self.dir.display());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tear_down();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_runs_in_a_room_ends_with_it() {
        let room = Room::new().unwrap();
        let dir = room.dir().to_owned();
        // The shell's own child would outlive a shell that is killed alone.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        let process = room.spawn("sleeper", command).unwrap();
        assert!(process.is_running());
        drop(room);
        assert!(process.wait(Duration::from_secs(10)).is_ok());
        assert!(process::holding(&dir).is_empty());
        assert!(!dir.exists());
    }
}
