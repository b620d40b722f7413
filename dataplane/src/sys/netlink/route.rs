//! Default routes, as rtnetlink tells them (rtnetlink(7)).

use std::net::IpAddr;

use super::message::{self, RTM_NEWROUTE};

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTN_UNICAST: u8 = 1;
/// Length of `rtmsg`, and of `rtnexthop`.
const ROUTE: usize = 12;
const NEXT_HOP: usize = 8;

/// A way out of the on-link networks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DefaultRoute {
    /// The interface.
    pub index: u32,
    /// The router.
    pub gateway: IpAddr,
}

/// The default routes in a message; none if it is about something else.
pub(super) fn default_routes(kind: u16, body: &[u8]) -> Vec<DefaultRoute> {
    if kind != RTM_NEWROUTE {
        return Vec::new();
    }
    parse(body).unwrap_or_default()
}

fn parse(body: &[u8]) -> Option<Vec<DefaultRoute>> {
    let [family, prefix] = *body.first_chunk()?;
    if prefix != 0 || *body.get(7)? != RTN_UNICAST {
        return None;
    }
    let attributes = body.get(ROUTE..)?;
    let mut routes: Vec<_> = hop(family, None, attributes).into_iter().collect();
    for (_, mut hops) in message::attributes(attributes).filter(|one| one.0 == RTA_MULTIPATH) {
        while let Some(length) = message::short(hops, 0).map(usize::from)
            && let Some(one) = hops.get(NEXT_HOP..length)
        {
            routes.extend(hop(family, message::number(hops, 4), one));
            hops = hops.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
    }
    Some(routes)
}

fn hop(family: u8, index: Option<u32>, attributes: &[u8]) -> Option<DefaultRoute> {
    let (mut index, mut gateway) = (index, None);
    for (kind, value) in message::attributes(attributes) {
        match kind {
            RTA_OIF => index = message::number(value, 0),
            RTA_GATEWAY => gateway = message::ip(family, value),
            _ => {}
        }
    }
    Some(DefaultRoute {
        index: index?,
        gateway: gateway?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route(prefix: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![2, prefix, 0, 0, 254, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        bytes.extend(attributes.concat());
        bytes
    }

    fn default(index: u32, last: u8) -> DefaultRoute {
        DefaultRoute {
            index,
            gateway: [192, 168, 7, last].into(),
        }
    }

    #[test]
    fn gateways_are_found_alone_and_among_several() {
        let gateway = attribute(RTA_GATEWAY, &[192, 168, 7, 1]);
        let alone = route(
            0,
            &[attribute(RTA_OIF, &3_u32.to_ne_bytes()), gateway.clone()],
        );
        assert_eq!(default_routes(RTM_NEWROUTE, &alone), [default(3, 1)]);

        let hop = |index: u32, last| {
            let gateway = attribute(RTA_GATEWAY, &[192, 168, 7, last]);
            let length = u16::try_from(NEXT_HOP + gateway.len()).unwrap();
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([0, 0]);
            bytes.extend(index.to_ne_bytes());
            bytes.extend(gateway);
            bytes
        };
        let several = attribute(RTA_MULTIPATH, &[hop(3, 1), hop(4, 2)].concat());
        let several = route(0, &[several]);
        let expected = [default(3, 1), default(4, 2)];
        assert_eq!(default_routes(RTM_NEWROUTE, &several), expected);

        let other = route(24, &[attribute(RTA_OIF, &3_u32.to_ne_bytes()), gateway]);
        assert_eq!(default_routes(RTM_NEWROUTE, &other), []);
        for end in 0..several.len() {
            default_routes(RTM_NEWROUTE, &several[..end]);
        }
    }
}
