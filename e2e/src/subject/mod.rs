//! What runs on the two gateways of a lab: one of three, all handled alike.

mod keepalived;
mod wsha;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::arp::ArpWatch;
use crate::lab::{Host, Lab, Process, VIP_SERVER1, VIP_SERVER2};
use crate::wait;

/// A way to run the article's set-up.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, clap::ValueEnum, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// wsha with its default settings.
    Wsha,
    /// keepalived and nginx as the article sets them up: VRRPv2, 1 s, a check script every 2 s.
    Article,
    /// keepalived at its best: VRRPv3 with wsha's timers and priorities, process events, real-time priority.
    Best,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wsha => "wsha",
            Self::Article => "keepalived+nginx (article)",
            Self::Best => "keepalived+nginx (best)",
        })
    }
}

/// A virtual router that both gateways run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Router {
    /// VRID.
    pub vrid: u8,
    /// Its virtual address.
    pub address: Ipv4Addr,
    /// The gateway that holds the address while all is well.
    pub owner: &'static str,
}

impl Router {
    /// The article's two, in its order.
    pub const ARTICLE: [Self; 2] = [
        Self {
            vrid: 51,
            address: VIP_SERVER2,
            owner: "server2",
        },
        Self {
            vrid: 52,
            address: VIP_SERVER1,
            owner: "server1",
        },
    ];
}

/// How the subject is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Interval between advertisements; the article's has its own.
    pub advertisement: Duration,
    /// The data plane's binary.
    pub wsha_binary: Option<PathBuf>,
    /// What the gateways run.
    pub routers: Vec<Router>,
    /// Whether keepalived at its best has real-time priority; wsha takes it where it is allowed.
    pub real_time: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            advertisement: Duration::from_millis(100),
            wsha_binary: None,
            routers: Router::ARTICLE.to_vec(),
            real_time: true,
        }
    }
}

/// The subject at work on server1 and server2.
#[derive(Debug)]
pub struct Gateways<'lab> {
    lab: &'lab Lab,
    subject: Subject,
    settings: Settings,
    /// Of server1 and server2.
    running: [Vec<Process>; 2],
    /// Whether a fourth backend is configured.
    four_backends: bool,
}

impl<'lab> Gateways<'lab> {
    /// Starts the subject on both gateways, and waits for nothing.
    pub fn start(lab: &'lab Lab, subject: Subject, settings: Settings) -> Result<Self> {
        let mut gateways = Self {
            lab,
            subject,
            settings,
            running: [Vec::new(), Vec::new()],
            four_backends: false,
        };
        for host in lab.gateways() {
            gateways.configure(host)?;
        }
        for host in lab.gateways() {
            gateways.start_host(host)?;
        }
        Ok(gateways)
    }

    /// What runs here.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The virtual routers that it runs.
    pub fn routers(&self) -> &[Router] {
        &self.settings.routers
    }

    /// Interval between advertisements.
    pub fn advertisement(&self) -> Duration {
        match self.subject {
            Subject::Article => Duration::from_secs(1),
            Subject::Best | Subject::Wsha => self.settings.advertisement,
        }
    }

    /// The longest of the subject's own timers that a fault may fall into.
    pub fn longest_timer(&self) -> Duration {
        match self.subject {
            Subject::Article => Duration::from_secs(2),
            Subject::Best | Subject::Wsha => self.settings.advertisement,
        }
    }

    fn slot(&mut self, host: &Host) -> &mut Vec<Process> {
        let index = usize::from(host.name() != self.lab.server1().name());
        &mut self.running[index]
    }

    fn configure(&self, host: &Host) -> Result<()> {
        match self.subject {
            Subject::Wsha => wsha::configure(host, self.four_backends, &self.settings),
            Subject::Article | Subject::Best => keepalived::configure(
                self.lab,
                host,
                self.subject,
                self.four_backends,
                &self.settings,
            ),
        }
        .with_context(|| format!("cannot configure {}", host.name()))
    }

    /// Starts on `host` whatever of the subject does not run there, as an administrator or an init system would.
    pub fn start_host(&mut self, host: &Host) -> Result<()> {
        let (subject, settings) = (self.subject, self.settings.clone());
        let slot = self.slot(host);
        slot.retain(Process::is_running);
        match subject {
            Subject::Wsha => wsha::start(host, slot, &settings),
            Subject::Article | Subject::Best => keepalived::start(host, slot, subject),
        }
    }

    /// The processes that face the clients.
    pub fn proxy_processes(&self, host: &Host) -> Vec<Pid> {
        match self.subject {
            Subject::Wsha => wsha::processes(host, "proxy"),
            // By the titles that nginx gives itself: a check script of that name is none of its processes.
            Subject::Article | Subject::Best => host.processes_where(|line| {
                ["nginx: master", "nginx: worker"]
                    .iter()
                    .any(|title| line.starts_with(title))
            }),
        }
    }

    /// Those of [`Self::proxy_processes`] that hold the sessions, and so the memory: of nginx, its workers.
    pub fn serving_processes(&self, host: &Host) -> Vec<Pid> {
        match self.subject {
            Subject::Wsha => self.proxy_processes(host),
            Subject::Article | Subject::Best => {
                host.processes_where(|line| line.starts_with("nginx: worker"))
            }
        }
    }

