//! Sums, variances and extremes of numbers that are the same in whatever order, and by whatever split into parts, the
//! numbers are taken: a sum is held exactly and rounded once.
//!
//! A sum is a list of numbers without common bits, as in J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic
//! and Fast Robust Geometric Predicates" (1997). All of them are scaled by 2^-64, so that no sum of fewer than 2^63
//! numbers overflows before it is rounded; what of a number lies below 2^-1010 is lost. This file does not know series.

use serde::{Deserialize, Serialize};

/// 2^-64
const SCALE: f64 = 1.0 / 18_446_744_073_709_551_616.0;

/// An exact sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// Scaled, without common bits, by ascending magnitude, none of them zero.
    parts: Vec<f64>,
    /// The sum of those numbers that are not finite; 0 where all are.
    beyond: f64,
}

/// Two numbers as their rounded sum and what rounding left out.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

impl Sum {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        if number.is_finite() { self.grow(number * SCALE) } else { self.beyond += number }
    }

    /// Adds what another sum holds.
    pub fn merge(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| self.grow(*part));
        self.beyond += other.beyond;
    }

    /// The sum, rounded to the nearest number, ties to even.
    pub fn value(&self) -> f64 {
        if self.beyond == 0.0 { self.rounded() / SCALE } else { self.beyond }
    }

    /// What it takes in memory beside itself.
    pub fn heap_bytes(&self) -> usize {
        self.parts.capacity() * size_of::<f64>()
    }

    /// Adds the product of two scaled numbers; neither it nor its last bit leaves the range.
    fn grow_product(&mut self, a: f64, b: f64) {
        let product = a * b;
        self.grow(a.mul_add(b, -product));
        self.grow(product);
    }

    fn grow(&mut self, mut number: f64) {
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let (sum, rest) = two_sum(number, self.parts[at]);
            number = sum;
            if rest != 0.0 {
                self.parts[kept] = rest;
                kept += 1;
            }
        }
        self.parts.truncate(kept);
        if number != 0.0 {
            self.parts.push(number);
        }
    }

    /// The scaled sum of the parts, rounded once: where the first two parts leave a tie, the sign of what is below
    /// decides it.
    fn rounded(&self) -> f64 {
        let mut parts = self.parts.iter().rev().copied();
        let mut sum = parts.next().unwrap_or(0.0);
        let mut rest = 0.0;
        for part in parts.by_ref() {
            (sum, rest) = two_sum(sum, part);
            if rest != 0.0 {
                break;
            }
        }
        if let Some(below) = parts.next()
            && (rest < 0.0) == (below < 0.0)
        {
            let away = sum + rest * 2.0;
            if away - sum == rest * 2.0 {
                return away;
            }
        }
        sum
    }
}

/// Between these magnitudes every product that a variance takes is exact.
const SQUARED: (f64, f64) = (1e-100, 1e140);

/// How many numbers there are, their sum, and the sum of their squares. Numbers nearer to zero than 1e-100 count as
/// zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    sum: Sum,
    squares: Sum,
}

impl Moments {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        self.count += 1;
        if number.abs() <= SQUARED.1 {
            let number = if number.abs() < SQUARED.0 { 0.0 } else { number };
            self.sum.add(number);
            self.squares.grow_product(number * SCALE, number * SCALE);
        } else {
            self.sum.beyond = f64::NAN;
        }
    }

    /// Adds what other moments hold.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    /// The population variance; NaN of no number, and of one beyond 1e140 in magnitude.
    pub fn variance(&self) -> f64 {
        if self.sum.beyond != 0.0 {
            return f64::NAN;
        }
        let count = self.count as f64;
        let mut spread = Sum::default();
        self.squares.parts.iter().for_each(|part| spread.grow_product(*part, count));
        for left in &self.sum.parts {
            self.sum.parts.iter().for_each(|right| spread.grow_product(-left, *right));
        }
        spread.rounded() / (count * count) / SCALE / SCALE
    }

    /// What it takes in memory beside itself.
    pub fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }
}

/// The smaller number; NaN only of two.
pub fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || (!b.is_nan() && b.total_cmp(&a).is_lt()) { b } else { a }
}

