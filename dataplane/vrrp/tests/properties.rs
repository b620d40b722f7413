//! What holds for a virtual router whatever it is told, in whatever order and at whatever time.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;
use vrrp::{
    Advertisement, Authentication, Centiseconds, Config, Effect, Input, Instant, Peering,
    Preemption, Priority, Settings, State, Version, VirtualRouter, Vrid, machine::default_linger,
    wire::AddressList,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Resume(u64),
    Stop,
    Withdraw,
    Hear {
        priority: u8,
        from: u8,
        interval: u16,
    },
    /// The timer, some time late.
    Timer {
        late: u64,
    },
    Endpoint(bool),
    Hold(u64),
    LinkDown,
    LinkUp,
    Added,
    Removed,
    Lost,
    PeerTookOver,
    Update {
        priority: u8,
        interval: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let late = prop_oneof![4 => Just(0), 2 => 0..50_u64, 1 => 0..5_000_u64];
    let hear =
        (0..=255_u8, 10..14_u8, 1..200_u16).prop_map(|(priority, from, interval)| Step::Hear {
            priority,
            from,
            interval,
        });
    prop_oneof![
        3 => Just(Step::Start),
        1 => (0..1_000_u64).prop_map(Step::Resume),
        1 => Just(Step::Stop),
        1 => Just(Step::Withdraw),
        10 => hear,
        10 => late.prop_map(|late| Step::Timer { late }),
        1 => any::<bool>().prop_map(Step::Endpoint),
        1 => (0..5_000_u64).prop_map(Step::Hold),
        1 => Just(Step::LinkDown),
        2 => Just(Step::LinkUp),
        4 => Just(Step::Added),
        4 => Just(Step::Removed),
        1 => Just(Step::Lost),
        1 => Just(Step::PeerTookOver),
        1 => (1..=255_u8, 1..100_u16)
            .prop_map(|(priority, interval)| Step::Update { priority, interval }),
    ]
}

fn settings(version: Version, priority: u8, interval: u16, preemption: Preemption) -> Settings {
    let interval = match version {
        Version::V2 => Centiseconds::SECOND,
        Version::V3 => Centiseconds::new(interval).unwrap(),
    };
    Settings {
        version,
        source: IpAddr::from([192, 168, 1, 11]),
        priority: Priority::new(priority),
        priority_without_endpoint: Priority::new(3),
        interval,
        preemption,
        peering: Peering::Multicast,
        authentication: Authentication::None,
        linger: default_linger(version, interval),
    }
}

/// The router, and what its driver would know of it.
struct Driven {
    router: VirtualRouter,
    now: Instant,
    preemption: Preemption,
    state: State,
    /// The newest of add and remove.
    holds: bool,
}

impl Driven {
    fn take(&mut self, step: Step) {
        let now = match step {
            Step::Timer { late } => {
                let due = self.router.poll_timeout().unwrap_or(self.now);
                due.max(self.now) + Duration::from_millis(late)
            }
            _ => self.now + Duration::from_millis(7),
        };
        self.now = now;
        let version = self.router.config().settings.version;
        let addresses = [IpAddr::from([192, 168, 1, 110])];
        let input = match step {
            Step::Start => Input::Start,
            Step::Resume(ago) => Input::Resume {
                last_advertisement_at: now - Duration::from_millis(ago),
            },
            Step::Stop => Input::Stop,
            Step::Withdraw => Input::Withdraw,
            Step::Timer { .. } => Input::Timer,
            Step::Endpoint(usable) => Input::EndpointUsable(usable),
            Step::Hold(millis) => Input::HoldPreemption {
                until: now + Duration::from_millis(millis),
            },
            Step::LinkDown => Input::LinkDown,
            Step::LinkUp => Input::LinkUp,
            Step::Added => Input::AddressesAdded,
            Step::Removed => Input::AddressesRemoved,
            Step::Lost => Input::AddressesLost,
            Step::PeerTookOver => Input::PeerTookOver,
            Step::Hear {
                priority,
                from,
                interval,
            } => {
                let advertisement = Advertisement {
                    version,
                    vrid: Vrid::new(51).unwrap(),
                    priority: Priority::new(priority),
                    interval: match version {
                        Version::V2 => Centiseconds::SECOND,
                        Version::V3 => Centiseconds::new(interval).unwrap(),
                    },
                    authentication: Authentication::None,
                    addresses: AddressList::from_slice(&addresses),
                };
                let input = Input::Advertisement {
                    source: IpAddr::from([192, 168, 1, from]),
                    advertisement: &advertisement,
                };
                return self.router.handle(now, input);
            }
            Step::Update { priority, interval } => {
                let new = settings(version, priority, interval, self.preemption);
                self.router.update(now, &new).unwrap();
                return;
            }
        };
        self.router.handle(now, input);
    }

    /// Carries out the effects and checks them against each other.
    fn check(&mut self, step: Step) -> Result<(), TestCaseError> {
        let (mut sent, mut announced) = (0, 0);
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::AddAddresses => {
                    // A living one that is preempted is not told before the addresses are held.
                    let waits =
                        self.router.state() == State::Active && !self.router.has_advertised();
                    prop_assert!(sent > 0 || waits, "advertise before adding");
                    self.holds = true;
                }
                Effect::RemoveAddresses => self.holds = false,
                Effect::SendAdvertisement { .. } => sent += 1,
                Effect::AnnounceAddresses => announced += 1,
                Effect::Transition(transition) => {
                    prop_assert_eq!(transition.from, self.state);
                    prop_assert_eq!(transition.at, self.now);
                    self.state = transition.to;
                }
                Effect::Discarded(_) => {
                    let heard = matches!(step, Step::Hear { .. });
                    prop_assert!(heard);
                }
            }
        }
        prop_assert_eq!(self.router.lost_effects(), 0);
        prop_assert_eq!(self.router.state(), self.state);
        prop_assert!(sent <= 2 && announced <= 1);
        // The addresses are held exactly by an Active and by one that is leaving.
        let keeps = self.state == State::Active || self.router.is_leaving();
        prop_assert_eq!(self.holds, keeps);
        prop_assert!(announced == 0 || self.state == State::Active);
        // A timer is armed exactly where something is to come, and running it makes progress.
        let waits = self.state != State::Initialize || self.router.is_leaving();
        prop_assert_eq!(self.router.poll_timeout().is_some(), waits);
        if matches!(step, Step::Timer { .. }) {
            prop_assert!(self.router.poll_timeout().is_none_or(|at| at > self.now));
        }
        // A permit is an own advertisement as Active.
        let permit = self.router.last_advertisement();
        prop_assert!(permit.is_none() || self.state == State::Active);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn effects_and_state_agree(
        steps in prop::collection::vec(step(), 1..120),
        v3: bool,
        priority in prop_oneof![9 => 1..=254_u8, 1 => Just(255)],
        delay in prop::option::of(0..2_000_u64),
    ) {
        let version = if v3 { Version::V3 } else { Version::V2 };
        let preemption = match delay {
            Some(millis) => Preemption::Enabled { delay: Duration::from_millis(millis) },
            None => Preemption::Disabled,
        };
        let router = VirtualRouter::new(Config {
            vrid: Vrid::new(51).unwrap(),
            addresses: vec![IpAddr::from([192, 168, 1, 110])],
            settings: settings(version, priority, 10, preemption),
        }).unwrap();
        let mut driven = Driven {
            router,
            now: Instant::from_millis(100_000),
            preemption,
            state: State::Initialize,
            holds: false,
        };
        for step in steps {
            driven.take(step);
            driven.check(step)?;
        }
    }
}
