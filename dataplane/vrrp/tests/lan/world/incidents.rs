//! What goes wrong and what is put right again.

use std::time::Duration;

use vrrp::Input;

use super::{Event, World};
use crate::{fault::Fault, host::Process};

impl World {
    fn start(&mut self, host: usize) {
        self.hosts[host].busy = false;
        self.tell(host, Input::Start);
    }

    fn new_process(&mut self, host: usize) {
        let last = self.hosts[host].last_advertisement;
        self.hosts[host].new_process(self.defect);
        let input = match last {
            Some(last_advertisement_at) => Input::Resume {
                last_advertisement_at,
            },
            None => Input::Start,
        };
        self.hosts[host].busy = false;
        self.tell(host, input);
    }

    pub(super) fn incident(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.fault(fault),
            Event::Start { host } => self.start(host),
            Event::ProxyBack { host } => {
                let until = self.now + Duration::from_secs(3);
                self.hosts[host].hold_until = until;
                self.tell(host, Input::HoldPreemption { until });
                self.start(host);
            }
            Event::Restart { host } => {
                self.calm.wakes = self.now;
                self.new_process(host);
            }
            Event::PowerOn { host } => {
                self.hosts[host].powered = true;
                self.hosts[host].last_advertisement = None;
                self.new_process(host);
            }
            Event::Wake { host } => {
                self.calm.wakes = self.now;
                let it = &mut self.hosts[host];
                (it.process, it.busy, it.woke_at) = (Process::Runs, false, self.now);
                // What the kernel was asked for before comes first (see `netlink`).
                it.netlink_free_at = self.now + Duration::from_millis(2);
                // What waited in the socket comes before the timer.
                while let Some(bytes) = self.hosts[host].inbox.pop_front() {
                    self.hear(host, &bytes);
                }
                self.after(Duration::from_millis(1), Event::RenewAfterWake { host });
            }
            Event::LinkUp { host } => {
                self.disturb_network();
                let it = &mut self.hosts[host];
                (it.link, it.busy) = (true, false);
                self.tell(host, Input::LinkUp);
            }
            Event::EndpointBack { host } => {
                self.hosts[host].busy = false;
                self.tell(host, Input::EndpointUsable(true));
            }
            Event::Heal => self.divide(&[0; 5]),
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
                if self.begin(host) {
                    self.tell(host, Input::Withdraw);
                    self.after(back, Event::ProxyBack { host });
                }
            }
            Fault::Stop { host, back } => {
                if self.begin(host) {
                    self.tell(host, Input::Stop);
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
                if self.begin(host) {
                    self.disturb_network();
                    self.hosts[host].link = false;
                    self.tell(host, Input::LinkDown);
                    self.after(lasts, Event::LinkUp { host });
                }
            }
        }
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
                self.send_arp(host);
            }
        }
    }

    fn stand_still(&mut self, host: usize, process: Process, lasts: Duration) {
        if self.begin(host) {
            self.hosts[host].process = process;
            self.after(lasts, Event::Wake { host });
        }
    }

    /// One fault at a time per host.
    fn begin(&mut self, host: usize) -> bool {
        let it = &mut self.hosts[host];
        let free = !it.busy && it.is_able();
        it.busy |= free;
        free
    }
}
