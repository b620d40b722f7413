//! Runs a program of the administrator's: as the proxy's user, without any capability, descriptor or
//! environment of ours, and with all that it has started ended before its end counts.

use std::{
    io,
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use crate::{
    agent::child::describe,
    sys::{
        spawn::{Process, Rights},
        users::Identity,
    },
};

/// What of its output is quoted.
const QUOTED: usize = 200;
/// What it finds of the environment.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that runs. Dropped, it is killed.
#[derive(Debug)]
struct Run(Process);

impl Drop for Run {
    fn drop(&mut self) {
        // Before the leader is reaped, whose number is the group's.
        self.0.kill_group();
        self.0.kill_and_reap();
    }
}

/// Runs `program` as `user`; success if it ends with 0.
///
/// # Errors
/// What is wrong, in words.
pub(super) async fn run(program: &Path, user: Identity) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start {}: {error}", program.display());
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut output = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .process_group(0);
    let rights = Rights {
        user: Some(user),
        keep: Vec::new(),
        is_expendable: true,
        is_guest: true,
    };
    let mut run = Run(Process::start(command, &rights).map_err(failed)?);
    let end = run.0.end_signal().map_err(failed)?;
    let mut said = Vec::new();
    tokio::select! {
        () = end.wait() => {}
        () = collect(&mut output, &mut said) => end.wait().await,
    }
    run.0.kill_group();
    let status = run.0.ended().map_err(failed)?;
    // What it wrote last may not have been read yet.
    let mut rest = [0; QUOTED];
    if let Ok(length) = output.try_read(&mut rest) {
        said.extend(rest.get(..length).unwrap_or(&[]));
    }
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{}{}", describe(status), quote(&said))),
        None => Err("cannot tell how it ended".to_owned()),
    }
}

/// Reads to the end, and keeps the beginning: a program that writes much must not wait for a reader.
async fn collect(output: &mut Receiver, said: &mut Vec<u8>) {
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut part).await {
        let room = QUOTED.saturating_sub(said.len());
        said.extend(part.get(..length.min(room)).unwrap_or(&[]));
    }
}

/// The first line of what it said, fit for a sentence.
fn quote(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let plain = |line: &str| -> String {
        let shown = line.chars().filter(|c| !c.is_control());
        shown.take(QUOTED).collect()
    };
    line.map_or_else(String::new, |line| format!(": {}", plain(line)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::sys::{temporary::Directory, users};

    const NOBODY: Identity = Identity {
        uid: 65534,
        gid: 65534,
    };

    fn script(directory: &Directory, text: &str) -> PathBuf {
        // For a user that is not ours.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let written = directory.path().join("written");
        fs::write(&written, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).unwrap();
        // A process that another test starts meanwhile has what is written here open, and what is open for writing
        // cannot be executed (ETXTBSY of execve(2)).
        let path = directory.path().join("check");
        let copied = Command::new("cp").args([&written, &path]).status();
        assert!(copied.unwrap().success());
        path
    }

    /// `None`: this is not root.
    fn outcome(text: &str) -> Option<Result<(), String>> {
        if users::effective_uid() != 0 {
            println!("SKIPPED: needs root to become another user");
            return None;
        }
        let directory = Directory::new();
        let path = script(&directory, text);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        Some(runtime.block_on(run(&path, NOBODY)))
    }

    #[test]
    fn its_status_decides_and_its_first_words_tell_why() {
        let Some(passed) = outcome("echo fine; exit 0") else {
            return;
        };
        assert_eq!(passed, Ok(()));
        let failed = outcome("echo; echo 'no route' >&2; echo more; exit 3").unwrap();
        assert_eq!(failed, Err("ended with code 3: no route".to_owned()));
        let killed = outcome("kill -9 $$").unwrap();
        assert_eq!(killed, Err("was ended by signal 9".to_owned()));
        // Processes of ours do not hear this one.
        let stopped = outcome("kill -TERM $$; sleep 5").unwrap();
        assert_eq!(stopped, Err("was ended by signal 15".to_owned()));
    }

    /// A pipe has room for 64 KiB.
    #[test]
    fn one_that_writes_much_does_not_wait_for_a_reader() {
        let Some(failed) = outcome("head -c 300000 /dev/zero | tr '\\0' x; exit 1") else {
            return;
        };
        let failed = failed.unwrap_err();
        assert!(failed.starts_with("ended with code 1: xxx"), "{failed}");
        assert!(failed.len() < 2 * QUOTED);
    }

    #[test]
    fn it_has_no_right_no_environment_and_no_descriptor_of_ours() {
        let facts = "\
            echo user $(id -u) $(id -G); \
            grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | tr -d '0\\t'; \
            grep NoNewPrivs /proc/self/status; \
            env | cut -d= -f1 | grep -v -E '^(PWD|_|SHLVL|OLDPWD)$'; \
            for fd in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$fd ] || echo fd $fd; done; \
            pwd";
        let text = format!("({facts}) | tr '\\n\\t' ' '; exit 1");
        let open = fs::File::open("/dev/null").unwrap();
        // Unlike the first one, for whoever we start.
        let inherited = nix::unistd::dup(&open).unwrap();
        let Some(failed) = outcome(&text) else { return };
        drop(inherited);
        assert_eq!(
            failed.unwrap_err(),
            "ended with code 1: user 65534 65534 CapInh: CapPrm: CapEff: CapBnd: CapAmb: \
             NoNewPrivs: 1 PATH /"
        );
    }

    /// What it has started goes with it, when it has ended and when it takes too long.
    #[test]
    fn nothing_of_it_is_left() {
        if users::effective_uid() != 0 {
            println!("SKIPPED: needs root to become another user");
            return;
        }
        let directory = Directory::new();
        let pids = directory.path().join("pids");
        fs::write(&pids, "").unwrap();
        fs::set_permissions(&pids, fs::Permissions::from_mode(0o666)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        for (end, times_out) in [("exit 0", false), ("sleep 1000", true)] {
            let text = format!("sleep 1000 & echo $! > {}; {end}", pids.display());
            let path = script(&directory, &text);
            let began = Instant::now();
            runtime.block_on(async {
                let running = run(&path, NOBODY);
                let most = Duration::from_secs(if times_out { 1 } else { 30 });
                let outcome = tokio::time::timeout(most, running).await;
                assert_eq!(outcome.is_err(), times_out);
            });
            assert!(began.elapsed() < Duration::from_secs(20));
            let pid = fs::read_to_string(&pids).unwrap();
            let status = format!("/proc/{}/status", pid.trim());
            let lives = || {
                let status = fs::read_to_string(&status).unwrap_or_default();
                status.contains("sleep") && !status.contains("State:\tZ")
            };
            while lives() {
                assert!(began.elapsed() < Duration::from_secs(20), "{end}: it lives");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
