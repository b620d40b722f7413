//! A child that outlives this process: it puts right what a `kill -9` leaves behind.
//!
//! The kernel closes the child's standard input when its owner is gone, however that ended. What is
//! owed by then, the owner has written there before; the labs' directory tells the rest.

use std::fmt;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Error, Result, bail, ensure};

use crate::{control, lab, tools};

/// Name of the child's program, which lies beside ours.
const PROGRAM: &str = "lab-keeper";

/// Something owed when the owner is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// The session's autogroup had this nice value.
    Autogroup(i32),
    /// `policy-rc.d` keeps services from starting.
    Policy,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Autogroup(nice) => write!(f, "autogroup {nice}"),
            Self::Policy => f.write_str("policy"),
        }
    }
}

impl FromStr for Duty {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(' ') {
            Some(("autogroup", nice)) => Ok(Self::Autogroup(nice.parse()?)),
            None if text == "policy" => Ok(Self::Policy),
            _ => bail!("no such duty: {text}"),
        }
    }
}

enum State {
    NotStarted,
    /// No program, or it could not be started: the next lab and the next installation clean up.
    None,
    Runs(ChildStdin),
}

static KEEPER: Mutex<State> = Mutex::new(State::NotStarted);

/// Starts the keeper unless it runs.
pub fn start() {
    with(|_| ());
}

/// Has the keeper do `duty` when we are gone.
pub fn remember(duty: Duty) {
    tell("owed", duty);
}

/// We have done `duty` ourselves.
pub fn forget(duty: Duty) {
    tell("done", duty);
}

fn tell(word: &str, duty: Duty) {
    with(|keeper| {
        // A keeper that was killed keeps nothing: then it is as without one.
        writeln!(keeper, "{word} {duty}").ok();
    });
}

fn with(act: impl FnOnce(&mut ChildStdin)) {
    let mut state = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*state, State::NotStarted) {
        *state = spawn().map_or(State::None, State::Runs);
    }
    if let State::Runs(keeper) = &mut *state {
        act(keeper);
    }
}

fn spawn() -> Option<ChildStdin> {
    let program = tools::beside(PROGRAM).ok()?;
    let mut child = Command::new(program)
        .arg(lab::own_name())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C is for us alone, and no working directory is kept busy.
        .process_group(0)
        .current_dir("/")
        .spawn()
        .ok()?;
    child.stdin.take()
}

/// The keeper's work once its input has ended: the owner with this [`lab::own_name`] is gone, and `words` is all
/// that it said.
pub fn settle(owner: &str, words: &str) -> Result<()> {
    let swept = lab::sweep_after(owner).context("cannot sweep the labs");
    for duty in owed(words)? {
        match duty {
            Duty::Autogroup(nice) => {
                ensure!(
                    control::set_autogroup(nice),
                    "cannot give the session's autogroup its nice value {nice} back"
                );
            }
            Duty::Policy => tools::restore_policy()?,
        }
    }
    swept
}

/// What is owed and not done.
fn owed(words: &str) -> Result<Vec<Duty>> {
    let mut owed = Vec::new();
    for line in words.lines() {
        match line.split_once(' ') {
            Some(("owed", duty)) => owed.push(duty.parse()?),
            Some(("done", duty)) => {
                let duty: Duty = duty.parse()?;
                owed.retain(|one| *one != duty);
            }
            _ => bail!("neither owed nor done: {line}"),
        }
    }
    Ok(owed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_and_not_done_is_left() {
        let policy = Duty::Policy;
        let words = format!(
            "owed {}\nowed {policy}\ndone {policy}\n",
            Duty::Autogroup(-5)
        );
        assert_eq!(owed(&words).unwrap(), [Duty::Autogroup(-5)]);
        assert!(owed("owed autogroup").is_err());
        assert!(owed("policy").is_err());
    }
}
