//! Who answers for the virtual addresses: ARP probes (RFC 5227) and neighbour solicitations (RFC 4861), which
//! no neighbour takes for news of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use node_api::{NodeReport, RouterState, is_link_local_v6};
use vrrp::wire::{
    Mac,
    resolution::{self, FRAME_LEN},
};

use super::Finding;
use crate::sys::{
    netlink::{Change, Requests},
    resolution::ResolutionSocket,
};

/// Neighbours answer within a millisecond or so; a lost probe is sent again.
const PROBES: u32 = 3;
const EACH: Duration = Duration::from_millis(150);

/// Whose addresses answer, by address.
type Answers = BTreeMap<IpAddr, BTreeSet<String>>;

/// Interface, and whether it is about IPv6: what is asked at a time.
type Segment<'a> = (&'a str, bool);

/// Asks for all addresses, on all interfaces at a time.
pub(super) fn check(report: &NodeReport) -> Vec<Finding> {
    let mut wanted: BTreeMap<Segment<'_>, BTreeSet<IpAddr>> = BTreeMap::new();
    for (interface, address, _) in asked(report) {
        let segment = (interface, address.is_ipv6());
        wanted.entry(segment).or_default().insert(address);
    }
    let links = links();
    let answers: BTreeMap<Segment<'_>, io::Result<Answers>> = thread::scope(|scope| {
        let asking: Vec<_> = wanted
            .iter()
            .map(|(segment, addresses)| {
                let (interface, is_ipv6) = *segment;
                let link = links.as_ref().map(|links| links.get(interface).copied());
                (*segment, scope.spawn(move || ask(link, is_ipv6, addresses)))
            })
            .collect();
        let failed = |_| Err(io::Error::other("the check failed"));
        asking
            .into_iter()
            .map(|(segment, thread)| (segment, thread.join().unwrap_or_else(failed)))
            .collect()
    });
    let none = BTreeSet::new();
    asked(report)
        .map(|(interface, address, is_active)| {
            let subject = format!("address {address}");
            match answers.get(&(interface, address.is_ipv6())) {
                Some(Ok(answers)) => {
                    judge(subject, is_active, answers.get(&address).unwrap_or(&none))
                }
                Some(Err(error)) => {
                    let why = format!("cannot ask on {interface} who has it ({error})");
                    Finding::unknown(subject, why)
                }
                None => Finding::unknown(subject, "nobody was asked"),
            }
        })
        .collect()
}

/// Interface and address of each virtual router that has both, and whether it is held here.
fn asked(report: &NodeReport) -> impl Iterator<Item = (&str, IpAddr, bool)> {
    report.virtual_routers.iter().flat_map(|router| {
        let interface = router.interface.as_deref();
        let is_active = router.state == RouterState::Active;
        let addresses = router.addresses.iter();
        addresses.filter_map(move |address| Some((interface?, *address, is_active)))
    })
}

/// An interface that can be asked on.
#[derive(Clone, Copy, Debug)]
struct Link {
    index: u32,
    mac: Mac,
    /// Its own link-local address.
    source: Option<Ipv6Addr>,
}

fn links() -> io::Result<BTreeMap<String, Link>> {
    let changes = Requests::open()?.dump()?;
    let link_local = |index: u32| {
        changes.iter().find_map(|change| match change {
            Change::Address(own) if own.index == index && !own.is_own && !own.is_tentative => {
                match own.address {
                    IpAddr::V6(address) if is_link_local_v6(own.address) => Some(address),
                    _ => None,
                }
            }
            _ => None,
        })
    };
    let links = changes.iter().filter_map(|change| match change {
        Change::Link(link) => Some((
            link.name.clone(),
            Link {
                index: link.index,
                mac: Mac(link.mac?),
                source: link_local(link.index),
            },
        )),
        _ => None,
    });
    Ok(links.collect())
}

/// The hardware addresses of other hosts that answer for each.
fn ask(
    link: Result<Option<Link>, &io::Error>,
    is_ipv6: bool,
    addresses: &BTreeSet<IpAddr>,
) -> io::Result<Answers> {
    let link = link.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let Link { index, mac, source } = link.ok_or(io::ErrorKind::NotFound)?;
    let (socket, source) = if is_ipv6 {
        let source = source.ok_or_else(|| io::Error::other("it has no link-local address"))?;
        (ResolutionSocket::neighbour_discovery(index)?, source)
    } else {
        (ResolutionSocket::arp(index)?, Ipv6Addr::UNSPECIFIED)
    };
    let mut answers = Answers::new();
    for _ in 0..PROBES {
        for address in addresses {
            let mut frame = [0; FRAME_LEN];
            let length = resolution::question(&mut frame, mac, source, *address);
            let length = length.map_err(io::Error::other)?;
            socket.send(frame.get(..length).unwrap_or(&[]))?;
        }
        let until = Instant::now() + EACH;
        while let Some(frame) = socket.receive(until)? {
            if let Ok(Some((address, theirs))) = resolution::claim(&frame)
                && addresses.contains(&address)
                && theirs != mac
            {
                let macs = answers.entry(address).or_default();
                macs.insert(theirs.to_string());
            }
        }
    }
    Ok(answers)
}

fn judge(subject: String, is_active: bool, macs: &BTreeSet<String>) -> Finding {
    let list: Vec<_> = macs.iter().cloned().collect();
    let list = list.join(", ");
    let remedy = "find out who that is (`arping`, `ndisc6`, the switch's table): a host that has the address as \
                  its own, or another of its interfaces that answers too";
    match (is_active, macs.len()) {
        (true, 0) => Finding::fine(subject, "held here, and nobody else answers for it"),
        (true, _) => Finding::problem(
            subject,
            format!("held here, and {list} answers too"),
            remedy,
        ),
        (false, 0) => Finding::unknown(subject, "not held here, and nobody answers for it"),
        (false, 1) => Finding::fine(subject, format!("not held here, and {list} answers for it")),
        (false, _) => Finding::problem(subject, format!("{list} answer for it"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_answers() {
        for (is_active, macs, expected) in [
            (true, &[][..], "ok"),
            (true, &["a"], "PROBLEM"),
            (false, &[], "unknown"),
            (false, &["a"], "ok"),
            (false, &["a", "b"], "PROBLEM  address x: a, b answer for it"),
        ] {
            let macs = macs.iter().map(ToString::to_string).collect();
            let said = judge("address x".to_owned(), is_active, &macs).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
