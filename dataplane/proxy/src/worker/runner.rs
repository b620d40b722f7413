//! Turns the sessions of a worker that were woken: one task of the runtime for all of them.
//!
//! A message that is passed on wakes its session, so what a wake-up costs is paid for each message. A task of
//! the runtime may be woken by any thread, and each of its turns is prepared for that; a session is woken by
//! the thread that turns it, and here that costs a flag and a place in a queue.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use slab::Slab;
use tokio::task::{coop::unconstrained, yield_now};

use super::Worker;
use crate::relay::Session;

/// Turns before the runtime looks for what else there is to do, new clients above all.
const TURNS: usize = 32;

/// So many places are kept for sessions that come.
const PLACES: usize = 1024;

thread_local! {
    static HERE: Here = const {
        Here {
            runner: Cell::new(0),
            woken: RefCell::new(VecDeque::new()),
            task: RefCell::new(None),
        }
    };
}

/// What the sessions of this thread are woken by.
struct Here {
    /// The number of its runner; 0: it has none.
    runner: Cell<u64>,
    /// Keys of the sessions that wait for their turn.
    woken: RefCell<VecDeque<usize>>,
    /// The runner's task.
    task: RefCell<Option<Waker>>,
}

impl Here {
    fn wake(&self, signal: &Signal) {
        // No other thread comes by here, so that it is read and then written does no harm.
        if signal.is_woken.load(Relaxed) {
            return;
        }
        signal.is_woken.store(true, Relaxed);
        let mut woken = self.woken.borrow_mut();
        woken.push_back(signal.key);
        if woken.len() == 1
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }
}

/// Wakes a session.
struct Signal {
    runner: u64,
    key: usize,
    /// It waits for its turn.
    is_woken: AtomicBool,
    elsewhere: Arc<Elsewhere>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_here = HERE.try_with(|here| {
            let is_here = here.runner.get() == self.runner;
            if is_here {
                here.wake(self);
            }
            is_here
        });
        if is_here != Ok(true) {
            self.elsewhere.wake(self.key);
        }
    }
}

/// What was woken by other threads. Nothing in this crate does; whoever has a waker may.
#[derive(Default)]
struct Elsewhere(Mutex<(Vec<usize>, Option<Waker>)>);

impl Elsewhere {
    fn wake(&self, key: usize) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (woken, task) = &mut *shared;
        woken.push(key);
        if let Some(task) = task {
            task.wake_by_ref();
        }
    }

    /// What was woken, and whom to tell of the next.
    fn take(&self, task: &Waker) -> Vec<usize> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (woken, told) = &mut *shared;
        if told.as_ref().is_none_or(|told| !told.will_wake(task)) {
            *told = Some(task.clone());
        }
        mem::take(woken)
    }
}

/// A session and what wakes it.
struct Running<T> {
    session: T,
    waker: Waker,
    signal: Arc<Signal>,
}

/// The sessions of a worker.
pub(super) struct Runner<T = Session> {
    number: u64,
    /// `None`: it is being turned. `Box`: room for more is no more than a word each.
    sessions: RefCell<Slab<Option<Box<Running<T>>>>>,
    elsewhere: Arc<Elsewhere>,
}

