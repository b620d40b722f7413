//! What the roles ask of whoever shares the virtual router with wsha.

use std::net::IpAddr;

use anyhow::{Result, bail};
use e2e::lab::{Host, MacAddr, Process};
use e2e::testing::{Cluster, SETTLE};
use e2e::wait;

use crate::group::Group;

/// A state that the peer tells of in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Active,
    Backup,
}

/// Another implementation, at work on server2.
pub(crate) trait Peer: Sized {
    /// Its name.
    const NAME: &'static str;
    /// The gateways whose interface shows the shared address while the peer is Active.
    const HOLDERS: &'static [&'static str] = &["server2"];

    /// Starts it, with a log of its own.
    fn start(cluster: &Cluster, group: Group) -> Result<Self>;

    /// The process that speaks VRRP.
    fn process(&self) -> &Process;

    /// What it logged since its start.
    fn log(&self) -> Result<String>;

    /// How often it entered a state.
    fn entered(&self, role: Role) -> Result<usize>;

    /// Stops it in order, so that it says priority 0; its log.
    fn stop(self) -> Result<String>;

    /// Fails if it found fault with anything it heard.
    fn content(log: &str) -> Result<()>;

    /// The address that it advertises from.
    fn source(host: &Host, group: Group) -> IpAddr {
        group.primary(host)
    }

    /// The hardware address that answers for the shared address while it is Active.
    fn mac(host: &Host, _group: Group) -> MacAddr {
        host.mac()
    }

    /// Waits until it has entered a state so many times.
    fn wait_entered(&self, role: Role, times: usize) -> Result<()> {
        let what = format!("{} to enter {role:?}, time {times}", Self::NAME);
        wait::until(&what, SETTLE, || {
            if !self.process().is_running() {
                bail!("{} ended: {}", Self::NAME, self.process().log_tail());
            }
            Ok((self.entered(role)? == times).then_some(()))
        })
    }
}
