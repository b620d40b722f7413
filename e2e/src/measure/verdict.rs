//! What wsha must reach, held against a run's figures.

use std::fmt;

use super::Sample;
use super::table::{Column, Figures, PHASES, Phase, columns, figures};
use crate::fault::Fault;
use crate::subject::Subject;

/// So many repetitions make figures that can be judged.
pub const ENOUGH: u32 = 20;

/// Of two outages that differ by less, ms, none is the longer: the probe's pause between two messages, or, where it
/// dials in vain until the outage ends, one such attempt, since the end is found by the next.
fn resolution(fault: Fault, phase: Phase) -> f64 {
    if phase == Phase::Outage && fault.is_silence() {
        11.0
    } else {
        5.0
    }
}

/// Something that a reader of the figures must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// A line of text.
    pub text: String,
    /// wsha has not reached what it must.
    pub missed: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.missed { "MISSED" } else { "note" };
        write!(f, "{word}: {}", self.text)
    }
}

/// Each median of wsha that misses its target, and each maximum above one of keepalived's in the same row: this is
/// no miss where the control timer's gap explains it, or where the probe cannot tell the two apart.
pub fn findings(samples: &[Sample]) -> Vec<Finding> {
    let (ours, others): (Vec<_>, Vec<_>) = columns(samples)
        .into_iter()
        .partition(|(subject, _)| *subject == Subject::Wsha);
    let mut found = Vec::new();
    for fault in Fault::ALL {
        for phase in PHASES {
            for column in &ours {
                let Some(own) = figures(samples, *column, fault, phase) else {
                    continue;
                };
                let name = name(fault, phase, *column);
                found.extend(target(fault, phase, column.1).and_then(|limit| {
                    let text = format!(
                        "{name}: the median, {:.0} ms, is not below {limit:.0} ms",
                        own.median
                    );
                    (own.median >= limit).then_some(Finding { text, missed: true })
                }));
                let beside = others.iter().filter(|other| is_beside(**other, *column));
                found.extend(
                    beside
                        .flat_map(|other| {
                            let Some(theirs) = figures(samples, *other, fault, phase) else {
                                return [None, None];
                            };
                            [
                                later(&name, fault, phase, (*column, &own), (*other, &theirs)),
                                above(&name, resolution(fault, phase), &own, *other, &theirs),
                            ]
                        })
                        .flatten(),
                );
            }
        }
    }
    found
}

fn name(fault: Fault, phase: Phase, (subject, interval): Column) -> String {
    let what = match phase {
        Phase::Outage => "",
        Phase::Vacated => ", its host gives the address up",
        Phase::FailBack => ", its fail-back",
    };
    format!("{fault}{what}, {subject} at {interval} ms")
}

/// The article's timers are its own; keepalived at its best stands beside wsha with the same ones.
fn is_beside((subject, interval): Column, (_, ours): Column) -> bool {
    subject == Subject::Article || interval == ours
}

/// The limit of a median in ms, where there is one.
fn target(fault: Fault, phase: Phase, interval: u128) -> Option<f64> {
    use Fault::{OrderlyStop, ProxyKilled, ProxyKilledLarge};
    match (phase, fault, interval) {
        (Phase::FailBack, _, 100)
        | (Phase::Outage, ProxyKilled | ProxyKilledLarge | OrderlyStop, 100) => Some(15.0),
        (Phase::Vacated, _, _) | (Phase::Outage, ProxyKilled, 10) => Some(10.0),
        (Phase::Outage, _, _) if fault.is_silence() => match interval {
            100 => Some(400.0),
            30 => Some(110.0),
            10 => Some(45.0),
            _ => None,
        },
        _ => None,
    }
}

/// That a host's death is noticed later than keepalived notices it with the shortest timers, if so.
fn later(
    name: &str,
    fault: Fault,
    phase: Phase,
    ((_, interval), own): (Column, &Figures),
    (other, theirs): (Column, &Figures),
) -> Option<Finding> {
    let is_judged = phase == Phase::Outage && fault.is_silence() && interval == 10;
    let text = format!(
        "{name}: the median, {:.1} ms, is above the {:.1} ms of {} at {} ms",
        own.median, theirs.median, other.0, other.1
    );
    (is_judged && own.median > theirs.median).then_some(Finding { text, missed: true })
}

