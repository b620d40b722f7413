//! A queue between exactly two threads that neither waits, locks nor allocates.
//!
//! The queues of the standard library may spin for a moment while the other side is in the middle
//! of an operation. A real-time thread must not: the other side may be the one it displaced.

use std::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Debug)]
struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Number of values ever taken out; written by the consumer only.
    taken: AtomicUsize,
    /// Number of values ever put in; written by the producer only.
    put: AtomicUsize,
}

// SAFETY: a slot is accessed by one side at a time: by the producer while its number is not yet
// covered by `put`, by the consumer from then on until `taken` covers it.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let put = *self.put.get_mut();
        let mut at = *self.taken.get_mut();
        while at != put {
            let place = at % self.slots.len();
            if let Some(slot) = self.slots.get_mut(place) {
                // SAFETY: put in and not taken out, and nobody else is left to touch it.
                unsafe { slot.get_mut().assume_init_drop() };
            }
            at = at.wrapping_add(1);
        }
    }
}

/// The side that puts in.
#[derive(Debug)]
pub struct Producer<T>(Arc<Ring<T>>);

/// The side that takes out.
#[derive(Debug)]
pub struct Consumer<T>(Arc<Ring<T>>);

/// A ring with room for at least `capacity` values, at least one.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    // A power of two, so that the counters may wrap.
    let capacity = capacity.max(1).next_power_of_two();
    let slots = (0..capacity)
        .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
        .collect();
    let ring = Arc::new(Ring {
        slots,
        taken: AtomicUsize::new(0),
        put: AtomicUsize::new(0),
    });
    (Producer(Arc::clone(&ring)), Consumer(ring))
}

impl<T> Producer<T> {
    /// Appends a value; gives it back if the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let put = self.0.put.load(Ordering::Relaxed);
        let taken = self.0.taken.load(Ordering::Acquire);
        if put.wrapping_sub(taken) >= self.0.slots.len() {
            return Err(value);
        }
        let Some(slot) = self.0.slots.get(put % self.0.slots.len()) else {
            return Err(value);
        };
        // SAFETY: `put` does not cover this slot yet, so the consumer leaves it alone, and this is
        // the only producer (`&mut self`, not `Clone`).
        unsafe { (*slot.get()).write(value) };
        self.0.put.store(put.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        let taken = self.0.taken.load(Ordering::Relaxed);
        if taken == self.0.put.load(Ordering::Acquire) {
            return None;
        }
        let slot = self.0.slots.get(taken % self.0.slots.len())?;
        // SAFETY: `put` covers this slot, so it was written and the producer leaves it alone until
        // `taken` covers it too; this is the only consumer.
        let value = unsafe { (*slot.get()).assume_init_read() };
        self.0.taken.store(taken.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_a_full_ring_gives_back() {
        let (mut producer, mut consumer) = ring(3);
        for round in 0..5 {
            for value in 0..4 {
                producer.push(value + round).unwrap();
            }
            assert_eq!(producer.push(99), Err(99));
            for value in 0..4 {
                assert_eq!(consumer.pop(), Some(value + round));
            }
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..3 {
            producer.push(Arc::clone(&value)).unwrap();
        }
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&value), 3);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads() {
        const COUNT: usize = 100_000;
        let (mut producer, mut consumer) = ring(16);
        let sender = std::thread::spawn(move || {
            for value in 0..COUNT {
                let mut value = value;
                while let Err(back) = producer.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..COUNT {
            loop {
                if let Some(value) = consumer.pop() {
                    assert_eq!(value, expected);
                    break;
                }
                std::thread::yield_now();
            }
        }
        sender.join().unwrap();
    }
}
