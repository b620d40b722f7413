//! Each host's thread that looks whether the host is cut off, by the product's rules for silence, and what
//! control makes of it.

use std::time::Duration;

use vrrp::{Input, State};

use super::{DELAY, Event, World};
use crate::{defect::Defect, host::Process, silence::Silence};

/// Whoever did not run for so long beyond its time has not heard what was said meanwhile.
const BLIND_AFTER: Duration = Duration::from_millis(300);

impl World {
    /// A host is watched while it is Active, and while it has given up.
    pub(super) fn look_for_isolation(&mut self, host: usize) {
        let Some(timeout) = self.scenario.isolation else {
            return;
        };
        let now = self.now;
        let it = &mut self.hosts[host];
        let is_watched = it.state() == State::Active || it.is_isolated;
        if is_watched == it.silence.is_some() {
            return;
        }
        it.silence = is_watched.then(|| Silence::begin(now, timeout));
        self.plan_turn(host);
    }

    fn plan_turn(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.turns += 1;
        let number = it.turns;
        if let Some(silence) = &it.silence {
            let span = silence.wake_at().since(self.now);
            self.after(span, Event::Turn { host, number });
        }
    }

    pub(super) fn turn(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        let runs = it.runs();
        let Some(silence) = it.silence.as_mut().filter(|_| runs) else {
            return;
        };
        silence.hear(it.heard_at);
        let asks = silence.ask(now);
        let is_cut_off = silence.judge(now);
        if asks {
            self.ask_whether_it_is_there(host);
        }
        let it = &mut self.hosts[host];
        match (it.is_isolated, is_cut_off, self.defect) {
            (false, true, Defect::NeverGivesUp) | (true, false, Defect::NeverComesBack) => {}
            (false, true, _) => {
                (it.is_isolated, it.back_since) = (true, None);
                self.note(|| format!("host {host} is cut off"));
                self.disturb();
                self.judge.gave_up(now, host, &self.hosts[host]);
                self.tell(host, Input::Isolated);
            }
            (true, false, _) => {
                it.is_isolated = false;
                let is_away = it.away;
                self.note(|| format!("host {host} hears somebody again"));
                self.disturb();
                self.judge.listens_anew(now, host);
                if !is_away {
                    self.tell(host, Input::Start);
                }
                self.look_for_isolation(host);
            }
            _ => {}
        }
        self.plan_turn(host);
    }

    /// The default gateway, and a router that was heard before, if either hears it and is heard.
    fn ask_whether_it_is_there(&mut self, host: usize) {
        let it = &self.hosts[host];
        let gateway = self.gateway && it.side == 0 && it.link && !it.deaf;
        let peer = it.peer.filter(|peer| {
            let peer = &self.hosts[*peer];
            peer.process != Process::Suspended
        });
        let peer = peer.is_some_and(|peer| self.hears(host, peer) && self.hears(peer, host));
        for answers in [gateway, peer] {
            let loss = if self.storm {
                5_000
            } else {
                self.scenario.loss
            };
            let is_lost = self.weather.chance(loss) || self.weather.chance(loss);
            if answers && !is_lost {
                let takes = self.weather.span(DELAY / 10, DELAY * 2);
                self.after(takes, Event::Answer { host });
            }
        }
    }

    pub(super) fn answered(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        if it.runs() && it.link {
            it.reached(now);
            if let Some(silence) = &mut it.silence {
                silence.hear(now);
            }
            self.turn(host);
        }
    }

    /// It runs again, after it had not for some time.
    pub(super) fn missed_turns(&mut self, host: usize) {
        let now = self.now;
        if let Some(silence) = &mut self.hosts[host].silence
            && now.since(silence.wake_at()) > BLIND_AFTER
        {
            silence.hear(now);
        }
        self.plan_turn(host);
    }
}
