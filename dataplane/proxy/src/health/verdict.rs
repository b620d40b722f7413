//! When a check counts as failing: not for one lost packet, and not passing again for one lucky
//! answer; pure.

use super::{CheckFailure, HealthCheck};

/// What becomes of answers in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// What was found last while it fails; `None`: it passes, or nobody knows.
    failing: Option<CheckFailure>,
    is_known: bool,
    /// Answers in a row that speak against the verdict.
    against: u32,
}

impl Verdict {
    /// How it fails.
    pub(super) const fn failing(&self) -> Option<CheckFailure> {
        self.failing
    }

    /// The next answer decides alone, as the first one did.
    pub(super) const fn doubt(&mut self) {
        self.is_known = false;
    }

    /// Takes one more answer in.
    pub(super) fn take(&mut self, answer: Result<(), CheckFailure>, check: &HealthCheck) {
        let is_against = answer.is_ok() == self.failing.is_some();
        self.against = if is_against {
            self.against.saturating_add(1)
        } else {
            0
        };
        let needed = match answer {
            _ if !self.is_known => 1,
            Ok(()) => check.success_threshold,
            Err(_) => check.failure_threshold,
        };
        self.is_known = true;
        if is_against && self.against >= needed {
            self.against = 0;
            self.failing = answer.err();
        } else if let (Some(failing), Err(failure)) = (&mut self.failing, answer) {
            *failing = failure;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Probe, *};

    fn check(failure_threshold: u32, success_threshold: u32) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failure_threshold,
            success_threshold,
        }
    }

    /// `+` and `-` for answers; whether it passed or failed after each.
    fn run(verdict: &mut Verdict, check: &HealthCheck, answers: &str) -> String {
        let said = answers.chars().map(|answer| {
            let answer = match answer {
                '+' => Ok(()),
                _ => Err(CheckFailure::Closed),
            };
            verdict.take(answer, check);
            verdict.failing().map_or('p', |_| 'f')
        });
        said.collect()
    }

    #[test]
    fn it_takes_several_answers_in_a_row_either_way() {
        let mut verdict = Verdict::default();
        let check = check(3, 2);
        assert_eq!(run(&mut verdict, &check, "+--+--+---"), "pppppppppf");
        assert_eq!(run(&mut verdict, &check, "-+-+-++"), "ffffffp");
    }

    #[test]
    fn the_first_answer_decides_alone_and_so_does_one_in_doubt() {
        let check = check(3, 2);
        let mut verdict = Verdict::default();
        assert_eq!(run(&mut verdict, &check, "--+"), "fff");
        verdict.doubt();
        assert!(verdict.failing().is_some(), "until then it stands");
        assert_eq!(run(&mut verdict, &check, "+--"), "ppp");
        verdict.doubt();
        assert_eq!(run(&mut verdict, &check, "-"), "f");
    }

    #[test]
    fn it_says_what_was_wrong_last() {
        let mut verdict = Verdict::default();
        verdict.take(Err(CheckFailure::Timeout), &check(3, 2));
        verdict.take(Err(CheckFailure::Status(503)), &check(3, 2));
        assert_eq!(verdict.failing(), Some(CheckFailure::Status(503)));
    }
}