/// That a maximum of ours lies above theirs, if so.
fn above(
    name: &str,
    resolution: f64,
    own: &Figures,
    (subject, interval): Column,
    theirs: &Figures,
) -> Option<Finding> {
    if own.max <= theirs.max {
        return None;
    }
    let difference = own.max - theirs.max;
    let explanation = if own.max_is_stuck {
        None
    } else if difference <= own.control_at_max {
        Some("the first explains it")
    } else if difference < resolution {
        Some("the probe does not resolve the difference")
    } else {
        None
    };
    let text = format!(
        "{name}: the maximum, {:.1} ms, is above the {:.1} ms of {subject} at {interval} ms; the control timer woke \
         late by {:.1} ms during the one and by {:.1} ms during the other; {}",
        own.max,
        theirs.max,
        own.control_at_max,
        theirs.control_at_max,
        explanation.unwrap_or("nothing explains it")
    );
    Some(Finding {
        text,
        missed: explanation.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Cost;
    use super::*;

    fn sample(
        subject: Subject,
        interval: u128,
        fault: Fault,
        outage_ms: f64,
        control_ms: f64,
    ) -> Sample {
        Sample {
            subject,
            advertisement_ms: interval,
            fault,
            repeat: 0,
            outage: Cost {
                outage_ms,
                total_ms: outage_ms,
                control_ms,
                saw: String::new(),
                stuck: false,
            },
            vacated: None,
            fail_back: None,
        }
    }

    fn missed(samples: &[Sample]) -> Vec<bool> {
        findings(samples)
            .iter()
            .map(|finding| finding.missed)
            .collect()
    }

    #[test]
    fn a_median_must_lie_below_its_target() {
        use Fault::{HostSilent, ProxyKilled, VrrpKilled};
        let of = |interval, fault, ms| missed(&[sample(Subject::Wsha, interval, fault, ms, 0.0)]);
        assert!(of(100, ProxyKilled, 14.9).is_empty());
        assert_eq!(of(100, ProxyKilled, 15.0), [true]);
        assert_eq!(of(10, ProxyKilled, 10.0), [true]);
        assert!(of(100, HostSilent, 399.0).is_empty());
        assert_eq!(of(30, HostSilent, 110.0), [true]);
        // Without a target, or not ours.
        assert!(of(100, VrrpKilled, 5000.0).is_empty());
        assert!(of(1000, HostSilent, 5000.0).is_empty());
        assert!(missed(&[sample(Subject::Best, 100, ProxyKilled, 500.0, 0.0)]).is_empty());
        let mut cut = sample(Subject::Wsha, 100, Fault::LinkCutAtSwitch, 300.0, 0.0);
        cut.vacated = Some(sample(Subject::Wsha, 100, VrrpKilled, 10.0, 0.0).outage);
        assert_eq!(missed(&[cut]), [true]);

        let mut returned = sample(Subject::Wsha, 100, VrrpKilled, 5.0, 0.0);
        returned.fail_back = Some(sample(Subject::Wsha, 100, VrrpKilled, 30.0, 0.0).outage);
        assert_eq!(missed(&[returned]), [true]);
    }

    #[test]
    fn a_maximum_above_keepalived_needs_a_gap_that_explains_it() {
        let wsha = |ms, control| sample(Subject::Wsha, 100, Fault::HostFrozen, ms, control);
        let best = |interval, ms| sample(Subject::Best, interval, Fault::HostFrozen, ms, 1.0);
        assert!(missed(&[wsha(300.0, 0.0), best(100, 300.0)]).is_empty());
        assert_eq!(missed(&[wsha(310.9, 0.5), best(100, 300.0)]), [false]);
        assert_eq!(missed(&[wsha(311.0, 0.5), best(100, 300.0)]), [true]);
        assert_eq!(missed(&[wsha(320.0, 20.0), best(100, 300.0)]), [false]);
        let killed = |subject, ms| sample(subject, 100, Fault::ProxyKilled, ms, 0.5);
        let against = |ms| missed(&[killed(Subject::Wsha, ms), killed(Subject::Best, 8.0)]);
        assert_eq!(against(12.9), [false]);
        assert_eq!(against(13.0), [true]);
        // With the shortest timers the median must not be above theirs, either.
        let silent = |subject, ms| sample(subject, 10, Fault::HostSilent, ms, 0.0);
        let against = |ms| missed(&[silent(Subject::Wsha, ms), silent(Subject::Best, 40.0)]);
        assert_eq!(against(41.0), [true, false]);
        assert!(against(40.0).is_empty());
        // Other timers are no measure, but the article is.
        assert!(missed(&[wsha(310.0, 0.0), best(30, 100.0)]).is_empty());
        let article = sample(Subject::Article, 1000, Fault::HostFrozen, 40.0, 0.0);
        assert_eq!(missed(&[wsha(310.0, 0.0), article]), [true]);
        // A lower limit is explained by nothing.
        let mut stuck = wsha(310.0, 300.0);
        stuck.outage.stuck = true;
        assert_eq!(missed(&[stuck, best(100, 300.0)]), [true]);
    }
}
