//! What the matrix runs over: versions and families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use e2e::lab::{Host, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Manifest, Pool, in_lab};

const fn ipv6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last))
}

/// A version of VRRP on a family of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    /// Version 2 on IPv4, which knows whole seconds only.
    V2,
    /// Version 3 on IPv4, with the interval that pools have by default.
    V3,
    /// Version 3 on IPv6.
    V6,
    /// One pool with an address of each family; that of IPv4 is struck.
    Dual4,
    /// As before; that of IPv6 is struck.
    Dual6,
}

impl Wire {
    pub(crate) const fn v2() -> Self {
        Self::V2
    }

    pub(crate) const fn v3() -> Self {
        Self::V3
    }

    pub(crate) const fn ipv6() -> Self {
        Self::V6
    }

    pub(crate) const fn dual4() -> Self {
        Self::Dual4
    }

    pub(crate) const fn dual6() -> Self {
        Self::Dual6
    }

    /// The address that server1 holds while all is well.
    pub(crate) const fn one(self) -> IpAddr {
        match self {
            Self::V2 | Self::V3 | Self::Dual4 => IpAddr::V4(VIP_SERVER1),
            Self::V6 | Self::Dual6 => ipv6(0x112),
        }
    }

    /// The address that server2 holds while all is well.
    pub(crate) const fn two(self) -> IpAddr {
        match self {
            Self::V2 | Self::V3 | Self::Dual6 => IpAddr::V4(VIP_SERVER2),
            Self::V6 | Self::Dual4 => ipv6(0x110),
        }
    }

    /// Both.
    pub(crate) const fn both(self) -> [IpAddr; 2] {
        [self.one(), self.two()]
    }

    /// An address that nobody has, of the family that is struck.
    pub(crate) const fn free(self) -> IpAddr {
        match self.one() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 168, 1, 113)),
            IpAddr::V6(_) => ipv6(0x113),
        }
    }

    /// The length of a prefix that is one address of the family that is struck.
    pub(crate) const fn prefix(self) -> u8 {
        match self.one() {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// The version of VRRP.
    pub(crate) const fn version(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 | Self::V6 | Self::Dual4 | Self::Dual6 => 3,
        }
    }

    /// The article's pool.
    pub(crate) fn manifest(self) -> Manifest {
        self.manifest_with(None)
    }

    /// The same, with a further field of `spec.vrrp`.
    fn manifest_with(self, field: Option<&str>) -> Manifest {
        let entries = vec![
            format!("address: {}, preferredNodeName: server2", self.two()),
            format!("address: {}, preferredNodeName: server1", self.one()),
        ];
        let mut pool = Pool::new("chat", entries);
        let version = (self == Self::V2).then_some("version: 2, advertisementInterval: 1s");
        let fields: Vec<&str> = version.into_iter().chain(field).collect();
        if !fields.is_empty() {
            pool.spec.push(format!("vrrp: {{ {} }}", fields.join(", ")));
        }
        Manifest::of(vec![pool])
    }

    /// Gives hosts addresses of the family, as they have them when they have booted, or their link is back.
    pub(crate) fn number(self, hosts: &[&Host]) -> Result<()> {
        let is_concerned = self.both().iter().any(IpAddr::is_ipv6);
        let mut hosts = hosts.iter().filter(|_| is_concerned);
        hosts.try_for_each(|host| host.number_ipv6())
    }
}

/// Runs `body` with wsha on both gateways and each address at home, after `prepare`.
pub(crate) fn in_prepared_cluster(
    test: &str,
    wire: Wire,
    prepare: impl FnOnce(&Cluster) -> Result<()>,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    start(test, wire, &wire.manifest(), prepare, body)
}

/// Runs `body` with wsha on both gateways and each address at home.
pub(crate) fn in_cluster(
    test: &str,
    wire: Wire,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_prepared_cluster(test, wire, |_| Ok(()), body)
}

/// The same, where a host that hears nobody for so long gives its addresses up. The observer is the way out.
pub(crate) fn in_cluster_with_isolation(
    test: &str,
    wire: Wire,
    timeout: &str,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let field = format!("isolation: {{ timeout: {timeout} }}");
    let way_out = |cluster: &Cluster| {
        let observer = cluster.lab.observer().address();
        for gateway in cluster.lab.gateways() {
            gateway.ip(&format!("route add default via {observer}"))?;
            if wire.one().is_ipv6() {
                let [.., last] = observer.octets();
                gateway.ip(&format!("-6 route add default via fd00:1::{last}"))?;
            }
        }
        Ok(())
    };
    start(test, wire, &wire.manifest_with(Some(&field)), way_out, body)
}

fn start(
    test: &str,
    wire: Wire,
    manifest: &Manifest,
    prepare: impl FnOnce(&Cluster) -> Result<()>,
    body: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_lab(test, |cluster| {
        let [one, two] = cluster.lab.gateways();
        wire.number(&[one, two, cluster.lab.client(), cluster.lab.observer()])?;
        prepare(cluster)?;
        cluster.apply(manifest)?;
        cluster.start_both()?;
        body(cluster)
    })
}
