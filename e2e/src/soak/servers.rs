//! The echo servers of the soak: node with `ws`, one on each backend host.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::lab::{Host, Lab, Process};
use crate::testing::{Endpoint, inside};
use crate::{tools, wait};

/// Their port, beside that of the article's servers, which idle.
const PORT: u16 = 8011;

/// The servers in the order of their hosts.
#[derive(Debug)]
pub(super) struct Servers(Vec<Process>);

impl Servers {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let spawned = lab.backends().iter().map(spawn);
        let servers = Self(spawned.collect::<Result<_>>()?);
        for index in 0..servers.0.len() {
            servers.listens(lab, index)?;
        }
        Ok(servers)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        self.0[index].signal(signal)
    }

    /// Starts one again that was ended.
    pub(super) fn restart(&mut self, lab: &Lab, index: usize) -> Result<()> {
        self.0[index].wait(Duration::from_secs(30))?;
        self.0[index] = spawn(&lab.backends()[index])?;
        self.listens(lab, index)
    }

    fn listens(&self, lab: &Lab, index: usize) -> Result<()> {
        let (host, process) = (&lab.backends()[index], &self.0[index]);
        wait::until("an echo server to listen", Duration::from_mins(1), || {
            if !process.is_running() {
                bail!("the echo server ended: {}", process.log_tail());
            }
            let connected = inside(host, || {
                Ok(TcpStream::connect((host.address(), PORT)).is_ok())
            })?;
            Ok(connected.then_some(()))
        })
    }
}

fn spawn(host: &Host) -> Result<Process> {
    let mut node = Command::new("node");
    node.arg(tools::backend_dir().join("echo.js"))
        .arg("serve")
        .arg(host.address().to_string())
        .arg(PORT.to_string());
    node.env("NODE_PATH", tools::install_backend()?);
    host.spawn("echo", node)
}

/// The endpoint of the server on the host with this address.
pub(super) fn endpoint(address: Ipv4Addr) -> Endpoint {
    Endpoint {
        address,
        port: PORT,
        weight: 1,
    }
}