/// The greater number; NaN only of two.
pub fn most(a: f64, b: f64) -> f64 {
    if a.is_nan() || (!b.is_nan() && b.total_cmp(&a).is_gt()) { b } else { a }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(numbers: &[f64]) -> Sum {
        numbers.iter().fold(Sum::default(), |mut sum, number| {
            sum.add(*number);
            sum
        })
    }

    fn moments(numbers: &[f64]) -> Moments {
        numbers.iter().fold(Moments::default(), |mut moments, number| {
            moments.add(*number);
            moments
        })
    }

    fn bits(number: f64) -> u64 {
        if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() }
    }

    #[test]
    fn a_sum_is_rounded_once() {
        for (numbers, expected) in [
            (&[][..], 0.0),
            (&[0.1; 10], 1.0),
            (&[1e100, 1.0, -1e100], 1.0),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[1e16, 1.0, 1e-16], 10_000_000_000_000_002.0),
            (&[1e16, 1.0], 1e16),
            (&[f64::INFINITY, 1.0], f64::INFINITY),
            (&[f64::NEG_INFINITY, 1e308], f64::NEG_INFINITY),
        ] {
            assert_eq!(sum(numbers).value(), expected, "{numbers:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
        assert!(sum(&[f64::NAN, 1.0]).value().is_nan());
    }

    #[test]
    fn a_variance_does_not_suffer_from_a_large_mean() {
        assert_eq!(moments(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]).variance(), 22.5);
        assert_eq!(moments(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).variance(), 4.0);
        assert_eq!(moments(&[0.1]).variance(), 0.0);
        assert!(moments(&[]).variance().is_nan());
        assert!(moments(&[f64::INFINITY, 1.0]).variance().is_nan());
    }

    #[test]
    fn an_extreme_is_nan_only_of_nan() {
        assert_eq!((least(f64::NAN, 1.0), least(1.0, f64::NAN)), (1.0, 1.0));
        assert_eq!((most(f64::NAN, 1.0), most(1.0, f64::NAN)), (1.0, 1.0));
        assert!(least(f64::NAN, f64::NAN).is_nan() && most(f64::NAN, f64::NAN).is_nan());
        assert_eq!((least(1.0, f64::NEG_INFINITY), most(-1.0, f64::INFINITY)), (f64::NEG_INFINITY, f64::INFINITY));
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3_f64,
            4 => any::<f64>(),
            1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX, f64::MIN]),
        ]
    }

    proptest! {
        #[test]
        fn parts_give_the_same_in_whatever_order_and_split(
            numbers in prop::collection::vec(number(), 0..20),
            order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle(),
            parts in prop::collection::vec(0_usize..4, 20),
        ) {
            let shuffled: Vec<f64> = order.iter().filter_map(|at| numbers.get(*at)).copied().collect();
            let (mut merged, mut spread) = (Sum::default(), Moments::default());
            for part in 0..4 {
                let own: Vec<f64> =
                    shuffled.iter().zip(&parts).filter(|(_, of)| **of == part).map(|(number, _)| *number).collect();
                merged.merge(&sum(&own));
                spread.merge(&moments(&own));
            }
            prop_assert_eq!(bits(merged.value()), bits(sum(&numbers).value()));
            prop_assert_eq!(bits(spread.variance()), bits(moments(&numbers).variance()));
            let fold = |numbers: &[f64], step: fn(f64, f64) -> f64| numbers.iter().copied().fold(f64::NAN, step);
            prop_assert_eq!(bits(fold(&numbers, least)), bits(fold(&shuffled, least)));
            prop_assert_eq!(bits(fold(&numbers, most)), bits(fold(&shuffled, most)));
        }

        #[test]
        fn a_sum_of_whole_numbers_is_theirs(numbers in prop::collection::vec(any::<i32>(), 0..50)) {
            let whole: i64 = numbers.iter().map(|number| i64::from(*number)).sum();
            let floats: Vec<f64> = numbers.iter().map(|number| f64::from(*number)).collect();
            prop_assert_eq!(sum(&floats).value(), whole as f64);
        }
    }
}
