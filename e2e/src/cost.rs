//! What processes cost: CPU time and memory, as the kernel counts them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// CPU time of all threads of `pids` so far, the kernel's work on their behalf included.
///
/// The scheduler's own count, in nanoseconds: the clock ticks of `/proc/PID/stat` are too coarse for an idle
/// process. Threads that have ended are left out.
pub fn cpu_time(pids: &[Pid]) -> Result<Duration> {
    let mut sum = 0;
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            let task = task?.path();
            let file = task.join("schedstat");
            let text = match fs::read_to_string(&file) {
                Err(_) if !task.exists() => continue,
                text => text.with_context(|| format!("cannot read {}", file.display()))?,
            };
            let on_cpu = text.split_whitespace().next().unwrap_or_default();
            sum += on_cpu
                .parse::<u64>()
                .with_context(|| format!("no time in {}", file.display()))?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Resident memory of `pids` in bytes; what several share counts for each.
pub fn resident(pids: &[Pid]) -> Result<u64> {
    pids.iter()
        .map(|pid| kilobytes(&format!("/proc/{pid}/status"), "VmRSS:"))
        .sum()
}

/// Resident memory of `pids` in bytes that is theirs alone: not pages of programs and files, which the kernel can drop.
pub fn anonymous(pids: &[Pid]) -> Result<u64> {
    pids.iter()
        .map(|pid| kilobytes(&format!("/proc/{pid}/status"), "RssAnon:"))
        .sum()
}

/// Resident memory of `pids` in bytes; what several share counts for each in part, so that sums are right.
pub fn proportional(pids: &[Pid]) -> Result<u64> {
    pids.iter()
        .map(|pid| kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .sum()
}

/// The value of a line `NAME VALUE kB`, in bytes.
fn kilobytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.trim().strip_suffix(" kB"));
    let number = number.with_context(|| format!("no {name} in {file}"))?;
    let kilobytes: u64 = number
        .parse()
        .with_context(|| format!("{name} in {file}"))?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::wait;

    #[test]
    fn a_busy_process_costs_time_and_memory() {
        let busy = ["-c", "while :; do :; done"];
        let mut child = Command::new("sh").args(busy).spawn().unwrap();
        let pids = [Pid::from_raw(child.id().cast_signed())];
        let before = cpu_time(&pids).unwrap_or_default();
        let worked = wait::until("CPU time to pass", Duration::from_secs(20), || {
            let spent = cpu_time(&pids)?.saturating_sub(before);
            Ok((spent > Duration::from_millis(20)).then_some(()))
        });
        let memory =
            resident(&pids).and_then(|all| Ok((all, proportional(&pids)?, anonymous(&pids)?)));
        child.kill().unwrap();
        child.wait().unwrap();
        worked.unwrap();
        let (resident, proportional, anonymous) = memory.unwrap();
        assert!(proportional > 0 && proportional <= resident);
        assert!(anonymous > 0 && anonymous <= proportional);
        assert!(cpu_time(&pids).is_err());
    }
}
