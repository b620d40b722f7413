//! The loop of the machine thread with real packets, and what it allocates for them: nothing.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use ::vrrp::{
    Advertisement, Authentication, Centiseconds, Config, Peering, Priority, Settings, Version,
    Vrid,
    machine::{Preemption, default_linger},
    wire::{self, AddressList, ChecksumReading},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use super::{segment::Segment, *};
use crate::{
    sys::{
        counting::allocations,
        netlink::Requests,
        pages::{RouterKey, RouterTable},
        ring::{Producer, ring},
    },
    vrrp::{messages::LeaseCommand, world::World},
};

const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 2);
/// Three of them are more than a busy machine keeps a thread from its core.
const INTERVAL: Centiseconds = Centiseconds::new(10).unwrap();
const COUNT: u8 = 20;

/// The machine of a host, on the thread of the test, with the other ends of its queues.
struct Rig {
    machine: Machine,
    commands: Producer<ToMachine>,
    answers: Producer<LeaseAnswer>,
    leases: Consumer<LeaseCommand>,
    news: Consumer<FromMachine>,
    peer: Segment,
    /// The page of a proxy that beats whenever the machine turns.
    beats: Option<&'static PairPage>,
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// Once the kernel says that the link is up: nobody here tells the machine so later.
fn segment(name: &str) -> Segment {
    let end = now() + Duration::from_secs(10);
    loop {
        let links = Requests::open().unwrap().dump().unwrap();
        let binding = World::of(links).bind(Some(name), &[address(1)], None, None);
        let binding = binding.unwrap();
        if binding.is_up {
            return Segment::open(&binding).unwrap();
        }
        assert!(now() < end, "{name} does not come up");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A cable from `eth0` in a namespace that the calling thread enters to `peer0` in another one.
/// `None`, with the reason printed, where that is not permitted.
fn rig() -> Option<Rig> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("SKIPPED: cannot make a network namespace: {error}");
        return None;
    }
    let (tids, tid) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let peer = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tids.send(gettid().as_raw()).unwrap();
        wait.recv().unwrap();
        ip("addr add 192.168.9.2/24 dev peer0");
        ip("link set peer0 up");
        segment("peer0")
    });
    let tid = tid.recv().unwrap();
    ip(&format!(
        "link add eth0 type veth peer name peer0 netns {tid}"
    ));
    ip("addr add 192.168.9.1/24 dev eth0");
    ip("link set eth0 up");
    go.send(()).unwrap();
    let peer = peer.join().unwrap();

    let (commands, from_control) = ring(64);
    let (answers, from_host) = ring(64);
    let (to_host, leases) = ring(1024);
    let (to_control, news) = ring(1024);
    let inputs = Inputs {
        commands: from_control,
        answers: from_host,
        bell: Arc::new(Bell::new().unwrap()),
    };
    let outputs = Outputs {
        leases: to_host,
        leases_wake: Arc::new(Wake::new().unwrap()),
        control: to_control,
        control_wake: Arc::new(Wake::new().unwrap()),
    };
    let table = RouterTable::create().unwrap().leak();
    let frames = FrameSocket::open().unwrap();
    let machine = Machine::new(inputs, outputs, frames, &table.machine_beat, 64);
    let mut rig = Rig {
        machine,
        commands,
        answers,
        leases,
        news,
        peer,
        beats: None,
    };
    let own = segment("eth0");
    let id = own.id;
    rig.command(ToMachine::Open(Box::new(own)));
    let page = PairPage::create().unwrap().leak();
    page.beats.begin(1);
    rig.command(ToMachine::Pairing(1, page));
    rig.beats = Some(page);
    for number in 1..=COUNT {
        let row = table.row(RouterKey::new(id.index, 4, number)).unwrap();
        let slot = Slot::new(number.into(), id, config(number), None, row).unwrap();
        rig.command(ToMachine::Create(Box::new(slot)));
        rig.command(ToMachine::Participate {
            id: number.into(),
            pairing: 1,
            hold_until: Instant::ZERO,
            resume: None,
        });
    }
    Some(rig)
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 168, 9, 100 + number])
}

fn config(number: u8) -> Config {
    Config {
        vrid: Vrid::new(number).unwrap(),
        addresses: vec![address(number)],
        settings: Settings {
            version: Version::V3,
            source: IpAddr::from([192, 168, 9, 1]),
            priority: Priority::new(100),
            priority_without_endpoint: Priority::new(10),
            interval: INTERVAL,
            // One that was late on a busy machine, and let go, rises again.
            preemption: Preemption::Enabled {
                delay: Duration::ZERO,
            },
            peering: Peering::Multicast,
            authentication: Authentication::None,
            linger: default_linger(Version::V3, INTERVAL),
        },
    }
}

impl Rig {
    /// Hands in a command.
    fn command(&mut self, command: ToMachine) {
        self.commands.push(command).unwrap();
        self.machine.turn().unwrap();
    }

    fn turn(&mut self) {
        if let Some(page) = self.beats {
            page.beats.beat(0);
        }
        let timeout = self.machine.turn().unwrap();
        self.machine
            .waiter
            .wait(Some(timeout.min(Duration::from_millis(1))))
            .unwrap();
    }

    /// An advertisement of every virtual router from the other host.
    fn peer_advertises(&self, priority: u8) {
        self.peer_advertises_for(priority, 1..=COUNT);
    }

