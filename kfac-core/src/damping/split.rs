//! The damping of `A (x) G + λ I`, split between the two factors.

use crate::memory::SideState;
use core::fmt;
use kfac_linalg::{Scalar, ShapeError};

/// What the damping does to the two factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split<T> {
    /// `A + input I` and `G + output I`.
    Shift {
        /// Added to the diagonal of `A`.
        input: T,
        /// Added to the diagonal of `G`.
        output: T,
    },
    /// A factor vanishes, or is next to nothing beside the other: `√λ I` takes the place of both, `U = V / λ`.
    Replace {
        /// `√λ`.
        gamma: T,
    },
}

/// Trace and size of a factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trace<T> {
    /// Sum of the diagonal.
    pub trace: T,
    /// Rows of the factor.
    pub size: usize,
}

impl<T: Scalar> Trace<T> {
    /// Of the factor of a side.
    pub(crate) fn of(side: &SideState<'_, T>) -> Result<Self, ShapeError> {
        Ok(Self { trace: side.trace()?, size: side.size })
    }
}

/// Splits the damping of `A (x) G + λ I` between the two factors.
///
/// `Â = A + π √λ I` and `Ĝ = G + √λ/π I` with `π = √((tr A / n) / (tr G / m))`: the product of the two shifts is
/// `λ`, and the mixed terms `π√λ I (x) G` and `A (x) √λ/π I` have the same trace. `(cA, G/c)` gives the same step for
/// every `c > 0`. `π` is the quotient of two roots, so that two tiny (or two huge) factors balance each other where the
/// root of their quotient would be lost.
///
/// Corner cases: a factor of size 1 carries no shift, the other one takes `λ` over it, which is exact damping
/// (`a (G + λ/a I) = aG + λI`); a factor of trace 0 leaves nothing to balance, `√λ I` replaces both, and
/// so it does where a shift, or what it is the inverse of, leaves the range of `T`: one factor has all but vanished, as
/// that of an output which has died.
///
/// # Units
/// `lambda`: that of an eigenvalue of `A (x) G`, positive.
/// # Errors
/// [`DampingError::Trace`] carries a trace that is negative or not finite.
/// # Source
/// Martens and Grosse 2015, section 6.3, arXiv:1503.05671.
pub fn split_damping<T: Scalar>(a: Trace<T>, g: Trace<T>, lambda: T) -> Result<Split<T>, DampingError> {
    check_traces(a, g)?;
    let replace = Split::Replace { gamma: lambda.sqrt() };
    if a.trace == T::ZERO || g.trace == T::ZERO {
        return Ok(replace);
    }
    // Of two factors of size 1 the larger one hands over, so that the quotient stays in range.
    let from_a = a.size == 1 && (g.size != 1 || a.trace >= g.trace);
    if from_a || g.size == 1 {
        let unshifted = if from_a { a.trace } else { g.trace };
        let shift = lambda / unshifted;
        if !shift.is_finite() || !is_invertible(unshifted) {
            return Ok(replace);
        }
        let [input, output] = if from_a { [T::ZERO, shift] } else { [shift, T::ZERO] };
        return Ok(Split::Shift { input, output });
    }
    balance_damping(a, g, lambda)
}

/// [`split_damping`] without its rule for a factor of size 1: `π` says it for factors of every size.
///
/// The recurrent chains take this one. A lone number that carries no shift makes the damping of one product `A (x) G`
/// exact, and nothing of a sum over pairs of steps.
///
/// # Units
/// `lambda`: that of an eigenvalue of `A (x) G`, positive.
/// # Errors
/// [`DampingError::Trace`] carries a trace that is negative or not finite.
/// # Source
/// Martens and Grosse 2015, section 6.3, arXiv:1503.05671.
pub fn balance_damping<T: Scalar>(a: Trace<T>, g: Trace<T>, lambda: T) -> Result<Split<T>, DampingError> {
    check_traces(a, g)?;
    let gamma = lambda.sqrt();
    let root_mean = |factor: Trace<T>| (factor.trace / T::from_usize(factor.size)).sqrt();
    let pi = root_mean(a) / root_mean(g);
    let (input, output) = (pi * gamma, gamma / pi);
    // A factor of trace 0 makes `π` zero, infinite or NaN.
    if !is_invertible(input) || !is_invertible(output) {
        return Ok(Split::Replace { gamma });
    }
    Ok(Split::Shift { input, output })
}

fn check_traces<T: Scalar>(a: Trace<T>, g: Trace<T>) -> Result<(), DampingError> {
    for factor in [a, g] {
        let valid = factor.trace.is_finite() && factor.trace >= T::ZERO;
        if !valid {
            return Err(DampingError::Trace(factor.trace.to_f64()));
        }
    }
    Ok(())
}

/// Are the number and its inverse finite?
fn is_invertible<T: Scalar>(number: T) -> bool {
    number.is_finite() && (T::ONE / number).is_finite()
}

/// The damping cannot be split.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DampingError {
    /// A factor's trace is negative or not finite.
    Trace(f64),
}

impl fmt::Display for DampingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(trace) => write!(f, "a factor has the trace {trace:e}, which no second moment has"),
        }
    }
}

