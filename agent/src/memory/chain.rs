//! Lists in a target's memory can go in circles: those of a hostile or damaged one, and those that change while they are read.

/// Notices when a list comes back to where it was (Brent's algorithm), after at most thrice the length of the circle and of what
/// leads to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    remembered: u64,
    steps: u64,
    lap: u64,
}

impl Chain {
    /// Takes the next element's address. `false` if it has been met before.
    pub fn goes_on(&mut self, address: u64) -> bool {
        if self.steps > 0 && address == self.remembered {
            return false;
        }
        if self.steps == self.lap {
            self.remembered = address;
            self.lap = 2 * self.lap.max(1);
            self.steps = 0;
        }
        self.steps += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps along a list of `lead` elements that lead to a circle of `circle`, until it is noticed.
    fn steps(lead: u64, circle: u64) -> u64 {
        let mut chain = Chain::default();
        let address = |step: u64| 8 * (1 + if step < lead { step } else { lead + (step - lead) % circle });
        (0..).find(|step| !chain.goes_on(address(*step))).expect("it is noticed")
    }

    #[test]
    fn circles_are_noticed_soon_and_straight_lists_are_none() {
        for lead in 0..40 {
            for circle in 1..40 {
                let taken = steps(lead, circle);
                assert!(taken >= circle && taken <= 3 * (lead + circle) + 3, "{lead} {circle}: {taken}");
            }
        }
        let mut chain = Chain::default();
        assert!((1..100_000).all(|address| chain.goes_on(address)));
    }
}
