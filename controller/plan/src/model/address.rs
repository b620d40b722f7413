//! Addresses as users write them.

use std::net::IpAddr;

use node_api::is_link_local_v6;

/// Why a text does not do as an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// No address at all.
    #[error("{0:?} is no IP address; write it like 192.168.1.110")]
    Malformed(String),
    /// An address and more.
    #[error("{0} carries a prefix length; leave out /{1}")]
    Prefix(String, String),
    /// An address that is usually written otherwise.
    #[error("{0} is not in canonical form; write {1}")]
    NotCanonical(String, IpAddr),
    /// Of another family than the address that it stands with.
    #[error("{0} is of another family than {1}; a virtual router has one family")]
    Family(IpAddr, IpAddr),
    /// An address that cannot do what is asked of it.
    #[error("{address} is {kind}; use {remedy}")]
    Unusable {
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        kind: &'static str,
        /// What to use.
        remedy: &'static str,
    },
}

/// Reads an address in canonical form, without prefix length.
pub fn parse_address(text: &str) -> Result<IpAddr, AddressError> {
    if let Some((address, prefix)) = text.split_once('/')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(AddressError::Prefix(text.to_owned(), prefix.to_owned()));
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_| AddressError::Malformed(text.chars().take(60).collect()))?;
    let canonical = address.to_canonical();
    if canonical.to_string() != text {
        return Err(AddressError::NotCanonical(text.to_owned(), canonical));
    }
    Ok(address)
}

/// Reads a virtual address: a unicast address that routers can share.
pub(super) fn virtual_address(text: &str) -> Result<IpAddr, AddressError> {
    let address = parse_address(text)?;
    // What a translator reaches is an address of a host elsewhere.
    targets(address).find_map(kind).map_or(Ok(address), |kind| {
        Err(AddressError::Unusable {
            address,
            kind,
            remedy: "a free address of the gateway nodes' subnet",
        })
    })
}

/// Reads a further address of the virtual router of `first`. One of IPv6 may be link-local, as RFC
/// 9568 section 5.2.9 asks for.
pub(super) fn additional_address(text: &str, first: IpAddr) -> Result<IpAddr, AddressError> {
    let address = parse_address(text)?;
    if !is_link_local_v6(address) {
        virtual_address(text)?;
    }
    if address.is_ipv6() == first.is_ipv6() {
        Ok(address)
    } else {
        Err(AddressError::Family(address, first))
    }
}

/// Whether sessions may be sent to `address`. A pool belongs to a namespace, and the proxy sits on
/// the host's network: what only the host can reach is none of a pool's business.
pub fn endpoint_address(address: IpAddr) -> Result<(), AddressError> {
    targets(address).find_map(kind).map_or(Ok(()), |kind| {
        Err(AddressError::Unusable {
            address,
            kind,
            remedy: "an address under which the server is reached from other hosts",
        })
    })
}

/// The addresses at which something sent to `address` may arrive: it, and the IPv4 address that it
/// stands for where a translator is on the way (RFC 4291 section 2.5.5, RFC 6052, RFC 7915).
pub(crate) fn targets(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let canonical = address.to_canonical();
    let embedded = match canonical {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => match v6.segments() {
            // ::1 and :: are addresses of their own.
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
            [0, 0, 0, 0, 0 | 0xffff, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let bits = u32::from(high) << 16 | u32::from(low);
                Some(IpAddr::V4(bits.into()))
            }
            _ => None,
        },
    };
    std::iter::once(canonical).chain(embedded)
}

/// What an address is, unless it is one of a host on a network.
fn kind(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let reserved = match address {
        // 0.0.0.0/8 is this network, 240.0.0.0/4 reserved (RFC 6890 section 2.2.2).
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("a link-local address")
    } else if reserved {
        Some("a reserved address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_write_an_address() {
        let error = |text: &str| virtual_address(text).unwrap_err().to_string();
        assert_eq!(
            error("192.168.1.110/24"),
            "192.168.1.110/24 carries a prefix length; leave out /24"
        );
        assert_eq!(
            error("chat"),
            "\"chat\" is no IP address; write it like 192.168.1.110"
        );
        assert_eq!(
            error("192.168.001.110").split(';').next(),
            Some("\"192.168.001.110\" is no IP address")
        );
        assert_eq!(
            error("2001:DB8::1"),
            "2001:DB8::1 is not in canonical form; write 2001:db8::1"
        );
        assert_eq!(
            error("::ffff:10.0.0.1"),
            "::ffff:10.0.0.1 is not in canonical form; write 10.0.0.1"
        );
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.18",
            "169.254.1.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "ff02::12",
            "64:ff9b::7f00:1",
        ] {
            assert!(
                error(bad).starts_with(&format!("{bad} is a"))
                    || error(bad).starts_with(&format!("{bad} is the")),
                "{bad}"
            );
        }
        assert_eq!(
            virtual_address("192.168.1.110"),
            Ok("192.168.1.110".parse().unwrap())
        );
        assert_eq!(
            virtual_address("2001:db8::110"),
            Ok("2001:db8::110".parse().unwrap())
        );
    }

    #[test]
    fn further_addresses_are_of_one_family_and_may_be_link_local() {
        let first: IpAddr = "2001:db8::110".parse().unwrap();
        assert!(additional_address("fe80::110", first).is_ok());
        assert!(additional_address("2001:db8::111", first).is_ok());
        let error = |text: &str, first| additional_address(text, first).unwrap_err().to_string();
        assert_eq!(
            error("10.0.0.1", first),
            "10.0.0.1 is of another family than 2001:db8::110; a virtual router has one family"
        );
        let first: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(error("169.254.0.1", first).contains("a link-local address"));
        assert!(error("fe80::1", first).contains("of another family"));
    }

    #[test]
    fn endpoints_are_reached_from_other_hosts() {
        for bad in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.0.9",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::169.254.0.9",
        ] {
            assert!(endpoint_address(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in [
            "192.168.1.16",
            "10.0.0.1",
            "2001:db8::1",
            "64:ff9b::10.0.0.1",
        ] {
            assert_eq!(endpoint_address(good.parse().unwrap()), Ok(()));
        }
    }
}
