//! The transitions.

use std::{net::IpAddr, time::Duration};

use super::{
    Cause, Config, ConfigError, Effect, Input, Peer, Settings, State, Transition,
    announcements::Announcements,
    holding::Losses,
    phase::{Active, Backup, Expects, Farewell, Phase},
    queue::Queue,
};
use crate::{
    Advertisement, Centiseconds, Instant, Priority, Version, active_down_interval,
    wire::AddressList,
};

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
///   without priority 0 (or finds at its restart that it did), or with one that nobody may have heard,
///   sends one more advertisement once its addresses are gone, with a priority below the winner's. The winner answers as it answers any
///   Active of lower priority, and announces. The farewell is repeated after the winner's next
///   advertisements until one is answered, five times, and ten times more once a second. It cannot
///   loop: the sender is Backup, and a Backup answers nothing. A planned leave ends with one farewell to the successor, for what
///   the host answered to neighbours during its linger.
/// * **Preemption makes before it breaks.** Who preempts a living Active holds the addresses and has
///   announced them before it says a word: its first advertisement makes the other let go, and the
///   kernel may take long over an address. After one interval it speaks all the same.
/// * **Announcements when another Active is heard**, of lower priority or leaving, for the same
///   reason: whatever it claimed is claimed back.
/// * **Woke late.** An Active that did not run for the active-down interval of the quickest possible
///   Backup (priority 254) may have been replaced. It removes its addresses before all else and
///   listens as Backup. Nobody can have taken over earlier, since a Backup's timer starts when it
///   hears an advertisement, which is never before that was sent. A Backup whose timer runs out more
///   than a whole active-down interval late was not listening either, and listens anew.
/// * **Hold.** See [`Input::HoldPreemption`]; a router that lost its addresses holds for 5 s,
///   doubled up to a minute with each further loss.
#[derive(Clone, Debug)]
pub struct VirtualRouter {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) effects: Queue,
    /// Told to take part and not to stop since.
    pub(super) started: bool,
    pub(super) link_up: bool,
    /// It left because it heard nobody, which was no silence of the others.
    pub(super) was_deaf: bool,
    pub(super) endpoint_usable: bool,
    pub(super) hold_until: Instant,
    pub(super) losses: Losses,
    pub(super) last_heard: Option<Peer>,
    /// The interval that it stated, also where that was not learned.
    pub(super) last_interval: Option<Centiseconds>,
    pub(super) twin: Option<Peer>,
    pub(super) stranger: Option<IpAddr>,
    pub(super) other_interval: Option<(IpAddr, Centiseconds)>,
}

