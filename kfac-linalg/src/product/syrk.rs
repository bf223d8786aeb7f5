//! Symmetric product `XᵀX`, lower triangle only.

use super::{Accumulate, PRODUCT_BLOCK, ProductError, gemm};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::packed::PackedMut;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Columns of one diagonal block. What lies above the diagonal inside a block is computed and thrown away, so
/// blocks are no larger than a product needs to run at speed.
const DIAGONAL: usize = 32;

/// Scratch, in elements, that [`syrk`] and [`syrk_lower`] need for an `n x n` result and `k` observations.
pub const fn syrk_scratch_len<T: Scalar, K: Kernel<T>>(n: usize, k: usize) -> usize {
    let side = if n < DIAGONAL { n } else { DIAGONAL };
    if k == 0 { side * side } else { side * side + K::PACK_LEN }
}

/// Lower triangle of `C = scale XᵀX` or `C += scale XᵀX`, in packed storage.
///
/// Half the flops of [`gemm`], and under [`Reproducible`](crate::Reproducible) the same bits.
///
/// # Shapes
/// `c`: `n x n`, packed; `x`: `k x n`, its rows are observations; `scratch`: [`syrk_scratch_len`].
///
/// # Errors
/// [`ProductError::Shape`], [`ProductError::Scratch`]; `c` is untouched then.
pub fn syrk<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut c: PackedMut<'_, T>,
    accumulate: Accumulate<T>,
    x: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let (n, k) = (c.n(), x.rows());
    ShapeError::check([k, n], x.shape())?;
    ScratchError::check(syrk_scratch_len::<T, K>(n, k), scratch.len())?;
    let half = c.half();
    let (x1, x2) = (x.block(0..k, 0..half)?, x.block(0..k, half..n)?);
    syrk_lower(kernel, c.first_triangle()?, accumulate, x1, scratch)?;
    gemm(kernel, c.rectangle()?, accumulate, x2.transposed(), x1, scratch)?;
    syrk_lower(kernel, c.second_triangle()?, accumulate, x2, scratch)
}

/// Lower triangle of `C = scale XᵀX` or `C += scale XᵀX`, in a full square.
///
/// Half the flops of [`gemm`], and under [`Reproducible`](crate::Reproducible) the same bits. The strict upper
/// triangle is neither read nor written.
///
/// # Shapes
/// `c`: `n x n`; `x`: `k x n`, its rows are observations; `scratch`: [`syrk_scratch_len`].
///
/// # Errors
/// [`ProductError::Shape`], [`ProductError::Scratch`]; `c` is untouched then.
pub fn syrk_lower<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    x: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let (n, k) = (c.rows(), x.rows());
    ShapeError::check([n, n], c.shape())?;
    ShapeError::check([k, n], x.shape())?;
    ScratchError::check(syrk_scratch_len::<T, K>(n, k), scratch.len())?;
    for start in (0..n).step_by(DIAGONAL) {
        let end = n.min(start + DIAGONAL);
        let rows = x.block(0..k, start..end)?;
        let left = c.reborrow().block(start..end, 0..start)?;
        gemm(kernel, left, accumulate, rows.transposed(), x.block(0..k, 0..start)?, scratch)?;
        diagonal_block(kernel, c.reborrow().block(start..end, start..end)?, accumulate, rows, scratch)?;
    }
    Ok(())
}

/// [`syrk_lower`] of one block: sums are formed in scratch, their lower triangle joins `c`.
///
/// One [`PRODUCT_BLOCK`] of observations at a time, so that `c` takes each of them as [`gemm`] would.
fn diagonal_block<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut c: MatMut<'_, T>,
    mut store: Accumulate<T>,
    x: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let [k, n] = x.shape();
    let (row_stride, col_stride) = (c.row_stride(), c.col_stride().max(1));
    let (square, pack) = scratch.split_at_mut(n * n);
    for start in (0..k).step_by(PRODUCT_BLOCK) {
        let rows = x.block(start..k.min(start + PRODUCT_BLOCK), 0..n)?;
        let sums = MatMut::row_major(square, n, n)?;
        gemm(kernel, sums, Accumulate::Replace(T::ONE), rows.transposed(), rows, pack)?;
        for (i, sums) in square.chunks_exact(n).enumerate() {
            let row = c.data_mut()[i * row_stride..].iter_mut().step_by(col_stride);
            store.join(row, &sums[..=i]);
        }
        store = store.next();
    }
    if k == 0 && matches!(store, Accumulate::Replace(_)) {
        (0..n).for_each(|i| (0..=i).for_each(|j| c.set(i, j, T::ZERO)));
    }
    Ok(())
}
