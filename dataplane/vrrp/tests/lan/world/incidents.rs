//! What goes wrong and what is put right again.

use std::time::Duration;

use vrrp::{Input, Priority, Settings, State};

use super::{Event, World};
use crate::{fault::Fault, host::Process, scenario::MOST};

impl World {
    /// It comes back after a stop, or after the death of its proxy with a hold. Not before it runs.
    fn start(&mut self, host: usize, hold: Option<Duration>) {
        if !self.hosts[host].runs() {
            let again = match hold {
                Some(_) => Event::ProxyBack { host },
                None => Event::Start { host },
            };
            self.after(Duration::from_millis(20), again);
            return;
        }
        if let Some(hold) = hold {
            let until = self.now + hold;
            self.hosts[host].hold_until = until;
            self.tell(host, Input::HoldPreemption { until });
        }
        self.hosts[host].away = false;
        if !self.hosts[host].is_isolated {
            self.tell(host, Input::Start);
        }
    }

    fn new_process(&mut self, host: usize) {
        let last = self.hosts[host].last_advertisement;
        self.hosts[host].new_process(self.now, self.defect);
        self.hosts[host].busy = false;
        let priority = self.hosts[host].config.settings.priority;
        self.judge.begin(self.now, host, priority);
        if !self.hosts[host].link {
            self.tell(host, Input::LinkDown);
        }
        if self.hosts[host].away {
            return self.clean(host);
        }
        if let Some(last_advertisement_at) = last {
            let resume = Input::Resume {
                last_advertisement_at,
            };
            self.tell(host, resume);
        } else {
            self.clean(host);
            self.tell(host, Input::Start);
        }
    }

    /// A new process removes what it will not go on with.
    fn clean(&mut self, host: usize) {
        self.hosts[host].held_until = None;
    }

