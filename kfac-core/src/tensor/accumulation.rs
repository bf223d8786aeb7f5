//! How second moments follow the gradients.

use crate::error::SettingError;
use kfac_linalg::Scalar;

/// How the second moment `L` of an axis follows the gradients, and the matrix `M` whose root is taken. `X` is the unfolded
/// gradient, `k` counts its statistics from 1, `ε` has the units of a squared gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accumulation<T> {
    /// `L = ε I + Σ X Xᵀ`, `M = L`: as published.
    Sum {
        /// `ε`.
        epsilon: T,
    },
    /// `L <- β L + (1-β) X Xᵀ` from `L = ε I`, `M = L`: `ε` fades with the average.
    AverageFromEpsilon {
        /// `β`.
        decay: T,
        /// `ε`.
        epsilon: T,
    },
    /// `L <- β L + (1-β) X Xᵀ` from 0, `M = L + ε I`.
    Average {
        /// `β`.
        decay: T,
        /// `ε`.
        epsilon: T,
    },
    /// `L <- β L + (1-β) X Xᵀ` from 0, `M = L / (1 - β^k) + ε I`: the true mean from the first statistic on.
    CorrectedAverage {
        /// `β`.
        decay: T,
        /// `ε`.
        epsilon: T,
    },
}

impl<T: Scalar> Accumulation<T> {
    /// What every diagonal element of `L` begins at.
    pub(super) fn initial(self) -> T {
        match self {
            Self::Sum { epsilon } | Self::AverageFromEpsilon { epsilon, .. } => epsilon,
            Self::Average { .. } | Self::CorrectedAverage { .. } => T::ZERO,
        }
    }

    /// What is kept of the old value, and how much of the new statistic is added.
    pub(super) fn keep_and_add(self) -> [T; 2] {
        match self {
            Self::Sum { .. } => [T::ONE, T::ONE],
            Self::AverageFromEpsilon { decay, .. }
            | Self::Average { decay, .. }
            | Self::CorrectedAverage { decay, .. } => [decay, T::ONE - decay],
        }
    }

    /// Scale and shift of `M = scale L + shift I`; `weight` is that of all statistics in `L`, `1 - β^k` for an average.
    pub(super) fn scale_and_shift(self, weight: f64) -> [T; 2] {
        match self {
            Self::Sum { .. } | Self::AverageFromEpsilon { .. } => [T::ONE, T::ZERO],
            Self::Average { epsilon, .. } => [T::ONE, epsilon],
            Self::CorrectedAverage { epsilon, .. } => [T::from_f64(1.0 / weight), epsilon],
        }
    }

    pub(super) fn check(self) -> Result<(), SettingError> {
        let (decay, epsilon) = match self {
            Self::Sum { epsilon } => (T::ZERO, epsilon),
            Self::AverageFromEpsilon { decay, epsilon }
            | Self::Average { decay, epsilon }
            | Self::CorrectedAverage { decay, epsilon } => (decay, epsilon),
        };
        check_decay("decay of the accumulation", decay)?;
        SettingError::unless(
            epsilon >= T::ZERO && epsilon.is_finite(),
            "epsilon of the accumulation",
            epsilon,
        )
    }
}

/// How a second moment `s` of single numbers follows the squares `g²`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SecondMoment<T> {
    /// There is none.
    None,
    /// `s = Σ g²`.
    Sum,
    /// `s <- β s + (1-β) g²` from 0.
    Average {
        /// `β`.
        decay: T,
    },
}

impl<T: Scalar> SecondMoment<T> {
    /// What is kept of the old value, and how much of the new square is added; `None` where there is no moment.
    pub(super) fn keep_and_add(self) -> Option<[T; 2]> {
        match self {
            Self::None => None,
            Self::Sum => Some([T::ONE, T::ONE]),
            Self::Average { decay } => Some([decay, T::ONE - decay]),
        }
    }
}

/// The weight that an average of ones would have: `1 - β^k` after `k` updates.
pub(super) fn next_weight<T: Scalar>(weight: f64, [keep, add]: [T; 2]) -> f64 {
    keep.to_f64() * weight + add.to_f64()
}

pub(super) fn check_decay<T: Scalar>(setting: &'static str, decay: T) -> Result<(), SettingError> {
    SettingError::unless(decay >= T::ZERO && decay < T::ONE, setting, decay)
}

/// What is divided by a root plus this must not be divided by zero.
pub(super) fn check_positive<T: Scalar>(setting: &'static str, value: T) -> Result<(), SettingError> {
    SettingError::unless(value > T::ZERO && value.is_finite(), setting, value)
}
