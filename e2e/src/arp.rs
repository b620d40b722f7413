//! Who answers for the virtual addresses, by ARP or neighbour discovery: asked over and over from a host of its
//! own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, bind, recv, send};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Host, INTERFACE, Lab, MacAddr};
use crate::{neighbour, wait};

/// The Ethernet type of ARP.
const ETHERTYPE: u16 = 0x0806;
/// Every Ethernet type (`ETH_P_ALL`).
const ALL: u16 = 3;

/// One request for an address, and who answered before the next one.
#[derive(Clone, Debug)]
pub struct Round {
    /// When the request went out.
    pub asked: Instant,
    /// The MAC addresses that answered.
    pub answers: BTreeSet<MacAddr>,
}

#[derive(Debug, Default)]
struct Seen {
    rounds: BTreeMap<IpAddr, Vec<Round>>,
    announcements: Vec<(Instant, IpAddr, MacAddr)>,
}

/// Asks for each address every few milliseconds for as long as it lives, and keeps all answers.
#[derive(Debug)]
pub struct ArpWatch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ArpWatch {
    /// Starts to ask from the lab's observer, for each of `addresses` once per `period`.
    pub fn start(
        lab: &Lab,
        addresses: &[impl Into<IpAddr> + Copy],
        period: Duration,
    ) -> Result<Self> {
        Self::on(lab.observer(), addresses, period)
    }

    /// As [`Self::start`], from any host.
    pub fn on(
        observer: &Host,
        addresses: &[impl Into<IpAddr> + Copy],
        period: Duration,
    ) -> Result<Self> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| (*address).into()).collect();
        let (socket, own) = open(observer)?;
        let source = observer.address();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::Builder::new().name("arp".into()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for address in &addresses {
                    let round = Round {
                        asked: Instant::now(),
                        answers: BTreeSet::new(),
                    };
                    lock(&noted).rounds.entry(*address).or_default().push(round);
                    // A full queue loses one round, which then shows no answer.
                    let frame = match *address {
                        IpAddr::V4(address) => request(own, source, address),
                        IpAddr::V6(address) => neighbour::solicitation(own, address),
                    };
                    send(socket.as_raw_fd(), &frame, MsgFlags::empty()).ok();
                }
                collect(&socket, source, &noted, Instant::now() + period);
            }
        })?;
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// All rounds for `address` since `since`, the one under way included.
    pub fn rounds(&self, address: impl Into<IpAddr>, since: Instant) -> Vec<Round> {
        let seen = lock(&self.seen);
        let rounds = seen
            .rounds
            .get(&address.into())
            .map(Vec::as_slice)
            .unwrap_or_default();
        // They stand in the order of time, and the watcher waits for the lock: no look at all of them.
        let first = rounds.partition_point(|round| round.asked < since);
        rounds[first..].to_vec()
    }

    /// Announcements (gratuitous ARP, unsolicited neighbour advertisements) since `since`: when, which address, which MAC.
    pub fn announcements(&self, since: Instant) -> Vec<(Instant, IpAddr, MacAddr)> {
        lock(&self.seen)
            .announcements
            .iter()
            .filter(|(at, ..)| *at >= since)
            .copied()
            .collect()
    }

    /// Waits until `count` rounds in a row since `since` were answered for `address` by `wanted` and nobody else.
    pub fn answered_by(
        &self,
        address: impl Into<IpAddr>,
        wanted: &BTreeSet<MacAddr>,
        count: usize,
        since: Instant,
        bound: Duration,
    ) -> Result<()> {
        let address = address.into();
        let (mut unread, mut alike) = (since, 0);
        let mut last = BTreeSet::new();
        let found = wait::until("the wanted answers", bound, || {
            let rounds = self.rounds(address, unread);
            // The last round is still open, and is looked at again.
            let Some((open, closed)) = rounds.split_last() else {
                return Ok(None);
            };
            unread = open.asked;
            for round in closed {
                let is_wanted = round.answers == *wanted;
                alike = if is_wanted { alike + 1 } else { 0 };
                if alike == count {
                    return Ok(Some(()));
                }
                last.clone_from(&round.answers);
            }
            Ok(None)
        });
        found.with_context(|| format!("for {address}, wanted {wanted:?}, last {last:?}"))
    }

    /// The longest span since `since` in which every round for `address` was answered by more than one MAC.
    pub fn longest_double(&self, address: impl Into<IpAddr>, since: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        let mut start = None;
        for round in self.rounds(address, since) {
            if round.answers.len() > 1 {
                let start = *start.get_or_insert(round.asked);
                longest = longest.max(round.asked - start);
            } else {
                start = None;
            }
        }
        longest
    }

    /// Forgets what was seen before `before`.
    pub fn forget(&self, before: Instant) {
        let mut seen = lock(&self.seen);
        seen.announcements.retain(|(at, ..)| *at >= before);
        for rounds in seen.rounds.values_mut() {
            rounds.retain(|round| round.asked >= before);
        }
    }
}

