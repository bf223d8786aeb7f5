//! Products along one axis of a tensor, on strided views of the numbers as they lie: nothing is unfolded.
//!
//! Row-major, a tensor is `before` blocks of `side x after` numbers; a block is a matrix whose rows run along the axis. For
//! the last axis, `after = 1`, the tensor is one `before x side` matrix.

use super::memory::TensorState;
use super::shape::TensorShape;
use crate::map::{MapError, take};
use core::fmt;
use kfac_linalg::eigh::EighError;
use kfac_linalg::eigh::roots::RootError;
use kfac_linalg::product::{Accumulate, ProductError, gemm, gemm_scratch_len, syrk, syrk_scratch_len};
use kfac_linalg::{Kernel, MatMut, MatRef, PackedMut, Scalar};

/// Why an axis has no root, or no basis.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum AxisError {
    /// Its second moment could not be decomposed.
    Eigh(EighError),
    /// The eigenvalues have no such root.
    Root(RootError),
    /// A finite second moment gave eigenvectors that are not.
    NotFinite,
}

impl fmt::Display for AxisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eigh(error) => write!(f, "no eigenbasis of the second moment: {error}"),
            Self::Root(error) => write!(f, "no root of the second moment: {error}"),
            Self::NotFinite => f.write_str("the eigenbasis of the second moment is not finite"),
        }
    }
}

impl core::error::Error for AxisError {}

impl AxisError {
    pub(super) fn at(self, axis: usize) -> MapError {
        MapError::Axis { axis, error: self }
    }
}

/// Scratch of [`add_moment`] and [`multiply`] along any preconditioned axis.
pub(super) const fn products_len<T: Scalar>(shape: TensorShape) -> usize {
    let (mut most, mut axis) = (0, 0);
    while axis < shape.order() {
        if shape.is_preconditioned(axis) {
            let [before, side, after] = shape.blocks(axis);
            let (syrk, gemm) = if after == 1 {
                (syrk_scratch_len::<T>(side, before), gemm_scratch_len::<T>(before, side, side))
            } else {
                (syrk_scratch_len::<T>(side, after), gemm_scratch_len::<T>(side, after, side))
            };
            most = crate::memory::max(most, crate::memory::max(syrk, gemm));
        }
        axis += 1;
    }
    most
}

/// `L_i += scale V_(i) V_(i)ᵀ`.
pub(super) fn add_moment<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut sum: PackedMut<'_, T>,
    scale: T,
    (shape, axis): (TensorShape, usize),
    values: &[T],
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let [before, side, after] = shape.blocks(axis);
    let add = Accumulate::Add(scale);
    if after == 1 {
        return syrk(kernel, sum, add, MatRef::row_major(values, before, side)?, scratch);
    }
    for block in values.chunks_exact(side * after) {
        let columns = MatRef::row_major(block, side, after)?.transposed();
        syrk(kernel, sum.reborrow(), add, columns, scratch)?;
    }
    Ok(())
}

/// `to = M ×_i from`; `m`: `n_i x n_i`.
fn multiply<T: Scalar, K: Kernel<T>>(
    kernel: K,
    m: MatRef<'_, T>,
    (shape, axis): (TensorShape, usize),
    from: &[T],
    to: &mut [T],
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let [before, side, after] = shape.blocks(axis);
    let replace = Accumulate::Replace(T::ONE);
    if after == 1 {
        let rows = MatRef::row_major(from, before, side)?;
        return gemm(kernel, MatMut::row_major(to, before, side)?, replace, rows, m.transposed(), scratch);
    }
    let len = side * after;
    for (from, to) in from.chunks_exact(len).zip(to.chunks_exact_mut(len)) {
        let (from, to) = (MatRef::row_major(from, side, after)?, MatMut::row_major(to, side, after)?);
        gemm(kernel, to, replace, m, from, scratch)?;
    }
    Ok(())
}

/// Which of the two products with the matrix of an axis.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Factor {
    /// With the matrix itself: out of an eigenbasis.
    Plain,
    /// With its transpose: into an eigenbasis.
    Transposed,
}

/// Multiplies `values` in place by the matrices of all preconditioned axes. Scratch: the tensor once more, and
/// [`products_len`].
pub(super) fn multiply_axes<T: Scalar, K: Kernel<T>>(
    kernel: K,
    tensor: &TensorState<'_, T>,
    factor: Factor,
    values: &mut [T],
    mut scratch: &mut [T],
) -> Result<(), MapError> {
    let other = take(&mut scratch, values.len())?;
    let mut is_in_other = false;
    for axis in tensor.shape.axes() {
        let m = tensor.matrix(axis)?;
        let m = if factor == Factor::Plain { m } else { m.transposed() };
        let (from, to) = if is_in_other { (&*other, &mut *values) } else { (&*values, &mut *other) };
        multiply(kernel, m, (tensor.shape, axis), from, to, scratch)?;
        is_in_other = !is_in_other;
    }
    if is_in_other {
        values.copy_from_slice(other);
    }
    Ok(())
}