impl VirtualRouter {
    /// A virtual router in Initialize.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            phase: Phase::IDLE,
            effects: Queue::new(),
            started: false,
            link_up: true,
            was_deaf: false,
            endpoint_usable: true,
            hold_until: Instant::ZERO,
            losses: Losses::default(),
            last_heard: None,
            last_interval: None,
            twin: None,
            stranger: None,
            other_interval: None,
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
            Input::Isolated => {
                self.was_deaf = true;
                self.leave(now, Cause::Isolated);
            }
            Input::Advertisement {
                source,
                advertisement,
            } => self.on_advertisement(now, source, advertisement),
            Input::Timer => self.on_timer(now),
            Input::EndpointUsable(usable) => {
                self.endpoint_usable = usable;
                self.reconsider(now);
            }
            Input::HoldPreemption { until } => {
                self.hold_until = until;
                self.reconsider(now);
            }
            Input::Reannounce => self.announce_again(now),
            Input::Paused => self.on_pause(now),
            Input::InterfaceLost => self.on_interface_lost(now),
            Input::LinkDown => self.on_link_down(now),
            Input::LinkUp => self.on_link_up(now),
            Input::AddressesAdded => self.on_addresses_added(now),
            Input::AddressesRemoved => self.on_addresses_removed(now),
            Input::AddressesLost => self.on_addresses_lost(now),
            Input::PeerTookOver => self.on_peer_took_over(now),
        }
    }

    /// Changes settings without leaving the state. An Active advertises at once what changed, so
    /// that Backups learn a longer interval before they miss an advertisement. With another version
    /// a Backup listens anew: so far it heard the former one only.
    pub fn update(&mut self, now: Instant, settings: &Settings) -> Result<(), ConfigError> {
        self.config.check_with(settings)?;
        self.let_go_if_late(now);
        if self.config.settings == *settings {
            return Ok(());
        }
        let is_other_version = self.config.settings.version != settings.version;
        self.config.settings.clone_from(settings);
        if is_other_version {
            self.forget_silence(now);
        }
        if matches!(self.phase, Phase::Active(_)) {
            self.advertise_out_of_turn(now);
        }
        self.reconsider(now);
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

    /// What to send for [`Effect::SendAdvertisement`] with `priority`. A farewell states the interval
    /// of the winner: a Backup that takes it for the Active's word must not wait less for the next.
    pub fn advertisement(&self, priority: Priority) -> Advertisement<'_> {
        Advertisement {
            version: self.config.settings.version,
            vrid: self.config.vrid,
            priority,
            interval: self.stated_interval(),
            authentication: self.config.settings.authentication,
            addresses: AddressList::from_slice(&self.config.addresses),
        }
    }

    fn stated_interval(&self) -> Centiseconds {
        let own = self.config.settings.interval;
        match (&self.phase, self.config.settings.version) {
            (Phase::Backup(backup), Version::V3) => backup.learned,
            (Phase::Initialize { quiet, .. }, Version::V3) => {
                quiet.and_then(|quiet| quiet.learned).unwrap_or(own)
            }
            _ => own,
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

    /// When it advertised last as Active, or rose to it; `None` in every other state. The permit of a
    /// [`Lease`](crate::lease::Lease), and what the next process on this host hands to
    /// [`Input::Resume`].
    pub fn last_advertisement(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Active(active) => Some(active.sent_at),
            _ => None,
        }
    }

    /// Whether it is Active and has advertised so. Until then the state itself permits a
    /// [`Lease`](crate::lease::Lease): see *Preemption makes before it breaks*.
    pub const fn has_advertised(&self) -> bool {
        matches!(&self.phase, Phase::Active(active) if active.spoken)
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

    /// A router heard on this VRID that states another interval than this one's, and which (RFC 9568 section
    /// 7.1). Version 3 gets along with that, version 2 does not.
    pub fn differing_interval_from(&self) -> Option<(IpAddr, Centiseconds)> {
        self.other_interval
    }

    /// Effects lost because the driver did not read them; zero in a correct one.
    pub fn lost_effects(&self) -> u64 {
        self.effects.lost()
    }

    // Parts of transitions.

    /// Active to Backup: the addresses go before all else.
    pub(super) fn let_go(&mut self, now: Instant, cause: Cause) {
        self.effects.push(Effect::RemoveAddresses);
        let mut backup = self.listening(now);
        backup.farewell = Some(Farewell::owed());
        self.enter(now, Phase::Backup(backup), cause);
    }

    /// RFC 9568 section 6.4.2, `Active_Down_Timer` fires: advertise before adding, so that no other
    /// Backup rises; announce only once the addresses are held. Where one that lives is preempted
    /// the advertisement waits for that too.
    pub(super) fn become_active(&mut self, now: Instant, cause: Cause) {
        let spoken = !self.preempts_the_living(now, cause);
        if spoken {
            self.send(self.priority());
        }
        self.effects.push(Effect::AddAddresses);
        let active = Active {
            sent_at: now,
            advertise_at: now + self.config.settings.interval.as_duration(),
            spoken,
            announcements: None,
        };
        self.enter(now, Phase::Active(active), cause);
    }

    /// Whether who is preempted was heard when it last should have been.
    fn preempts_the_living(&self, now: Instant, cause: Cause) -> bool {
        let (Cause::Preempted { source, .. }, Phase::Backup(backup)) = (cause, &self.phase) else {
            return false;
        };
        let recently = backup.learned.as_duration() * 3 / 2;
        self.last_heard
            .is_some_and(|peer| peer.source == source && now.since(peer.heard_at) <= recently)
    }

    /// A Backup that has heard nobody.
    pub(super) fn listening(&self, now: Instant) -> Backup {
        let learned = self.config.settings.interval;
        Backup {
            since: now,
            active_down_at: now + self.active_down(learned),
            learned,
            expects: Expects::Nobody,
            preempt_at: None,
            farewell: None,
        }
    }

    pub(super) fn active_down(&self, learned: Centiseconds) -> Duration {
        active_down_interval(self.config.settings.version, self.priority(), learned)
    }

    pub(super) fn enter(&mut self, at: Instant, phase: Phase, cause: Cause) {
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

    pub(super) fn send(&mut self, priority: Priority) {
        self.effects.push(Effect::SendAdvertisement { priority });
    }

    /// Priority 0, for which others let go or rise; one that has not spoken yet took the role from nobody.
    pub(super) fn release(&mut self) {
        if self.has_advertised() {
            self.send(Priority::RELEASE);
        }
    }

    /// Keeps the rhythm: a late advertisement does not make the next one late.
    pub(super) fn advertise_in_turn(&mut self, now: Instant) {
        let interval = self.config.settings.interval.as_duration();
        self.send(self.priority());
        if let Phase::Active(active) = &mut self.phase {
            active.spoken = true;
            active.sent_at = now;
            let next = active.advertise_at + interval;
            active.advertise_at = if next > now { next } else { now + interval };
        }
    }

    pub(super) fn advertise_out_of_turn(&mut self, now: Instant) {
        let interval = self.config.settings.interval.as_duration();
        self.send(self.priority());
        if let Phase::Active(active) = &mut self.phase {
            active.spoken = true;
            active.sent_at = now;
            active.advertise_at = now + interval;
        }
    }

    pub(super) fn announce_again(&mut self, now: Instant) {
        if let Phase::Active(active) = &mut self.phase
            && let Some(announcements) = &mut active.announcements
        {
            *announcements = Announcements::begin(now);
            self.effects.push(Effect::AnnounceAddresses);
        }
    }
}
