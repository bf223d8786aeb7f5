use super::{
    Cost, DampingInForce, FactorMap, Map, MapError, RefreshUnit, Refreshed, Routine, Workspace, take,
};
use crate::memory::{LayerState, Layout};
use crate::shape::Side;
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// `U = Q_G [(Q_Gᵀ V Q_A) / (d_G d_Aᵀ + λ)] Q_Aᵀ`: the damping of `A (x) G + λ I` is exact for every `λ`, with no
/// new decomposition. Only the division costs `O(mn)`; the four products cost `O(mn(m+n))`.
///
/// The eigenbases come from the Jacobi method, each refresh from the basis of the last one. Its damping is the
/// current one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eigenbasis {
    /// Sweeps that one refresh may take, and what happens when they do not suffice.
    pub budget: Budget,
}

impl Eigenbasis {
    /// Decomposes to full accuracy; a factor on which the sweeps do not suffice is an error.
    pub const fn full() -> Self {
        Self { budget: Budget::FULL }
    }

    /// Takes the basis that a bounded number of sweeps reaches. It is orthogonal whatever the number, and the
    /// next refresh goes on from it.
    pub const fn bounded(sweeps: u8) -> Self {
        Self { budget: Budget::bounded(sweeps) }
    }

    /// The cost of one refresh, for [`Schedule::worst_step_flops`](crate::schedule::Schedule::worst_step_flops).
    pub const fn refresh_cost(self) -> Cost {
        Cost { unit: RefreshUnit::Side, cubic: cubic_flops(self.budget.sweeps as u32) }
    }
}

/// A sweep rotates rows, columns and eigenvectors: `n²/2` rotations of `n` pairs, three times, at 6 flops each.
/// Before the first sweep the old basis is made orthonormal (`QᵀQ` and its product with `Q`) and applied on both
/// sides: four products.
const fn cubic_flops(sweeps: u32) -> u64 {
    8 + 9 * sweeps as u64
}

impl Default for Eigenbasis {
    fn default() -> Self {
        Self::full()
    }
}

impl<T: Scalar> Map<T> for Eigenbasis {
    const NAME: &'static str = "eigenbasis";
    /// The statistics, the eigenvectors, the eigenvalues.
    const LAYOUT: Layout = Layout { packed: 1, square: 1, diagonal: 1, per_weight: 0 };
    const UNIT: RefreshUnit = RefreshUnit::Side;
    const DAMPING: DampingInForce = DampingInForce::Current;
    /// The factor, and the new eigenvectors and eigenvalues until they are known to be good.
    const REFRESH: Workspace = Workspace {
        both_squares: 0,
        largest_squares: 2,
        vectors: 1,
        per_weight: 0,
        routine: Routine::Jacobi,
    };
    /// The half-transformed gradient.
    const APPLY: Workspace = Workspace {
        both_squares: 0,
        largest_squares: 0,
        vectors: 0,
        per_weight: 1,
        routine: Routine::Products,
    };

    fn cost(&self) -> Cost {
        self.refresh_cost()
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        _lambda: T,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let arrays = layer.side(side);
        let n = arrays.size;
        let (factor, basis) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?);
        let eigenvalues = take(&mut scratch, n)?;
        arrays.write_factor(factor)?;
        basis.copy_from_slice(arrays.square);
        let zero_trace = factor.iter().step_by(n + 1).all(|&value| value == T::ZERO);

        // A fresh layer's basis is zero, which no orthogonal matrix is.
        let is_cold = arrays.square.iter().all(|&value| value == T::ZERO);
        let decompose = if is_cold { jacobi::cold::<T, K> } else { jacobi::warm::<T, K> };
        let a = MatRef::row_major(factor, n, n)?;
        let q = MatMut::row_major(basis, n, n)?;
        let outcome = decompose(kernel, a, q, eigenvalues, self.budget, scratch)
            .map_err(|error| MapError::Eigh { side, error })?;
        if basis.iter().chain(&*eigenvalues).any(|value| !value.is_finite()) {
            return Err(MapError::NotFinite { side });
        }
        arrays.square.copy_from_slice(basis);
        // A second moment has no negative eigenvalue; rounding has.
        for (kept, &found) in arrays.diagonal.iter_mut().zip(&*eigenvalues) {
            *kept = found.maximum(T::ZERO);
        }
        let flops = cubic_flops(outcome.sweeps) * (n as u64).pow(3);
        Ok(Refreshed { flops, sweeps: outcome.sweeps, zero_trace })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        mut scratch: &mut [T],
    ) -> Result<(), MapError> {
        let (n, m) = (layer.input.size, layer.output.size);
        let qa = MatRef::row_major(layer.input.square, n, n)?;
        let qg = MatRef::row_major(layer.output.square, m, m)?;
        let largest = |diagonal: &[T]| diagonal.iter().fold(T::ZERO, |most, &d| most.maximum(d));
        let (input, output) = (largest(layer.input.diagonal), largest(layer.output.diagonal));
        if !(output * input + lambda).is_finite() {
            return Err(MapError::Range { input: input.to_f64(), output: output.to_f64() });
        }
        let half = take(&mut scratch, m * n)?;
        let replace = Accumulate::Replace(T::ONE);

        let into = MatMut::row_major(half, m, n)?;
        gemm(kernel, into, replace, qg.transposed(), MatRef::row_major(v, m, n)?, scratch)?;
        let into = MatMut::row_major(v, m, n)?;
        gemm(kernel, into, replace, MatRef::row_major(half, m, n)?, qa, scratch)?;
        for (row, &dg) in v.chunks_exact_mut(n).zip(&*layer.output.diagonal) {
            for (value, &da) in row.iter_mut().zip(&*layer.input.diagonal) {
                *value /= dg * da + lambda;
            }
        }
        let into = MatMut::row_major(half, m, n)?;
        gemm(kernel, into, replace, qg, MatRef::row_major(v, m, n)?, scratch)?;
        let into = MatMut::row_major(v, m, n)?;
        Ok(gemm(kernel, into, replace, MatRef::row_major(half, m, n)?, qa.transposed(), scratch)?)
    }
}

impl<T: Scalar> FactorMap<T> for Eigenbasis {}
