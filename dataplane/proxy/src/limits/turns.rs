//! Handshakes one after the other, where so many may be brought to endpoints in a second.
//!
//! Nobody is told a time: who is first waits for the next one that is due, and those behind for becoming
//! first. So when one leaves all behind it move up, and that costs one wake-up at most.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::Rate;

/// A queue, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    rate: Rate,
    /// When the next turn would be due, if they came evenly.
    due: Option<Instant>,
    /// Those that wait, in the order in which they came, and how to wake them.
    waiting: BTreeMap<u64, Waker>,
    /// The number of the next that comes.
    next: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            rate: Rate::new(1, 1),
            due: None,
            waiting: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Queue {
    /// Gives the turns that are due.
    fn give(&mut self, now: Instant) {
        let waiting = self.waiting.len();
        while self.rate.wait(self.due, now).is_zero()
            && let Some((_, waker)) = self.waiting.pop_first()
        {
            self.due = Some(self.rate.after_wait(self.due, now));
            waker.wake();
        }
        if self.waiting.len() < waiting {
            self.wake_first();
        }
    }

    fn is_first(&self, id: u64) -> bool {
        let first = self.waiting.first_key_value();
        first.is_some_and(|(first, _)| *first == id)
    }

    /// Has the one that is first now see for when.
    fn wake_first(&self) {
        if let Some((_, first)) = self.waiting.first_key_value() {
            first.wake_by_ref();
        }
    }
}

/// Where one stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stands {
    /// It is its turn.
    There,
    /// It is the first, and its turn is in so long.
    First(Duration),
    /// It is told when it is the first.
    Behind,
}

