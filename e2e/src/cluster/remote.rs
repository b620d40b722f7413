//! A cluster that runs elsewhere: the user's own, or one that kind makes.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::kubectl::Console;
use super::local::pod_image;
use super::site::Site;
use super::tools::{Program, Programs};
use crate::tools::need;

/// Names a kubeconfig: its cluster is used as it is.
pub(super) const KUBECONFIG: &str = "WSHA_E2E_KUBECONFIG";
/// Names the registry that the user's own cluster gets the images from.
const REGISTRY: &str = "WSHA_E2E_REGISTRY";
/// Two free addresses on the link of the user's own gateways.
const ADDRESSES: &str = "WSHA_E2E_VIRTUAL_IPS";

/// The cluster. One that was made for the tests goes when this is dropped.
#[derive(Debug)]
pub struct Remote {
    programs: Programs,
    kubeconfig: PathBuf,
    registry: Option<String>,
    addresses: [Ipv4Addr; 2],
    kind: Option<String>,
    // Last: it removes the files of what is above.
    site: Site,
}

impl Remote {
    /// The user's own.
    pub(super) fn own(kubeconfig: PathBuf) -> Result<Self> {
        let told = std::env::var(ADDRESSES).unwrap_or_default();
        let addresses: Vec<Ipv4Addr> = told
            .split(',')
            .filter_map(|word| word.trim().parse().ok())
            .collect();
        let [one, two] = addresses[..] else {
            bail!(
                "{ADDRESSES} must name two free IPv4 addresses on the gateways' link, with a comma between"
            );
        };
        let registry = std::env::var(REGISTRY).ok().filter(|name| !name.is_empty());
        ensure!(
            registry.is_some(),
            "{REGISTRY} must name the registry that the cluster gets the images from"
        );
        Ok(Self {
            programs: Programs::get(&[Program::Kubectl, Program::Helm])?,
            kubeconfig,
            registry,
            addresses: [one, two],
            kind: None,
            site: Site::loopback()?,
        })
    }

    /// One that kind makes, by `e2e/kind.yaml`.
    pub(super) fn kind() -> Result<Self> {
        let site = Site::loopback()?;
        let name = format!("wsha-e2e-{}", std::process::id());
        let kubeconfig = site.dir().join("kubeconfig.yaml");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind.yaml");
        let mut remote = Self {
            programs: Programs::get(&[Program::Kubectl, Program::Helm])?,
            kubeconfig,
            registry: None,
            addresses: [Ipv4Addr::UNSPECIFIED; 2],
            kind: Some(name.clone()),
            site,
        };
        let mut create = Command::new(need("kind", "kind, from kind.sigs.k8s.io")?);
        create.args([
            "create",
            "cluster",
            "--wait=5m",
            "--name",
            &name,
            "--config",
        ]);
        create
            .arg(config)
            .arg("--kubeconfig")
            .arg(&remote.kubeconfig);
        remote.run(create)?;
        let mut inspect = Command::new(need("docker", "docker")?);
        inspect.args(["network", "inspect", "kind"]);
        remote.addresses = on_link(&remote.run(inspect)?)?;
        remote.load(&pod_image(remote.site.dir())?)?;
        Ok(remote)
    }

    /// Where its administrator sits.
    pub fn console(&self) -> Console<'_> {
        Console {
            site: &self.site,
            programs: &self.programs,
            kubeconfig: self.kubeconfig.clone(),
        }
    }

    /// Two free addresses on the link of its gateways.
    pub fn addresses(&self) -> [Ipv4Addr; 2] {
        self.addresses
    }

    /// The registry that it gets images from, if it gets any.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Loads the images of an archive, where the cluster gets them from no registry.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let Some(name) = &self.kind else {
            return Ok(());
        };
        let mut load = Command::new("kind");
        load.args(["load", "image-archive", "--name", name])
            .arg(archive);
        self.run(load).map(drop)
    }

    fn run(&self, command: Command) -> Result<String> {
        let what = format!("{command:?}");
        let output = self.site.output(command)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{what}: {}", told.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(name) = &self.kind {
            let mut delete = Command::new("kind");
            delete.args(["delete", "cluster", "--name", name]);
            if let Err(error) = self.run(delete) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// The last addresses but a few of docker's network, which it gives to nobody soon.
fn on_link(network: &str) -> Result<[Ipv4Addr; 2]> {
    let told: Value = serde_json::from_str(network).context("docker tells no network")?;
    let configs = told[0]["IPAM"]["Config"].as_array();
    let subnets = configs.into_iter().flatten();
    let subnet = subnets
        .filter_map(|config| config["Subnet"].as_str()?.split_once('/'))
        .find_map(|(base, length)| {
            let base: Ipv4Addr = base.parse().ok()?;
            let length: u32 = length.parse().ok()?;
            (length <= 28).then_some((u32::from(base), length))
        });
    let (base, length) = subnet.context("docker's network kind has no IPv4 subnet of some size")?;
    let last = base | (u32::MAX.checked_shr(length).unwrap_or_default());
    Ok([Ipv4Addr::from(last - 5), Ipv4Addr::from(last - 4)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_end_of_docker_s_network() {
        let told = r#"[{"IPAM": {"Config": [{"Subnet": "fc00:f853:ccd:e793::/64"},
            {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}}]"#;
        let addresses = [[172, 18, 255, 250], [172, 18, 255, 251]].map(Ipv4Addr::from);
        assert_eq!(on_link(told).unwrap(), addresses);
        assert!(on_link("[]").is_err());
    }
}
