//! `wsha-dataplane status`: asks the running agent and prints.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    agent::{
        locks::{self, Holder},
        table,
    },
    cli::{OutputFormat, StatusArgs},
    ipc::{Answer, Hello},
    sys::{channel::Channel, clock},
};

/// The agent answers within 500 ms whatever the other processes do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the state of the agent's node on standard output.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let report = ask(&args.state_dir)?.report;
    let text = match args.output {
        OutputFormat::Json => serde_json::to_string_pretty(&report)? + "\n",
        OutputFormat::Table => table::render(&report, clock::now_unix_ms()),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // `status | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print the state"),
    }
}

/// The state of the node of the agent that runs with this state directory.
pub(crate) fn ask(directory: &Path) -> anyhow::Result<Answer> {
    let state_dir = directory.display();
    let holder: Holder = match locks::holder_of(directory) {
        Ok(holder) => holder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "no agent ever ran with state directory {state_dir}; give the one that `run` was \
             started with"
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "only root, or the user whose agent it is, may read state directory {state_dir}; use \
             sudo"
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the lock in {state_dir}"));
        }
    };
    let stream = locks::connect_to_agent(&holder.run_dir).with_context(|| {
        format!(
            "cannot connect to the agent in {}",
            holder.run_dir.display()
        )
    })?;
    let Some(stream) = stream else {
        bail!(
            "no agent runs with state directory {state_dir}; the last was process {} for node {}",
            holder.pid,
            holder.node_name
        )
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let channel = Channel::new(stream, PATIENCE)?;
    let answer = channel
        .send(&Hello::Status, &[])
        .and_then(|()| channel.receive::<Answer>())
        .with_context(|| format!("process {} does not answer", holder.pid))?;
    match answer {
        Some((answer, _)) => Ok(answer),
        None => bail!("process {} stopped before it answered", holder.pid),
    }
}
