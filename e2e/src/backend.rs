//! The article's application servers: node with `ws` on server3 to server5, and server6 when asked.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::{BACKEND_PORT, Host, Lab, Process};
use crate::{tools, wait};

/// Running application servers.
#[derive(Debug)]
pub struct Backends {
    running: Vec<Process>,
}

impl Backends {
    /// Starts the article's three and waits until they listen.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut backends = Self {
            running: Vec::new(),
        };
        for host in lab.backends().iter().take(3) {
            backends.running.push(spawn(host)?);
        }
        for process in &backends.running {
            listening(process)?;
        }
        Ok(backends)
    }

    /// Starts the fourth, on server6, and waits until it listens.
    pub fn add_fourth(&mut self, lab: &Lab) -> Result<()> {
        let Some(host) = lab.backends().get(3) else {
            bail!("the lab has no fourth backend")
        };
        let process = spawn(host)?;
        listening(&process)?;
        self.running.push(process);
        Ok(())
    }

    /// The servers, in the order of their hosts.
    pub fn processes(&self) -> &[Process] {
        &self.running
    }

    /// Starts server `index` again after its process was ended.
    pub fn restart(&mut self, lab: &Lab, index: usize) -> Result<()> {
        let (Some(host), Some(slot)) = (lab.backends().get(index), self.running.get_mut(index))
        else {
            bail!("no backend {index}")
        };
        *slot = spawn(host)?;
        listening(slot)
    }
}

fn spawn(host: &Host) -> Result<Process> {
    let mut node = Command::new("node");
    node.arg(tools::backend_dir().join("server.js"))
        .arg(host.address().to_string())
        .arg(BACKEND_PORT.to_string());
    node.env("NODE_PATH", tools::install_backend()?);
    host.spawn("backend", node)
}

fn listening(process: &Process) -> Result<()> {
    wait::until("a backend to listen", Duration::from_secs(30), || {
        if !process.is_running() {
            bail!("the backend ended: {}", process.log_tail());
        }
        Ok(process.log_tail().contains("Server started").then_some(()))
    })
}