impl<T> fmt::Debug for Runner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<T: Future<Output = ()> + Unpin> Runner<T> {
    /// The one of this thread from now on.
    pub(super) fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Relaxed);
        HERE.with(|here| {
            here.runner.set(number);
            here.woken.borrow_mut().clear();
        });
        Self {
            number,
            sessions: RefCell::default(),
            elsewhere: Arc::default(),
        }
    }

    /// Takes a session in, which is given what wakes it; its first turn comes soon.
    pub(super) fn start(&self, session: impl FnOnce(&Waker) -> T) {
        let mut sessions = self.sessions.borrow_mut();
        let place = sessions.vacant_entry();
        let signal = Arc::new(Signal {
            runner: self.number,
            key: place.key(),
            is_woken: AtomicBool::new(false),
            elsewhere: Arc::clone(&self.elsewhere),
        });
        let waker = Waker::from(Arc::clone(&signal));
        let running = Running {
            session: session(&waker),
            waker,
            signal,
        };
        running.waker.wake_by_ref();
        place.insert(Some(Box::new(running)));
    }

    /// Waits until some are woken.
    fn poll_woken(&self, cx: &Context<'_>) -> Poll<()> {
        HERE.with(|here| {
            let mut task = here.task.borrow_mut();
            if task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            let mut woken = here.woken.borrow_mut();
            woken.extend(self.elsewhere.take(cx.waker()));
            if woken.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
    }

    /// Turns the one that was woken first. `false`: there is none.
    fn turn_next(&self) -> bool {
        let key = HERE.with(|here| here.woken.borrow_mut().pop_front());
        if let Some(key) = key {
            self.turn(key);
        }
        key.is_some()
    }

    fn turn(&self, key: usize) {
        // One that is over may have been woken before.
        let taken = self
            .sessions
            .borrow_mut()
            .get_mut(key)
            .and_then(Option::take);
        let Some(mut running) = taken else { return };
        running.signal.is_woken.store(false, Relaxed);
        let Running { session, waker, .. } = &mut *running;
        let mut cx = Context::from_waker(waker);
        // What is wrong with one session must not end the others.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(session).poll(&mut cx)));
        let mut sessions = self.sessions.borrow_mut();
        if let (Ok(Poll::Pending), Some(place)) = (polled, sessions.get_mut(key)) {
            *place = Some(running);
            return;
        }
        sessions.try_remove(key);
        if sessions.is_empty() && sessions.capacity() > PLACES {
            sessions.shrink_to_fit();
        }
        // Its end is told to the worker, which may look at others.
        drop(sessions);
        drop(running);
    }

    /// Waits until some are woken, and turns them; `begin` comes first.
    async fn turn_woken(&self, begin: impl Fn()) {
        poll_fn(|cx| self.poll_woken(cx)).await;
        begin();
        if (0..TURNS).all(|_| self.turn_next()) {
            // Others come first, and what the kernel has to tell.
            yield_now().await;
        }
    }

    fn clear(&self) {
        drop(self.sessions.take());
    }
}

impl Worker {
    /// Turns sessions for as long as the worker lives.
    pub(super) fn turn_sessions(self: Rc<Self>) -> impl Future<Output = ()> {
        // What a task may do before others are heard is a measure for one session, not for many.
        unconstrained(async move {
            loop {
                self.runner
                    .turn_woken(|| self.turns_at.set(Instant::now()))
                    .await;
            }
        })
    }

    /// Ends all sessions as they are.
    pub(super) fn end_sessions(&self) {
        self.runner.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, thread, time::Duration};

    use tokio::time::timeout;

    use super::*;

    /// Counts its turns, and does in them as it is told.
    struct Toy {
        turns: Rc<Cell<usize>>,
        act: fn(usize, &Context<'_>) -> Poll<()>,
    }

    impl Future for Toy {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.turns.set(self.turns.get() + 1);
            (self.act)(self.turns.get(), cx)
        }
    }

    fn start(
        runner: &Runner<Toy>,
        act: fn(usize, &Context<'_>) -> Poll<()>,
    ) -> (Rc<Cell<usize>>, Waker) {
        let turns = Rc::new(Cell::new(0));
        let mut kept = None;
        runner.start(|waker| {
            kept = Some(waker.clone());
            Toy {
                turns: Rc::clone(&turns),
                act,
            }
        });
        (turns, kept.unwrap())
    }

    async fn turn_until(runner: &Runner<Toy>, done: impl Fn() -> bool) {
        let turns = async {
            while !done() {
                runner.turn_woken(|| ()).await;
            }
        };
        timeout(Duration::from_secs(30), turns).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_woken_often_has_one_turn() {
        let runner = Runner::new();
        let (turns, waker) = start(&runner, |_, _| Poll::Pending);
        waker.wake_by_ref();
        waker.wake_by_ref();
        let (others, _) = start(&runner, |_, _| Poll::Pending);
        turn_until(&runner, || others.get() == 1).await;
        assert_eq!(turns.get(), 1);
        waker.wake_by_ref();
        turn_until(&runner, || turns.get() == 2).await;
    }

    #[tokio::test]
    async fn other_threads_may_wake_one() {
        let runner = Runner::new();
        let (turns, waker) = start(&runner, |_, _| Poll::Pending);
        turn_until(&runner, || turns.get() == 1).await;
        let other = thread::spawn(move || waker.wake());
        turn_until(&runner, || turns.get() == 2).await;
        other.join().unwrap();
    }

    #[tokio::test]
    async fn one_that_panics_ends_alone_and_its_place_is_taken_by_the_next() {
        let runner = Runner::new();
        let (_, waker) = start(&runner, |_, _| panic!("a session that is wrong"));
        let (turns, _) = start(&runner, |turn, cx| {
            cx.waker().wake_by_ref();
            if turn < 2 * TURNS {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        turn_until(&runner, || turns.get() == 2 * TURNS).await;
        assert!(runner.sessions.borrow().is_empty());
        // Woken by what woke the former one, which is no more than a turn too many.
        waker.wake();
        let (turns, _) = start(&runner, |_, _| Poll::Pending);
        turn_until(&runner, || turns.get() == 1).await;
    }
}