impl Turns {
    /// A place in the queue; `None`: one that begins now would wait for longer than `patience`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        rate: Rate,
        patience: Duration,
        now: Instant,
    ) -> Option<Ticket> {
        let mut queue = self.locked();
        queue.rate = rate;
        queue.give(now);
        let ahead = u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX);
        let wait = rate.wait(Some(rate.after(queue.due, ahead, now)), now);
        if wait > patience {
            return None;
        }
        let id = queue.next;
        queue.next += 1;
        if wait.is_zero() {
            queue.due = Some(rate.after(queue.due, 1, now));
        } else {
            queue.waiting.insert(id, Waker::noop().clone());
        }
        drop(queue);
        Some(Ticket {
            turns: Arc::clone(self),
            id,
            is_used: false,
        })
    }

    fn locked(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One in the queue. Dropped before it was used, it leaves its turn to the next.
#[derive(Debug)]
pub(crate) struct Ticket {
    turns: Arc<Turns>,
    id: u64,
    is_used: bool,
}

impl Ticket {
    fn look(&self, cx: &Context<'_>, now: Instant) -> Stands {
        let mut queue = self.turns.locked();
        if queue.is_first(self.id) {
            queue.give(now);
        }
        let (rate, due) = (queue.rate, queue.due);
        let is_first = queue.is_first(self.id);
        let Some(waker) = queue.waiting.get_mut(&self.id) else {
            return Stands::There;
        };
        waker.clone_from(cx.waker());
        if is_first {
            Stands::First(rate.wait(due, now))
        } else {
            Stands::Behind
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut queue = self.turns.locked();
        let was_first = queue.is_first(self.id);
        let had_turn = queue.waiting.remove(&self.id).is_none();
        if had_turn {
            queue.due = queue.rate.before(queue.due);
        }
        if was_first || had_turn {
            queue.wake_first();
        }
    }
}

/// A handshake that is to have its turn in each of some queues.
#[derive(Debug, Default)]
pub(crate) struct Turn(Vec<Ticket>);

impl Turn {
    /// In the queues of these tickets.
    pub(crate) fn of(tickets: impl IntoIterator<Item = Ticket>) -> Self {
        Self(tickets.into_iter().collect())
    }

    /// Waits for it.
    pub(crate) async fn comes(&self) {
        if self.0.is_empty() {
            return;
        }
        let mut sleep = pin!(sleep_until(Instant::now().into()));
        poll_fn(|cx| {
            loop {
                let now = Instant::now();
                let stand = self.0.iter().map(|ticket| ticket.look(cx, now));
                let (mut is_there, mut next) = (true, None);
                for stands in stand {
                    is_there &= stands == Stands::There;
                    if let Stands::First(wait) = stands {
                        next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
                    }
                }
                if is_there {
                    return Poll::Ready(());
                }
                let Some(next) = next else {
                    return Poll::Pending;
                };
                sleep.as_mut().reset((now + next).into());
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// What it was for begins.
    pub(crate) fn begin(mut self) {
        for ticket in &mut self.0 {
            ticket.is_used = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Ten turns in a second, one at once.
    fn ten() -> Rate {
        Rate::new(10, 1)
    }

    fn first_in(millis: u64) -> Stands {
        Stands::First(Duration::from_millis(millis))
    }

    #[test]
    fn turns_come_in_order_and_evenly() {
        let turns = Arc::new(Turns::default());
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let cx = &Context::from_waker(Waker::noop());
        let enter = || turns.enter(ten(), LONG, begun).unwrap();
        let [a, b, c] = [enter(), enter(), enter()];
        assert_eq!(a.look(cx, begun), Stands::There);
        assert_eq!(b.look(cx, begun), first_in(100));
        assert_eq!(c.look(cx, begun), Stands::Behind);
        assert_eq!(b.look(cx, at(99)), first_in(1));
        assert_eq!(c.look(cx, at(250)), Stands::Behind, "the first gives turns");
        assert_eq!(b.look(cx, at(250)), Stands::There);
        assert_eq!(c.look(cx, at(250)), first_in(100));
        assert_eq!(c.look(cx, at(350)), Stands::There);
    }

    #[test]
    fn being_looked_at_a_little_late_delays_nobody_behind() {
        let turns = Arc::new(Turns::default());
        let begun = Instant::now();
        let cx = &Context::from_waker(Waker::noop());
        let all = [begun; 4].map(|now| turns.enter(ten(), LONG, now).unwrap());
        for (turn, one) in (0..).zip(&all) {
            let late = Duration::from_millis(if turn == 0 { 0 } else { 100 * turn + 9 });
            assert_eq!(one.look(cx, begun + late), Stands::There, "{turn}");
        }
        let next = turns.enter(ten(), LONG, begun + Duration::from_millis(309));
        let next = next.unwrap();
        assert_eq!(
            next.look(cx, begun + Duration::from_millis(309)),
            first_in(91)
        );
    }

    #[test]
    fn who_is_late_to_look_holds_nobody_up() {
        let turns = Arc::new(Turns::default());
        let begun = Instant::now();
        // A hundred at once.
        let rate = Rate::new(1000, 100);
        let cx = &Context::from_waker(Waker::noop());
        let all: Vec<_> = (0..150)
            .map(|_| turns.enter(rate, LONG, begun).unwrap())
            .collect();
        let there = |now: Instant| {
            let there = all.iter().filter(|one| one.look(cx, now) == Stands::There);
            there.count()
        };
        assert_eq!(there(begun), 100);
        assert_eq!(there(begun + Duration::from_millis(20)), 120);
        assert_eq!(there(begun + Duration::from_millis(60)), 150);
    }

    #[test]
    fn a_place_of_one_that_leaves_is_the_next_ones() {
        let turns = Arc::new(Turns::default());
        let now = Instant::now();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &Context::from_waker(&waker);
        let enter = || turns.enter(ten(), LONG, now).unwrap();
        let [used, first, second, third, last] = [enter(), enter(), enter(), enter(), enter()];
        Turn::of([used]).begin();
        assert_eq!(last.look(cx, now), Stands::Behind);
        drop((second, third));
        assert_eq!(last.look(cx, now), Stands::Behind);
        assert_eq!(woken.0.load(Relaxed), 0);
        drop(first);
        assert_eq!(woken.0.load(Relaxed), 1, "it is the first now");
        assert_eq!(last.look(cx, now), first_in(100));
        // One that leaves when its turn has come.
        let later = now + Duration::from_millis(100);
        assert_eq!(last.look(cx, later), Stands::There);
        let newer = turns.enter(ten(), LONG, later).unwrap();
        assert_eq!(newer.look(cx, later), first_in(100));
        drop(last);
        assert_eq!(newer.look(cx, later), Stands::There);
        Turn::of([newer]).begin();
        let newest = turns.enter(ten(), LONG, later).unwrap();
        assert_eq!(
            newest.look(cx, later),
            first_in(100),
            "one that was used is gone"
        );
    }

    #[test]
    fn whoever_gives_turns_wakes_the_next() {
        let turns = Arc::new(Turns::default());
        let begun = Instant::now();
        let all = [(); 3].map(|()| Arc::new(Woken::default()));
        let [b_woken, c_woken, d_woken] = all.clone().map(Waker::from);
        let enter = |now| turns.enter(ten(), LONG, now).unwrap();
        let [_a, b, c, d] = [begun; 4].map(enter);
        let look = |ticket: &Ticket, waker| ticket.look(&Context::from_waker(waker), begun);
        assert_eq!(look(&b, &b_woken), first_in(100));
        assert_eq!(look(&c, &c_woken), Stands::Behind);
        assert_eq!(look(&d, &d_woken), Stands::Behind);
        let woken = || all.each_ref().map(|one| one.0.load(Relaxed));
        assert_eq!(woken(), [0, 0, 0], "who looks is awake");
        let _e = enter(begun + Duration::from_millis(100));
        assert_eq!(woken(), [1, 1, 0]);
    }

    #[test]
    fn no_more_wait_than_come_to_their_turn_in_time_and_who_leaves_makes_room() {
        let turns = Arc::new(Turns::default());
        let now = Instant::now();
        let (rate, patience) = (Rate::new(100, 10), Duration::from_secs(1));
        let mut all = Vec::new();
        while let Some(ticket) = turns.enter(rate, patience, now) {
            all.push(ticket);
        }
        // Ten at once, and those of a second.
        assert_eq!(all.len(), 110);
        all.drain(50..60);
        let more = (0..11).filter_map(|_| turns.enter(rate, patience, now));
        all.extend(more);
        assert_eq!(all.len(), 110);
        drop(all);
        let queue = turns.locked();
        assert!(queue.waiting.is_empty());
        assert_eq!(queue.rate.wait(queue.due, now), Duration::ZERO);
    }
}