    /// The processes that own the addresses.
    pub fn vrrp_processes(&self, host: &Host) -> Vec<Pid> {
        match self.subject {
            Subject::Wsha => wsha::processes(host, "vrrp"),
            Subject::Article | Subject::Best => {
                host.processes_where(|line| line.contains("keepalived"))
            }
        }
    }

    /// The processes of `host`, by what they are for.
    pub fn parts(&self, host: &Host) -> Vec<(&'static str, Vec<Pid>)> {
        let (vrrp, proxy) = (self.vrrp_processes(host), self.proxy_processes(host));
        match self.subject {
            Subject::Wsha => vec![
                ("agent", wsha::processes(host, "run")),
                ("vrrp", vrrp),
                ("proxy", proxy),
            ],
            Subject::Article | Subject::Best => vec![("keepalived", vrrp), ("nginx", proxy)],
        }
    }

    /// The process that an administrator stops to take `host` out of service.
    fn keeper(&mut self, host: &Host) -> Result<&Process> {
        let name = match self.subject {
            Subject::Wsha => "wsha",
            Subject::Article | Subject::Best => "keepalived",
        };
        let process = self
            .slot(host)
            .iter()
            .find(|process| process.name() == name);
        process.with_context(|| format!("{name} was not started on {}", host.name()))
    }

    /// Asks the part that owns the addresses to stop in order (SIGTERM), and does not wait.
    pub fn stop_in_order(&mut self, host: &Host) -> Result<()> {
        self.keeper(host)?.signal(Signal::SIGTERM)
    }

    /// Waits for the end of what [`Self::stop_in_order`] asked to stop.
    pub fn wait_stopped(&mut self, host: &Host, bound: Duration) -> Result<()> {
        self.keeper(host)?.wait(bound).map(drop)
    }

    /// Stops everything of the subject on `host` in order and starts it anew, so that it remembers no earlier fault.
    pub fn restart_host(&mut self, host: &Host) -> Result<()> {
        for process in self.slot(host).drain(..) {
            process.signal(Signal::SIGTERM)?;
            process.wait(Duration::from_secs(15))?;
        }
        self.start_host(host)
    }

    /// Adds server6 to the backends the way the subject wants it: an edit, and for nginx a reload.
    pub fn add_fourth_backend(&mut self) -> Result<()> {
        self.four_backends = true;
        for host in self.lab.gateways() {
            self.configure(host)?;
            if self.subject != Subject::Wsha {
                keepalived::reload_nginx(host)?;
            }
        }
        Ok(())
    }

    /// What `host` is set up with, file by file.
    pub fn configuration(&self, host: &Host) -> Result<String> {
        let files: &[_] = match self.subject {
            Subject::Wsha => &["pool.yaml"],
            Subject::Article | Subject::Best => &["keepalived.conf", "nginx.conf"],
        };
        let text = |name: &&str| {
            let file = host.dir().join(name);
            let held = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Ok(format!("# {name} of {}\n{held}", host.name()))
        };
        files.iter().map(text).collect()
    }

    /// Whether each address is where it belongs, and held there alone.
    pub fn at_home(&self) -> Result<bool> {
        let hosts = self.lab.gateways();
        let tables = [hosts[0].addresses()?, hosts[1].addresses()?];
        Ok(self.settings.routers.iter().all(|router| {
            let as_planned = |(host, table): (&Host, &Vec<IpAddr>)| {
                table.contains(&router.address.into()) == (host.name() == router.owner)
            };
            hosts.into_iter().zip(&tables).all(as_planned)
        }))
    }

    /// Waits until each address is where it belongs, by the hosts' own tables and by ARP.
    pub fn wait_at_home(&self, arp: &ArpWatch, bound: Duration) -> Result<Instant> {
        let what = format!("the addresses of {} to be where they belong", self.subject);
        wait::until(&what, bound, || Ok(self.at_home()?.then_some(())))?;
        let owners = [
            (VIP_SERVER1, self.lab.server1().mac()),
            (VIP_SERVER2, self.lab.server2().mac()),
        ];
        let since = Instant::now();
        wait::until(
            &format!("one answer to ARP for each address of {}", self.subject),
            bound,
            || {
                let settled = owners.iter().all(|(address, mac)| {
                    let rounds = arp.rounds(*address, since);
                    let closed = rounds
                        .split_last()
                        .map(|(_, closed)| closed)
                        .unwrap_or_default();
                    closed.len() >= 2
                        && closed
                            .iter()
                            .rev()
                            .take(2)
                            .all(|round| round.answers.iter().eq([mac]))
                });
                Ok(settled.then_some(()))
            },
        )?;
        Ok(Instant::now())
    }

    /// The last lines of every log of the subject, for messages about a fault.
    pub fn logs(&self) -> String {
        let hosts = self.lab.gateways().into_iter().zip(&self.running);
        let all = hosts.flat_map(|(host, running)| running.iter().map(move |one| (host, one)));
        all.map(|(host, one)| format!("--- {} {}\n{}", host.name(), one.name(), one.log_tail()))
            .collect::<Vec<_>>()
            .join("\n")
    }
}
