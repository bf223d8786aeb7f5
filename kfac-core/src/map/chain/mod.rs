//! Recurrent weights: the steps of a sequence are a chain, not independent.
//!
//! For layers whose positions are steps of a sequence, in order; the places of an image are no chain.
//!
//! A weight that is used at steps `1..T` has the gradient `Σ_t g_t ā_tᵀ`, and its Fisher block is a sum over all *pairs* of
//! steps. With inputs and output gradients as two independent, stationary, linear Gaussian chains, what steps at a
//! distance `d` have in common is the `d`-th power of what neighbours have: `E[x_t x_{t-d}ᵀ] = (X₁ X₀⁻¹)^d X₀`, and the inverse of
//! the block is known from the moments of one step and of two neighbours.
//!
//! In the letters of the paper, for `X` of `A` and `G` both:
//!
//! - `X₀`, the moment of one step, damped: `A + π√λ I` and `G + √λ/π I`, see
//!   [`balance_damping`].
//! - `X₁ = E[x_t x_{t-1}ᵀ]`, the lag moment, not damped; the later step is on the left. Its sum over pairs is divided by the
//!   count that divides the sum of `X₀`, as if zeros surrounded each sequence.
//! - `Ψ̂_X = X₀^(-1/2) X₁ X₀^(-1/2)`, the correlation of neighbours, at most 1 for moments of sequences.
//!
//! # Scale
//! The paper divides both `G` moments by the number of steps, as the `A` moments are. Here `G₀` and `G₁` are means over cases of
//! sums over steps, `T̄` times as large for a mean length `T̄`, like `G` everywhere. `Ψ̂` is the same; the paper's `γ = √(λ/T̄)` is
//! what the split of `λ` itself makes of `T̄`-fold moments; and its `1/D`, `1/T̄` become `T̄/D` and 1. `U` is the same number.
//! With sequences of one step, or no correlation, both maps are `G₀⁻¹ V A₀⁻¹`, that is
//! [`Factored`](super::Factored), whose rule for a single row or column alone they do not have.
//!
//! # Source
//! Martens, Ba and Johnson 2018, "Kronecker-factored curvature approximations for recurrent neural networks", ICLR
//! (openreview HyMTkQZAb).

mod limit;
mod symmetric;
mod weight;

pub use limit::ChainLimit;
pub use symmetric::ChainSymmetric;
pub use weight::chain_weight;

use super::{FactorMap, MapError, take};
use crate::damping::split::{Split, Trace, balance_damping};
use crate::error::SettingError;
use crate::memory::{LayerState, SideState};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Outcome};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// A map that keeps the lag moments of a chain, so that [finished ones](crate::evidence::ChainMoments) can be handed in. It
/// says [`PerCase::Lags`](super::PerCase::Lags), and keeps at each side in its first vector the eigenvalues that it
/// refreshed with.
pub trait ChainMap<T: Scalar>: FactorMap<T> {}

/// Largest magnitude that a correlation of neighbouring steps may have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound(f64);

impl Bound {
    /// Estimates near 1 are noisy, and `U` grows without limit as they come closer: this much is left to the noise.
    const DEFAULT: Self = Self(0.95);
    /// Correlations are no larger.
    const NONE: Self = Self(1.0);

    fn new(bound: f64) -> Result<Self, SettingError> {
        SettingError::unless(bound > 0.0 && bound <= 1.0, "bound of the correlation", bound)?;
        Ok(Self(bound))
    }
}

/// The damping of both moments.
fn split<T: Scalar>(layer: &LayerState<'_, T>, lambda: T) -> Result<Split<T>, MapError> {
    Ok(balance_damping(Trace::of(&layer.input)?, Trace::of(&layer.output)?, lambda)?)
}

/// One side of a layer on its way to a chain's coordinates.
struct Correlation<'a, 's, T, K, S> {
    kernel: K,
    solver: S,
    side: Side,
    arrays: &'a SideState<'s, T>,
}

impl<T: Scalar, K: Kernel<T>, S: Eigensolver> Correlation<'_, '_, T, K, S> {
    /// `B` with `Bᵀ X₀ B = I`, and `Ψ = Bᵀ X₁ B`: the paper's `X₀^(-1/2)` and `Ψ̂`, both rotated into the eigenvectors of `X₀`,
    /// which no later formula can tell.
    ///
    /// `b`, `psi`, `work`: `n²` numbers.
    fn whiten(
        &self,
        split: Split<T>,
        [b, psi, work]: [&mut [T]; 3],
        mut scratch: &mut [T],
    ) -> Result<Outcome, MapError> {
        let (kernel, n) = (self.kernel, self.arrays.size);
        let shift = match (split, self.side) {
            (Split::Shift { input, .. }, Side::Input) => input,
            (Split::Shift { output, .. }, Side::Output) => output,
            (Split::Replace { gamma }, _) => {
                // What is left of the moments is not worth looking at.
                b.fill(T::ZERO);
                b.iter_mut().step_by(n + 1).for_each(|x| *x = T::ONE / gamma.sqrt());
                psi.fill(T::ZERO);
                return Ok(Outcome { sweeps: 0, off_diagonal: 0.0, converged: true });
            }
        };
        let roots = take(&mut scratch, n)?;
        self.arrays.write_factor(work)?;
        let outcome = self.decompose(work, b, roots, scratch)?;
        // Shifted after the decomposition: no second moment has a negative eigenvalue, but rounding makes some that are
        // larger than a small shift.
        roots.iter_mut().for_each(|d| *d = T::ONE / (d.maximum(T::ZERO) + shift).sqrt());
        for row in b.chunks_exact_mut(n) {
            row.iter_mut().zip(&*roots).for_each(|(x, &root)| *x *= root);
        }
        let lag = MatRef::row_major(self.arrays.lag(), n, n)?;
        let b = MatRef::row_major(b, n, n)?;
        let mean = Accumulate::Replace(self.arrays.normaliser());
        gemm(kernel, MatMut::row_major(work, n, n)?, mean, lag, b, scratch)?;
        let lag_b = MatRef::row_major(work, n, n)?;
        let one = Accumulate::Replace(T::ONE);
        gemm(kernel, MatMut::row_major(psi, n, n)?, one, b.transposed(), lag_b, scratch)?;
        Ok(outcome)
    }

    /// Eigenvectors to `q`, eigenvalues to `d`, of the symmetric `matrix`, from a cold start.
    fn decompose(
        &self,
        matrix: &[T],
        q: &mut [T],
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, MapError> {
        let n = self.arrays.size;
        let (a, q) = (MatRef::row_major(matrix, n, n)?, MatMut::row_major(q, n, n)?);
        let eigh = self.solver.cold(self.kernel, a, q, d, scratch);
        eigh.map_err(|error| MapError::Eigh { side: self.side, error })
    }

    /// `to = X Y`.
    fn multiply(
        &self,
        to: &mut [T],
        x: MatRef<'_, T>,
        y: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        let into = MatMut::row_major(to, x.rows(), y.cols())?;
        Ok(gemm(self.kernel, into, Accumulate::Replace(T::ONE), x, y, scratch)?)
    }

    fn view<'v>(&self, matrix: &'v [T]) -> Result<MatRef<'v, T>, MapError> {
        let n = self.arrays.size;
        Ok(MatRef::row_major(matrix, n, n)?)
    }

    /// Refuses results that left the range of the numbers.
    fn expect_finite(&self, results: [&[T]; 3]) -> Result<(), MapError> {
        if results.into_iter().flatten().all(|x| x.is_finite()) {
            return Ok(());
        }
        Err(MapError::NotFinite { side: self.side })
    }
}
