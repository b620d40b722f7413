//! Settings of the kernel that eat packets of clients, or answer for addresses on the wrong interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
};

use ipnet::IpNet;
use node_api::NodeReport;

use super::Finding;
use crate::sys::netlink::{Change, Requests};

/// Of an interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Interface {
    name: String,
    is_up: bool,
    prefixes: Vec<IpNet>,
    has_default_route: bool,
}

/// Reverse-path filter and ARP of each interface that a virtual router is on.
pub(super) fn check(report: &NodeReport) -> Vec<Finding> {
    let interfaces = match look() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            let why = format!("interfaces cannot be looked at ({error})");
            return vec![Finding::unknown("network", why)];
        }
    };
    let routers = report.virtual_routers.iter();
    let used: BTreeSet<_> = routers
        .filter_map(|router| router.interface.clone())
        .collect();
    let used = interfaces.iter().filter(|one| used.contains(&one.name));
    used.flat_map(|one| {
        [
            reverse_path(one, setting(&one.name, "rp_filter"), &interfaces),
            others_answer(one, setting(&one.name, "arp_ignore"), &interfaces),
        ]
    })
    .collect()
}

fn look() -> io::Result<Vec<Interface>> {
    let mut requests = Requests::open()?;
    let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
    let mut addresses = Vec::new();
    for change in requests.dump()? {
        match change {
            Change::Link(link) if !link.is_loopback => {
                let one = interfaces.entry(link.index).or_default();
                (one.name, one.is_up) = (link.name, link.is_up);
            }
            Change::Address(address) if !address.is_own => addresses.push(address),
            _ => {}
        }
    }
    for address in addresses {
        let prefix = IpNet::new(address.address, address.prefix);
        if let (Some(one), Ok(prefix)) = (interfaces.get_mut(&address.index), prefix) {
            one.prefixes.push(prefix.trunc());
        }
    }
    for route in requests.default_routes()? {
        if let (Some(one), IpAddr::V4(_)) = (interfaces.get_mut(&route.index), route.gateway) {
            one.has_default_route = true;
        }
    }
    Ok(interfaces.into_values().collect())
}

/// The kernel takes the greater of the two.
fn setting(interface: &str, name: &str) -> Option<u32> {
    let read = |of: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/{name}")).ok()?;
        text.trim().parse::<u32>().ok()
    };
    Some(read("all")?.max(read(interface)?))
}

fn reverse_path(one: &Interface, rp_filter: Option<u32>, all: &[Interface]) -> Finding {
    let name = &one.name;
    let subject = format!("reverse-path filter of {name}");
    let default = all.iter().find(|other| other.has_default_route);
    match (rp_filter, default) {
        (None, _) => Finding::unknown(subject, "it cannot be read"),
        (Some(1), Some(other)) if !one.has_default_route => Finding::problem(
            subject,
            format!(
                "it is strict, and answers to clients of other networks leave by {}: their packets \
                 to virtual addresses are dropped",
                other.name
            ),
            format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2`, with 1 for `all` no more"),
        ),
        (Some(1), _) => Finding::fine(subject, "strict, which fits the routes"),
        (Some(_), _) => Finding::fine(subject, "not strict"),
    }
}

fn others_answer(one: &Interface, arp_ignore: Option<u32>, all: &[Interface]) -> Finding {
    let name = &one.name;
    let subject = format!("ARP on the segment of {name}");
    let shares = |other: &&Interface| {
        let mut prefixes = other
            .prefixes
            .iter()
            .filter(|prefix| prefix.addr().is_ipv4());
        other.name != *name && other.is_up && prefixes.any(|prefix| one.prefixes.contains(prefix))
    };
    let others: Vec<_> = all
        .iter()
        .filter(shares)
        .map(|one| one.name.clone())
        .collect();
    match (others.is_empty(), arp_ignore) {
        (true, _) => Finding::fine(subject, "no other interface of this host is on it"),
        (false, None) => Finding::unknown(subject, "arp_ignore cannot be read"),
        (false, Some(0)) => Finding::problem(
            subject,
            format!(
                "{} is on it too and answers for addresses of {name}",
                others.join(", ")
            ),
            "`sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2`",
        ),
        (false, Some(_)) => Finding::fine(subject, "each interface answers for itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, prefix: &str, has_default_route: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            is_up: true,
            prefixes: vec![prefix.parse().unwrap()],
            has_default_route,
        }
    }

    #[test]
    fn a_strict_filter_is_a_problem_where_answers_leave_elsewhere() {
        let here = interface("eth0", "10.0.0.0/24", false);
        let there = interface("eth1", "10.1.0.0/16", true);
        let both = [here.clone(), there.clone()];
        for (one, rp_filter, all, expected) in [
            (&here, Some(1), &both[..], "PROBLEM"),
            (&here, Some(2), &both, "ok"),
            (&here, Some(0), &both, "ok"),
            (&here, Some(1), &both[..1], "ok"),
            (&there, Some(1), &both, "ok"),
            (&here, None, &both, "unknown"),
        ] {
            let said = reverse_path(one, rp_filter, all).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn another_interface_on_the_segment_must_not_answer() {
        let one = interface("eth0", "10.0.0.0/24", false);
        let same = interface("eth1", "10.0.0.0/24", false);
        let other = interface("eth2", "10.1.0.0/16", false);
        for (other, arp_ignore, expected) in [
            (&same, Some(0), "PROBLEM"),
            (&same, Some(1), "ok"),
            (&same, None, "unknown"),
            (&other, Some(0), "ok"),
        ] {
            let all = [one.clone(), other.clone()];
            let said = others_answer(&one, arp_ignore, &all).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
        let mut down = same;
        down.is_up = false;
        let said = others_answer(&one, Some(0), &[one.clone(), down]).to_string();
        assert!(said.starts_with("ok"), "{said}");
    }
}
