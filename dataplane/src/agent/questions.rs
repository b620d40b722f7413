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
};

/// A process that does not answer in time is quoted with what it said before.
const PATIENCE: Duration = Duration::from_millis(500);

/// Someone who waits.
#[derive(Debug)]
pub(super) struct Question {
    id: u64,
    reply: oneshot::Sender<Snapshot>,
    waits_for_vrrp: bool,
    waits_for_proxy: bool,
}

impl App {
    /// Asks the processes, or answers at once if there are none.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<Snapshot>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let question = Question {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            reply,
            waits_for_vrrp: self.vrrp.link.is_some(),
            waits_for_proxy: self.proxy.link.is_some(),
        };
        self.vrrp.send(ToVrrp::Report);
        self.proxy.send(ToProxy::Report);
        let (id, events) = (question.id, self.events.clone());
        self.questions.push(question);
        self.answer_complete();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            drop(events.send(Event::SnapshotDue(id)).await);
        });
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
            self.answer(question);
        }
    }

    fn answer_complete(&mut self) {
        let (complete, waiting) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|one| !one.waits_for_vrrp && !one.waits_for_proxy);
        self.questions = waiting;
        let complete: Vec<Question> = complete;
        for question in complete {
            self.answer(question);
        }
    }

    /// What is known now, from processes that answered or not.
    pub(super) fn material(&self, vrrp_answered: bool, proxy_answered: bool) -> Material<'_> {
        let mut warnings = self.unresolved.clone();
        warnings.extend(self.vrrp_problems.iter().cloned());
        let stream = self.stream.iter();
        warnings.extend(stream.flat_map(|stream| stream.status.warnings.clone()));
        Material {
            config: self.rollout.newest(),
            stale_reason: self.stale_reason.as_deref(),
            warnings,
            refused: &self.refused,
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

    fn answer(&self, question: Question) {
        let material = self.material(!question.waits_for_vrrp, !question.waits_for_proxy);
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
        let snapshot = Snapshot {
            samples: self.samples(report.warnings.len()),
            not_ready,
            report,
        };
        // Whoever asked may have gone away.
        drop(question.reply.send(snapshot));
    }

    fn samples(&self, warnings: usize) -> Vec<Sample> {
        let sample = |metric, labels: &[(&str, &str)], value: f64| Sample {
            metric,
            labels: labels
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            value,
        };
        let count =
            |number: u64| u32::try_from(number).map_or_else(|_| f64::from(u32::MAX), f64::from);
        let version = env!("CARGO_PKG_VERSION");
        let mut samples = vec![
            sample(Metric::BuildInfo, &[("version", version)], 1.0),
            sample(
                Metric::ConfigStale,
                &[],
                f64::from(u8::from(self.stale_reason.is_some())),
            ),
            sample(
                Metric::ConfigChanges,
                &[("result", "accepted")],
                count(self.counts.accepted),
            ),
            sample(
                Metric::ConfigChanges,
                &[("result", "refused")],
                count(self.counts.refused),
            ),
            sample(
                Metric::ConfigAcceptedTime,
                &[],
                count(self.counts.accepted_unix_ms / 1000),
            ),
            sample(
                Metric::ListenerProblems,
                &[],
                count(self.refused.len() as u64),
            ),
            sample(Metric::Warnings, &[], count(warnings as u64)),
        ];
        if let Some(stream) = &self.stream {
            let connected = count(stream.status.connected as u64);
            samples.push(sample(Metric::ControllerConnected, &[], connected));
        }
        for (role, up, restarts) in [
            (Role::Vrrp, self.vrrp.link.is_some(), self.vrrp.restarts),
            (Role::Proxy, self.proxy.link.is_some(), self.proxy.restarts),
        ] {
            let labels = [("process", role.name())];
            samples.push(sample(Metric::ProcessUp, &labels, f64::from(u8::from(up))));
            samples.push(sample(Metric::ProcessRestarts, &labels, count(restarts)));
        }
        // A dead process has no values: what it said last would look alive.
        if let Some(report) = self
            .vrrp_report
            .as_ref()
            .filter(|_| self.vrrp.link.is_some())
        {
            samples.extend(report.samples.iter().cloned());
        }
        if let Some(report) = self
            .proxy_report
            .as_ref()
            .filter(|_| self.proxy.link.is_some())
        {
            samples.extend(report.samples.iter().cloned());
        }
        samples
    }
}
