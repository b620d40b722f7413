//! The transitions.

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use super::{
    Cause, Config, ConfigError, Effect, Input, Peer, Preemption, Settings, State, Transition,
    announcements::Announcements,
    election,
    phase::{Active, Backup, Expects, Farewell, Phase, Quiet},
    queue::Queue,
};
use crate::{
    Advertisement, Centiseconds, Discard, Instant, Priority, active_down_interval, skew_time,
    wire::AddressList,
};

/// How long a router that lost its addresses leaves the role to others: whatever took them would
/// most likely take them again.
const HOLD_AFTER_LOSS: Duration = Duration::from_secs(5);

/// One virtual router: inputs and time in, effects out.
///
/// Rules beyond RFC 9568 and RFC 3768, each for a failure that was seen:
///
/// * **Linger.** A planned leave sends priority 0, but keeps the addresses until another Active is
///   heard, [`Settings::linger`] at most. With its listeners closed the host answers a redialling
///   client with a refusal, which costs a millisecond; an address that nobody holds costs a lost
///   SYN. To the outside the router is in Initialize from the priority 0 on. If nobody was heard,
///   the priority 0 is repeated for those that missed it.
/// * **Farewell.** After a silent partition both sides are Active. If the lower one hears the higher
///   one first and yields without a word, the higher one never learns of it, announces nothing, and
///   clients keep the loser's hardware address until it ages. So a router that ceases to be Active
///   without priority 0 sends one more advertisement, with a priority below the winner's, once its
///   addresses are gone, and a second one an interval later in case the first was lost. The winner
///   answers as it answers any Active of lower priority, and announces. It cannot loop: the sender
///   is Backup, a Backup answers nothing, and the two are counted.
/// * **Announcements when another Active is heard**, of lower priority or leaving, for the same
///   reason: whatever it claimed is claimed back.
/// * **Woke late.** An Active that did not run for the active-down interval of the quickest possible
///   Backup (priority 254) may have been replaced. It removes its addresses before all else and
///   listens as Backup. Nobody can have taken over earlier, since a Backup's timer starts when it
///   hears an advertisement, which is never before that was sent. A Backup whose timer runs out more
///   than a whole active-down interval late was not listening either, and listens anew.
/// * **Hold.** See [`Input::HoldPreemption`]; a router that lost its addresses holds for 5 s.
#[derive(Clone, Debug)]
pub struct VirtualRouter {
    config: Config,
    phase: Phase,
    effects: Queue,
    /// Told to take part and not to stop since.
    started: bool,
    link_up: bool,
    endpoint_usable: bool,
    hold_until: Instant,
    last_heard: Option<Peer>,
    twin: Option<Peer>,
    stranger: Option<IpAddr>,
}

