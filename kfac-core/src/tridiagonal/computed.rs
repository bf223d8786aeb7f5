//! The refresh: from the factors to `Ψ`, and to what `Σ⁻¹` is applied by.
//!
//! `Σ = Â (x) Ĝ - C_A (x) C_G` with `C_A = A_next Â'⁻¹ A_nextᵀ`, `Â'` the damped factor of the next layer, and likewise
//! `C_G`. With `Â = L Lᵀ` and `Â' = L' L'ᵀ`
//!
//! ```text
//!     Y = A_next L'⁻ᵀ,   Ψ_A = Y L'⁻¹,   Z = L⁻¹ Y,   Z Zᵀ = L⁻¹ C_A L⁻ᵀ = E diag(s) Eᵀ,   K = L⁻ᵀ E
//! ```
//!
//! and `Σ⁻¹ vec(V) = vec(K_G [(K_Gᵀ V K_A) / (1 - s_G s_Aᵀ)] K_Aᵀ)`. `s` holds squares of correlations between what the two
//! layers see, which damping keeps below 1. Appendix B takes the symmetric root of `Â` for `L`; the triangle serves as well,
//! and costs a product instead of a decomposition.

use super::Tridiagonal;
use super::layout::{computed_range, next_range, side_flops, widest};
use crate::damping::split::{Split, Trace, split_damping};
use crate::error::{LayerError, LayerErrorKind};
use crate::map::factored::{invert, write_damped, write_multiple_of_identity};
use crate::map::{MapError, largest, take};
use crate::report::RefreshReport;
use crate::shape::Side;
use kfac_linalg::cholesky::{self, CholeskyError};
use kfac_linalg::eigh::qr;
use kfac_linalg::product::{Accumulate, syrk_lower, trsm_lower, trsm_upper};
use kfac_linalg::{Kernel, MatMut, MatRef, PackedMut, Scalar};

/// `1 - s_G s_A` counts as no less than `√ε`, where half of the digits of what it divides are lost; a refresh in which it
/// falls below `-√ε` fails. Rounding moves `s` by some `ε` times the root of the condition of the damped factors.
pub(super) fn margin<T: Scalar>() -> T {
    T::EPSILON.sqrt()
}

/// Squares of scratch that the sides share.
struct Squares<'a, T> {
    /// `L`, and that of the next layer.
    triangle: &'a mut [T],
    next_triangle: &'a mut [T],
    /// `Y`, then `Z`.
    coupling: &'a mut [T],
    /// `Z Zᵀ`; the inverse of the last layer.
    product: &'a mut [T],
}

