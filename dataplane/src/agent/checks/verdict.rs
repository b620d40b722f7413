//! When a check counts as failing: not for one lost packet, and not passing again for one lucky one; pure.

/// What becomes of answers in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    failure_threshold: u32,
    success_threshold: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No answer so far.
    Unknown { is_failing: bool },
    /// Passes; that many failures in a row since.
    Passing(u32),
    /// Fails; that many successes in a row since.
    Failing(u32),
}

impl Verdict {
    /// Before the first answer, which decides alone. Until then it is what a check of the same name was.
    pub(super) const fn new(
        failure_threshold: u32,
        success_threshold: u32,
        is_failing: bool,
    ) -> Self {
        Self {
            failure_threshold,
            success_threshold,
            state: State::Unknown { is_failing },
        }
    }

    /// Whether it fails.
    pub(super) const fn is_failing(&self) -> bool {
        match self.state {
            State::Unknown { is_failing } => is_failing,
            State::Passing(_) => false,
            State::Failing(_) => true,
        }
    }

    /// Takes one more answer in.
    pub(super) const fn take(&mut self, passes: bool) {
        self.state = match (self.state, passes) {
            (State::Passing(failures), false) if failures + 1 < self.failure_threshold => {
                State::Passing(failures + 1)
            }
            (State::Failing(successes), true) if successes + 1 < self.success_threshold => {
                State::Failing(successes + 1)
            }
            (_, true) => State::Passing(0),
            (_, false) => State::Failing(0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` for answers; what the check was after each.
    fn run(verdict: &mut Verdict, answers: &str) -> String {
        let said = answers.chars().map(|answer| {
            verdict.take(answer == '+');
            if verdict.is_failing() { 'f' } else { 'p' }
        });
        said.collect()
    }

    #[test]
    fn it_takes_failures_in_a_row_to_fail_and_successes_in_a_row_to_pass() {
        let mut verdict = Verdict::new(3, 2, false);
        assert_eq!(run(&mut verdict, "+--+--+---"), "pppppppppf");
        assert_eq!(run(&mut verdict, "-+-+-++"), "ffffffp");
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(run(&mut Verdict::new(3, 2, false), "-"), "f");
        assert_eq!(run(&mut Verdict::new(3, 2, true), "+"), "p");
        assert!(Verdict::new(3, 2, true).is_failing(), "as it was before");
        assert!(!Verdict::new(3, 2, false).is_failing());
    }

    #[test]
    fn thresholds_of_one_follow_each_answer() {
        assert_eq!(run(&mut Verdict::new(1, 1, false), "+-+-"), "pfpf");
    }
}
