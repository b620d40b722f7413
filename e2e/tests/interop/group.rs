//! A virtual router that wsha shares with a peer, and the lab around both.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::lab::{Host, VIP_SERVER1};
use e2e::testing::{Cluster, Gateway, Manifest, Pool, SETTLE, in_lab_beside_others, skipped};
use e2e::{tools, wait};
use node_api::RouterState;

/// The VRID of the group.
pub(crate) const VRID: u8 = 52;
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x112);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x112);

/// wsha runs on server1, the peer on server2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// Of VRRP.
    pub(crate) version: u8,
    /// The addresses that both share, in the order in which the peer is told: it sends them so.
    pub(crate) addresses: &'static [IpAddr],
    /// Priority of wsha.
    pub(crate) wsha: u8,
    /// Priority of the peer.
    pub(crate) peer: u8,
    /// Further members of the pool's `vrrp` mapping.
    pub(crate) vrrp: &'static [&'static str],
    /// Further lines of the peer's instance.
    pub(crate) instance: &'static [&'static str],
}

pub(crate) const V4: &[IpAddr] = &[IpAddr::V4(VIP_SERVER1)];
/// As RFC 9568 section 5.2.9 asks.
pub(crate) const V6: &[IpAddr] = &[IpAddr::V6(LINK_LOCAL), IpAddr::V6(IPV6)];
/// As most write it.
pub(crate) const V6_ALONE: &[IpAddr] = &[IpAddr::V6(IPV6)];

impl Group {
    /// Without preference: [`super::roles`] say who has the higher priority.
    pub(crate) const fn of(version: u8, addresses: &'static [IpAddr]) -> Self {
        Self {
            version,
            addresses,
            wsha: 100,
            peer: 100,
            vrrp: &[],
            instance: &[],
        }
    }

    /// The one that clients use.
    pub(crate) fn shared(self) -> IpAddr {
        let last = self.addresses.last();
        last.copied().unwrap_or(IpAddr::V4(VIP_SERVER1))
    }

    /// What a host advertises from to the multicast group.
    pub(crate) fn primary(self, host: &Host) -> IpAddr {
        if self.shared().is_ipv4() {
            host.address().into()
        } else {
            host.mac().link_local().into()
        }
    }

    /// Gives the hosts addresses of the family; a host that was switched off has lost its own.
    pub(crate) fn number(self, hosts: &[&Host]) -> Result<()> {
        let mut hosts = hosts.iter().filter(|_| self.shared().is_ipv6());
        hosts.try_for_each(|host| host.number_ipv6())
    }

    pub(crate) fn interval(self) -> Duration {
        if self.version == 2 {
            Duration::from_secs(1)
        } else {
            // keepalived runs without real-time priority here: three missed ones must not be a gap of the machine.
            Duration::from_millis(300)
        }
    }

    pub(crate) fn manifest(self) -> Manifest {
        let (shared, more) = (self.shared(), self.addresses.split_last());
        let more: Vec<_> = more.iter().flat_map(|(_, more)| *more).collect();
        let entry = format!(
            "address: {shared}, additionalAddresses: {more:?}, virtualRouterID: {VRID}, nodePriorities: [{{ \
             nodeName: server1, priority: {} }}]",
            self.wsha
        );
        let mut pool = Pool::new("chat", vec![entry]);
        let mut vrrp = vec![
            format!("version: {}", self.version),
            format!("advertisementInterval: {}ms", self.interval().as_millis()),
        ];
        vrrp.extend(self.vrrp.iter().map(|member| (*member).to_owned()));
        pool.spec.push(format!("vrrp: {{ {} }}", vrrp.join(", ")));
        Manifest::of(vec![pool])
    }
}

/// Lets more than the three intervals pass after which a Backup that hears nothing rises.
pub(crate) fn calm(group: Group) -> Result<()> {
    // Nothing happens while all is well: only time tells that nothing flaps.
    let until = Instant::now() + (group.interval() * 5).max(Duration::from_secs(2));
    wait::until("the time to pass", SETTLE, || {
        Ok((Instant::now() >= until).then_some(()))
    })
}

pub(crate) fn state(cluster: &Cluster, wanted: RouterState) -> Result<()> {
    cluster.wait_status(Gateway::One, &format!("{wanted:?}"), |report| {
        report
            .virtual_routers
            .iter()
            .any(|router| router.state == wanted)
            .then_some(())
    })
}

/// Fails if wsha discarded anything that it heard.
pub(crate) fn nothing_discarded(cluster: &Cluster) -> Result<()> {
    let discarded = cluster.count(Gateway::One, "wsha_vrrp_discarded_advertisements", &[])?;
    ensure!(
        discarded == 0,
        "wsha discarded {discarded} packets of the peer"
    );
    Ok(())
}

pub(crate) fn mixed(
    test: &str,
    group: Group,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    if nix::unistd::geteuid().is_root()
        && let Err(error) = tools::install_peers().and_then(|()| tools::install_frr())
    {
        skipped(
            test,
            &format!("keepalived or FRR is missing and cannot be installed: {error:#}"),
        );
        return Ok(());
    }
    in_lab_beside_others(test, |cluster| {
        let lab = &cluster.lab;
        let [one, two] = lab.gateways();
        group.number(&[one, two, lab.client(), lab.observer()])?;
        cluster.apply(&group.manifest())?;
        body(cluster)
    })
}
