//! `V` to `U`: `u = Ξᵀ Λ Ξ v`, layer by layer in one slice.

use super::Tridiagonal;
use super::computed::margin;
use super::layout::{computed_range, half_len, widest};
use crate::map::{MapError, take};
use crate::memory::unpack;
use crate::shape::{LayerShape, Side};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, ShapeError};

impl<T: Scalar, K: Kernel<T>> Tridiagonal<'_, T, K> {
    /// `v`: the gradients of all layers, row-major, one after the other.
    pub(super) fn apply(&self, v: &mut [T], mut scratch: &mut [T]) -> Result<(), MapError> {
        let square = take(&mut scratch, widest(&self.net) * widest(&self.net))?;
        let half = take(&mut scratch, half_len(&self.net))?;
        let mut products = Products { kernel: self.kernel, half, shape: [0; 2], scratch };
        // Ξ: the next layer's `V` is still the one that came.
        let mut start = 0;
        for (layer, pair) in self.net.windows(2).enumerate() {
            let [this, next] = gradients_of(pair, &mut v[start..])?;
            let [psi_a, psi_g] = self.psi_of(layer)?;
            products.half(psi_g, next.as_ref())?;
            products.half_to(this, Accumulate::Add(-T::ONE), psi_a.transposed())?;
            start += pair[0].weights();
        }
        // Λ.
        let mut start = 0;
        for (layer, shape) in self.net.iter().enumerate() {
            let this = &mut v[start..][..shape.weights()];
            let this = MatMut::row_major(this, shape.outputs(), shape.inputs())?;
            if layer + 1 == self.net.len() {
                self.apply_last(this, square, &mut products)?;
            } else {
                self.apply_coupled(layer, this, &mut products)?;
            }
            start += shape.weights();
        }
        // Ξᵀ: from the end, so that the layer before is still without its own part.
        for (layer, pair) in self.net.windows(2).enumerate().rev() {
            start -= pair[1].weights();
            let [this, next] = gradients_of(pair, &mut v[start - pair[0].weights()..])?;
            let [psi_a, psi_g] = self.psi_of(layer)?;
            products.half(this.as_ref(), psi_a)?;
            products.subtract_before_half(psi_g.transposed(), next)?;
        }
        Ok(())
    }

    /// `Ĝ⁻¹ V Â⁻¹`.
    fn apply_last(
        &self,
        v: MatMut<'_, T>,
        square: &mut [T],
        products: &mut Products<'_, T, K>,
    ) -> Result<(), MapError> {
        let layer = self.net.len() - 1;
        let [n, m] = Side::BOTH.map(|side| self.net[layer].side(side));
        let [a, g] = Side::BOTH.map(|side| &self.computed()[computed_range(&self.net, layer, side)]);
        products.half(unpack(g, m, &mut square[..m * m])?, v.as_ref())?;
        products.half_to(v, Accumulate::Replace(T::ONE), unpack(a, n, &mut square[..n * n])?)
    }

    /// `K_G [(K_Gᵀ V K_A) / (1 - s_G s_Aᵀ)] K_Aᵀ`.
    fn apply_coupled(
        &self,
        layer: usize,
        mut v: MatMut<'_, T>,
        products: &mut Products<'_, T, K>,
    ) -> Result<(), MapError> {
        let [n, m] = Side::BOTH.map(|side| self.net[layer].side(side));
        let [a, g] = Side::BOTH.map(|side| &self.computed()[computed_range(&self.net, layer, side)]);
        let (basis_a, basis_g) = (MatRef::row_major(a, n, n)?, MatRef::row_major(g, m, m)?);
        let (squared_a, squared_g) = (&a[n * n..][..n], &g[m * m..][..m]);
        let replace = Accumulate::Replace(T::ONE);
        products.half(basis_g.transposed(), v.as_ref())?;
        products.half_to(v.reborrow(), replace, basis_a)?;
        for (i, &in_g) in squared_g.iter().enumerate() {
            for (j, &in_a) in squared_a.iter().enumerate() {
                let rest = (T::ONE - in_g * in_a).maximum(margin::<T>());
                v.set(i, j, v.at(i, j) / rest);
            }
        }
        products.half(basis_g, v.as_ref())?;
        products.half_to(v, replace, basis_a.transposed())
    }

    /// `Ψ_A` and `Ψ_G` of a layer that has a next one.
    fn psi_of(&self, layer: usize) -> Result<[MatRef<'_, T>; 2], MapError> {
        let psi = |side: Side| {
            let (size, next) = (self.net[layer].side(side), self.net[layer + 1].side(side));
            let numbers = &self.computed()[computed_range(&self.net, layer, side)];
            MatRef::row_major(&numbers[size * size + size..], size, next)
        };
        Ok([psi(Side::Input)?, psi(Side::Output)?])
    }
}

/// The gradients of two neighbours, at the front of `v`.
fn gradients_of<'v, T: Scalar>(
    pair: &[LayerShape],
    v: &'v mut [T],
) -> Result<[MatMut<'v, T>; 2], ShapeError> {
    let (first, second) = (pair[0], pair[1]);
    let (this, rest) = v.split_at_mut(first.weights());
    Ok([
        MatMut::row_major(this, first.outputs(), first.inputs())?,
        MatMut::row_major(&mut rest[..second.weights()], second.outputs(), second.inputs())?,
    ])
}

/// Products of three matrices, by way of the product of two.
struct Products<'a, T, K> {
    kernel: K,
    half: &'a mut [T],
    /// Shape of what `half` holds.
    shape: [usize; 2],
    scratch: &'a mut [T],
}

impl<T: Scalar, K: Kernel<T>> Products<'_, T, K> {
    /// `half = left right`.
    fn half(&mut self, left: MatRef<'_, T>, right: MatRef<'_, T>) -> Result<(), MapError> {
        self.shape = [left.rows(), right.cols()];
        let half = MatMut::row_major(self.half, self.shape[0], self.shape[1])?;
        Ok(gemm(self.kernel, half, Accumulate::Replace(T::ONE), left, right, self.scratch)?)
    }

    /// `half right` to, or added to, `out`.
    fn half_to(
        &mut self,
        out: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        right: MatRef<'_, T>,
    ) -> Result<(), MapError> {
        let half = MatRef::row_major(self.half, self.shape[0], self.shape[1])?;
        Ok(gemm(self.kernel, out, accumulate, half, right, self.scratch)?)
    }

    /// `out -= left half`.
    fn subtract_before_half(&mut self, left: MatRef<'_, T>, out: MatMut<'_, T>) -> Result<(), MapError> {
        let half = MatRef::row_major(self.half, self.shape[0], self.shape[1])?;
        Ok(gemm(self.kernel, out, Accumulate::Add(-T::ONE), left, half, self.scratch)?)
    }
}
