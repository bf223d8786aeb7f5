//! Symmetric product `XᵀX`, lower triangle only.

use super::{Accumulate, ProductError};
use crate::arch::product::{Packing, Product, Wanted, scratch_len};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::packed::PackedMut;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Scratch, in elements, that [`syrk`] and [`syrk_lower`] need for an `n x n` result and `k` observations.
pub const fn syrk_scratch_len<T: Scalar>(n: usize, k: usize) -> usize {
    scratch_len::<T>(n, n, k)
}

/// Lower triangle of `C = scale XᵀX` or `C += scale XᵀX`, in packed storage.
///
/// Half the flops of [`gemm`](super::gemm) and the same bits, under every kernel with instructions of its own.
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
    ShapeError::check("X", [k, n], x.shape())?;
    ScratchError::check(syrk_scratch_len::<T>(n, k), scratch.len())?;
    let half = c.half();
    let (x1, x2) = (x.block(0..k, 0..half)?, x.block(0..k, half..n)?);
    lower_part(kernel, c.first_columns()?, accumulate, [x, x1], scratch);
    lower_part(kernel, c.second_triangle()?, accumulate, [x2, x2], scratch);
    Ok(())
}

/// Lower triangle of `C = scale XᵀX` or `C += scale XᵀX`, in a full square.
///
/// Half the flops of [`gemm`](super::gemm) and the same bits, under every kernel with instructions of its own. The
/// strict upper triangle is neither read nor written.
///
/// # Shapes
/// `c`: `n x n`; `x`: `k x n`, its rows are observations; `scratch`: [`syrk_scratch_len`].
///
/// # Errors
/// [`ProductError::Shape`], [`ProductError::Scratch`]; `c` is untouched then.
pub fn syrk_lower<T: Scalar, K: Kernel<T>>(
    kernel: K,
    c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    x: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let (n, k) = (c.rows(), x.rows());
    ShapeError::check("C", [n, n], c.shape())?;
    ShapeError::check("X", [k, n], x.shape())?;
    ScratchError::check(syrk_scratch_len::<T>(n, k), scratch.len())?;
    lower_part(kernel, c, accumulate, [x, x], scratch);
    Ok(())
}

/// `X₁ᵀX₂`, on and below the diagonal.
fn lower_part<T: Scalar, K: Kernel<T>>(
    kernel: K,
    c: MatMut<'_, T>,
    store: Accumulate<T>,
    [x1, x2]: [MatRef<'_, T>; 2],
    scratch: &mut [T],
) {
    let (a, wanted, packing) = (x1.transposed(), Wanted::Lower, Packing::Measured);
    kernel.product(Product { c, store, a, b: x2, wanted, packing, scratch });
}
