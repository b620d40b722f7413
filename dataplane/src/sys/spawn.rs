//! Starts the other processes with no more rights than they need.

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

use crate::sys::{
    limits, privileges, signals,
    users::{Capability, Identity},
};

/// Highest number a capability may have in the kernel's interface.
const LAST_CAPABILITY: u8 = 63;

/// This program in another role. Not the path of its file, which an upgrade may have replaced: the
/// same release.
pub fn this_program(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("wsha-dataplane")
        .arg(role)
        .stdin(Stdio::null());
    command
}

/// What a process may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// The user it becomes; `None`: stays ours.
    pub user: Option<Identity>,
    /// Capabilities it keeps; a process of another user keeps none.
    pub keep: Vec<Capability>,
    /// Whether it is the one to end when memory runs out, rather than us (`oom_score_adj`).
    pub is_expendable: bool,
    /// Whether it is a program of somebody else's: it finds signals as programs expect them and no
    /// descriptor of ours, and ends with the thread that started it.
    pub is_guest: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
}

/// To wait for the end of a process.
#[derive(Debug)]
pub struct EndSignal(AsyncFd<OwnedFd>);

impl EndSignal {
    /// Waits for it; if the kernel cannot tell, returns at once.
    pub async fn wait(&self) {
        drop(self.0.readable().await);
    }
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// What `fork`, `exec` or one of the steps between says; a process that could not give up its
    /// rights does not start.
    pub fn start(mut command: Command, rights: &Rights) -> io::Result<Self> {
        let (user, is_expendable) = (rights.user, rights.is_expendable);
        let is_guest = rights.is_guest;
        let keep = if user.is_some() {
            0
        } else {
            rights.keep.iter().fold(0, |bits, cap| bits | cap.bit())
        };
        // SAFETY: between fork and exec only system calls are made, on values made before: no
        // memory is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                restrict(user, keep, is_expendable)?;
                if is_guest {
                    receive_guest()
                } else {
                    Ok(signals::ignore_stop()?)
                }
            })
        };
        let child = command.spawn()?;
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        // SAFETY: plain system call; the process is our child and not reaped yet, so the number
        // is still its own.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let raw = RawFd::try_from(raw).unwrap_or(-1);
        if raw < 0 {
            let error = io::Error::last_os_error();
            let mut child = child;
            drop(child.kill());
            drop(child.wait());
            return Err(error);
        }
        // SAFETY: just opened, and nobody else knows it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { child, pidfd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// To wait for its end. Call it on a tokio runtime.
    pub fn end_signal(&self) -> io::Result<EndSignal> {
        let pidfd = self.pidfd.try_clone()?;
        // SAFETY: an `OwnedFd` stays open, and the same, for its life.
        Ok(EndSignal(unsafe { AsyncFd::register(pidfd) }?))
    }

    /// How it ended; `None`: it lives. Reaps it.
    pub fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it (`SIGKILL`); success if it has ended already.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Kills the group that it leads, which was to be asked for before its start. Its number is its own
    /// until it is reaped.
    pub fn kill_group(&self) {
        if let Ok(leader) = libc::pid_t::try_from(self.pid()) {
            // Nobody left to kill is as good.
            killpg(Pid::from_raw(leader), Signal::SIGKILL).ok();
        }
    }

    /// Kills it and waits for its end.
    pub fn kill_and_reap(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Becomes this program again, with other arguments: the same process, and nothing that it had open.
/// Signals that the calling thread holds back stay so. Returns only if that fails.
pub fn become_again(arguments: &[OsString]) -> io::Error {
    let name = OsString::from("wsha-dataplane");
    let arguments: Result<Vec<_>, _> = std::iter::once(&name)
        .chain(arguments)
        .map(|argument| CString::new(argument.as_bytes()))
        .collect();
    match arguments {
        // Not the path of the file, which an upgrade may have replaced: the same release.
        Ok(arguments) => match nix::unistd::execv(c"/proc/self/exe", &arguments) {
            Err(error) => error.into(),
        },
        Err(error) => error.into(),
    }
}

/// Names this process (`/proc/self/comm`), which `ps` and `pgrep` show.
pub fn name_process(name: &std::ffi::CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a valid C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Runs in the child between fork and exec: system calls only.
fn restrict(user: Option<Identity>, keep: u64, is_expendable: bool) -> io::Result<()> {
    // Best effort: what either is for works less well without.
    limits::raise_open_files();
    drop(limits::forbid_core_dumps());
    if is_expendable {
        offer_to_oom_killer();
    }
    // The bounding set first: it takes a right that is gone afterwards. Best effort, since a
    // process without `CAP_SETPCAP` may not; what it may do is bounded by the steps below anyway.
    for number in (0..=LAST_CAPABILITY).filter(|number| keep & (1 << number) == 0) {
        // SAFETY: plain system call with numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    }
    if let Some(Identity { uid, gid }) = user {
        // SAFETY: plain system calls; an empty list needs no pointer.
        unsafe {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
        }
        // Becoming another user takes root's capabilities already; this takes those of an agent
        // that is not root.
        privileges::clear_capabilities()?;
    }
    // SAFETY: plain system call with numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// The same for a program of somebody else's, as the last step: the kernel forgets the signal of the
/// parent's end when the user changes (`prctl(2)`).
fn receive_guest() -> io::Result<()> {
    // SAFETY: plain system calls with numbers. Descriptors stay open until exec, for std's own.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        let on_exec = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, 3, u32::MAX, on_exec))
    }
}

/// Above ordinary processes, and far above agent and vrrp as the unit has them (-900). Best effort:
/// to raise it needs no right.
fn offer_to_oom_killer() {
    const SCORE: &[u8] = b"100";
    // SAFETY: system calls on a C string and a buffer that live for ever, and on the descriptor that
    // was just opened.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if fd >= 0 {
            libc::write(fd, SCORE.as_ptr().cast(), SCORE.len());
            libc::close(fd);
        }
    }
}

fn check(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Stdio};

    use super::*;
    use crate::sys::users;

    fn status_of(rights: &Rights) -> Option<String> {
        if users::effective_uid() != 0 {
            println!("SKIPPED: needs root to become another user");
            return None;
        }
        let mut command = Command::new("/bin/cat");
        command.arg("/proc/self/status").stdout(Stdio::piped());
        let mut process = Process::start(command, rights).unwrap();
        let mut text = String::new();
        let mut output = process.child.stdout.take().unwrap();
        output.read_to_string(&mut text).unwrap();
        assert!(process.child.wait().unwrap().success());
        Some(text)
    }

    fn field<'a>(status: &'a str, name: &str) -> &'a str {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim()
    }

    #[test]
    fn the_proxy_has_no_right_at_all() {
        let user = Identity {
            uid: 65534,
            gid: 65534,
        };
        let rights = Rights {
            user: Some(user),
            keep: vec![users::NET_ADMIN],
            is_expendable: true,
            is_guest: false,
        };
        let Some(status) = status_of(&rights) else {
            return;
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(field(&status, "Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(field(&status, "Gid"), "65534\t65534\t65534\t65534");
        assert_eq!(field(&status, "Groups"), "");
    }

    #[test]
    fn vrrp_keeps_what_it_needs_and_no_more() {
        let rights = Rights {
            user: None,
            keep: vec![users::NET_ADMIN, users::NET_RAW],
            is_expendable: false,
            is_guest: false,
        };
        let Some(status) = status_of(&rights) else {
            return;
        };
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(&status, set), "0000000000003000", "{set}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
    }

    #[test]
    fn the_process_that_may_go_is_the_one_that_runs_out_of_memory() {
        let score = |is_expendable| {
            let mut command = Command::new("/bin/cat");
            command
                .arg("/proc/self/oom_score_adj")
                .stdout(Stdio::piped());
            let rights = Rights {
                user: None,
                keep: Vec::new(),
                is_expendable,
                is_guest: false,
            };
            let process = Process::start(command, &rights).unwrap();
            let output = process.child.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let ours = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(score(false), ours);
        assert_eq!(score(true), "100\n");
    }

    #[test]
    fn a_killed_process_is_reaped() {
        let mut command = Command::new("/bin/cat");
        command.stdin(Stdio::piped());
        let rights = Rights {
            user: None,
            keep: Vec::new(),
            is_expendable: false,
            is_guest: false,
        };
        let mut process = Process::start(command, &rights).unwrap();
        assert!(process.ended().unwrap().is_none());
        process.kill_and_reap();
        let status = process.ended().unwrap().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}
