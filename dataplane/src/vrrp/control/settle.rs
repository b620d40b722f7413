//! Decisions of control: from what is wanted and what is, to the next steps.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ::vrrp::{Family, Instant};
use node_api::RouterState;

use super::{
    Control,
    config::config,
    managed::{Instance, Key, Managed, Stage},
    unix_ms,
};
use crate::{
    ipc::{FromVrrp, Router, VrrpToProxy},
    sys::pages::RouterKey,
    vrrp::{
        machine::{segment::Segment, slot::Slot},
        messages::{Registration, RouterId, ToHost, ToMachine},
        world::Binding,
    },
};

/// How long the proxy may take to close the listeners and sessions of one virtual router.
const PROXY_LEAVES_WITHIN: Duration = Duration::from_millis(250);
/// How long a state machine may take for a planned stop; its linger is 120 ms at most.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

impl Control {
    /// Takes every step that is possible now.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.world.is_none() {
            return;
        }
        loop {
            self.adopt_configuration();
            self.bind_all();
            self.clean_residuals(now);
            // What is gone now may make room for what waits.
            if !self.advance_leaving(now) {
                break;
            }
        }
        self.participate(now);
        self.tell_usable();
        self.close_segments();
        self.tell_applied();
    }

    /// Until when nothing is to be done without an event.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let stages =
            self.routers
                .iter()
                .filter_map(|router| match router.instance.as_ref()?.stage {
                    Stage::AwaitProxy { until } | Stage::AwaitStop { until } => Some(until),
                    Stage::Live | Stage::AwaitGone { .. } => None,
                });
        let resumes = self.routers.iter().filter_map(|router| {
            Some(router.instance.as_ref()?.resume? + resume_limit(&router.spec))
        });
        let report = (self.report.is_wanted && !self.report.is_under_way).then(|| {
            self.report
                .last
                .map_or(now, |last| last + super::REPORT_EVERY)
        });
        stages
            .chain(resumes)
            .chain(report)
            .min()
            .map(|at| at.since(now) + Duration::from_micros(50))
    }

    // Configuration.

    /// Removals first: what is new waits until whatever conflicts with it is gone.
    fn adopt_configuration(&mut self) {
        let Some(desired) = &self.desired else { return };
        if desired.is_applied {
            return;
        }
        self.problems.clear();
        let wanted: Vec<(Key, Router)> = desired
            .routers
            .iter()
            .map(|router| (Key::of(router), router.clone()))
            .collect();
        for router in &mut self.routers {
            if !wanted.iter().any(|(key, _)| *key == router.key) {
                router.is_leaving = true;
            }
        }
        let mut is_adopted = true;
        for (key, spec) in wanted {
            let known = self
                .routers
                .iter_mut()
                .find(|r| r.key == key && !r.is_leaving);
            if let Some(router) = known {
                router
                    .required_ports
                    .retain(|port| spec.ports.contains(port));
                if router.required_ports.is_empty() {
                    router.required_ports.clone_from(&spec.ports);
                }
                router.spec = spec;
            } else if !self
                .routers
                .iter()
                .any(|r| r.is_leaving && r.key.conflicts(&key))
            {
                let now = unix_ms(Some(SystemTime::now()));
                self.routers.push(Managed::new(spec, now));
            } else {
                is_adopted = false;
            }
        }
        if let Some(desired) = &mut self.desired {
            desired.is_adopted = is_adopted;
        }
    }

    fn tell_applied(&mut self) {
        let is_leaving = self.routers.iter().any(|router| router.is_leaving);
        let Some(desired) = self.desired.as_mut().filter(|d| !d.is_applied) else {
            return;
        };
        if is_leaving || !desired.is_adopted {
            return;
        }
        desired.is_applied = true;
        let problems = self
            .routers
            .iter()
            .filter_map(|router| {
                let address = router.addresses().first()?;
                let problem = router.binding.as_ref().err()?;
                Some(format!("{address}: {problem}"))
            })
            .collect();
        let sequence = desired.sequence;
        self.ends
            .outbox
            .post(FromVrrp::Applied { sequence, problems });
        self.report.is_wanted = true;
    }

    // Interfaces.

    /// Brings every virtual router onto its interface, with its settings of today.
    fn bind_all(&mut self) {
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get(at).filter(|router| !router.is_leaving) else {
                continue;
            };
            let binding = self.bind(router);
            if binding != router.binding {
                self.report.is_wanted = true;
            }
            let index = router.instance.as_ref().map(|instance| instance.index);
            let id = router.instance.as_ref().map(|instance| instance.id);
            let is_live = router.is_live();
            let bound_to = binding.as_ref().ok().map(|binding| binding.index);
            if let Some(router) = self.routers.get_mut(at) {
                router.binding = binding;
            }
            match (id, bound_to) {
                (Some(id), bound) if is_live && index != bound => self.end_instance(id),
                (Some(_), Some(_)) if is_live => self.update(at),
                (None, Some(_)) => self.create(at),
                _ => {}
            }
        }
    }

    fn bind(&self, router: &Managed) -> Result<Binding, String> {
        let world = self.world.as_ref().ok_or("has not started yet")?;
        let address = router.addresses().first().ok_or("it has no address")?;
        let binding = world
            .bind(router.spec.settings.interface.as_deref(), *address)
            .map_err(|unbound| unbound.to_string())?;
        config(&router.spec, binding.source).map_err(|error| error.to_string())?;
        Ok(binding)
    }

    /// Hands changed settings to a running virtual router.
    fn update(&mut self, at: usize) {
        let Some(router) = self.routers.get_mut(at) else {
            return;
        };
        let Some(instance) = &mut router.instance else {
            return;
        };
        let Ok(binding) = &router.binding else { return };
        let Ok(config) = config(&router.spec, binding.source) else {
            return;
        };
        let (id, binding) = (instance.id, binding.clone());
        if instance.settings != config.settings {
            instance.settings.clone_from(&config.settings);
            let interval = config.settings.interval.as_duration();
            self.tell_host(ToHost::Interval(id, interval));
            self.tell_machine(ToMachine::Update(id, Box::new(config.settings)));
        }
        self.tell_link(&binding);
    }

    /// Starts a virtual router in the other threads, not taking part yet.
    fn create(&mut self, at: usize) {
        let Some(router) = self.routers.get(at) else {
            return;
        };
        let Ok(binding) = router.binding.clone() else {
            return;
        };
        match self.try_create(at, &binding) {
            Ok(()) => {
                // The state machine believes in a link until told otherwise.
                if !binding.is_up {
                    self.send_link(&binding);
                }
            }
            Err(problem) => {
                tracing::error!("{problem}");
                if let Some(router) = self.routers.get_mut(at) {
                    router.binding = Err(problem);
                }
            }
        }
    }

    fn try_create(&mut self, at: usize, binding: &Binding) -> Result<(), String> {
        let router = self.routers.get(at).ok_or("no such virtual router")?;
        let config = config(&router.spec, binding.source).map_err(|error| error.to_string())?;
        let family = match config.family() {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let table = &**self.table;
        let row = table
            .row(RouterKey::new(binding.index, family, config.vrid.get()))
            .ok_or("there are more virtual routers than the host has room for: use fewer")?;
        let addresses = config.addresses.clone();
        let interval = config.settings.interval.as_duration();
        let settings = config.settings.clone();
        // Only a former process wrote to the row by now.
        let is_first = !self.is_cleaned;
        let world = self.world.as_ref().ok_or("has not started yet")?;
        let are_there = addresses.iter().all(|a| world.has(binding.index, *a));
        let resume = row
            .last_advertisement()
            .filter(|_| is_first && are_there)
            .map(Instant::from_nanos);
        self.open_segment(binding)?;
        let id = self.next_id;
        self.next_id += 1;
        let slot = Slot::new(id, binding.index, config, row).map_err(|error| error.to_string())?;
        self.tell_host(ToHost::Register(Registration {
            id,
            index: binding.index,
            addresses,
            row,
            interval,
        }));
        self.tell_machine(ToMachine::Create(Box::new(slot)));
        if let Some(router) = self.routers.get_mut(at) {
            router.instance = Some(Instance {
                id,
                index: binding.index,
                row,
                settings,
                stage: Stage::Live,
                pairing: None,
                is_usable: true,
                resume,
            });
        }
        Ok(())
    }

    fn open_segment(&mut self, binding: &Binding) -> Result<(), String> {
        if self
            .segments
            .iter()
            .any(|(index, ..)| *index == binding.index)
        {
            return Ok(());
        }
        let segment = Segment::open(binding).map_err(|error| {
            format!(
                "cannot open a raw socket for VRRP on {}: {error}",
                binding.interface
            )
        })?;
        self.segments
            .push((binding.index, binding.is_up, binding.mac));
        self.tell_machine(ToMachine::Open(Box::new(segment)));
        Ok(())
    }

    /// Gives back the sockets of interfaces that no virtual router uses.
    fn close_segments(&mut self) {
        let routers = &self.routers;
        let is_used = |index: u32| {
            routers
                .iter()
                .any(|router| router.instance.as_ref().is_some_and(|i| i.index == index))
        };
        let unused: Vec<u32> = self
            .segments
            .iter()
            .map(|(index, ..)| *index)
            .filter(|index| !is_used(*index))
            .collect();
        for index in unused {
            self.segments.retain(|(other, ..)| *other != index);
            self.tell_machine(ToMachine::Close(index));
        }
    }

    fn tell_link(&mut self, binding: &Binding) {
        let known = self.segments.iter_mut().find(|s| s.0 == binding.index);
        if let Some(known) = known
            && (known.1, known.2) != (binding.is_up, binding.mac)
        {
            (known.1, known.2) = (binding.is_up, binding.mac);
            self.send_link(binding);
        }
    }

    fn send_link(&mut self, binding: &Binding) {
        let mac = ::vrrp::wire::Mac(binding.mac);
        self.tell_machine(ToMachine::Link(binding.index, binding.is_up, mac));
    }

    // What a former process left.

    /// Removes own addresses that no virtual router goes on with.
    fn clean_residuals(&mut self, now: Instant) {
        if self.desired.is_none() && !self.is_leaving {
            return;
        }
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            let limit = resume_limit(&router.spec);
            let addresses = router.addresses().to_vec();
            let Some(instance) = &mut router.instance else {
                continue;
            };
            if instance.resume.is_some_and(|last| last + limit < now) {
                instance.resume = None;
                let index = instance.index;
                if instance.pairing.is_none() {
                    for address in addresses {
                        self.remove_residual(index, address);
                    }
                }
            }
        }
        if self.is_cleaned {
            return;
        }
        self.is_cleaned = true;
        let kept = |index: u32, address: IpAddr| {
            self.routers.iter().any(|router| {
                router.addresses().contains(&address)
                    && router
                        .instance
                        .as_ref()
                        .is_some_and(|i| i.index == index && i.resume.is_some())
            })
        };
        let residual: Vec<_> = self
            .world
            .iter()
            .flat_map(super::World::own)
            .filter(|(index, address)| !kept(*index, *address))
            .collect();
        for (index, address) in residual {
            self.remove_residual(index, address);
        }
    }

    fn remove_residual(&self, index: u32, address: IpAddr) {
        tracing::info!(%address, "removing an address that a former process left behind");
        self.tell_host(ToHost::Remove(index, address));
    }

    // Taking part.

    /// Lets virtual routers take part exactly while the proxy serves their addresses.
    fn participate(&mut self, now: Instant) {
        let hold_until = now + self.deaths.hold(now);
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get(at) else {
                continue;
            };
            if router.is_leaving || !router.is_live() {
                continue;
            }
            let serving = self.serving(router);
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            if let Some((_, true)) = serving {
                router.required_ports.clone_from(&router.spec.ports);
            }
            let Some(instance) = &mut router.instance else {
                continue;
            };
            let number = serving.map(|(number, _)| number);
            if instance.pairing == number {
                continue;
            }
            let was = std::mem::replace(&mut instance.pairing, number);
            let id = instance.id;
            match number {
                Some(pairing) => {
                    let resume = instance.resume.take();
                    self.tell_machine(ToMachine::Participate {
                        id,
                        pairing,
                        hold_until,
                        resume,
                    });
                }
                None if was.is_some() => self.tell_machine(ToMachine::Withdraw(id)),
                None => {}
            }
            self.report.is_wanted = true;
        }
    }

    /// The pairing under which a virtual router can take part, and whether the proxy accepts on all
    /// of its ports, new ones too.
    fn serving(&self, router: &Managed) -> Option<(u64, bool)> {
        let pairing = self.pairing.as_ref().filter(|p| p.is_watched && p.beats)?;
        let accepts = |ports: &[u16]| pairing.missing(router.addresses(), ports).is_none();
        let is_complete = accepts(&router.spec.ports);
        (is_complete || accepts(&router.required_ports)).then_some((pairing.number, is_complete))
    }

    fn tell_usable(&mut self) {
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            let endpoints = self.usable.get(&router.spec.pool);
            let is_usable = endpoints.is_none_or(|endpoints| *endpoints > 0);
            if let Some(instance) = router
                .instance
                .as_mut()
                .filter(|i| i.is_usable != is_usable)
            {
                instance.is_usable = is_usable;
                let id = instance.id;
                self.tell_machine(ToMachine::EndpointUsable(id, is_usable));
                self.report.is_wanted = true;
            }
        }
    }

    // Leaving.

    /// Moves planned stops on: the proxy first, then the protocol, then the addresses (DESIGN
    /// section 9.9). Those that are Active go one after another, the others at once. Tells whether
    /// any is gone for good.
    fn advance_leaving(&mut self, now: Instant) -> bool {
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get(at) else {
                continue;
            };
            let Some(instance) = &router.instance else {
                continue;
            };
            let id = instance.id;
            let has_proxy = self.pairing.is_some();
            match instance.stage {
                Stage::Live if router.is_leaving => self.begin_leaving(at, id, now),
                Stage::AwaitProxy { until } if until <= now || !has_proxy => self.stop(id, now),
                Stage::AwaitStop { until } if until <= now => self.end_instance(id),
                _ => {}
            }
        }
        let before = self.routers.len();
        self.routers
            .retain(|router| !router.is_leaving || router.instance.is_some());
        self.routers.len() != before
    }

    fn begin_leaving(&mut self, at: usize, id: RouterId, now: Instant) {
        let Some(router) = self.routers.get(at) else {
            return;
        };
        let is_serving = router.state == RouterState::Active || router.is_held;
        let Some(pairing) = self.pairing.as_ref().filter(|_| is_serving) else {
            self.stop(id, now);
            return;
        };
        let is_other_waiting = self.routers.iter().any(|other| {
            let stage = other.instance.as_ref().map(|instance| instance.stage);
            matches!(stage, Some(Stage::AwaitProxy { .. }))
        });
        if is_other_waiting {
            return;
        }
        let addresses = router.addresses().to_vec();
        if pairing.tell(&VrrpToProxy::Leave { addresses }) {
            let until = now + PROXY_LEAVES_WITHIN;
            self.set_stage(id, Stage::AwaitProxy { until });
        } else {
            self.stop(id, now);
        }
    }

    fn stop(&mut self, id: RouterId, now: Instant) {
        let until = now + STOPS_WITHIN;
        self.set_stage(id, Stage::AwaitStop { until });
        self.tell_machine(ToMachine::Stop(id));
    }

    /// Takes an instance out of the other threads, its addresses with it.
    pub(super) fn end_instance(&mut self, id: RouterId) {
        let stage = Stage::AwaitGone {
            is_returned: false,
            is_forgotten: false,
        };
        self.set_stage(id, stage);
        self.tell_machine(ToMachine::Destroy(id));
        self.tell_host(ToHost::Forget(id));
    }

    /// A part of an instance came back; with the second one it is gone.
    pub(super) fn on_gone(&mut self, id: RouterId, from_machine: bool) {
        let Some(router) = self.routers.iter_mut().find(|router| router.is(id)) else {
            return;
        };
        let Some(instance) = &mut router.instance else {
            return;
        };
        let Stage::AwaitGone {
            is_returned,
            is_forgotten,
        } = &mut instance.stage
        else {
            return;
        };
        if from_machine {
            *is_returned = true;
        } else {
            *is_forgotten = true;
        }
        if *is_returned && *is_forgotten {
            instance.row.clear();
            router.instance = None;
            router.state = RouterState::Initialize;
            router.is_held = false;
        }
    }

    fn set_stage(&mut self, id: RouterId, stage: Stage) {
        let router = self.routers.iter_mut().find(|router| router.is(id));
        if let Some(instance) = router.and_then(|router| router.instance.as_mut()) {
            instance.stage = stage;
        }
    }
}

/// Within two intervals of its last advertisement nobody else can have become Active.
fn resume_limit(router: &Router) -> Duration {
    router.settings.advertisement_interval * 2
}
