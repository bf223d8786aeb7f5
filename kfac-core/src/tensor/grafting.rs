//! Grafting: the direction of one method, the size of another.

use super::accumulation::{SecondMoment, check_decay, check_positive};
use crate::error::SettingError;
use kfac_linalg::product::sum_terms;
use kfac_linalg::{Scalar, ShapeError};

/// Whose size `U` takes: `U <- U ‖D‖ / ‖U‖`, Frobenius norms of one tensor. `g` is the gradient (or its corrected first
/// moment), `s` the second moment of the gradients, `t` their number.
///
/// # Source
/// Agarwal, Anil, Hazan, Koren and Zhang 2020, arXiv:2002.11803; Anil et al. 2020, arXiv:2002.09018.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Grafting<T> {
    /// `U` keeps its own.
    #[default]
    None,
    /// `D = g`.
    Sgd,
    /// `D = g / (√s + ε)`, `s = Σ g²`.
    AdaGrad {
        /// `ε`.
        epsilon: T,
    },
    /// `D = g / (√s + ε)`, `s` the average of `g²`.
    RmsProp {
        /// `β` of the average.
        decay: T,
        /// `ε`.
        epsilon: T,
    },
    /// `D = g / (√(s / (1 - β^t)) + ε)`, `s` the average of `g²`. With a first moment this is Adam's step.
    Adam {
        /// `β` of the average.
        decay: T,
        /// `ε`.
        epsilon: T,
    },
}

impl<T: Scalar> Grafting<T> {
    /// Second moments kept per tensor.
    pub(super) const fn second_moments(&self) -> usize {
        match self {
            Self::None | Self::Sgd => 0,
            Self::AdaGrad { .. } | Self::RmsProp { .. } | Self::Adam { .. } => 1,
        }
    }

    pub(super) fn second_moment(self) -> SecondMoment<T> {
        match self {
            Self::None | Self::Sgd => SecondMoment::None,
            Self::AdaGrad { .. } => SecondMoment::Sum,
            Self::RmsProp { decay, .. } | Self::Adam { decay, .. } => SecondMoment::Average { decay },
        }
    }

    pub(super) fn check(self) -> Result<(), SettingError> {
        match self {
            Self::None | Self::Sgd => Ok(()),
            Self::AdaGrad { epsilon } => check_positive("epsilon of the grafting", epsilon),
            Self::RmsProp { decay, epsilon } | Self::Adam { decay, epsilon } => {
                check_decay("decay of the grafting", decay)?;
                check_positive("epsilon of the grafting", epsilon)
            }
        }
    }

    /// `D`, one number of it, from `g` and `s`; `weight` is that of `s`.
    pub(super) fn direction(self, weight: f64) -> impl Fn(T, T) -> T {
        let correction = match self {
            Self::Adam { .. } => T::from_f64(1.0 / weight),
            Self::None | Self::Sgd | Self::AdaGrad { .. } | Self::RmsProp { .. } => T::ONE,
        };
        move |g, s| match self {
            Self::None | Self::Sgd => g,
            Self::AdaGrad { epsilon } | Self::RmsProp { epsilon, .. } | Self::Adam { epsilon, .. } => {
                g / ((s * correction).sqrt() + epsilon)
            }
        }
    }
}

/// `‖D‖_F` of `D_i = direction(g_i, s_i)`: squares neither overflow nor vanish on the way.
pub(super) fn norm<T: Scalar>([g, s]: [&[T]; 2], direction: impl Fn(T, T) -> T) -> Result<T, ShapeError> {
    let largest = g.iter().zip(s).fold(T::ZERO, |most, (&g, &s)| most.maximum(direction(g, s).abs()));
    if largest == T::ZERO {
        return Ok(T::ZERO);
    }
    let squares = sum_terms([g, s], |[g, s]| {
        let part = direction(g, s) / largest;
        part * part
    })?;
    Ok(largest * squares.sqrt())
}
