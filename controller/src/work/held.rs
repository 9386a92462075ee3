//! What a leader tells the next one: which of its brakes hold something that waits for a word.
//!
//! The next one knows the pins and the objects, not what was too much at once when others had not come yet; so what it finds first that would go is held as well.
//! The leader before it held all of that, too: while a brake holds something it lets nothing go. More need not be told: which images they are it sees itself.

use super::Work;
use crate::decide::brake::Brake;
use crate::decide::expiring::Expiring;

/// As `/readyz` calls it: the brake of pins.
pub(super) const PINS: &str = "brake";

/// The brake of objects.
pub(super) const OBJECTS: &str = "expiry";

/// Which of them hold something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pins: bool,
    objects: bool,
}

impl Held {
    /// As the leader before this one left it.
    pub(super) fn read(line: &str) -> Self {
        let has = |name| line.split(',').any(|word| word.trim() == name);
        Self { pins: has(PINS), objects: has(OBJECTS) }
    }

    /// For the next one; empty: nothing.
    fn line(self) -> String {
        let Self { pins, objects } = self;
        let held = [(pins, PINS), (objects, OBJECTS)].into_iter().filter(|(holds, _)| *holds);
        held.map(|(_, name)| name).collect::<Vec<_>>().join(",")
    }

    /// That of pins, with words of its own.
    pub(super) fn brake(self, seed: &str) -> Brake {
        let mut brake = Brake::new(seed);
        if self.pins {
            brake.inherit();
        }
        brake
    }

    /// That of objects.
    pub(super) fn expiring(self, seed: &str) -> Expiring {
        let mut expiring = Expiring::new(seed);
        if self.objects {
            expiring.inherit();
        }
        expiring
    }
}

impl Work {
    /// It is written with the next renewal of the lease, or with its release.
    pub(super) fn leave_a_note(&self) {
        let held = Held { pins: self.brake.holds(), objects: self.expiring.holds() };
        self.pen.leave(held.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_is_found() {
        for pins in [false, true] {
            for objects in [false, true] {
                let held = Held { pins, objects };
                assert_eq!(Held::read(&held.line()), held);
                assert_eq!((held.brake("a").holds(), held.expiring("a").holds()), (pins, objects));
            }
        }
        assert_eq!(Held::default().line(), "");
        // By a person, or by another release.
        assert_eq!(Held::read("more, expiry"), Held { pins: false, objects: true });
    }
}
