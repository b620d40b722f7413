//! Ratios of two subjects over rounds, and how sure their median is.

use std::fmt;

/// A median with an interval that holds the true one in 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// Bounds of the interval; `None`: too few rounds to tell.
    pub interval: Option<(f64, f64)>,
}

impl Median {
    /// Of `values`, of which there must be one.
    ///
    /// The interval is that of the sign test, so nothing is assumed of how the values are spread: with nine it runs
    /// from the second to the eighth (96 %), and with fewer than six there is none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let value = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], upper)
        } else {
            upper
        };
        let interval = outermost(sorted.len()).map(|k| (sorted[k], sorted[sorted.len() - 1 - k]));
        Some(Self { value, interval })
    }

    /// Of the ratios of `ours` to `theirs`, round by round.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

/// How many values may lie outside on each side: the most for which the chance that the true median does is at most
/// 2.5 % on a side.
fn outermost(count: usize) -> Option<usize> {
    let mut probability = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut sum = 0.0;
    let mut found = None;
    for k in 0..count / 2 {
        sum += probability;
        if sum > 0.025 {
            break;
        }
        found = Some(k);
        probability *= ratio_of_binomials(count, k);
    }
    found
}

/// `C(n, k + 1) / C(n, k)`.
#[expect(clippy::cast_precision_loss, reason = "counts of rounds are small")]
fn ratio_of_binomials(count: usize, k: usize) -> f64 {
    (count - k) as f64 / (k + 1) as f64
}

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.value)?;
        match self.interval {
            Some((low, high)) => write!(f, " [{low:.2}-{high:.2}]"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        let nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        let median = Median::of(&nine).unwrap();
        assert_eq!(median.value.to_bits(), 5.0_f64.to_bits());
        assert_eq!(median.interval, Some((2.0, 8.0)));
        assert_eq!(Median::of(&nine[..5]).unwrap().interval, None);
        let fifteen: Vec<f64> = (1..=15).map(f64::from).collect();
        assert_eq!(Median::of(&fifteen).unwrap().interval, Some((4.0, 12.0)));
        assert!(Median::of(&[]).is_none());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let median = Median::of_ratios(&[1.0, 20.0, 3.0], &[2.0, 40.0, 6.0]).unwrap();
        assert_eq!(median.to_string(), "0.50");
    }
}
