//! What can happen to a host's link.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::{APART, BRIDGE, INTERFACE, ip, rtnetlink};
use super::Host;

impl Host {
    /// Takes the interface down at the host's end.
    pub fn link_down(&self) -> Result<()> {
        self.ip(&format!("link set {INTERFACE} down")).map(drop)
    }

    /// Ends a [`Self::link_down`].
    pub fn link_up(&self) -> Result<()> {
        self.ip(&format!("link set {INTERFACE} up")).map(drop)
    }

    /// Takes the link down at the switch's end: the host loses its carrier.
    pub fn cable_cut(&self) -> Result<()> {
        let index = self.index();
        self.lab.switch.run(move || rtnetlink::set(index, false))?
    }

    /// Ends a [`Self::cable_cut`].
    pub fn cable_mended(&self) -> Result<()> {
        let index = self.index();
        self.lab.switch.run(move || rtnetlink::set(index, true))?
    }

    /// The switch drops all that this host sends and is sent; the carrier stays.
    pub fn silence(&self) -> Result<()> {
        self.switch(&format!("link set {} nomaster", self.port()))
    }

    /// Ends a [`Self::silence`], and a [`Self::part`].
    pub fn unsilence(&self) -> Result<()> {
        self.switch(&format!("link set {} master {BRIDGE}", self.port()))
    }

    /// Moves the host to the other part of a network that is cut in two: it reaches those alone that were moved, too.
    pub fn part(&self) -> Result<()> {
        self.switch(&format!("link set {} master {APART}", self.port()))
    }

    /// The switch drops all that this host sends; it hears the others as before.
    pub fn mute(&self) -> Result<()> {
        self.filter(&format!("iifname {} drop", self.port()))
    }

    /// The switch drops all that this host is sent; the others hear it as before.
    pub fn deafen(&self) -> Result<()> {
        self.filter(&format!("oifname {} drop", self.port()))
    }

    /// Ends [`Self::mute`] and [`Self::deafen`].
    pub fn hear_and_speak(&self) -> Result<()> {
        self.nft(&format!("delete table bridge {}", self.port()))
    }

    /// Takes the network card out: the interface is gone with all its addresses.
    pub fn unplug(&self) -> Result<()> {
        self.switch(&format!("link del {}", self.port()))
    }

    fn switch(&self, words: &str) -> Result<()> {
        ip(&self.lab.switch, &[words])
    }

    /// Adds a rule to all that the switch passes on.
    fn filter(&self, rule: &str) -> Result<()> {
        let table = self.port();
        self.nft(&format!(
            "table bridge {table} {{ chain forward {{ type filter hook forward priority 0; {rule}; }}; }}"
        ))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let mut command = Command::new("nft");
        command.arg(rules);
        let output = self.lab.switch.run(move || command.output())?;
        let output = output.context("cannot run nft (package nftables)")?;
        if !output.status.success() {
            bail!(
                "nft {rules}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}
