//! One side of the demo: a lab, a subject in it, four clients, and the article's steps.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::arp::ArpWatch;
use e2e::backend::Backends;
use e2e::fault::Fault;
use e2e::lab::{Lab, VIP_SERVER1, VIP_SERVER2};
use e2e::probe::{Probe, Timing};
use e2e::subject::{Gateways, Settings, Subject};
use e2e::wait;

/// Bound against hangs: no step takes longer to settle.
const BOUND: Duration = Duration::from_secs(30);
/// Echoes in a row by which a client counts as served again.
const STEADY: usize = 10;
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
}

/// A lab with a subject and its clients.
pub(crate) struct Side<'lab> {
    lab: &'lab Lab,
    clients: Vec<Probe>,
    arp: ArpWatch,
    gateways: Gateways<'lab>,
    backends: Backends,
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
            arp,
            gateways,
            backends,
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
        let mut outcome = self.outcome(Instant::now())?;
        outcome.cell = "both addresses up".into();
        Ok(outcome)
    }

    /// The article's four connections.
    pub(crate) fn connect(&mut self) -> Result<Outcome> {
        let since = Instant::now();
        for address in CLIENTS {
            self.clients
                .push(Probe::start(self.lab.client(), address, timing())?);
        }
        self.steady(since)?;
        let mut outcome = self.outcome(since)?;
        let lines =
            CLIENTS
                .iter()
                .zip(&self.clients)
                .enumerate()
                .map(|(number, (address, client))| {
                    let answer = client
                        .backend()
                        .map_or_else(|| "?".to_owned(), |backend| backend.to_string());
                    format!(
                        "client {} -> {address}:8020   < Server {answer}  received from client: 1",
                        number + 1
                    )
                });
        outcome.clients = lines.collect();
        let mut backends: Vec<_> = self.clients.iter().filter_map(Probe::backend).collect();
        backends.sort_unstable();
        backends.dedup();
        outcome.cell = format!("4 sessions on {} of 3 backends", backends.len());
        outcome.addresses = Default::default();
        Ok(outcome)
    }

    /// kill -9 of the proxy on server1.
    pub(crate) fn kill_proxy(&mut self) -> Result<Outcome> {
        let since = Instant::now();
        Fault::ProxyKilled.strike(&mut self.gateways, self.lab.server1())?;
        self.moved(since)
    }

    /// The proxy comes back: by itself, or because the administrator starts it.
    pub(crate) fn proxy_returns(&mut self) -> Result<Outcome> {
        let since = Instant::now();
        if self.subject() != Subject::Wsha {
            self.gateways.start_host(self.lab.server1())?;
        }
        self.back(since)
    }

    /// server1 loses its power.
    pub(crate) fn power_off(&mut self) -> Result<Outcome> {
        let since = Instant::now();
        self.lab.server1().power_off()?;
        let mut outcome = self.moved(since)?;
        outcome.addresses[0] = OFF.into();
        Ok(outcome)
    }

    /// server1 boots, and its services start.
    pub(crate) fn power_on(&mut self) -> Result<Outcome> {
        let since = Instant::now();
        self.lab.server1().power_on()?;
        self.gateways.start_host(self.lab.server1())?;
        self.back(since)
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
        let mut outcome = self.outcome(since)?;
        let lost: usize = self.clients.iter().map(|client| client.losses(since)).sum();
        outcome.cell = format!("{lost} of 4 sessions lost");
        outcome.addresses = Default::default();
        outcome.remarks.push(format!(
            "the first session on {} came {} ms after the change",
            fourth.address(),
            (served - since).as_millis()
        ));
        Ok(outcome)
    }

    /// Waits until server2 has taken over and every client is served.
    fn moved(&mut self, since: Instant) -> Result<Outcome> {
        let heir = self.lab.server2();
        wait::until("server2 to take over", BOUND, || {
            Ok(heir.holds(VIP_SERVER1)?.then_some(()))
        })?;
        self.steady(Instant::now())?;
        self.outcome(since)
    }

    /// Waits until each address is back where it belongs and every client is served.
    fn back(&mut self, since: Instant) -> Result<Outcome> {
        let home = self.gateways.wait_at_home(&self.arp, BOUND)?;
        self.steady(home)?;
        let mut outcome = self.outcome(since)?;
        outcome.remarks.push(format!(
            "back where it was after {:.1} s",
            (home - since).as_secs_f32()
        ));
        Ok(outcome)
    }

    fn steady(&self, since: Instant) -> Result<()> {
        for (number, client) in self.clients.iter().enumerate() {
            let served = client.steady(since, STEADY, BOUND);
            served.with_context(|| format!("client {} is not served", number + 1))?;
        }
        Ok(())
    }

    fn outcome(&self, since: Instant) -> Result<Outcome> {
        let now = Instant::now();
        let outages: Vec<_> = self
            .clients
            .iter()
            .map(|client| client.outage(since, now))
            .collect();
        let lines = outages.iter().enumerate().map(|(number, outage)| {
            let about = format!("client {} ({}):", number + 1, CLIENTS[number]);
            if outage.losses.is_empty() {
                format!("{about} noticed nothing")
            } else {
                format!(
                    "{about} cut off for {} ms, saw {}",
                    outage.longest.as_millis(),
                    outage.saw()
                )
            }
        });
        let cut: Vec<_> = outages
            .iter()
            .filter(|outage| !outage.losses.is_empty())
            .collect();
        let worst = cut.iter().max_by_key(|outage| outage.longest);
        let cell = worst.map_or_else(
            || "nobody noticed".to_owned(),
            |worst| {
                format!(
                    "{} of 4 cut off, worst {} ms",
                    cut.len(),
                    worst.longest.as_millis()
                )
            },
        );
        let [first, second] = self.lab.gateways();
        Ok(Outcome {
            cell,
            clients: lines.collect(),
            addresses: [first.ip_addr()?, second.ip_addr()?],
            remarks: Vec::new(),
        })
    }
}

/// A lively client whose time-outs no scheduling gap of a busy machine reaches.
fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        send_every: ms(10),
        lost_after: ms(50),
        connect_timeout: ms(20),
        redial_after: ms(2),
    }
}
