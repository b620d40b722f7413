//! Who answers for the virtual addresses: ARP probes (RFC 5227), which no neighbour takes for news.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use node_api::{NodeReport, RouterState};
use vrrp::wire::{Arp, Mac, arp};

use super::Finding;
use crate::sys::{
    arp::ArpSocket,
    netlink::{Change, Requests},
};

/// Neighbours answer within a millisecond or so; a lost probe is sent again.
const PROBES: u32 = 3;
const EACH: Duration = Duration::from_millis(150);

/// Whose addresses answer, by address.
type Answers = BTreeMap<Ipv4Addr, BTreeSet<String>>;

/// Asks for all IPv4 addresses, on all interfaces at a time.
pub(super) fn check(report: &NodeReport) -> Vec<Finding> {
    let mut wanted: BTreeMap<&str, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for (interface, address, _) in asked(report) {
        wanted.entry(interface).or_default().insert(address);
    }
    let links = links();
    let answers: BTreeMap<&str, io::Result<Answers>> = thread::scope(|scope| {
        let asking: Vec<_> = wanted
            .iter()
            .map(|(interface, addresses)| {
                let link = links.as_ref().map(|links| links.get(*interface).copied());
                (*interface, scope.spawn(move || ask(link, addresses)))
            })
            .collect();
        let failed = |_| Err(io::Error::other("the check failed"));
        asking
            .into_iter()
            .map(|(interface, thread)| (interface, thread.join().unwrap_or_else(failed)))
            .collect()
    });
    let none = BTreeSet::new();
    asked(report)
        .map(|(interface, address, is_active)| {
            let subject = format!("address {address}");
            match answers.get(interface) {
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
fn asked(report: &NodeReport) -> impl Iterator<Item = (&str, Ipv4Addr, bool)> {
    report.virtual_routers.iter().flat_map(|router| {
        let interface = router.interface.as_deref();
        let is_active = router.state == RouterState::Active;
        let addresses = router.addresses.iter();
        addresses.filter_map(move |address| match address {
            IpAddr::V4(address) => Some((interface?, *address, is_active)),
            IpAddr::V6(_) => None,
        })
    })
}

/// Index and hardware address of each interface that has one.
fn links() -> io::Result<BTreeMap<String, (u32, Mac)>> {
    let changes = Requests::open()?.dump()?.into_iter();
    let links = changes.filter_map(|change| match change {
        Change::Link(link) => Some((link.name, (link.index, Mac(link.mac?)))),
        _ => None,
    });
    Ok(links.collect())
}

/// The hardware addresses of other hosts that answer for each.
fn ask(
    link: Result<Option<(u32, Mac)>, &io::Error>,
    addresses: &BTreeSet<Ipv4Addr>,
) -> io::Result<Answers> {
    let link = link.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (index, mac) = link.ok_or(io::ErrorKind::NotFound)?;
    let socket = ArpSocket::open(index)?;
    let mut answers = Answers::new();
    for _ in 0..PROBES {
        for address in addresses {
            let mut frame = [0; arp::FRAME_LEN];
            let written = Arp::probe(mac, *address).emit_frame(&mut frame, mac, Mac::BROADCAST);
            written.map_err(io::Error::other)?;
            socket.send(&frame)?;
        }
        let until = Instant::now() + EACH;
        while let Some(frame) = socket.receive(until)? {
            if let Ok(arp) = Arp::parse_frame(&frame)
                && addresses.contains(&arp.sender)
                && arp.sender_mac != mac
            {
                let macs = answers.entry(arp.sender).or_default();
                macs.insert(arp.sender_mac.to_string());
            }
        }
    }
    Ok(answers)
}

fn judge(subject: String, is_active: bool, macs: &BTreeSet<String>) -> Finding {
    let list: Vec<_> = macs.iter().cloned().collect();
    let list = list.join(", ");
    let remedy = "find out who that is (`arping`, the switch's table): a host that has the address as \
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