impl<T: Scalar, K: Kernel<T>> Tridiagonal<'_, T, K> {
    /// Computes everything into `staged`. The error is the one of a third failure.
    pub(super) fn compute(
        &mut self,
        lambda: T,
        staged: &mut [T],
        mut scratch: &mut [T],
        report: &mut RefreshReport,
    ) -> Result<(), LayerError> {
        let square = widest(&self.net) * widest(&self.net);
        let mut take = || take(&mut scratch, square).map_err(|error| LayerErrorKind::Scratch(error).at(0));
        let mut squares =
            Squares { triangle: take()?, next_triangle: take()?, coupling: take()?, product: take()? };
        for side in Side::BOTH {
            for layer in (0..self.net.len()).rev() {
                let range = computed_range(&self.net, layer, side);
                let place = (layer, side);
                let outcome = self.compute_side(place, lambda, &mut squares, &mut staged[range], scratch);
                let done = outcome.map_err(|error| third_failure(error).at(layer))?;
                report.sweeps = report.sweeps.max(done.sweeps);
                report.flops = report.flops.saturating_add(side_flops(&self.net, layer, side, done.sweeps));
                report.zero_traces += u32::from(done.vanished && side == Side::Input);
                core::mem::swap(&mut squares.triangle, &mut squares.next_triangle);
            }
        }
        self.expect_coupling(staged)
    }

    /// One side of one layer, from the triangle of the next layer; leaves its own.
    fn compute_side(
        &mut self,
        (layer, side): (usize, Side),
        lambda: T,
        squares: &mut Squares<'_, T>,
        out: &mut [T],
        scratch: &mut [T],
    ) -> Result<Done, MapError> {
        let (kernel, size) = (self.kernel, self.net[layer].side(side));
        let triangle = &mut squares.triangle[..size * size];
        let vanished = self.write_damped((layer, side), lambda, triangle)?;
        let Some(next) = self.net.get(layer + 1) else {
            let inverse = &mut squares.product[..size * size];
            inverse.copy_from_slice(triangle);
            invert(kernel, side, size, inverse, scratch)?;
            PackedMut::new(out, size)?.pack(MatRef::row_major(inverse, size, size)?)?;
            if layer > 0 {
                factor(kernel, side, MatMut::row_major(triangle, size, size)?, scratch)?;
            }
            return Ok(Done { sweeps: 0, vanished });
        };
        let next = next.side(side);
        factor(kernel, side, MatMut::row_major(triangle, size, size)?, scratch)?;
        let is_coupled = !vanished && matches!(self.split(layer + 1, lambda)?, Split::Shift { .. });
        let sum = &self.numbers[next_range(&self.net, layer, side)];
        let normaliser = if is_coupled { T::from_f64(1.0 / self.slot().weights[0]) } else { T::ZERO };
        let coupling = &mut squares.coupling[..size * next];
        for (value, &sum) in coupling.iter_mut().zip(sum) {
            *value = sum * normaliser;
        }
        let (basis, rest) = out.split_at_mut(size * size);
        let (squared, psi) = rest.split_at_mut(size);
        let matrices = Coupled {
            triangle: MatRef::row_major(triangle, size, size)?,
            next_triangle: MatRef::row_major(&squares.next_triangle[..next * next], next, next)?,
            coupling: MatMut::row_major(coupling, size, next)?,
            product: MatMut::row_major(&mut squares.product[..size * size], size, size)?,
            basis: MatMut::row_major(basis, size, size)?,
            psi: MatMut::row_major(psi, size, next)?,
        };
        let sweeps = matrices.solve(kernel, side, squared, scratch)?;
        for square in &mut *squared {
            *square = square.maximum(T::ZERO);
        }
        if out.iter().any(|value| !value.is_finite()) {
            return Err(MapError::NotFinite { side });
        }
        Ok(Done { sweeps, vanished })
    }

    /// The split of the damping of a layer.
    fn split(&mut self, layer: usize, lambda: T) -> Result<Split<T>, MapError> {
        let state = self.layer_state(layer);
        Ok(split_damping(Trace::of(&state.input)?, Trace::of(&state.output)?, lambda)?)
    }

    /// `Â` or `Ĝ`; says whether damping takes the place of both.
    fn write_damped(
        &mut self,
        (layer, side): (usize, Side),
        lambda: T,
        out: &mut [T],
    ) -> Result<bool, MapError> {
        let split = self.split(layer, lambda)?;
        let mut state = self.layer_state(layer);
        let state = state.side(side);
        match (split, side) {
            (Split::Shift { input, .. }, Side::Input) => write_damped(state, input, out)?,
            (Split::Shift { output, .. }, Side::Output) => write_damped(state, output, out)?,
            (Split::Replace { gamma }, _) => write_multiple_of_identity(state.size, gamma, out),
        }
        Ok(matches!(split, Split::Replace { .. }))
    }

    /// Refuses a layer of which the next one explains more than there is.
    fn expect_coupling(&self, staged: &[T]) -> Result<(), LayerError> {
        for layer in 0..self.net.len().saturating_sub(1) {
            let [input, output] = Side::BOTH.map(|side| {
                let size = self.net[layer].side(side);
                largest(&staged[computed_range(&self.net, layer, side)][size * size..][..size])
            });
            let share = input * output;
            let is_joint = share <= T::ONE + margin::<T>();
            if !is_joint {
                return Err(LayerErrorKind::Coupling { share: share.to_f64() }.at(layer));
            }
        }
        Ok(())
    }
}

/// What one side of a layer took.
struct Done {
    sweeps: u32,
    vanished: bool,
}

/// The matrices of one side of a layer that has a next one.
struct Coupled<'a, T> {
    triangle: MatRef<'a, T>,
    next_triangle: MatRef<'a, T>,
    /// `A_next`.
    coupling: MatMut<'a, T>,
    product: MatMut<'a, T>,
    /// `E`, then `K`.
    basis: MatMut<'a, T>,
    psi: MatMut<'a, T>,
}

impl<T: Scalar> Coupled<'_, T> {
    /// `Ψ`, `s` and `K`; gives the sweeps of the decomposition.
    fn solve<K: Kernel<T>>(
        mut self,
        kernel: K,
        side: Side,
        squared: &mut [T],
        scratch: &mut [T],
    ) -> Result<u32, MapError> {
        let singular = |error| MapError::Inverse { side, error: CholeskyError::from(error) };
        // Solutions from the right are those of the transposed systems.
        let y = self.coupling.reborrow().transposed();
        trsm_lower(kernel, self.next_triangle, y, scratch).map_err(singular)?;
        self.psi.copy_from(self.coupling.as_ref())?;
        let psi = self.psi.transposed();
        trsm_upper(kernel, self.next_triangle.transposed(), psi, scratch).map_err(singular)?;
        trsm_lower(kernel, self.triangle, self.coupling.reborrow(), scratch).map_err(singular)?;
        let (z, replace) = (self.coupling.as_ref(), Accumulate::Replace(T::ONE));
        syrk_lower(kernel, self.product.reborrow(), replace, z.transposed(), scratch)?;
        let outcome = qr::cold(kernel, self.product.as_ref(), self.basis.reborrow(), squared, scratch)
            .map_err(|error| MapError::Eigh { side, error })?;
        trsm_upper(kernel, self.triangle.transposed(), self.basis, scratch).map_err(singular)?;
        Ok(outcome.sweeps)
    }
}

fn factor<T: Scalar, K: Kernel<T>>(
    kernel: K,
    side: Side,
    matrix: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), MapError> {
    cholesky::factor(kernel, matrix, scratch).map_err(|error| MapError::Inverse { side, error })
}

fn third_failure(error: MapError) -> LayerErrorKind {
    match error {
        MapError::Scratch(error) => LayerErrorKind::Scratch(error),
        MapError::Internal(error) => LayerErrorKind::Internal(error),
        other => LayerErrorKind::ThirdFailure(other),
    }
}
