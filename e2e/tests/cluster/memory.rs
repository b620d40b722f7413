//! The memory that a container may have (control groups of version 1, where the kernel ends one process and
//! not all of the container).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

/// Finer than this no limit is sought.
const STEP: u64 = 64 << 10;

/// The control group of a container.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    limit: u64,
}

impl Group {
    /// That of a process, where groups are of version 1.
    pub(crate) fn of(process: Pid) -> Result<Option<Self>> {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let path = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers
                .split(',')
                .any(|one| one == "memory")
                .then_some(path)
        });
        let Some(path) = path else {
            return Ok(None);
        };
        let dir = PathBuf::from(format!("/sys/fs/cgroup/memory{path}"));
        let mut group = Self { dir, limit: 0 };
        group.limit = group.read("memory.limit_in_bytes")?;
        Ok(Some(group))
    }

    fn read(&self, file: &str) -> Result<u64> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path)?;
        text.trim()
            .parse()
            .with_context(|| path.display().to_string())
    }

    fn limit(&self, bytes: u64) -> std::io::Result<()> {
        fs::write(self.dir.join("memory.limit_in_bytes"), bytes.to_string())
    }

    /// Leaves next to nothing beyond what is in use and cannot be given back.
    pub(crate) fn tighten(&self) -> Result<()> {
        let mut limit = self.read("memory.usage_in_bytes")? + STEP;
        self.limit(limit)?;
        while limit > STEP && self.limit(limit - STEP).is_ok() {
            limit -= STEP;
        }
        ensure!(limit < self.limit, "no limit could be set");
        Ok(())
    }

    /// The limit as it was.
    pub(crate) fn loosen(&self) -> Result<()> {
        self.limit(self.limit).context("cannot restore the limit")
    }

    /// How many processes the kernel has killed there for want of memory.
    pub(crate) fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.dir.join("memory.oom_control"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.context("no oom_kill")?.trim().parse()?)
    }
}
