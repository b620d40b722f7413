//! The cluster that tests use, as the environment says.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::kubectl::Console;
use super::local::{self, Local};
use super::remote::{KUBECONFIG, Remote};
use crate::lab::{VIP_SERVER1, VIP_SERVER2};
use crate::testing::Client;

/// Chooses a provider where no kubeconfig is named.
const PROVIDER: &str = "WSHA_E2E_CLUSTER";
/// Free addresses on the link of a local cluster's nodes.
const ADDRESSES: [Ipv4Addr; 2] = [VIP_SERVER2, VIP_SERVER1];

/// Where a cluster comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Provider {
    /// All of it on this machine.
    Local,
    /// kind makes it.
    Kind,
    /// The user's own, of this kubeconfig.
    Own(PathBuf),
}

/// A cluster at work. What was made for the tests goes when it is dropped.
#[derive(Debug)]
pub enum Cluster {
    /// On this machine; its nodes can be reached and harmed.
    Local(Box<Local>),
    /// Elsewhere.
    Remote(Box<Remote>),
}

impl Provider {
    /// What the environment says: `WSHA_E2E_KUBECONFIG` names a kubeconfig, else `WSHA_E2E_CLUSTER` is
    /// `local`, as without either, or `kind`.
    pub fn chosen() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::of(set(KUBECONFIG), set(PROVIDER).as_deref())
    }

    fn of(kubeconfig: Option<String>, provider: Option<&str>) -> Result<Self> {
        match (kubeconfig, provider) {
            (Some(path), None) => Ok(Self::Own(path.into())),
            (None, None | Some("local")) => Ok(Self::Local),
            (None, Some("kind")) => Ok(Self::Kind),
            (None, Some(other)) => bail!("{PROVIDER} is {other:?}: say local or kind"),
            (Some(_), Some(_)) => bail!("{KUBECONFIG} and {PROVIDER} are both set: unset one"),
        }
    }

    /// Why it cannot run here, if so.
    pub fn cannot_run(&self) -> Option<String> {
        match self {
            Self::Local => local::cannot_run(),
            Self::Kind | Self::Own(_) => None,
        }
    }

    /// Starts it, or finds it.
    pub fn start(self) -> Result<Cluster> {
        Ok(match self {
            Self::Local => Cluster::Local(Box::new(Local::start()?)),
            Self::Kind => Cluster::Remote(Box::new(Remote::kind()?)),
            Self::Own(kubeconfig) => Cluster::Remote(Box::new(Remote::own(kubeconfig)?)),
        })
    }
}

impl Cluster {
    /// Where its administrator sits.
    pub fn console(&self) -> Console<'_> {
        match self {
            Self::Local(local) => local.control_plane().console(),
            Self::Remote(remote) => remote.console(),
        }
    }

    /// Where clients are that reach its gateways from outside.
    pub fn client(&self) -> Client<'_> {
        match self {
            Self::Local(local) => Client::Host(local.client()),
            Self::Remote(_) => Client::Here,
        }
    }

    /// Loads the images of an archive wherever pods may run.
    pub fn load(&self, archive: &Path) -> Result<()> {
        match self {
            Self::Local(local) => local.load(archive),
            Self::Remote(remote) => remote.load(archive),
        }
    }

    /// The registry that it gets images from, if it gets any.
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => remote.registry(),
        }
    }

    /// Two free addresses on the link of its gateways.
    pub fn addresses(&self) -> [Ipv4Addr; 2] {
        match self {
            Self::Local(_) => ADDRESSES,
            Self::Remote(remote) => remote.addresses(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses() {
        let of = |kubeconfig: Option<&str>, provider| {
            Provider::of(kubeconfig.map(str::to_owned), provider).ok()
        };
        assert_eq!(of(None, None), Some(Provider::Local));
        assert_eq!(of(None, Some("local")), Some(Provider::Local));
        assert_eq!(of(None, Some("kind")), Some(Provider::Kind));
        assert_eq!(of(Some("f"), None), Some(Provider::Own("f".into())));
        assert_eq!(of(Some("f"), Some("kind")), None);
        assert_eq!(of(None, Some("docker")), None);
    }
}
