//! `wsha-dataplane probe`: for the kubelet, which runs it in the pod.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use anyhow::{Context, bail};

use crate::{
    cli::{ProbeArgs, Probed},
    ipc::{AGENT_SOCKET, Hello, ProbeAnswer, WAITING_SOCKET},
    sys::channel::Channel,
};

/// The agent answers within 500 ms whatever the other processes do.
const PATIENCE: Duration = Duration::from_secs(3);

/// Succeeds if all is well; else says what is not.
///
/// # Errors
/// What is not well, or why there is no answer.
pub fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let ready = args.what == Probed::Ready;
    let ProbeAnswer { problems } = ask(&args.run_dir, ready)?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!("not ready: {}", problems.join("; "))
}

/// Asks whoever answers in the run directory: the agent that serves the node, or one that waits.
pub(super) fn ask(run_dir: &Path, ready: bool) -> anyhow::Result<ProbeAnswer> {
    let stream = connect(run_dir)
        .with_context(|| format!("no agent answers in run directory {}", run_dir.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let channel = Channel::new(stream, PATIENCE)?;
    let answer = channel
        .send(&Hello::Probe { ready }, &[])
        .and_then(|()| channel.receive::<ProbeAnswer>())
        .with_context(|| format!("the agent did not answer within {} s", PATIENCE.as_secs()))?;
    let (answer, _) = answer.context("the agent ended before it answered")?;
    Ok(answer)
}

fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(run_dir.join(AGENT_SOCKET))
        .or_else(|_| UnixStream::connect(run_dir.join(WAITING_SOCKET)))
}
