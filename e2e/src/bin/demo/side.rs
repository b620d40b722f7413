//! One side of the demo: a lab, a subject in it, four clients, and the article's steps.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::arp::ArpWatch;
use e2e::backend::Backends;
use e2e::control::ControlTimer;
use e2e::fault::Fault;
use e2e::lab::{Lab, PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::probe::{Outage, Probe, Timing};
use e2e::subject::{Gateways, Settings, Subject};
use e2e::wait;

/// Bound against hangs: no step takes longer to settle.
const BOUND: Duration = Duration::from_secs(30);
/// Echoes in a row by which a client counts as served again.
const STEADY: usize = 10;
/// A silence longer than this is told, even if no session ended.
const PAUSE: Duration = Duration::from_millis(50);
/// The article's four connections.
const CLIENTS: [Ipv4Addr; 4] = [VIP_SERVER2, VIP_SERVER1, VIP_SERVER2, VIP_SERVER1];

/// In place of the addresses of a host without power.
pub(crate) const OFF: &str = "off";

/// What a step did to the clients of one side.
pub(crate) struct Outcome {
    /// For the table at the end.
    pub(crate) cell: String,
    /// A line for each client.
    pub(crate) clients: Vec<String>,
    /// `ip addr` of server1 and server2; empty where it is of no interest.
    pub(crate) addresses: [String; 2],
    /// What else is worth telling.
    pub(crate) remarks: Vec<String>,
    /// What must not have happened.
    pub(crate) broken: Option<String>,
}

/// A lab with a subject and its clients.
pub(crate) struct Side<'lab> {
    lab: &'lab Lab,
    clients: Vec<Probe>,
    control: ControlTimer,
    arp: ArpWatch,
    gateways: Gateways<'lab>,
    backends: Backends,
    /// Up to when the clients have been asked: what happens between two steps belongs to the later one.
    told: Instant,
    /// When the proxy was killed.
    struck: Instant,
}

impl<'lab> Side<'lab> {
    /// Starts backends and gateways, and waits until each address is where it belongs.
    pub(crate) fn start(lab: &'lab Lab, subject: Subject, settings: Settings) -> Result<Self> {
        let backends = Backends::start(lab)?;
        let gateways = Gateways::start(lab, subject, settings)?;
        let arp = ArpWatch::start(lab, &[VIP_SERVER1, VIP_SERVER2], Duration::from_millis(50))?;
        let home = gateways
            .wait_at_home(&arp, BOUND)
            .with_context(|| gateways.logs());
        home?;
        Ok(Self {
            lab,
            clients: Vec::new(),
            control: ControlTimer::start()?,
            arp,
            gateways,
            backends,
            told: Instant::now(),
            struck: Instant::now(),
        })
    }

    /// What runs here.
    pub(crate) fn subject(&self) -> Subject {
        self.gateways.subject()
    }

    /// The logs of the gateways, for a reader who wants to know why something failed.
    pub(crate) fn logs(&self) -> String {
        self.gateways.logs()
    }

    /// Who holds what at the start.
    pub(crate) fn show(&mut self) -> Result<Outcome> {
        let mut outcome = self.outcome()?;
        outcome.cell = "both addresses up".into();
        Ok(outcome)
    }

    /// The article's four connections.
    pub(crate) fn connect(&mut self) -> Result<Outcome> {
        for address in CLIENTS {
            self.clients
                .push(Probe::start(self.lab.client(), address, timing())?);
        }
        self.steady(Instant::now())?;
        let mut outcome = self.outcome()?;
        let answered = CLIENTS.iter().zip(&self.clients).enumerate();
        let lines = answered.map(|(number, (address, client))| {
            let echo = client.first_echo().unwrap_or_default();
            format!("client {} -> {address}:{PORT}   < {echo}", number + 1)
        });
        outcome.clients = lines.collect();
        let backends: BTreeSet<_> = self.clients.iter().filter_map(Probe::backend).collect();
        outcome.cell = format!("4 sessions on {} of 3 backends", backends.len());
        outcome.addresses = Default::default();
        Ok(outcome)
    }

    /// kill -9 of the proxy on server1.
    pub(crate) fn kill_proxy(&mut self) -> Result<Outcome> {
        self.struck = Instant::now();
        Fault::ProxyKilled.strike(&mut self.gateways, self.lab.server1())?;
        self.moved()
    }

    /// The proxy comes back: by itself, or because the administrator starts it.
    pub(crate) fn proxy_returns(&mut self) -> Result<Outcome> {
        let started = Instant::now();
        Fault::ProxyKilled.heal(&mut self.gateways, self.lab.server1())?;
        if self.subject() == Subject::Wsha {
            self.back(self.struck, "the kill")
        } else {
            self.back(started, "the administrator's start of nginx")
        }
    }

    /// server1 loses its power.
    pub(crate) fn power_off(&mut self) -> Result<Outcome> {
        self.lab.server1().power_off()?;
        let mut outcome = self.moved()?;
        outcome.addresses[0] = OFF.into();
        Ok(outcome)
    }

