//! Probes of an agent that serves nothing: one that waits for another to stop, or that was followed.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    agent::link::STACK,
    ipc::{Hello, ProbeAnswer, WAITING_SOCKET},
    sys::{channel::Channel, listen, users},
};

/// Whoever connects says hello at once and reads the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers for as long as it is kept.
#[derive(Debug)]
pub(super) struct Waiting {
    path: PathBuf,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Begins to answer in `run_dir`: alive, and not ready for the reason `why`.
    pub(super) fn begin(run_dir: &Path, why: String) -> io::Result<Self> {
        let path = run_dir.join(WAITING_SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let accepting = listener.try_clone()?;
        let thread = thread::Builder::new()
            .name("waiting".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok((stream, _)) = accepting.accept() {
                    if let Err(error) = answer(stream, &why) {
                        tracing::debug!(%error, "a probe was not answered");
                    }
                }
            })?;
        Ok(Self {
            path,
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Not there any more is what we want.
        drop(fs::remove_file(&self.path));
        listen::shut(&self.listener);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(stream: UnixStream, why: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let channel = Channel::new(stream, PATIENCE)?;
    let uid = channel.peer()?.uid;
    if uid != users::effective_uid() && uid != 0 {
        return Ok(());
    }
    if let Some((Hello::Probe { ready }, _)) = channel.receive::<Hello>()? {
        let problems = if ready {
            vec![why.to_owned()]
        } else {
            Vec::new()
        };
        channel.send(&ProbeAnswer { problems }, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::probe::ask, sys::temporary::Directory};

    #[test]
    fn it_lives_and_is_not_ready() {
        let directory = Directory::new();
        let path = directory.path();
        let problems = |ready| ask(path, ready).unwrap().problems;
        // One that was killed left its socket behind.
        drop(UnixListener::bind(path.join(WAITING_SOCKET)).unwrap());
        assert!(ask(path, false).is_err());
        for why in ["first", "second"] {
            let waiting = Waiting::begin(path, why.to_owned()).unwrap();
            // A caller that says nothing holds the next one up for a moment only.
            let _mute = UnixStream::connect(path.join(WAITING_SOCKET)).unwrap();
            assert!(problems(false).is_empty());
            assert_eq!(problems(true), [why]);
            drop(waiting);
            assert!(!path.join(WAITING_SOCKET).exists());
        }
    }
}