    pub(super) fn incident(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.fault(fault),
            Event::Start { host } => self.start(host, None),
            Event::ProxyBack { host } => self.start(host, Some(Duration::from_secs(3))),
            Event::Restart { host } => {
                self.calm.wakes = self.now;
                self.new_process(host);
            }
            Event::PowerOn { host } => {
                self.hosts[host].powered = true;
                self.hosts[host].away = false;
                self.hosts[host].last_advertisement = None;
                self.new_process(host);
            }
            Event::Wake { host } => self.wake(host),
            Event::LinkUp { host } if !self.hosts[host].runs() => {
                self.after(Duration::from_millis(20), Event::LinkUp { host });
            }
            Event::LinkUp { host } => {
                self.disturb_network();
                self.hosts[host].link = true;
                self.judge.deafened(self.now, host);
                self.tell(host, Input::LinkUp);
            }
            Event::HearsAgain { host } => self.hosts[host].deaf = false,
            Event::UpdateBack { host } => {
                let settings = self.hosts[host].config.settings.clone();
                self.update(host, &settings);
                self.hosts[host].busy = false;
            }
            Event::EndpointBack { host } => {
                self.hosts[host].busy = false;
                self.tell(host, Input::EndpointUsable(true));
            }
            Event::Gateway { is_there } => self.gateway = is_there,
            Event::Heal => self.divide(&[0; MOST]),
            Event::StormEnds => self.storm = false,
            _ => {}
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            // One at a time: a client that is moved from one Active to another that cannot hear
            // each other has been plugged into another segment, of which no router can know.
            Fault::Partition { .. } if self.hosts.iter().any(|it| it.side != 0) => {}
            Fault::Partition { sides, lasts } => {
                self.divide(&sides);
                self.after(lasts, Event::Heal);
            }
            Fault::Storm { lasts } => {
                self.storm = true;
                self.after(lasts, Event::StormEnds);
            }
            Fault::Stall { host, lasts } => self.stand_still(host, Process::Stalled, lasts),
            Fault::Freeze { host, lasts } => self.stand_still(host, Process::Frozen, lasts),
            Fault::Suspend { host, lasts } => self.stand_still(host, Process::Suspended, lasts),
            Fault::Kill { host, restart } => {
                if self.begin(host) {
                    let it = &mut self.hosts[host];
                    it.process = Process::Dead;
                    let incarnation = it.incarnation;
                    let clean = it.config.settings.interval.as_duration() * 2;
                    self.after(clean, Event::Clean { host, incarnation });
                    self.after(restart, Event::Restart { host });
                }
            }
            Fault::PowerOff { host, lasts } => {
                if self.begin(host) {
                    let it = &mut self.hosts[host];
                    (it.powered, it.held_until) = (false, None);
                    it.incarnation += 1;
                    self.after(lasts, Event::PowerOn { host });
                }
            }
            Fault::ProxyDeath { host, back } => {
                if self.withdraw(host, Input::Withdraw) {
                    self.after(back, Event::ProxyBack { host });
                }
            }
            Fault::Stop { host, back } => {
                if self.withdraw(host, Input::Stop) {
                    self.after(back, Event::Start { host });
                }
            }
            Fault::EndpointLost { host, lasts } => {
                if self.begin(host) {
                    self.tell(host, Input::EndpointUsable(false));
                    self.after(lasts, Event::EndpointBack { host });
                }
            }
            Fault::LinkDown { host, lasts } => {
                let it = &mut self.hosts[host];
                if it.runs() && it.link {
                    it.link = false;
                    self.disturb_network();
                    self.tell(host, Input::LinkDown);
                    self.after(lasts, Event::LinkUp { host });
                }
            }
            Fault::Deaf { host, lasts } => {
                let it = &mut self.hosts[host];
                if it.runs() && !it.deaf {
                    it.deaf = true;
                    // Two may be Active all that time; nothing is as it was until it hears again.
                    let end = self.now + lasts;
                    self.calm.network = self.calm.network.max(end);
                    self.calm.all = self.calm.all.max(end);
                    self.calm.announcements = self.calm.announcements.max(end);
                    self.after(lasts, Event::HearsAgain { host });
                }
            }
            Fault::AddressTaken { host } => {
                let it = &self.hosts[host];
                if it.runs() && it.lease.is_held() {
                    self.lose(host);
                }
            }
            Fault::Update {
                host,
                priority,
                lasts,
            } => {
                if self.begin(host) {
                    let mut settings = self.hosts[host].config.settings.clone();
                    settings.priority = Priority::new(priority);
                    self.update(host, &settings);
                    self.after(lasts, Event::UpdateBack { host });
                }
            }
        }
    }

    fn update(&mut self, host: usize, settings: &Settings) {
        let router = &mut self.hosts[host].driver.router;
        router.update(self.now, settings).unwrap();
        self.carry_out(host);
    }

    /// It runs again, whatever had stopped it.
    fn wake(&mut self, host: usize) {
        let now = self.now;
        self.calm.wakes = now;
        let it = &mut self.hosts[host];
        it.stood_for = now.since(it.woke_at);
        let was_stalled = it.process == Process::Stalled;
        (it.process, it.busy, it.woke_at) = (Process::Runs, false, now);
        if !was_stalled {
            // What the kernel was asked for before comes first.
            it.netlink_free_at = now + Duration::from_millis(2);
        }
        self.missed_turns(host);
        self.tell(host, Input::Paused);
        // Answers come before packets, and what waited in the socket before the timer.
        while let Some((term, answer)) = self.hosts[host].answers.pop_front() {
            self.hand_over_answer(host, term, answer);
        }
        while let Some(bytes) = self.hosts[host].inbox.pop_front() {
            self.hear(host, &bytes);
        }
        if !was_stalled {
            let it = &mut self.hosts[host];
            it.looks += 1;
            let number = it.looks;
            self.after(Duration::from_millis(1), Event::Look { host, number });
        }
    }

    /// In order. Tells whether it was there to be withdrawn; the judge learns of an Active's leave
    /// by this and not by what it says.
    fn withdraw(&mut self, host: usize, input: Input<'_>) -> bool {
        let it = &mut self.hosts[host];
        if !it.runs() || it.away {
            return false;
        }
        it.away = true;
        if it.link && it.state() == State::Active {
            self.judge.left(self.now, host, it);
        }
        self.tell(host, input);
        true
    }

    /// Puts each host on its side. A client to which nobody answered has been asking all along.
    fn divide(&mut self, sides: &[u8]) {
        self.disturb_network();
        let answered = (0..self.hosts.len()).any(|host| self.answers_client(host));
        for (it, side) in self.hosts.iter_mut().zip(sides) {
            it.side = *side;
        }
        if !answered {
            self.ask();
            self.after(Duration::from_millis(100), Event::AskAgain);
        }
    }

    fn answers_client(&self, host: usize) -> bool {
        self.hosts[host].side == 0 && self.hosts[host].answers(self.now)
    }

    /// The client asks who has the address, and takes the last answer.
    pub(super) fn ask(&mut self) {
        for host in 0..self.hosts.len() {
            if self.answers_client(host) {
                self.announce(host);
            }
        }
    }

    fn stand_still(&mut self, host: usize, process: Process, lasts: Duration) {
        if self.begin(host) {
            let it = &mut self.hosts[host];
            // Until it wakes, when it began.
            (it.process, it.woke_at) = (process, self.now);
            self.after(lasts, Event::Wake { host });
        }
    }

    /// One fault of its process or machine at a time; it may be withdrawn or without a link.
    fn begin(&mut self, host: usize) -> bool {
        let it = &mut self.hosts[host];
        let free = !it.busy && it.runs();
        it.busy |= free;
        free
    }
}