    /// server1 boots, and its services start.
    pub(crate) fn power_on(&mut self) -> Result<Outcome> {
        let pressed = Instant::now();
        self.lab.server1().power_on()?;
        self.gateways.start_host(self.lab.server1())?;
        self.back(pressed, "power-on")
    }

    /// A fourth backend joins while the four sessions live.
    pub(crate) fn add_backend(&mut self) -> Result<Outcome> {
        let Some(fourth) = self.lab.backends().get(3) else {
            bail!("the lab has no fourth backend")
        };
        self.backends.add_fourth(self.lab)?;
        let since = Instant::now();
        self.gateways.add_fourth_backend()?;
        // A new session each time, until the fourth has one: that is when the change works.
        let served = wait::until("a session on the fourth backend", BOUND, || {
            let asked = Instant::now();
            let visitor = Probe::start(self.lab.client(), VIP_SERVER1, timing())?;
            let answered = visitor.steady(asked, 1, Duration::from_secs(2)).is_some();
            Ok((answered && visitor.backend() == Some(fourth.address())).then(Instant::now))
        })?;
        self.steady(Instant::now())?;
        let mut outcome = self.outcome()?;
        let lost: usize = self.clients.iter().map(|client| client.losses(since)).sum();
        outcome.cell = format!("{lost} of 4 sessions lost");
        if lost > 0 && self.subject() == Subject::Wsha {
            outcome.broken = Some("wsha lost sessions while a backend was added".into());
        }
        outcome.addresses = Default::default();
        outcome.remarks.push(format!(
            "the first session on {} came {} ms after the change",
            fourth.address(),
            (served - since).as_millis()
        ));
        Ok(outcome)
    }

    /// Waits until server2 has taken over and every client is served.
    fn moved(&mut self) -> Result<Outcome> {
        let heir = self.lab.server2();
        wait::until("server2 to take over", BOUND, || {
            Ok(heir.holds(VIP_SERVER1)?.then_some(()))
        })?;
        self.steady(Instant::now())?;
        self.outcome()
    }

    /// Waits until each address is back where it belongs and every client is served.
    fn back(&mut self, since: Instant, cause: &str) -> Result<Outcome> {
        let home = self.gateways.wait_at_home(&self.arp, BOUND)?;
        self.steady(home)?;
        let mut outcome = self.outcome()?;
        outcome.remarks.push(format!(
            "back where it was {:.1} s after {cause}",
            (self.home_since(since) - since).as_secs_f32()
        ));
        Ok(outcome)
    }

    /// When server1 alone began to answer for its address: this may be long before anybody looked.
    fn home_since(&self, since: Instant) -> Instant {
        let owner = self.lab.server1().mac();
        let rounds = self.arp.rounds(VIP_SERVER1, since);
        // The last round is still open.
        let closed = rounds
            .split_last()
            .map(|(_, closed)| closed)
            .unwrap_or_default();
        let at_home = closed
            .iter()
            .rev()
            .take_while(|round| round.answers.iter().eq([&owner]));
        at_home
            .last()
            .map_or_else(Instant::now, |round| round.asked)
    }

    fn steady(&self, since: Instant) -> Result<()> {
        for (number, client) in self.clients.iter().enumerate() {
            let served = client.steady(since, STEADY, BOUND);
            served.with_context(|| format!("client {} is not served", number + 1))?;
        }
        Ok(())
    }

    /// What the clients saw since they were asked last.
    fn outcome(&mut self) -> Result<Outcome> {
        let now = Instant::now();
        let since = std::mem::replace(&mut self.told, now);
        let outages: Vec<_> = self
            .clients
            .iter()
            .map(|client| client.outage(since, now))
            .collect();
        let lines = outages.iter().enumerate().map(|(number, outage)| {
            let saw = if !outage.losses.is_empty() {
                format!(
                    "cut off for {} ms, saw {}",
                    outage.longest.as_millis(),
                    outage.saw()
                )
            } else if outage.longest > PAUSE {
                format!("kept its session, waited {} ms", outage.longest.as_millis())
            } else {
                "noticed nothing".to_owned()
            };
            format!("client {} ({}): {saw}", number + 1, CLIENTS[number])
        });
        let [first, second] = self.lab.gateways();
        Ok(Outcome {
            clients: lines.collect(),
            cell: self.cell(&outages),
            addresses: [first.ip_addr()?, second.ip_addr()?],
            remarks: Vec::new(),
            broken: None,
        })
    }

    fn cell(&self, outages: &[Outage]) -> String {
        let cut: Vec<_> = outages
            .iter()
            .filter(|outage| !outage.losses.is_empty())
            .collect();
        let Some(worst) = cut.iter().max_by_key(|outage| outage.longest) else {
            return "nobody cut off".to_owned();
        };
        let (begin, end) = worst.between;
        format!(
            "{} of 4 cut off, worst {} ms ({})",
            cut.len(),
            worst.longest.as_millis(),
            self.control.worst(begin, end).as_millis()
        )
    }
}

/// A lively client whose time-outs no scheduling gap of a busy machine reaches.
fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        send_every: ms(10),
        lost_after: ms(200),
        connect_timeout: ms(50),
        redial_after: ms(2),
    }
}
