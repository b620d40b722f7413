//! The segment, its hosts, a client, and time.

mod incidents;
mod isolation;
mod kernel;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::IpAddr,
    time::Duration,
};

use vrrp::{
    Cause, Effect, Input, Instant, State,
    wire::{self, Arp, ChecksumReading, Destination, Ends, Mac, Neighbour},
};

use crate::{
    defect::Defect,
    fault::Fault,
    host::{Host, Op, Process},
    judge::{Calm, Judge, Violation},
    random::Random,
    scenario::{MOST, Scenario},
};

/// The longest that a packet takes when nothing is wrong.
pub(crate) const DELAY: Duration = Duration::from_micros(300);
/// How many packets wait in the socket of a frozen process.
const INBOX: usize = 64;

/// What is to happen, and to whom.
#[derive(Clone, Debug)]
enum Event {
    Packet {
        host: usize,
        bytes: Vec<u8>,
    },
    Announcement {
        frame: Vec<u8>,
    },
    Netlink {
        host: usize,
        incarnation: u32,
        op: Op,
    },
    /// The thread that talks to the kernel looks at its lease.
    Look {
        host: usize,
        number: u64,
    },
    /// The kernel has set the lifetime that it was asked for at `began`.
    Set {
        host: usize,
        incarnation: u32,
        began: Instant,
    },
    /// The client asks who has the address.
    Ask,
    /// It asks once more because nobody answered.
    AskAgain,
    Fault(Fault),
    Start {
        host: usize,
    },
    ProxyBack {
        host: usize,
    },
    Restart {
        host: usize,
    },
    /// The agent removes what a dead process left.
    Clean {
        host: usize,
        incarnation: u32,
    },
    Wake {
        host: usize,
    },
    PowerOn {
        host: usize,
    },
    LinkUp {
        host: usize,
    },
    EndpointBack {
        host: usize,
    },
    HearsAgain {
        host: usize,
    },
    UpdateBack {
        host: usize,
    },
    /// The thread that looks whether the host is cut off wakes up.
    Turn {
        host: usize,
        number: u64,
    },
    /// The default gateway, or another host, has answered it.
    Answer {
        host: usize,
    },
    /// The default gateway is there from now on, or is not.
    Gateway {
        is_there: bool,
    },
    Heal,
    StormEnds,
}

pub(crate) struct World {
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    hosts: Vec<Host>,
    neighbour: Option<usize>,
    judge: Judge,
    calm: Calm,
    random: Random,
    /// Of what was not always simulated.
    weather: Random,
    /// The default gateway answers; it is on side 0.
    gateway: bool,
    scenario: Scenario,
    storm: bool,
    /// When the newest packet from one host to another arrives.
    arrivals: [[Instant; MOST]; MOST],
    /// How many in a row were lost or late on that way.
    missed: [[u8; MOST]; MOST],
    defect: Defect,
    trace: VecDeque<String>,
}

impl World {
    pub(crate) fn new(seed: u64, defect: Defect) -> Self {
        let mut random = Random::new(seed);
        let mut weather = Random::new(!seed);
        let scenario = Scenario::draw(&mut random, &mut weather);
        let hosts: Vec<_> = scenario
            .configs()
            .into_iter()
            .map(|config| {
                let lag = random.span(Duration::ZERO, Duration::from_micros(200));
                Host::new(config, defect, lag)
            })
            .collect();
        let mut world = Self {
            now: Instant::ZERO,
            events: BTreeMap::new(),
            count: 0,
            neighbour: None,
            judge: Judge::new(&hosts, scenario.isolation),
            calm: Calm {
                network: Instant::ZERO,
                all: Instant::ZERO,
                announcements: Instant::ZERO,
                wakes: Instant::ZERO,
            },
            random,
            weather,
            gateway: true,
            scenario,
            storm: false,
            arrivals: [[Instant::ZERO; MOST]; MOST],
            missed: [[0; MOST]; MOST],
            defect,
            trace: VecDeque::new(),
            hosts,
        };
        for host in 0..world.hosts.len() {
            let after = world.random.millis(0, 1_500);
            world.after(after, Event::Start { host });
        }
        world.after(Duration::ZERO, Event::Ask);
        let faults = world.scenario.faults(&mut world.random);
        for (at, fault) in faults {
            world.after(at, Event::Fault(fault));
        }
        for (at, lasts) in world.scenario.gateway_deaths(&mut world.weather) {
            world.after(at, Event::Gateway { is_there: false });
            world.after(at + lasts, Event::Gateway { is_there: true });
        }
        world
    }