    fn peer_advertises_for(&self, priority: u8, numbers: RangeInclusive<u8>) {
        let mut packet = [0; 128];
        for number in numbers {
            let addresses = [address(number)];
            let advertisement = Advertisement {
                version: Version::V3,
                vrid: Vrid::new(number).unwrap(),
                priority: Priority::new(priority),
                interval: INTERVAL,
                authentication: Authentication::None,
                addresses: AddressList::from_slice(&addresses),
            };
            let length = wire::emit_ipv4(
                &mut packet,
                PEER,
                wire::GROUP_V4,
                1,
                &advertisement,
                ChecksumReading::WithPseudoHeader,
            )
            .unwrap();
            self.peer
                .socket
                .send(&packet[..length], wire::GROUP_V4.into())
                .unwrap();
        }
    }

    fn all_in(&self, state: State) -> bool {
        self.machine
            .slots
            .iter()
            .all(|slot| slot.router.state() == state)
    }

    fn received(&self) -> u64 {
        self.machine
            .slots
            .iter()
            .map(|s| s.observe().received)
            .sum()
    }

    fn sent(&self) -> u64 {
        self.machine.slots.iter().map(|s| s.observe().sent).sum()
    }

    fn was_told_of_a_hang(&mut self) -> bool {
        let mut news = std::iter::from_fn(|| self.news.pop());
        news.any(|news| matches!(news, FromMachine::Beats(_, false)))
    }

    /// As the netlink thread would.
    fn answer_leases(&mut self) {
        while let Some(command) = self.leases.pop() {
            let answer = match command {
                LeaseCommand::Hold(id, term) => LeaseAnswer::Held(id, term),
                LeaseCommand::Remove(id, term) => LeaseAnswer::Removed(id, term),
            };
            self.answers.push(answer).unwrap();
        }
    }
}

#[test]
fn a_backup_allocates_nothing_per_packet() {
    let Some(mut rig) = rig() else { return };
    rig.peer_advertises(200);
    rig.turn();
    assert!(rig.all_in(State::Backup));
    let (before, received) = (allocations(), rig.received());
    for _ in 0..25 {
        rig.peer_advertises(200);
        rig.turn();
    }
    let heard = rig.received() - received;
    assert!(heard >= 400, "only {heard} packets");
    assert!(rig.all_in(State::Backup));
    assert_eq!(allocations() - before, 0, "for {heard} packets");
}

/// With packets of a lower Active on top, each of which is answered and announced against.
#[test]
fn an_active_allocates_nothing_per_advertisement() {
    let Some(mut rig) = rig() else { return };
    while !rig.all_in(State::Active) {
        rig.answer_leases();
        rig.turn();
    }
    rig.answer_leases();
    rig.turn();
    let (before, sent) = (allocations(), rig.sent());
    while rig.sent() - sent < 400 || !rig.all_in(State::Active) {
        rig.peer_advertises(50);
        rig.answer_leases();
        rig.turn();
    }
    assert!(rig.received() > 0);
    assert_eq!(allocations() - before, 0);
}

/// Transitions and orders to the netlink thread neither.
#[test]
fn a_takeover_allocates_nothing() {
    let Some(mut rig) = rig() else { return };
    let before = allocations();
    while !rig.all_in(State::Active) {
        rig.answer_leases();
        rig.turn();
    }
    rig.answer_leases();
    rig.turn();
    assert_eq!(allocations() - before, 0);
    // One that was late on a busy machine, and let go, has risen again.
    let mut risen = 0;
    while let Some(news) = rig.news.pop() {
        if let FromMachine::Transition(_, transition) = news {
            risen += i32::from(transition.to == State::Active);
            risen -= i32::from(transition.from == State::Active);
        }
    }
    assert_eq!(risen, i32::from(COUNT));
}

/// After a pause more packets wait than are taken in a turn; the timers are due, too.
#[test]
fn what_waits_behind_many_packets_is_no_silence() {
    let Some(mut rig) = rig() else { return };
    rig.peer_advertises(200);
    rig.turn();
    assert!(rig.all_in(State::Backup));
    let due = |slot: &Slot| slot.router.poll_timeout().unwrap();
    let last_due = rig.machine.slots.iter().map(|slot| due(slot)).max();
    while now() <= last_due.unwrap() {
        thread::yield_now();
    }
    for _ in 0..10 {
        rig.peer_advertises_for(200, 1..=COUNT - 1);
    }
    rig.peer_advertises_for(200, COUNT..=COUNT);
    rig.machine.turn().unwrap();
    assert!(rig.all_in(State::Backup));
}

/// The netlink thread was late to tell of addresses that are asked for anew by now.
#[test]
fn an_answer_to_an_earlier_question_is_ignored() {
    let Some(mut rig) = rig() else { return };
    while !rig.all_in(State::Active) {
        rig.turn();
    }
    rig.answer_leases();
    let id = RouterId::from(COUNT);
    rig.answers.push(LeaseAnswer::Lost(id, 0)).unwrap();
    rig.turn();
    assert!(rig.all_in(State::Active));
    rig.answers.push(LeaseAnswer::Lost(id, 1)).unwrap();
    rig.turn();
    assert!(!rig.all_in(State::Active));
}

/// Host and proxy were paused together: whoever turns first must not judge the other.
#[test]
fn after_a_pause_the_proxy_gets_its_time_to_beat() {
    let Some(mut rig) = rig() else { return };
    rig.beats = None;
    rig.turn();
    assert!(!rig.was_told_of_a_hang());
    thread::sleep(PROXY_HANGS_AFTER + Duration::from_millis(50));
    rig.turn();
    rig.turn();
    assert!(!rig.was_told_of_a_hang());
    let end = now() + Duration::from_secs(10);
    while !rig.was_told_of_a_hang() {
        assert!(now() < end, "a proxy that stays silent hangs after all");
        rig.turn();
    }
}
