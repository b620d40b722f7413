//! A host that has too little of something.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use super::super::cgroup;
use super::Host;

impl Host {
    /// Gives `processes` together so many hundredths of one core, in slices of 100 ms. Real-time threads are exempt.
    pub fn slow(&self, processes: &[Pid], hundredths: u32) -> Result<()> {
        let name = self.cgroup();
        cgroup::create(&name)?;
        cgroup::limit_cpu(&name, hundredths, processes)
    }

    /// In how many slices the processes of [`Self::slow`] had to wait for the next one.
    pub fn throttled(&self) -> Result<u64> {
        cgroup::throttled(&self.cgroup())
    }

    /// Puts a disk of `kibibytes` at `dir`, until [`Self::power_off`].
    pub fn small_disk(&self, dir: &Path, kibibytes: u32) -> Result<()> {
        fs::create_dir_all(dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "disk"]);
        mount.arg(dir);
        self.run_to_end(mount).map(drop)
    }

    /// Fills the disk at `dir` with the file `name`, to the last byte.
    pub fn fill_disk(&self, dir: &Path, name: &str) -> Result<()> {
        let mut write = Command::new("dd");
        write.arg("if=/dev/zero").arg("bs=4096");
        write.arg(format!("of={}", dir.join(name).display()));
        // It ends when nothing is left, and says so.
        let output = self.output(write)?;
        let told = String::from_utf8_lossy(&output.stderr);
        if !told.contains("No space left") {
            bail!("{} is not full: {told}", dir.display());
        }
        Ok(())
    }

    /// Removes what is at `path`, with all that is in it.
    pub fn remove(&self, path: &Path) -> Result<()> {
        let mut remove = Command::new("rm");
        remove.arg("-rf").arg(path);
        self.run_to_end(remove).map(drop)
    }

    fn run_to_end(&self, command: Command) -> Result<String> {
        let line = format!("{command:?}");
        let output = self.output(command)?;
        if !output.status.success() {
            bail!(
                "{line} on {}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("not UTF-8")
    }
}