    /// Sixty seconds, or until an invariant is broken.
    pub(crate) fn run(mut self) -> Result<u64, (Violation, String)> {
        let end = Instant::ZERO + Duration::from_mins(1);
        let mut steps = 0_u64;
        while self.now < end {
            self.step();
            steps += 1;
            assert!(steps < 3_000_000, "the machines wake without end");
            self.judge
                .look(self.now, &self.hosts, self.calm, self.neighbour);
            if let Some(violation) = self.judge.found.take() {
                let mut story = format!("{:?}\n", self.scenario);
                for line in &self.trace {
                    writeln!(story, "{line}").unwrap();
                }
                return Err((violation, story));
            }
        }
        Ok(steps)
    }

    fn step(&mut self) {
        let timer = self.next_timer();
        let event_at = self.events.first_key_value().map(|((at, _), _)| *at);
        match (timer, event_at) {
            (Some((at, host)), Some(event_at)) if at < event_at => self.timer(at, host),
            (_, Some(_)) => {
                if let Some(((at, _), event)) = self.events.pop_first() {
                    self.now = at.max(self.now);
                    self.happen(event);
                }
            }
            (Some((at, host)), None) => self.timer(at, host),
            (None, None) => self.now = self.now + Duration::from_mins(1),
        }
    }

    fn next_timer(&self) -> Option<(Instant, usize)> {
        let due = |(host, it): (usize, &Host)| {
            let at = it.runs().then(|| it.driver.poll_timeout())??;
            Some((at + it.lag, host))
        };
        self.hosts.iter().enumerate().filter_map(due).min()
    }

