//! Decisions of control: from what is wanted and what is, to the next steps.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use ::vrrp::{Family, Instant};

use super::{
    Control,
    config::{config, own_mac},
    managed::{Instance, Key, Managed, Stage},
    unix_ms,
};
use crate::{
    ipc::{FromVrrp, Router},
    sys::pages::RouterKey,
    vrrp::{
        machine::{
            segment::{Segment, SegmentId},
            slot::Slot,
        },
        messages::{Registration, ToHost, ToMachine},
        world::{Binding, Present},
    },
};

/// How long after a failure a virtual router is started again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Control {
    /// Takes every step that is possible now.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.world.is_none() {
            return;
        }
        loop {
            self.adopt_configuration();
            self.track();
            self.bind_all(now);
            self.clean_residuals(now);
            self.clean_estates(now);
            // What is gone now may make room for what waits.
            if !self.advance_leaving(now) {
                break;
            }
        }
        self.participate(now);
        self.tell_usable();
        self.look_after_addresses();
        self.look_for_isolation();
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
                    Stage::Live | Stage::AwaitGone | Stage::AwaitHandOver => None,
                });
        let resumes = self.routers.iter().filter_map(|router| {
            let instance = router.instance.as_ref().filter(|i| i.keeps_residual)?;
            Some(instance.resume? + resume_limit(&router.spec))
        });
        let tries = self
            .routers
            .iter()
            .filter(|router| !router.is_leaving && router.binding.is_ok())
            .filter_map(|router| router.refused.as_ref().map(|(_, again)| *again));
        let report = (self.report.is_wanted && !self.report.is_under_way).then(|| {
            self.report
                .last
                .map_or(now, |last| last + super::REPORT_EVERY)
        });
        stages
            .chain(resumes)
            .chain(tries)
            .chain(report)
            .chain(self.first_estate_until())
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
        let served = desired.routers.iter().flat_map(|router| {
            let addresses = router.settings.client_addresses();
            addresses.flat_map(|address| router.ports.iter().map(move |port| (address, *port)))
        });
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) =
            served.map(SocketAddr::from).collect();
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
                let problem = router.obstacle()?;
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
    fn bind_all(&mut self, now: Instant) {
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
                (None, Some(_)) => self.create(at, now),
                _ => {}
            }
        }
    }

    fn bind(&self, router: &Managed) -> Result<Binding, String> {
        let world = self.world.as_ref().ok_or("has not started yet")?;
        let present = router.instance.as_ref().map(|instance| Present {
            index: instance.index,
            source: instance.settings.source,
        });
        let interface = router.spec.settings.interface.as_deref();
        let peers = router.spec.settings.peering.unicast();
        let binding = world
            .bind(interface, router.addresses(), peers, present)
            .map_err(|unbound| unbound.to_string())?;
        config(&router.spec, router.priority, binding.source).map_err(|error| error.to_string())?;
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
        let Ok(config) = config(&router.spec, router.priority, binding.source) else {
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
    fn create(&mut self, at: usize, now: Instant) {
        let Some(router) = self.routers.get(at) else {
            return;
        };
        let is_early = matches!(&router.refused, Some((_, again)) if *again > now);
        let Some(binding) = router.binding.clone().ok().filter(|_| !is_early) else {
            return;
        };
        let result = self.try_create(at, &binding);
        let Some(router) = self.routers.get_mut(at) else {
            return;
        };
        let before = router.refused.take();
        if let Err(problem) = result {
            // Told once, tried again and again: descriptors or memory may be there next time.
            if before.is_none_or(|(before, _)| before != problem) {
                tracing::error!("{problem}");
                self.report.is_wanted = true;
            }
            router.refused = Some((problem, now + TRY_AGAIN_AFTER));
        } else {
            self.report.is_wanted = true;
        }
    }

    fn try_create(&mut self, at: usize, binding: &Binding) -> Result<(), String> {
        let router = self.routers.get(at).ok_or("no such virtual router")?;
        let config = config(&router.spec, router.priority, binding.source)
            .map_err(|error| error.to_string())?;
        let family = match config.family() {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let table = self.table;
        let row = table
            .row(RouterKey::new(binding.index, family, config.vrid.get()))
            .ok_or("there are more virtual routers than the host has room for: use fewer")?;
        let mac = own_mac(&router.spec, &config);
        let addresses = config.addresses.clone();
        let interval = config.settings.interval.as_duration();
        let settings = config.settings.clone();
        let resume = if self.is_cleaned {
            let addresses = router.addresses().to_vec();
            self.inherit(binding.index, &addresses)
        } else {
            // Only a former process wrote to the row by now.
            row.last_advertisement().map(Instant::from_nanos)
        };
        self.open_segment(binding)?;
        let id = self.next_id;
        self.next_id += 1;
        let slot = Slot::new(id, SegmentId::of(binding), config, mac, row)
            .map_err(|error| error.to_string())?;
        let contested = Arc::clone(&slot.contested);
        self.tell_host(ToHost::Register(Registration {
            id,
            index: binding.index,
            mac,
            addresses,
            row,
            interval,
            contested: Arc::clone(&contested),
        }));
        self.tell_machine(ToMachine::Create(Box::new(slot)));
        // The segment may be older than what is known of its link now.
        self.tell_link(binding);
        if let Some(router) = self.routers.get_mut(at) {
            router.instance = Some(Instance {
                id,
                index: binding.index,
                mac,
                row,
                contested,
                settings,
                stage: Stage::Live,
                pairing: None,
                is_usable: true,
                resume,
                keeps_residual: resume.is_some(),
            });
        }
        Ok(())
    }

    fn open_segment(&mut self, binding: &Binding) -> Result<(), String> {
        let id = SegmentId::of(binding);
        if self.segments.iter().any(|(open, ..)| *open == id) {
            return Ok(());
        }
        let segment = Segment::open(binding).map_err(|error| {
            format!(
                "cannot open a raw socket for VRRP on {}: {error}",
                binding.interface
            )
        })?;
        self.segments.push((id, binding.is_up, binding.mac));
        let watched = (binding.index, Arc::downgrade(&segment.carrier));
        // A thread that ended could not ask either; rtnetlink still tells.
        drop(self.ends.carrier.send(watched));
        self.heard.push((id, Arc::clone(&segment.heard)));
        self.tell_machine(ToMachine::Open(Box::new(segment)));
        Ok(())
    }

    /// Gives back the sockets that no virtual router uses.
    fn close_segments(&mut self) {
        let routers = &self.routers;
        let is_used = |id: SegmentId| {
            routers.iter().any(|router| {
                let instance = router.instance.as_ref();
                let uses = |instance: &Instance| {
                    instance.index == id.index && router.key.family() == id.family
                };
                instance.is_some_and(uses)
            })
        };
        let unused: Vec<SegmentId> = self
            .segments
            .iter()
            .map(|(id, ..)| *id)
            .filter(|id| !is_used(*id))
            .collect();
        for id in unused {
            self.segments.retain(|(other, ..)| *other != id);
            self.heard.retain(|(other, _)| *other != id);
            self.tell_machine(ToMachine::Close(id));
        }
    }

    fn tell_link(&mut self, binding: &Binding) {
        let id = SegmentId::of(binding);
        let known = self.segments.iter_mut().find(|s| s.0 == id);
        if let Some(known) = known
            && (known.1, known.2) != (binding.is_up, binding.mac)
        {
            (known.1, known.2) = (binding.is_up, binding.mac);
            let mac = ::vrrp::wire::Mac(binding.mac);
            self.tell_machine(ToMachine::Link(id, binding.is_up, mac));
        }
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
            let is_isolated = self.is_isolated(router);
            let serving = self.serving(router).filter(|_| !is_isolated);
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
                    instance.keeps_residual = false;
                    self.tell_machine(ToMachine::Participate {
                        id,
                        pairing,
                        hold_until,
                        resume,
                    });
                }
                None if was.is_some() && is_isolated => {
                    self.tell_machine(ToMachine::Isolate(id));
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
        let accepts = |ports: &[u16]| pairing.missing(&router.spec.settings, ports).is_none();
        let is_complete = accepts(&router.spec.ports);
        (is_complete || accepts(&router.required_ports)).then_some((pairing.number, is_complete))
    }

    fn tell_usable(&mut self) {
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            let endpoints = self.usable.get(&router.spec.pool);
            let is_usable = endpoints.is_none_or(|endpoints| endpoints.routed > 0);
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
}

/// Within two intervals of its last advertisement nobody else can have become Active.
pub(super) fn resume_limit(router: &Router) -> Duration {
    router.settings.advertisement_interval * 2
}
