//! What the administrator permits, and what the cluster keeps for itself.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

/// What the administrator permits.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// VRIDs to choose from where a user names none and the last byte of the address is taken;
    /// `None`: the user must name one.
    pub virtual_router_ids: Option<RangeInclusive<u8>>,
    /// What pools may claim.
    pub grant: Grant,
    /// What pools of a namespace may claim, where that differs.
    pub namespaces: BTreeMap<String, Grant>,
    /// What else has addresses and ports; `None` on plain hosts, which know of nothing else.
    pub cluster: Option<Cluster>,
}

/// What pools may claim.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grant {
    /// Virtual addresses; `None`: on a cluster those that lie on a network of the pool's gateways.
    pub virtual_addresses: Option<Vec<AddressRange>>,
    /// Ports of listeners; `None`: all.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
}

/// A cluster: its nodes tell of their networks, and kube-proxy answers for addresses and ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// Where addresses of Services are taken from.
    pub service_ranges: Vec<IpNet>,
    /// Where ports of Services are taken from on every address of a node.
    pub node_ports: RangeInclusive<u16>,
}

impl Policy {
    /// All is permitted, and nothing is chosen that could depend on a host's history.
    pub fn plain_hosts() -> Self {
        Self::default()
    }

    /// The addresses that pools of `namespace` may claim, if that is bounded.
    pub(crate) fn virtual_addresses(&self, namespace: &str) -> Option<&[AddressRange]> {
        let own = self.namespaces.get(namespace);
        let own = own.and_then(|grant| grant.virtual_addresses.as_deref());
        own.or(self.grant.virtual_addresses.as_deref())
    }

    /// The ports that pools of `namespace` may claim, if that is bounded.
    pub(crate) fn ports(&self, namespace: &str) -> Option<&[RangeInclusive<u16>]> {
        let own = self.namespaces.get(namespace);
        let own = own.and_then(|grant| grant.ports.as_deref());
        own.or(self.grant.ports.as_deref())
    }
}

/// Addresses from one to another of the same family, both included.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Addresses of different families compare by family.
        self.first <= address && address <= self.last
    }
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressRangeError {
    /// None of the forms.
    #[error(
        "{0:?} is no range of addresses; write 192.0.2.0/24, 192.0.2.10-192.0.2.20 or 192.0.2.7"
    )]
    Malformed(String),
    /// The prefix has bits beyond its length.
    #[error("{0} has bits set beyond its prefix length; write {1}")]
    HostBits(String, IpNet),
    /// The end lies before the beginning, or in the other family.
    #[error(
        "{0} does not go from a lower to a higher address of one family; exchange or correct the two"
    )]
    Order(String),
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || AddressRangeError::Malformed(text.chars().take(90).collect());
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| malformed());
        if let Ok(net) = text.parse::<IpNet>() {
            return if net == net.trunc() {
                Ok(net.into())
            } else {
                Err(AddressRangeError::HostBits(text.to_owned(), net.trunc()))
            };
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() == last.is_ipv4() && first <= last {
            Ok(Self { first, last })
        } else {
            Err(AddressRangeError::Order(text.to_owned()))
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        // The shortest form that means the same.
        let longest = if self.first.is_ipv4() { 32 } else { 128 };
        let nets = (0..longest).filter_map(|length| IpNet::new(self.first, length).ok());
        let mut nets = nets.filter(|net| net.network() == self.first);
        match nets.find(|net| net.broadcast() == self.last) {
            Some(net) => write!(f, "{net}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_three_ways() {
        for (text, shown, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            (
                "192.0.2.10-192.0.2.20",
                "192.0.2.10-192.0.2.20",
                "192.0.2.20",
                "192.0.2.21",
            ),
            (
                "192.0.2.0-192.0.2.127",
                "192.0.2.0/25",
                "192.0.2.0",
                "192.0.2.128",
            ),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
            ("2001:db8::/64", "2001:db8::/64", "2001:db8::9", "192.0.2.7"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.to_string(), shown);
            assert!(range.contains(inside.parse().unwrap()), "{text}");
            assert!(!range.contains(outside.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_says_how_to_write_one() {
        let error = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        assert_eq!(
            error("192.0.2"),
            "\"192.0.2\" is no range of addresses; write 192.0.2.0/24, 192.0.2.10-192.0.2.20 or 192.0.2.7"
        );
        assert_eq!(
            error("192.0.2.7/24"),
            "192.0.2.7/24 has bits set beyond its prefix length; write 192.0.2.0/24"
        );
        for text in ["192.0.2.20-192.0.2.10", "192.0.2.1-2001:db8::1"] {
            assert!(error(text).contains("exchange or correct"), "{text}");
        }
    }

    #[test]
    fn a_namespace_s_own_word_goes_before_the_general_one() {
        let range = |text: &str| Some(vec![text.parse().unwrap()]);
        let policy = Policy {
            grant: Grant {
                virtual_addresses: range("192.0.2.0/24"),
                ports: Some(vec![8000..=8999]),
            },
            namespaces: BTreeMap::from([(
                "chat".to_owned(),
                Grant {
                    virtual_addresses: Some(Vec::new()),
                    ports: None,
                },
            )]),
            ..Policy::default()
        };
        assert_eq!(
            policy.virtual_addresses("other"),
            range("192.0.2.0/24").as_deref()
        );
        assert_eq!(
            policy.virtual_addresses("chat"),
            Some(&[][..]),
            "nothing at all"
        );
        assert_eq!(policy.ports("chat"), Some(&[8000..=8999][..]));
    }
}
