//! Memory for a process that knows nothing of it: resident like its own, and torn down with it.
//!
//! The process is stopped for a moment by ptrace(2) and made to call mmap(2), so any program can be measured as it is
//! released, and none needs a door for it. Only the first thread is stopped; the others run on.

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;

use crate::cost;

/// Has `pids` together hold `bytes` more of resident memory, each its share.
pub fn load(pids: &[Pid], bytes: u64) -> Result<()> {
    let Some(share) = bytes.checked_div(pids.len() as u64) else {
        bail!("there is no process to hold memory");
    };
    for pid in pids {
        let before = cost::resident(&[*pid])?;
        tracee::map(*pid, share)
            .with_context(|| format!("cannot have process {pid} hold {share} bytes"))?;
        let gained = cost::resident(&[*pid])?.saturating_sub(before);
        // A page or so may have gone meanwhile.
        ensure!(
            gained >= share / 100 * 99,
            "process {pid} holds only {gained} of {share} bytes"
        );
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod tracee {
    use std::thread;
    use std::time::Duration;

    use anyhow::{Context, Result, bail};
    use nix::errno::Errno;
    use nix::libc::user_regs_struct;
    use nix::sys::ptrace::{self, AddressType, Options};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// mmap(2), and what it is given here: pages to read and write, nobody else's, resident at once.
    const MMAP: u64 = 9;
    const READ_WRITE: u64 = 0x1 | 0x2;
    const PRIVATE_ANONYMOUS_POPULATE: u64 = 0x2 | 0x20 | 0x8000;
    /// The `syscall` instruction, as it is read from memory.
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    /// No call holds the process for longer than so much takes: its other threads may be waiting for the memory map.
    const STEP: u64 = 64 << 20;
    /// So often is it looked for in a call.
    const ATTEMPTS: u32 = 100;

    /// Maps `bytes` into the process.
    pub(super) fn map(pid: Pid, bytes: u64) -> Result<()> {
        ptrace::seize(pid, Options::empty()).context("cannot trace it")?;
        let mapped = stop_in_call(pid).and_then(|found| map_in_steps(pid, found, bytes));
        let freed = ptrace::detach(pid, None).context("cannot let it go on");
        mapped.and(freed)
    }

    /// Stops it while it waits in a system call, as it does nearly always; returns its registers.
    fn stop_in_call(pid: Pid) -> Result<user_regs_struct> {
        for _ in 0..ATTEMPTS {
            ptrace::interrupt(pid).context("cannot stop it")?;
            stopped(pid)?;
            let found = ptrace::getregs(pid)?;
            let word = ptrace::read(pid, instruction(&found) as AddressType)?;
            if word.to_le_bytes().starts_with(&SYSCALL) {
                return Ok(found);
            }
            ptrace::cont(pid, None)?;
            thread::sleep(Duration::from_millis(1));
        }
        // It can be let go of only where it stands.
        ptrace::interrupt(pid)?;
        stopped(pid)?;
        bail!("it never waits in a system call")
    }

    /// The instruction of the call that it waits in: it stands behind it.
    fn instruction(found: &user_regs_struct) -> u64 {
        found.rip.wrapping_sub(SYSCALL.len() as u64)
    }

    fn stopped(pid: Pid) -> Result<()> {
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)) => return Ok(()),
                Ok(other) => bail!("it did not stop: {other:?}"),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for it to stop"),
            }
        }
    }

    fn map_in_steps(pid: Pid, found: user_regs_struct, bytes: u64) -> Result<()> {
        let mut left = bytes;
        let mut outcome = Ok(());
        while left > 0 && outcome.is_ok() {
            let step = left.min(STEP);
            let mut call = found;
            call.rip = instruction(&found);
            // Of the call that was interrupted nothing is to be done again yet.
            call.orig_rax = u64::MAX;
            (call.rax, call.rdi, call.rsi, call.rdx) = (MMAP, 0, step, READ_WRITE);
            (call.r10, call.r8, call.r9) = (PRIVATE_ANONYMOUS_POPULATE, u64::MAX, 0);
            outcome = one_call(pid, call);
            left -= step;
        }
        // With its own registers it takes its own call up again.
        ptrace::setregs(pid, found)?;
        outcome
    }

    fn one_call(pid: Pid, call: user_regs_struct) -> Result<()> {
        ptrace::setregs(pid, call)?;
        ptrace::step(pid, None)?;
        stopped(pid)?;
        let result = ptrace::getregs(pid)?.rax.cast_signed();
        if (-4095..0).contains(&result) {
            let errno = Errno::from_raw(i32::try_from(-result).unwrap_or_default());
            return Err(errno).context("mmap");
        }
        Ok(())
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod tracee {
    use anyhow::{Result, bail};
    use nix::unistd::Pid;

    pub(super) fn map(_: Pid, _: u64) -> Result<()> {
        bail!("registers are known of x86_64 alone")
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The process neither notices nor loses anything: its call goes on to its end.
    #[test]
    fn a_process_holds_what_it_was_given_and_goes_on() {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        crate::wait::until(
            "cat to wait for its input",
            std::time::Duration::from_secs(10),
            || {
                let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"))?;
                Ok(call.starts_with("0 ").then_some(()))
            },
        )
        .unwrap();
        load(&[pid], 32 << 20).unwrap();
        assert!(cost::resident(&[pid]).unwrap() >= 32 << 20);
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"still here").unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"still here");
        assert!(output.status.success());
        assert!(load(&[], 1).is_err());
    }
}
