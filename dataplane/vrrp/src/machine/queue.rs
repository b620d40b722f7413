//! Effects that wait for the driver: a ring of fixed size, so that no packet allocates.

use super::Effect;

/// More than any single input causes; the driver empties it after each.
const CAPACITY: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Queue {
    slots: [Option<Effect>; CAPACITY],
    head: usize,
    len: usize,
    lost: u64,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            slots: [None; CAPACITY],
            head: 0,
            len: 0,
            lost: 0,
        }
    }

    /// Appends; a full ring, which only a driver that never reads can cause, loses its oldest.
    pub(super) fn push(&mut self, effect: Effect) {
        if self.len == CAPACITY {
            self.pop();
            self.lost += 1;
        }
        if let Some(slot) = self.slots.get_mut((self.head + self.len) % CAPACITY) {
            *slot = Some(effect);
            self.len += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        let effect = self.slots.get_mut(self.head)?.take()?;
        self.head = (self.head + 1) % CAPACITY;
        self.len -= 1;
        Some(effect)
    }

    /// Effects lost to a driver that did not read.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Priority;

    fn effect(number: u8) -> Effect {
        Effect::SendAdvertisement {
            priority: Priority::new(number),
        }
    }

    #[test]
    fn first_in_first_out_and_full_loses_the_oldest() {
        let mut queue = Queue::new();
        for number in 0..20 {
            queue.push(effect(number));
        }
        assert_eq!(queue.lost(), 4);
        for number in 4..20 {
            assert_eq!(queue.pop(), Some(effect(number)));
        }
        assert_eq!(queue.pop(), None);
        queue.push(effect(1));
        assert_eq!(queue.pop(), Some(effect(1)));
    }
}