impl VirtualRouter {
    /// A virtual router in Initialize.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            phase: Phase::Initialize { quiet: None },
            effects: Queue::new(),
            started: false,
            link_up: true,
            endpoint_usable: true,
            hold_until: Instant::ZERO,
            last_heard: None,
            twin: None,
            stranger: None,
        })
    }

    /// Tells it what happened. `now` must not be earlier than in the call before.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.let_go_if_late(now);
        match input {
            Input::Start => self.start(now),
            Input::Resume {
                last_advertisement_at,
            } => self.resume(now, last_advertisement_at),
            Input::Stop => self.leave(now, Cause::Stopped),
            Input::Withdraw => self.leave(now, Cause::Withdrawn),
            Input::Advertisement {
                source,
                advertisement,
            } => self.on_advertisement(now, source, advertisement),
            Input::Timer => self.on_timer(now),
            Input::EndpointUsable(usable) => self.endpoint_usable = usable,
            Input::HoldPreemption { until } => self.hold_until = until,
            Input::LinkDown => self.on_link_down(now),
            Input::LinkUp => self.on_link_up(now),
            Input::AddressesAdded => self.on_addresses_added(now),
            Input::AddressesRemoved => self.on_addresses_removed(now),
            Input::AddressesLost => self.on_addresses_lost(now),
            Input::PeerTookOver => self.on_peer_took_over(now),
        }
    }

    /// Changes settings without leaving the state. An Active advertises at once what changed, so
    /// that Backups learn a longer interval before they miss an advertisement.
    pub fn update(&mut self, now: Instant, settings: &Settings) -> Result<(), ConfigError> {
        self.config.check_with(settings)?;
        self.let_go_if_late(now);
        if self.config.settings == *settings {
            return Ok(());
        }
        self.config.settings.clone_from(settings);
        if matches!(self.phase, Phase::Active(_)) {
            self.advertise_out_of_turn(now);
        }
        Ok(())
    }

    /// The next thing to do, oldest first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop()
    }

    /// When [`Input::Timer`] is wanted; `None`: not until something happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Initialize { .. } => None,
            Phase::Leaving { until } => Some(*until),
            Phase::Backup(backup) => Some(backup.active_down_at),
            Phase::Active(active) => {
                let announce_at = active.announcements.and_then(|a| a.wake_at());
                Some(announce_at.map_or(active.advertise_at, |at| at.min(active.advertise_at)))
            }
        }
    }

    /// What to send for [`Effect::SendAdvertisement`] with `priority`.
    pub fn advertisement(&self, priority: Priority) -> Advertisement<'_> {
        Advertisement {
            version: self.config.version,
            vrid: self.config.vrid,
            priority,
            interval: Some(self.config.settings.interval),
            addresses: AddressList::from_slice(&self.config.addresses),
        }
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// State now.
    pub fn state(&self) -> State {
        self.phase.state()
    }

    /// Whether it left in order and still holds the addresses for its successor.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
    }

    /// The priority it advertises, or would.
    pub fn priority(&self) -> Priority {
        if self.endpoint_usable {
            self.config.settings.priority
        } else {
            self.config.settings.priority_without_endpoint
        }
    }

    /// When it advertised last as Active; `None` in every other state. For the next process on this
    /// host, which hands it to [`Input::Resume`].
    pub fn last_advertisement(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Active(active) => Some(active.sent_at),
            _ => None,
        }
    }

    /// [`Self::last_advertisement`] if it is younger than one interval. Only on such a permit may
    /// the host renew the addresses' lifetime.
    pub fn permit(&self, now: Instant) -> Option<Instant> {
        let interval = self.config.settings.interval.as_duration();
        self.last_advertisement()
            .filter(|sent_at| now.since(*sent_at) < interval)
    }

    /// The router heard last for this VRID, whatever its priority.
    pub fn last_heard(&self) -> Option<Peer> {
        self.last_heard
    }

    /// A router heard with the very priority of this one: two hosts run under one name, or with the
    /// same configured priority. Stays until a hearing of the same source says otherwise.
    pub fn equal_priority_peer(&self) -> Option<Peer> {
        self.twin
    }

    /// A router heard on this VRID with an address list that differs from this one's.
    pub fn differing_addresses_from(&self) -> Option<IpAddr> {
        self.stranger
    }

    /// Effects lost because the driver did not read them; zero in a correct one.
    pub fn lost_effects(&self) -> u64 {
        self.effects.lost()
    }

    // Starting and leaving.

    /// RFC 9568 section 6.4.1; RFC 3768 section 6.4.1.
    fn start(&mut self, now: Instant) {
        if self.started {
            return;
        }
        self.started = true;
        if self.link_up {
            self.listen_or_own(now, Cause::Started);
        }
    }

    /// Becomes Active as owner, else Backup that listens.
    fn listen_or_own(&mut self, now: Instant, cause: Cause) {
        let quiet = match self.phase {
            Phase::Initialize { quiet } => quiet,
            Phase::Leaving { .. } => {
                self.effects.push(Effect::RemoveAddresses);
                None
            }
            Phase::Backup(_) | Phase::Active(_) => return,
        };
        if self.priority().is_owner() {
            self.become_active(now, Cause::OwnerStarted);
            return;
        }
        let mut backup = self.listening(now);
        if let Some(quiet) = quiet {
            backup.learned = quiet.learned.unwrap_or(backup.learned);
            let armed = quiet.since + self.active_down(backup.learned);
            backup.active_down_at = armed.max(now);
        }
        self.enter(now, Phase::Backup(backup), cause);
    }

    /// Within two intervals no Backup can have risen: the quickest waits for three.
    fn resume(&mut self, now: Instant, last_advertisement_at: Instant) {
        if self.started {
            return;
        }
        let limit = self.config.settings.interval.as_duration() * 2;
        let in_time = last_advertisement_at <= now && now.since(last_advertisement_at) <= limit;
        if in_time && self.link_up {
            self.started = true;
            self.become_active(now, Cause::Resumed);
            return;
        }
        self.effects.push(Effect::RemoveAddresses);
        self.started = true;
        if self.link_up {
            let backup = self.listening(now);
            self.enter(now, Phase::Backup(backup), Cause::ResumedLate);
        }
    }

    /// RFC 9568 sections 6.4.2 and 6.4.3, Shutdown, with the linger described above.
    fn leave(&mut self, now: Instant, cause: Cause) {
        self.started = false;
        match &self.phase {
            Phase::Initialize { .. } | Phase::Leaving { .. } => {}
            Phase::Backup(backup) => {
                let quiet = match backup.expects {
                    Expects::Advertisements(peer) | Expects::ToPreempt(peer) => Some(Quiet {
                        since: peer.heard_at,
                        learned: Some(backup.learned),
                    }),
                    Expects::Nobody | Expects::Successor(_) => Some(Quiet {
                        since: now,
                        learned: None,
                    }),
                };
                self.enter(now, Phase::Initialize { quiet }, cause);
            }
            Phase::Active(_) => {
                self.send(Priority::RELEASE);
                let until = now + self.config.settings.linger;
                self.enter(now, Phase::Leaving { until }, cause);
            }
        }
    }

    fn finish_leaving(&mut self, now: Instant, learned: Option<Centiseconds>) {
        self.effects.push(Effect::RemoveAddresses);
        // Both ends of it are Initialize: no transition to tell of.
        self.phase = Phase::Initialize {
            quiet: Some(Quiet {
                since: now,
                learned,
            }),
        };
    }

    fn on_link_down(&mut self, now: Instant) {
        self.link_up = false;
        match self.phase {
            Phase::Initialize { ref mut quiet } => *quiet = None,
            Phase::Leaving { .. } => {
                self.finish_leaving(now, None);
                self.phase = Phase::Initialize { quiet: None };
            }
            Phase::Backup(_) => {
                self.enter(now, Phase::Initialize { quiet: None }, Cause::LinkDown);
            }
            Phase::Active(_) => {
                self.effects.push(Effect::RemoveAddresses);
                self.enter(now, Phase::Initialize { quiet: None }, Cause::LinkDown);
            }
        }
    }

    fn on_link_up(&mut self, now: Instant) {
        self.link_up = true;
        if self.started {
            self.listen_or_own(now, Cause::LinkUp);
        }
    }

    // Addresses of the host.

    fn on_addresses_added(&mut self, now: Instant) {
        if let Phase::Active(active) = &mut self.phase
            && active.announcements.is_none()
        {
            active.announcements = Some(Announcements::begin(now));
            self.effects.push(Effect::AnnounceAddresses);
        }
    }

    fn on_addresses_removed(&mut self, now: Instant) {
        if let Phase::Backup(backup) = &mut self.phase
            && let Some(farewell) = &mut backup.farewell
        {
            farewell.removed = true;
            if let Expects::Advertisements(peer) | Expects::ToPreempt(peer) = backup.expects {
                self.say_farewell(now, &peer);
            }
        }
    }

    fn on_addresses_lost(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Active(_)) {
            self.send(Priority::RELEASE);
            self.effects.push(Effect::RemoveAddresses);
            self.hold_until = self.hold_until.max(now + HOLD_AFTER_LOSS);
            let backup = self.listening(now);
            self.enter(now, Phase::Backup(backup), Cause::AddressesLost);
        }
    }

    fn on_peer_took_over(&mut self, now: Instant) {
        match self.phase {
            Phase::Active(_) => self.let_go(now, Cause::PeerTookOver),
            Phase::Leaving { .. } => self.finish_leaving(now, None),
            Phase::Initialize { .. } | Phase::Backup(_) => {}
        }
    }

    // Advertisements.

    fn on_advertisement(
        &mut self,
        now: Instant,
        source: IpAddr,
        advertisement: &Advertisement<'_>,
    ) {
        let checked = election::check(&self.config, source, advertisement);
        self.note_addresses(source, advertisement, checked);
        if let Err(discard) = checked {
            self.effects.push(Effect::Discarded(discard));
            return;
        }
        let peer = Peer {
            source,
            priority: advertisement.priority,
            heard_at: now,
        };
        self.last_heard = Some(peer);
        if peer.priority == self.priority() {
            self.twin = Some(peer);
        } else if self.twin.is_some_and(|twin| twin.source == source) && !peer.priority.is_release()
        {
            self.twin = None;
        }
        let learned = advertisement
            .interval
            .unwrap_or(self.config.settings.interval);
        let release = advertisement.priority.is_release();
        match &mut self.phase {
            Phase::Initialize { quiet } if !release => {
                *quiet = Some(Quiet {
                    since: now,
                    learned: Some(learned),
                });
            }
            Phase::Leaving { .. } if !release => self.finish_leaving(now, Some(learned)),
            Phase::Initialize { .. } | Phase::Leaving { .. } => {}
            Phase::Backup(_) => self.backup_hears(now, peer, learned),
            Phase::Active(_) => self.active_hears(now, peer, learned),
        }
    }

    /// RFC 9568 section 6.4.2; RFC 3768 section 6.4.2.
    fn backup_hears(&mut self, now: Instant, peer: Peer, learned: Centiseconds) {
        let own = self.priority();
        let version = self.config.version;
        let preemption = self.config.settings.preemption;
        let hold_until = self.hold_until;
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        if peer.priority.is_release() {
            // A repeated priority 0 must not put off what the first one started.
            let soon = now + skew_time(version, own, backup.learned);
            backup.active_down_at = backup.active_down_at.min(soon);
            backup.expects = Expects::Successor(peer.source);
            return;
        }
        let ignored = if peer.priority >= own {
            backup.preempt_at = None;
            false
        } else {
            match preemption {
                Preemption::Disabled => false,
                Preemption::Enabled { delay } => {
                    let preempt_at = *backup.preempt_at.get_or_insert(now + delay);
                    now >= preempt_at && now >= hold_until
                }
            }
        };
        if ignored {
            // The timer runs on: not restarted, or a lower router could never be replaced.
            backup.expects = Expects::ToPreempt(peer);
        } else {
            backup.learned = learned;
            backup.active_down_at = now + active_down_interval(version, own, learned);
            backup.expects = Expects::Advertisements(peer);
        }
        self.say_farewell(now, &peer);
    }

    /// RFC 9568 section 6.4.3; RFC 3768 section 6.4.3.
    fn active_hears(&mut self, now: Instant, peer: Peer, learned: Centiseconds) {
        if peer.priority.is_release() {
            self.advertise_out_of_turn(now);
            self.announce_again(now);
            return;
        }
        let own = (self.priority(), self.config.settings.source);
        if election::compare((peer.priority, peer.source), own) == Ordering::Less {
            // RFC 9568: assert the role at once. The announcement repairs what it claimed.
            self.advertise_out_of_turn(now);
            self.announce_again(now);
            return;
        }
        let (source, priority) = (peer.source, peer.priority);
        let cause = if priority > own.0 {
            Cause::HigherPriority { source, priority }
        } else {
            Cause::GreaterAddress { source, priority }
        };
        self.let_go(now, cause);
        if let Phase::Backup(backup) = &mut self.phase {
            backup.learned = learned;
            backup.active_down_at = now + active_down_interval(self.config.version, own.0, learned);
            backup.expects = Expects::Advertisements(peer);
        }
    }

    /// Keeps what [`Self::differing_addresses_from`] tells.
    fn note_addresses(
        &mut self,
        source: IpAddr,
        advertisement: &Advertisement<'_>,
        checked: Result<(), Discard>,
    ) {
        if !matches!(checked, Ok(()) | Err(Discard::OtherAddresses)) {
            return;
        }
        let own = AddressList::from_slice(&self.config.addresses);
        if !advertisement.addresses.same_set(&own) {
            self.stranger = Some(source);
        } else if self.stranger == Some(source) {
            self.stranger = None;
        }
    }

    fn say_farewell(&mut self, now: Instant, winner: &Peer) {
        let own = (self.priority(), self.config.settings.source);
        let interval = self.config.settings.interval.as_duration();
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        let Some(farewell) = &mut backup.farewell else {
            return;
        };
        if !farewell.removed || now < farewell.not_before {
            return;
        }
        farewell.left = farewell.left.saturating_sub(1);
        farewell.not_before = now + interval;
        if farewell.left == 0 {
            backup.farewell = None;
        }
        if let Some(priority) = election::farewell(own, winner) {
            self.send(priority);
        }
    }

    // Time.

    fn on_timer(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Initialize { .. } => {}
            Phase::Leaving { until } => {
                if now >= *until {
                    self.send(Priority::RELEASE);
                    self.finish_leaving(now, None);
                }
            }
            Phase::Backup(backup) => {
                if now < backup.active_down_at {
                    return;
                }
                let (learned, late_by) = (backup.learned, now.since(backup.active_down_at));
                let expects = backup.expects;
                let down = self.active_down(learned);
                if late_by > down {
                    self.listen_anew(now + down);
                } else {
                    self.become_active(now, cause_of(expects));
                }
            }
            Phase::Active(active) => {
                let advertise = now >= active.advertise_at;
                let announce = active
                    .announcements
                    .as_mut()
                    .is_some_and(|announcements| announcements.take_due(now));
                if advertise {
                    self.advertise_in_turn(now);
                }
                if announce {
                    self.effects.push(Effect::AnnounceAddresses);
                }
            }
        }
    }

    /// Silence while not running is no evidence.
    fn listen_anew(&mut self, until: Instant) {
        if let Phase::Backup(backup) = &mut self.phase {
            backup.active_down_at = until;
            backup.preempt_at = None;
        }
    }

    /// See *Woke late* above.
    fn let_go_if_late(&mut self, now: Instant) {
        if let Phase::Active(active) = &self.phase {
            let settings = &self.config.settings;
            let quickest = Priority::new(254);
            let limit = active_down_interval(self.config.version, quickest, settings.interval);
            if now.since(active.sent_at) > limit {
                self.let_go(now, Cause::WokeLate);
            }
        }
    }

    // Parts of transitions.

    /// Active to Backup: the addresses go before all else.
    fn let_go(&mut self, now: Instant, cause: Cause) {
        self.effects.push(Effect::RemoveAddresses);
        let mut backup = self.listening(now);
        backup.farewell = Some(Farewell::owed(now));
        self.enter(now, Phase::Backup(backup), cause);
    }

    /// RFC 9568 section 6.4.2, `Active_Down_Timer` fires: advertise before adding, so that whoever
    /// holds the addresses lets go; announce only once they are held.
    fn become_active(&mut self, now: Instant, cause: Cause) {
        self.send(self.priority());
        self.effects.push(Effect::AddAddresses);
        let active = Active {
            sent_at: now,
            advertise_at: now + self.config.settings.interval.as_duration(),
            announcements: None,
        };
        self.enter(now, Phase::Active(active), cause);
    }

    /// A Backup that has heard nobody.
    fn listening(&self, now: Instant) -> Backup {
        let learned = self.config.settings.interval;
        Backup {
            active_down_at: now + self.active_down(learned),
            learned,
            expects: Expects::Nobody,
            preempt_at: None,
            farewell: None,
        }
    }

    fn active_down(&self, learned: Centiseconds) -> Duration {
        active_down_interval(self.config.version, self.priority(), learned)
    }

    fn enter(&mut self, at: Instant, phase: Phase, cause: Cause) {
        let from = self.phase.state();
        let to = phase.state();
        self.phase = phase;
        self.effects.push(Effect::Transition(Transition {
            at,
            from,
            to,
            cause,
        }));
    }

    fn send(&mut self, priority: Priority) {
        self.effects.push(Effect::SendAdvertisement { priority });
    }

    /// Keeps the rhythm: a late advertisement does not make the next one late.
    fn advertise_in_turn(&mut self, now: Instant) {
        let interval = self.config.settings.interval.as_duration();
        self.send(self.priority());
        if let Phase::Active(active) = &mut self.phase {
            active.sent_at = now;
            let next = active.advertise_at + interval;
            active.advertise_at = if next > now { next } else { now + interval };
        }
    }

    fn advertise_out_of_turn(&mut self, now: Instant) {
        let interval = self.config.settings.interval.as_duration();
        self.send(self.priority());
        if let Phase::Active(active) = &mut self.phase {
            active.sent_at = now;
            active.advertise_at = now + interval;
        }
    }

    fn announce_again(&mut self, now: Instant) {
        if let Phase::Active(active) = &mut self.phase
            && let Some(announcements) = &mut active.announcements
        {
            *announcements = Announcements::begin(now);
            self.effects.push(Effect::AnnounceAddresses);
        }
    }
}

const fn cause_of(expects: Expects) -> Cause {
    match expects {
        Expects::Nobody => Cause::NoActiveHeard,
        Expects::Advertisements(peer) => Cause::ActiveSilent {
            source: peer.source,
        },
        Expects::Successor(source) => Cause::ActiveReleased { source },
        Expects::ToPreempt(peer) => Cause::Preempted {
            source: peer.source,
            priority: peer.priority,
        },
    }
}
