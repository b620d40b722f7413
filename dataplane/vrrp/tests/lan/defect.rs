//! The driver's side of a machine, with a defect planted between it and the world: what the machine
//! is told or what it says is falsified, so that together they behave like a machine with that
//! defect. The machine itself is the product's.

use vrrp::{Effect, Input, Instant, State, VirtualRouter, skew_time};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Defect {
    None,
    /// Backups of all priorities wait equally long.
    NoSkew,
    /// An Active does not yield to a higher priority.
    NoYield,
    /// A Backup's first timer fires although it was set anew.
    StaleTimer,
    /// A router advertises and holds as soon as it is started.
    SpeaksFirst,
    /// Nobody is told where the addresses are.
    NoAnnouncement,
    /// A router that yields says nothing, as keepalived by default.
    NoFarewell,
    /// A host that is cut off keeps the address.
    NeverGivesUp,
    /// One that gave up for that takes no part again.
    NeverComesBack,
}

impl Defect {
    pub(crate) const PLANTED: [Self; 8] = [
        Self::NoSkew,
        Self::NoYield,
        Self::StaleTimer,
        Self::SpeaksFirst,
        Self::NoAnnouncement,
        Self::NoFarewell,
        Self::NeverGivesUp,
        Self::NeverComesBack,
    ];
}

pub(crate) struct Driver {
    pub(crate) router: VirtualRouter,
    defect: Defect,
    /// The timer that a Backup set first.
    first_timer: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(router: VirtualRouter, defect: Defect) -> Self {
        Self {
            router,
            defect,
            first_timer: None,
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, input: Input<'_>) {
        let backup = self.router.state() == State::Backup;
        match (self.defect, input) {
            (Defect::NoSkew | Defect::StaleTimer, Input::Timer) if backup => {
                if self.poll_timeout().is_some_and(|at| at <= now) {
                    self.fire();
                }
            }
            (Defect::NoYield, Input::Advertisement { advertisement, .. })
                if self.router.state() == State::Active
                    && advertisement.priority > self.router.priority() => {}
            (Defect::SpeaksFirst, Input::Start) => {
                self.router.handle(now, input);
                if self.router.state() == State::Backup {
                    self.fire();
                }
            }
            _ => self.router.handle(now, input),
        }
        if self.router.state() == State::Backup {
            let armed = self.router.poll_timeout();
            self.first_timer = self.first_timer.or(armed);
        } else {
            self.first_timer = None;
        }
    }

    /// Makes the machine believe that its timer ran out.
    fn fire(&mut self) {
        if let Some(at) = self.router.poll_timeout() {
            self.router.handle(at, Input::Timer);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let at = self.router.poll_timeout()?;
        if self.router.state() != State::Backup {
            return Some(at);
        }
        match self.defect {
            Defect::NoSkew => {
                let config = self.router.config();
                let interval = config.settings.interval;
                Some(at - skew_time(config.settings.version, self.router.priority(), interval))
            }
            Defect::StaleTimer => self.first_timer.or(Some(at)),
            _ => Some(at),
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            let effect = self.router.poll_effect()?;
            let backup = self.router.state() == State::Backup;
            match (self.defect, effect) {
                (Defect::NoAnnouncement, Effect::AnnounceAddresses) => {}
                (Defect::NoFarewell, Effect::SendAdvertisement { .. }) if backup => {}
                _ => return Some(effect),
            }
        }
    }
}
