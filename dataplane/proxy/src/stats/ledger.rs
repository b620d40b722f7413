//! The counters of all listeners, those that are over included.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Counters, ListenerStats};

/// Name of a pool and of its listener.
type ListenerName = (String, String);

/// Listeners that are not served and have no session, of which the counters are kept by themselves.
const RETIRED_MAX: usize = 64;

/// The counters of all listeners that were ever served. Those of a listener that was removed go on:
/// that its sessions ended is counted there, and whoever reads them now and then is to see it. Of many
/// that are over, as where pools come and go, only the sum is kept.
#[derive(Debug)]
pub(crate) struct Ledger {
    workers: usize,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    listeners: BTreeMap<ListenerName, Book>,
    /// Of those that are no longer among them.
    closed: Counters,
    /// How often a listener was asked for.
    turn: u64,
}

#[derive(Debug)]
struct Book {
    stats: Arc<ListenerStats>,
    /// When it was asked for last.
    turn: u64,
}

impl Books {
    /// Those of each listener.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&ListenerName, &ListenerStats)> {
        self.listeners
            .iter()
            .map(|(name, book)| (name, &*book.stats))
    }

    /// The sum of those that are not kept by themselves.
    pub(crate) fn closed(&self) -> &Counters {
        &self.closed
    }

    /// Adds those that were served longest ago to the sum.
    fn close(&mut self) {
        // Whoever serves a listener, or a session of it, has its counters.
        let retired = self
            .listeners
            .iter()
            .filter(|(_, book)| Arc::strong_count(&book.stats) == 1);
        let mut retired: Vec<_> = retired
            .map(|(name, book)| (book.turn, name.clone()))
            .collect();
        let Some(many) = retired.len().checked_sub(RETIRED_MAX) else {
            return;
        };
        retired.sort_unstable();
        for (_, name) in retired.into_iter().take(many) {
            // Others may have seen the last of them only now: what they wrote is seen here.
            let book = self.listeners.remove(&name);
            if let Some(stats) = book.and_then(|book| Arc::into_inner(book.stats)) {
                stats.add_to(&mut self.closed);
            }
        }
    }
}

impl Ledger {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            books: Mutex::default(),
        }
    }

    /// The counters of a listener, from zero if there are none.
    pub(crate) fn of(&self, pool: &str, listener: &str) -> Arc<ListenerStats> {
        let name = (pool.to_owned(), listener.to_owned());
        let mut books = self.books();
        books.turn += 1;
        let turn = books.turn;
        if let Some(book) = books.listeners.get_mut(&name) {
            book.turn = turn;
            return Arc::clone(&book.stats);
        }
        books.close();
        let stats = Arc::new(ListenerStats::new(self.workers));
        let book = Book {
            stats: Arc::clone(&stats),
            turn,
        };
        books.listeners.insert(name, book);
        stats
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_come_and_go_leave_their_sum() {
        let ledger = Ledger::new(2);
        let served = ledger.of("pool", "served");
        let with_session = ledger.of("pool", "with a session");
        for number in 0..3 * RETIRED_MAX {
            let stats = ledger.of(&format!("pool {number}"), "ws");
            stats.of(number % 2).accepted.add(1);
        }
        served.of(0).accepted.add(1);
        with_session.of(1).accepted.add(1);
        let books = ledger.books();
        let names: Vec<_> = books.each().map(|((pool, _), _)| pool.clone()).collect();
        assert!(names.len() <= 2 + 1 + RETIRED_MAX, "{}", names.len());
        assert_eq!(names.iter().filter(|pool| *pool == "pool").count(), 2);
        let last = format!("pool {}", 3 * RETIRED_MAX - 1);
        assert!(names.contains(&last) && !names.contains(&"pool 0".to_owned()));
        let mut sum = books.closed().clone();
        for (_, stats) in books.each() {
            stats.add_to(&mut sum);
        }
        assert_eq!(sum.accepted, 3 * RETIRED_MAX as u64 + 2);
    }

    #[test]
    fn a_listener_that_comes_back_soon_goes_on() {
        let ledger = Ledger::new(1);
        ledger.of("pool", "ws").of(0).accepted.add(5);
        ledger.of("other", "ws").of(0).accepted.add(1);
        let mut counters = Counters::default();
        ledger.of("pool", "ws").add_to(&mut counters);
        assert_eq!(counters.accepted, 5);
    }
}
