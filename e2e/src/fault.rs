//! Faults that hit a gateway, and what an administrator does about them.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::ballast;
use crate::lab::{Host, kill_at_once};
use crate::subject::{Gateways, Subject};

const GIB: u64 = 1 << 30;

/// Something that happens to a gateway.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, clap::ValueEnum, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9 of what faces the clients: nginx with its workers, wsha's proxy.
    ProxyKilled,
    /// The same with a gigabyte resident, which the kernel tears down before it closes anything.
    #[value(name = "proxy-killed-1gib")]
    #[serde(rename = "proxy-killed-1gib")]
    ProxyKilledLarge,
    /// kill -9 of what owns the addresses: keepalived, wsha's vrrp.
    VrrpKilled,
    /// SIGTERM to keepalived, or to wsha's agent.
    OrderlyStop,
    /// The switch drops all the host sends and is sent; the carrier stays.
    HostSilent,
    /// SIGSTOP of every process; the kernel goes on.
    HostFrozen,
    /// The link goes down at the host's end.
    LinkCutAtHost,
    /// The link goes down at the switch's end.
    LinkCutAtSwitch,
}

impl Fault {
    /// All faults, in the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::ProxyKilled,
        Self::ProxyKilledLarge,
        Self::VrrpKilled,
        Self::OrderlyStop,
        Self::HostSilent,
        Self::HostFrozen,
        Self::LinkCutAtHost,
        Self::LinkCutAtSwitch,
    ];

    /// Whether the other gateway is expected to take over. wsha's vrrp comes back before its peer misses it.
    pub fn moves_address(self, subject: Subject) -> bool {
        !(self == Self::VrrpKilled && subject == Subject::Wsha)
    }

    /// Whether the other gateway learns of it by missing advertisements, and by nothing else.
    pub fn is_silence(self) -> bool {
        match self {
            Self::HostSilent | Self::HostFrozen | Self::LinkCutAtHost | Self::LinkCutAtSwitch => {
                true
            }
            Self::ProxyKilled | Self::ProxyKilledLarge | Self::VrrpKilled | Self::OrderlyStop => {
                false
            }
        }
    }

    /// Whether the host loses its carrier, and can notice that itself.
    pub fn is_noticed_by_host(self) -> bool {
        self == Self::LinkCutAtSwitch
    }

    /// What must be so before it happens. Whoever is cut off by this alone is served again when it returns.
    pub fn prepare(self, gateways: &Gateways<'_>, host: &Host) -> Result<()> {
        if self != Self::ProxyKilledLarge {
            return Ok(());
        }
        ballast::load(&gateways.serving_processes(host), GIB)
    }

    /// Makes it happen.
    pub fn strike(self, gateways: &mut Gateways<'_>, host: &Host) -> Result<()> {
        let victims = match self {
            Self::ProxyKilled | Self::ProxyKilledLarge => gateways.proxy_processes(host),
            Self::VrrpKilled => gateways.vrrp_processes(host),
            Self::OrderlyStop => return gateways.stop_in_order(host),
            Self::HostSilent => return host.silence(),
            Self::HostFrozen => {
                host.freeze();
                return Ok(());
            }
            Self::LinkCutAtHost => return host.link_down(),
            Self::LinkCutAtSwitch => return host.cable_cut(),
        };
        if victims.is_empty() {
            bail!("{self}: nothing to kill on {}", host.name());
        }
        kill_at_once(&victims);
        Ok(())
    }

    /// Undoes it, as far as the subject does not do so itself.
    pub fn heal(self, gateways: &mut Gateways<'_>, host: &Host) -> Result<()> {
        match self {
            // wsha restarts what died itself.
            Self::ProxyKilled | Self::ProxyKilledLarge | Self::VrrpKilled => {
                match gateways.subject() {
                    Subject::Wsha => Ok(()),
                    Subject::Article | Subject::Best => gateways.start_host(host),
                }
            }
            Self::OrderlyStop => {
                gateways.wait_stopped(host, Duration::from_secs(15))?;
                gateways.start_host(host)
            }
            Self::HostSilent => host.unsilence(),
            Self::HostFrozen => {
                host.thaw();
                Ok(())
            }
            Self::LinkCutAtHost => host.link_up(),
            Self::LinkCutAtSwitch => host.cable_mended(),
        }
    }

    /// Whether the subject holds the fault against the host: wsha's proxy must accept for 3 s before the host
    /// preempts, and for twice as long with each further death. [`Gateways::restart_host`] has it forget.
    pub fn is_remembered(self, subject: Subject) -> bool {
        matches!(self, Self::ProxyKilled | Self::ProxyKilledLarge) && subject == Subject::Wsha
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxyKilled => "proxy killed",
            Self::ProxyKilledLarge => "proxy killed, 1 GiB",
            Self::VrrpKilled => "VRRP daemon killed",
            Self::OrderlyStop => "orderly stop",
            Self::HostSilent => "host silent",
            Self::HostFrozen => "host frozen",
            Self::LinkCutAtHost => "link cut, host side",
            Self::LinkCutAtSwitch => "link cut, switch side",
        })
    }
}