    fn timer(&mut self, at: Instant, host: usize) {
        self.now = at.max(self.now);
        self.tell(host, Input::Timer);
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + span, self.count), event);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == 300 {
            self.trace.pop_front();
        }
        let seconds = Duration::from_nanos(self.now.as_nanos()).as_secs_f64();
        let line = line();
        self.trace.push_back(format!("{seconds:9.4} {line}"));
    }

    fn disturb(&mut self) {
        self.calm.all = self.calm.all.max(self.now);
    }

    /// Never back to an earlier time: a disturbance may be known to last.
    fn disturb_network(&mut self) {
        self.calm.network = self.calm.network.max(self.now);
    }

    /// Hands an input to a host's machine, unless it waits for a machine that stands still, and carries out what it wants.
    fn tell(&mut self, host: usize, input: Input<'_>) {
        self.hosts[host].driver.handle(self.now, input);
        self.carry_out(host);
    }

    fn carry_out(&mut self, host: usize) {
        while let Some(effect) = self.hosts[host].driver.poll_effect() {
            match effect {
                Effect::SendAdvertisement { priority } => {
                    let it = &self.hosts[host];
                    let mut bytes = vec![0; 96];
                    let advertisement = it.driver.router.advertisement(priority);
                    let reading = ChecksumReading::WithPseudoHeader;
                    let ends = Ends::to_group(it.config.settings.source);
                    let len = wire::emit(&mut bytes, ends, 0, &advertisement, reading).unwrap();
                    bytes.truncate(len);
                    self.note(|| format!("host {host} says {priority}"));
                    self.broadcast(host, &bytes);
                }
                Effect::AddAddresses => {
                    let it = &mut self.hosts[host];
                    it.term += 1;
                    let term = it.term;
                    self.ask_kernel(host, Op::Add { term });
                }
                Effect::RemoveAddresses => self.ask_kernel(host, Op::Remove),
                Effect::AnnounceAddresses => self.announce(host),
                Effect::Transition(transition) => {
                    let (from, to) = (transition.from, transition.to);
                    let cause = transition.cause;
                    if to == State::Active {
                        self.hosts[host].resumed = matches!(cause, Cause::Resumed);
                    }
                    self.note(|| format!("host {host}: {from:?} -> {to:?}: {cause}"));
                }
                Effect::Discarded(discard) => panic!("host {host} dropped: {discard}"),
            }
        }
        let it = &mut self.hosts[host];
        assert_eq!(it.driver.router.lost_effects(), 0);
        it.last_advertisement = it.driver.router.last_advertisement();
        self.look_for_isolation(host);
    }

    /// How long a packet takes; `None`: it is lost.
    fn transit(&mut self) -> Option<Duration> {
        let loss = if self.storm {
            5_000
        } else {
            self.scenario.loss
        };
        if self.random.chance(loss) {
            self.disturb_network();
            return None;
        }
        if self.random.chance(self.scenario.spikes) {
            let late = self.random.millis(1, 40);
            // Until it arrives, nothing is as it was.
            self.calm.network = self.calm.network.max(self.now + late);
            self.note(|| format!("the next packet is late by {late:?}"));
            return Some(late);
        }
        Some(self.random.span(DELAY / 10, DELAY))
    }

    fn broadcast(&mut self, from: usize, bytes: &[u8]) {
        for host in 0..self.hosts.len() {
            if host == from || !self.hears(from, host) {
                continue;
            }
            let transit = self.transit();
            let missed = &mut self.missed[from][host];
            *missed = match transit {
                Some(delay) if delay <= DELAY => 0,
                _ => missed.saturating_add(1),
            };
            // One packet that is missed changes nobody's state.
            if *missed > 1 {
                self.disturb();
            }
            if let Some(mut delay) = transit {
                // Without a disturbance, packets of one sender keep their order.
                let arrives = &mut self.arrivals[from][host];
                if delay <= DELAY {
                    *arrives = (self.now + delay).max(*arrives);
                    delay = arrives.since(self.now);
                }
                let bytes = bytes.to_vec();
                self.after(delay, Event::Packet { host, bytes });
            } else {
                self.note(|| format!("lost on the way from {from} to {host}"));
            }
        }
    }

    fn hears(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.hosts[from], &self.hosts[to]);
        from.side == to.side && from.link && to.link && to.powered && !to.deaf
    }

    fn announce(&mut self, host: usize) {
        let it = &self.hosts[host];
        if it.side != 0 || !it.link {
            return;
        }
        let mut frame = vec![0; 86];
        // The last one is the one that the client uses.
        match *it.config.addresses.last().unwrap() {
            IpAddr::V4(address) => {
                Arp::gratuitous(it.mac(), address).emit_frame(&mut frame, it.mac(), Mac::BROADCAST)
            }
            IpAddr::V6(address) => Neighbour::unsolicited(it.mac(), address).emit_frame(
                &mut frame,
                it.mac(),
                Mac::BROADCAST,
            ),
        }
        .unwrap();
        if let Some(delay) = self.transit() {
            self.after(delay, Event::Announcement { frame });
        } else {
            self.calm.announcements = self.calm.announcements.max(self.now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Packet { host, bytes } => self.packet(host, bytes),
            Event::Announcement { frame } => {
                let arp = Arp::parse_frame(&frame).ok().map(|arp| arp.sender_mac);
                let told = || Neighbour::parse_frame(&frame).ok()?.mac;
                let mac = arp.or_else(told).unwrap();
                let from = self.hosts.iter().position(|it| it.mac() == mac);
                if self.neighbour != from {
                    self.note(|| format!("client: address is at {from:?}"));
                }
                self.neighbour = from;
            }
            Event::Netlink {
                host,
                incarnation,
                op,
            } => self.netlink(host, incarnation, op),
            Event::Look { host, number } => {
                if self.hosts[host].looks == number {
                    self.look(host);
                }
            }
            Event::Set {
                host,
                incarnation,
                began,
            } => self.set(host, incarnation, began),
            Event::Ask => {
                self.ask();
                let again = self.random.millis(700, 3_000);
                self.after(again, Event::Ask);
            }
            Event::AskAgain => self.ask(),
            Event::Turn { host, number } => {
                if self.hosts[host].turns == number {
                    self.turn(host);
                }
            }
            Event::Answer { host } => self.answered(host),
            Event::Clean { host, incarnation } => {
                let it = &mut self.hosts[host];
                if it.incarnation == incarnation {
                    it.held_until = None;
                }
            }
            other => {
                self.note(|| format!("{other:?}"));
                self.disturb();
                self.incident(other);
            }
        }
    }

    fn packet(&mut self, host: usize, bytes: Vec<u8>) {
        let it = &mut self.hosts[host];
        match it.process {
            Process::Runs if it.powered && it.link => self.hear(host, &bytes),
            Process::Frozen | Process::Stalled if it.powered && it.inbox.len() < INBOX => {
                it.inbox.push_back(bytes);
            }
            _ => {}
        }
    }

    fn hear(&mut self, host: usize, bytes: &[u8]) {
        let family = self.hosts[host].config.family();
        let received = wire::parse(bytes, family, Destination::Multicast).unwrap();
        let it = &mut self.hosts[host];
        it.heard_at = self.now;
        it.reached(self.now);
        let peer = |it: &Host| it.config.settings.source == received.source;
        let peer = self.hosts.iter().position(peer);
        self.hosts[host].peer = peer;
        let advertisement = &received.advertisement;
        let heard = (advertisement.priority, advertisement.interval);
        self.judge.hear(self.now, host, &self.hosts[host], heard);
        let input = Input::Advertisement {
            source: received.source,
            advertisement,
        };
        self.tell(host, input);
    }
}
