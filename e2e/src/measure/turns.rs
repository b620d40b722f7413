//! Labs that measure one after another, so that none is measured in another's company.

use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};

/// The place of a lab among those that take turns.
#[derive(Debug)]
pub struct Turn {
    go: Receiver<()>,
    done: Sender<()>,
    mine: bool,
}

impl Turn {
    /// Waits for the turn, unless it is there.
    pub(super) fn take(&mut self) -> Result<()> {
        if !self.mine {
            self.go.recv().context("nobody deals out turns any more")?;
            self.mine = true;
        }
        Ok(())
    }

    /// Hands it on.
    pub(super) fn pass(&mut self) {
        self.mine = false;
        // Whoever dealt it may be gone: then nobody waits.
        self.done.send(()).ok();
    }
}

/// Deals out turns: to one group after another, and to all members of a group at once.
#[derive(Debug)]
pub struct Turns(Vec<Vec<(Sender<()>, Receiver<()>)>>);

impl Turns {
    /// Turns for groups of these sizes.
    pub fn among(groups: &[usize]) -> (Self, Vec<Vec<Turn>>) {
        let pair = || {
            let (go, going) = channel();
            let (done, finished) = channel();
            let turn = Turn {
                go: going,
                done,
                mine: false,
            };
            ((go, finished), turn)
        };
        let dealt = groups
            .iter()
            .map(|members| (0..*members).map(|_| pair()).unzip());
        let (dealers, turns) = dealt.unzip();
        (Self(dealers), turns)
    }

    /// Goes round until every [`Turn`] is dropped.
    pub fn deal(mut self) {
        while self.0.iter().any(|group| !group.is_empty()) {
            for group in &mut self.0 {
                group.retain(|(go, _)| go.send(()).is_ok());
                group.retain(|(_, done)| done.recv().is_ok());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    #[test]
    fn groups_take_turns_until_each_is_through() {
        let (turns, places) = Turns::among(&[1, 1, 1]);
        let log = Mutex::new(String::new());
        thread::scope(|scope| {
            for ((mut turn, name), times) in places
                .into_iter()
                .flatten()
                .zip("abc".chars())
                .zip([3, 1, 2])
            {
                let log = &log;
                scope.spawn(move || {
                    for _ in 0..times {
                        turn.take().unwrap();
                        // It stays ours until it is passed.
                        turn.take().unwrap();
                        log.lock().unwrap().push(name);
                        turn.pass();
                    }
                });
            }
            turns.deal();
        });
        assert_eq!(log.into_inner().unwrap(), "abcaca");
    }

    #[test]
    fn members_of_a_group_have_their_turn_at_once() {
        let (turns, places) = Turns::among(&[2]);
        let met = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            for mut turn in places.into_iter().flatten() {
                let met = &met;
                scope.spawn(move || {
                    turn.take().unwrap();
                    met.wait();
                    turn.pass();
                });
            }
            turns.deal();
        });
    }
}
