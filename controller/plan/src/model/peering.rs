//! How nodes reach each other, and how they know each other.

use std::{collections::BTreeSet, net::IpAddr};

use node_api::{Password, is_link_local_v6};

use super::{VirtualIpIntent, address};
use crate::Problem;

const ADDRESSES: &str = "spec.vrrp.peering.addresses";
const MODE: &str = "spec.vrrp.authentication.mode";

/// How nodes reach each other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Peering {
    /// By the group of the standard.
    #[default]
    Multicast,
    /// Each candidate by an address of its own.
    Candidates,
    /// By these addresses, sorted, the nodes' own among them.
    Listed(Vec<IpAddr>),
}

impl Peering {
    /// Those of a list that are of the family of `address`.
    pub(crate) fn listed(&self, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        let listed = match self {
            Self::Listed(listed) => &listed[..],
            Self::Multicast | Self::Candidates => &[],
        };
        let same = move |it: &IpAddr| it.is_ipv4() == address.is_ipv4();
        listed.iter().copied().filter(same)
    }
}

/// `spec.vrrp.peering`.
pub(super) fn peering(
    problems: &mut Vec<Problem>,
    spec: &crds::Peering,
    virtual_ips: &[VirtualIpIntent],
) -> Peering {
    let texts = &spec.addresses;
    match spec.mode {
        crds::PeeringMode::Multicast => {
            if !texts.is_empty() {
                problems.push(Problem::new(
                    ADDRESSES,
                    "has no meaning while mode is Multicast; remove it or set mode to Unicast",
                ));
            }
            return Peering::Multicast;
        }
        crds::PeeringMode::Unicast if texts.is_empty() => return Peering::Candidates,
        crds::PeeringMode::Unicast => {}
    }
    if texts.len() > 20 {
        super::bounds(problems, ADDRESSES, texts.len(), 20);
    }
    let mut listed = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let mut refuse = |message: String| {
            problems.push(Problem::new(format!("{ADDRESSES}[{index}]"), message));
        };
        let address = match router_address(text) {
            Ok(address) => address,
            Err(error) => {
                refuse(error.to_string());
                continue;
            }
        };
        let mut all = virtual_ips.iter().flat_map(VirtualIpIntent::addresses);
        if all.any(|(_, virtual_address)| virtual_address == address) {
            refuse(format!(
                "{address} is a virtual address of this pool; list the routers' own"
            ));
        }
        let mut firsts = virtual_ips.iter().map(|it| it.address);
        if !firsts.any(|first| first.is_ipv4() == address.is_ipv4()) {
            let family = family(address);
            refuse(format!(
                "{address} is an {family} address, and the pool has no virtual one; remove it"
            ));
        }
        if !listed.insert(address) {
            refuse(format!("{address} is listed twice; remove one of the two"));
        }
    }
    let peering = Peering::Listed(listed.into_iter().collect());
    let lonely = virtual_ips.iter().map(|it| it.address);
    let mut lonely = lonely.filter(|address| peering.listed(*address).nth(1).is_none());
    if let Some(address) = lonely.next().filter(|_| problems.is_empty()) {
        problems.push(Problem::new(
            ADDRESSES,
            format!(
                "lists less than two {} addresses, and {address} is one; list all its routers, the \
                 nodes' own addresses among them",
                family(address)
            ),
        ));
    }
    peering
}

/// The password, if there is to be one.
pub(super) fn password(
    problems: &mut Vec<Problem>,
    spec: &crds::Authentication,
    version: u8,
) -> Option<Password> {
    let path = "spec.vrrp.authentication.password";
    match (spec.mode, &spec.password) {
        (crds::AuthenticationMode::None, None) => None,
        (crds::AuthenticationMode::None, Some(_)) => {
            problems.push(Problem::new(
                path,
                "has no meaning while mode is None; remove it or set mode to SimplePassword",
            ));
            None
        }
        (crds::AuthenticationMode::SimplePassword, None) => {
            let message = "is missing; write 1 to 8 characters or set mode to None";
            problems.push(Problem::new(path, message));
            None
        }
        (crds::AuthenticationMode::SimplePassword, Some(crds::Password(text))) => {
            if version != 2 {
                let message = "is SimplePassword, which version 3 does not have; set it to None or \
                               version to 2";
                problems.push(Problem::new(MODE, message));
            }
            let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if !(1..=8).contains(&text.len()) || !is_printable {
                let message = "is not 1 to 8 printable ASCII characters long; write another";
                problems.push(Problem::new(path, message));
            }
            Some(Password(text.clone()))
        }
    }
}

/// A host's own address, which with IPv6 may be link-local.
fn router_address(text: &str) -> Result<IpAddr, super::AddressError> {
    let address = address::parse_address(text)?;
    if !is_link_local_v6(address) {
        super::endpoint_address(address)?;
    }
    Ok(address)
}

pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
