//! Questions to the agent that the other processes help to answer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    agent::{
        app::App,
        event::{Event, Role},
        report::{Heard, Material, Snapshot},
    },
    ipc::{ToProxy, ToVrrp},
    metrics::{Metric, Sample},
    sys::clock,
};

/// A process that does not answer in time is quoted with what it said before.
const PATIENCE: Duration = Duration::from_millis(500);
/// More questions at a time are turned away: anybody on the host may ask.
const MOST_QUESTIONS: usize = 1024;

/// Someone who waits.
#[derive(Debug)]
pub(super) struct Question {
    id: u64,
    reply: oneshot::Sender<Snapshot>,
    waits_for_vrrp: bool,
    waits_for_proxy: bool,
}

impl App {
    /// Asks the processes, or answers at once if there are none. A process that was asked already
    /// is not asked again: its answer serves all who wait, and what it has to read stays bounded
    /// however many ask.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<Snapshot>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if self.questions.len() >= MOST_QUESTIONS {
            // Whoever asked sees that the reply is gone.
            return;
        }
        if !self.questions.iter().any(|one| one.waits_for_vrrp) {
            self.vrrp.send(ToVrrp::Report);
        }
        if !self.questions.iter().any(|one| one.waits_for_proxy) {
            self.proxy.send(ToProxy::Report);
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.questions.push(Question {
            id,
            reply,
            waits_for_vrrp: self.vrrp.link.is_some(),
            waits_for_proxy: self.proxy.link.is_some(),
        });
        self.answer_complete();
        self.send_later(PATIENCE, Event::SnapshotDue(id));
    }

    /// A process answered.
    pub(super) fn answered(&mut self, role: Role) {
        for question in &mut self.questions {
            match role {
                Role::Vrrp => question.waits_for_vrrp = false,
                Role::Proxy => question.waits_for_proxy = false,
            }
        }
        self.answer_complete();
    }

    /// A question waited long enough.
    pub(super) fn answer_overdue(&mut self, id: u64) {
        if let Some(at) = self.questions.iter().position(|one| one.id == id) {
            let question = self.questions.swap_remove(at);
            let snapshot = self.snapshot(question.waits_for_vrrp, question.waits_for_proxy);
            question.answer(snapshot);
        }
    }

    fn answer_complete(&mut self) {
        let (complete, waiting): (Vec<_>, _) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|one| !one.waits_for_vrrp && !one.waits_for_proxy);
        self.questions = waiting;
        if complete.is_empty() {
            return;
        }
        let snapshot = self.snapshot(false, false);
        for question in complete {
            question.answer(snapshot.clone());
        }
    }

    /// What is known now, from processes that answered or not.
    pub(super) fn material(&self, vrrp_answered: bool, proxy_answered: bool) -> Material<'_> {
        let mut warnings = self.remarks.clone();
        warnings.extend(self.unsaved_reason.clone());
        warnings.extend(self.vrrp_problems.iter().cloned());
        let stream = self.stream.iter();
        warnings.extend(stream.flat_map(|stream| stream.status.warnings.clone()));
        warnings.extend(self.keyring.warnings(clock::now_unix_ms()));
        let refused = self.refused.iter().chain(self.keyring.closed());
        Material {
            config: self.rollout.newest(),
            stale_reason: self.stale_reason.as_deref(),
            warnings,
            refused: refused.map(|(at, why)| (*at, why.clone())).collect(),
            vrrp: Heard {
                lives: self.vrrp.link.is_some(),
                answered: vrrp_answered,
                is_done: self.vrrp.sent > 0 && self.vrrp.is_done() && self.rollout.is_settled(),
                report: self.vrrp_report.as_ref(),
            },
            proxy: Heard {
                lives: self.proxy.link.is_some(),
                answered: proxy_answered,
                is_done: self.proxy.sent > 0 && self.proxy.is_done() && self.rollout.is_settled(),
                report: self.proxy_report.as_ref(),
            },
        }
    }

    /// What is known now, and of whom it is not new.
    fn snapshot(&self, waits_for_vrrp: bool, waits_for_proxy: bool) -> Snapshot {
        let material = self.material(!waits_for_vrrp, !waits_for_proxy);
        let report = material.report();
        let mut not_ready = material.not_ready(&report);
        if let Some(stream) = &self.stream {
            // Serving what was told before is serving.
            not_ready.retain(|reason| Some(reason) != report.stale_reason.as_ref());
            not_ready.extend(stream.not_ready());
        }
        if self.leaving.is_some() {
            not_ready.push("the agent is stopping in order".to_owned());
        }
        let pools = material.config.pools.values();
        let routers = pools.flat_map(|pool| pool.virtual_routers.iter().cloned());
        Snapshot {
            routers: routers.collect(),
            samples: self.samples(report.warnings.len()),
            not_ready,
            report,
        }
    }

    fn samples(&self, warnings: usize) -> Vec<Sample> {
        let version = env!("CARGO_PKG_VERSION");
        let is_stale = u64::from(self.stale_reason.is_some());
        let mut stream = self.stream.iter();
        let is_unsaved =
            self.unsaved_reason.is_some() || stream.any(|stream| stream.status.is_unsaved);
        let accepted_at = self.counts.accepted_unix_ms / 1000;
        let refused = (self.refused.len() + self.keyring.closed().len()) as u64;
        let changes = Metric::ConfigChanges;
        let mut samples = vec![
            Sample::new(Metric::BuildInfo, &[("version", version)], 1),
            Sample::new(Metric::ConfigStale, &[], is_stale),
            Sample::new(Metric::ConfigUnsaved, &[], u64::from(is_unsaved)),
            Sample::new(changes, &[("result", "accepted")], self.counts.accepted),
            Sample::new(changes, &[("result", "refused")], self.counts.refused),
            Sample::new(Metric::ConfigAcceptedTime, &[], accepted_at),
            Sample::new(Metric::ListenerProblems, &[], refused),
            Sample::new(Metric::Warnings, &[], warnings as u64),
        ];
        if let Some(stream) = &self.stream {
            let connected = stream.status.connected as u64;
            samples.push(Sample::new(Metric::ControllerConnected, &[], connected));
        }
        for (role, is_up, restarts) in [
            (Role::Vrrp, self.vrrp.link.is_some(), self.vrrp.restarts),
            (Role::Proxy, self.proxy.link.is_some(), self.proxy.restarts),
        ] {
            let labels = [("process", role.name())];
            samples.push(Sample::new(Metric::ProcessUp, &labels, u64::from(is_up)));
            samples.push(Sample::new(Metric::ProcessRestarts, &labels, restarts));
        }
        samples.extend(self.checks.samples());
        samples.extend(self.keyring.samples());
        // A dead process has no values: what it said last would look alive.
        let vrrp = self.vrrp_report.as_ref().map(|report| &report.samples);
        let proxy = self.proxy_report.as_ref().map(|report| &report.samples);
        let vrrp = vrrp.filter(|_| self.vrrp.link.is_some());
        let proxy = proxy.filter(|_| self.proxy.link.is_some());
        samples.extend(vrrp.into_iter().chain(proxy).flatten().cloned());
        samples
    }
}

impl Question {
    fn answer(self, snapshot: Snapshot) {
        // Whoever asked may have gone away.
        drop(self.reply.send(snapshot));
    }
}