impl Drop for ArpWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a packet socket on `host` that sees all frames, and tells the interface's MAC.
fn open(host: &Host) -> Result<(Socket, MacAddr)> {
    thread::scope(|scope| {
        let (answer, opened) = mpsc::channel();
        scope.spawn(move || {
            let open = || {
                host.enter()?;
                let protocol = Protocol::from(i32::from(ALL.to_be()));
                let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
                    .context("packet socket")?;
                // The interface list gives a packet address ready for use, which nothing else gives safely.
                let mut links = getifaddrs()?.filter(|entry| entry.interface_name == INTERFACE);
                let link = links.find_map(|entry| entry.address?.as_link_addr().copied());
                let link = link.ok_or_else(|| anyhow!("no interface {INTERFACE}"))?;
                bind(socket.as_raw_fd(), &link).context("bind the packet socket")?;
                socket.set_nonblocking(true)?;
                Ok((socket, MacAddr(link.addr().unwrap_or_default())))
            };
            // The receiver waits below.
            drop(answer.send(open()));
        });
        opened
            .recv()
            .context("the thread that opens the packet socket ended")?
    })
}

/// An ARP request (RFC 826) in an Ethernet frame, to all.
fn request(own: MacAddr, source: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own.0);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.octets());
    frame
}

/// Notes answers and announcements until `until`.
fn collect(socket: &Socket, own: Ipv4Addr, seen: &Mutex<Seen>, until: Instant) {
    let mut frame = [0_u8; 128];
    loop {
        while let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            note(&frame[..length.min(frame.len())], own, &mut lock(seen));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // Whatever ends the wait, the loop looks again.
        ppoll(&mut wanted, Some(TimeSpec::from_duration(left)), None).ok();
    }
}

fn note(frame: &[u8], own: Ipv4Addr, seen: &mut Seen) {
    let told = match frame.get(12..14) {
        Some(kind) if kind == ETHERTYPE.to_be_bytes() => arp(frame, own),
        _ => neighbour::advertised(frame).map(|told| {
            let answer = (told.target.into(), told.mac);
            (answer, told.is_answer)
        }),
    };
    let Some(((address, mac), is_answer)) = told else {
        return;
    };
    if !is_answer {
        seen.announcements.push((Instant::now(), address, mac));
    } else if let Some(rounds) = seen.rounds.get_mut(&address)
        && let Some(round) = rounds.last_mut()
    {
        round.answers.insert(mac);
    }
}

/// The address that an ARP packet tells of, where that is, and whether it answers `own`; `None`: it asks, or answers
/// others.
fn arp(frame: &[u8], own: Ipv4Addr) -> Option<((IpAddr, MacAddr), bool)> {
    let arp = frame.get(14..42)?;
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = arp.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let (sender, target) = (address(14)?, address(24)?);
    let mac = MacAddr(arp.get(8..14)?.try_into().ok()?);
    let is_announcement = sender == target;
    let is_answer = arp.get(6..8) == Some(&[0, 2]) && target == own;
    (is_announcement || is_answer).then_some(((sender.into(), mac), !is_announcement))
}