impl core::error::Error for DampingError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(trace: f64, size: usize) -> Trace<f64> {
        Trace { trace, size }
    }

    #[test]
    fn the_shifts_multiply_back_to_lambda_and_balance_the_mixed_terms() {
        let (a, g, lambda) = (trace(7.0, 5), trace(0.3, 2), 1e-3);
        let Ok(Split::Shift { input, output }) = split_damping(a, g, lambda) else { panic!("not a shift") };
        assert!((input * output - lambda).abs() <= 4.0 * f64::EPSILON * lambda, "{input:e} * {output:e}");
        let mixed = [input * 5.0 * g.trace, output * 2.0 * a.trace];
        assert!((mixed[0] / mixed[1] - 1.0).abs() <= 8.0 * f64::EPSILON, "{mixed:?}");
    }

    #[test]
    fn a_one_by_one_factor_hands_its_damping_to_the_other() {
        assert_eq!(
            split_damping(trace(4.0, 1), trace(5.0, 2), 0.04),
            Ok(Split::Shift { input: 0.0, output: 0.01 })
        );
        assert_eq!(
            split_damping(trace(5.0, 2), trace(4.0, 1), 0.04),
            Ok(Split::Shift { input: 0.01, output: 0.0 })
        );
        assert_eq!(
            split_damping(trace(4.0, 1), trace(0.5, 1), 0.1),
            Ok(Split::Shift { input: 0.0, output: 0.025 })
        );
    }

    #[test]
    fn balanced_damping_shifts_a_factor_of_size_one_as_any_other() {
        // π = √(4 / 9), γ = 0.2.
        let split = balance_damping(trace(4.0, 1), trace(18.0, 2), 0.04);
        let Ok(Split::Shift { input, output }) = split else { panic!("{split:?}") };
        assert!((input - 0.4 / 3.0).abs() < 1e-16 && (output - 0.3).abs() < 1e-16, "{input} {output}");
        for (a, g) in
            [(trace(0.0, 1), trace(3.0, 2)), (trace(1.0, 2), trace(0.0, 1)), (trace(0.0, 2), trace(0.0, 2))]
        {
            assert_eq!(balance_damping(a, g, 0.04), Ok(Split::Replace { gamma: 0.2 }));
        }
        assert_eq!(balance_damping(trace(-1.0, 3), trace(1.0, 2), 0.1), Err(DampingError::Trace(-1.0)));
    }

    #[test]
    fn a_zero_trace_wins_over_the_one_by_one_rule() {
        for (a, g) in [(trace(0.0, 1), trace(3.0, 2)), (trace(1.0, 2), trace(0.0, 1))] {
            assert_eq!(split_damping(a, g, 0.04), Ok(Split::Replace { gamma: 0.2 }));
        }
    }

    #[test]
    fn traces_that_no_second_moment_has_are_refused() {
        for bad in [-1e-9, f64::INFINITY] {
            assert_eq!(split_damping(trace(bad, 3), trace(1.0, 2), 0.1), Err(DampingError::Trace(bad)));
            assert_eq!(split_damping(trace(1.0, 3), trace(bad, 1), 0.1), Err(DampingError::Trace(bad)));
        }
        assert!(split_damping(trace(f64::NAN, 3), trace(1.0, 2), 0.1).is_err());
    }

    #[test]
    fn tiny_factors_do_not_underflow() {
        let split = split_damping(trace(1e-91, 4), trace(1e-91, 3), 1e-180);
        let Ok(Split::Shift { input, output }) = split else { panic!("{split:?}") };
        assert!((input * output / 1e-180 - 1.0).abs() < 1e-14, "{input:e} {output:e}");
    }

    /// A mean of 1e-47 is 0 in `f32`, and `π` of 1e41 is infinite: one factor is there, the other has all but vanished.
    #[test]
    fn a_factor_that_has_all_but_vanished_counts_as_one_that_has() {
        let trace = |trace: f32, size| Trace { trace, size };
        for (a, g, lambda) in [
            (trace(1.0, 5), trace(1e-45, 100), 0.1_f32),
            (trace(1e38, 2), trace(1e-44, 2), 0.1),
            (trace(1e-45, 100), trace(1e-45, 100), 0.1),
            // `π` is finite, its product with the root of `λ` is not.
            (trace(1e36, 2), trace(1e-38, 2), 1e6),
        ] {
            let replace = Ok(Split::Replace { gamma: lambda.sqrt() });
            assert_eq!(split_damping(a, g, lambda), replace, "{a:?} {g:?}");
            assert_eq!(split_damping(g, a, lambda), replace, "{g:?} {a:?}");
        }
    }

    /// `λ / 1e-40` is no `f32`; of two single numbers the larger one is divided by.
    #[test]
    fn a_single_number_next_to_nothing_is_not_divided_by() {
        let trace = |trace: f32, size| Trace { trace, size };
        let replace = Ok(Split::Replace { gamma: 1.0 });
        assert_eq!(split_damping(trace(1e-40, 1), trace(1.0, 2), 1.0), replace);
        assert_eq!(split_damping(trace(1.0, 2), trace(1e-40, 1), 1.0), replace);
        assert_eq!(split_damping(trace(1e-40, 1), trace(1e-41, 1), 1.0), replace);
        // The quotient is finite, but 1 / 1e-40 is not.
        let split = split_damping(trace(1e-40, 1), trace(1.0, 2), 1e-10);
        assert!(matches!(split, Ok(Split::Replace { .. })), "{split:?}");
        for (a, g) in [(1e-40, 1e30), (1e30, 1e-40), (3.0, 0.5), (1e-20, 1e-18)] {
            for lambda in [1e-3, 1.0] {
                let split = split_damping(trace(a, 1), trace(g, 1), lambda);
                let Ok(Split::Shift { input, output }) = split else { panic!("{split:?}") };
                let (found, want) = ((a + input) * (g + output), a * g + lambda);
                assert!((found / want - 1.0).abs() <= 4.0 * f32::EPSILON, "{a:e} {g:e}: {found:e} {want:e}");
            }
        }
    }
}
