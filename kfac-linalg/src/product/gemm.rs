//! General matrix product.

use super::{Accumulate, ProductError};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Scratch, in elements, that [`gemm`] needs for an `m x n` result and `k` terms per element.
pub const fn gemm_scratch_len<T: Scalar, K: Kernel<T>>(m: usize, n: usize, k: usize) -> usize {
    if m == 0 || n == 0 || k == 0 { 0 } else { K::PACK_LEN }
}

/// `C = scale A B` or `C += scale A B`.
///
/// Under [`Reproducible`](crate::Reproducible) an element of `C` depends on its row of `A`, its column of `B` and
/// nothing else. The terms are cut into blocks of [`PRODUCT_BLOCK`](super::PRODUCT_BLOCK), the last one shorter.
/// In each block, `acc = acc + a b` from zero, in order, unfused; then `c = scale acc` (the first block of
/// [`Replace`](Accumulate::Replace)) or `c = c + scale acc`. Without terms, `Replace` writes zero and `Add`
/// leaves `C` as it was.
///
/// # Shapes
/// `c`: `m x n`, `a`: `m x k`, `b`: `k x n`, any strides; a transposed operand is a transposed view.
/// `scratch`: [`gemm_scratch_len`].
///
/// # Errors
/// [`ProductError::Shape`], [`ProductError::Scratch`]; `c` is untouched then.
pub fn gemm<T: Scalar, K: Kernel<T>>(
    kernel: K,
    c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    ShapeError::check([a.cols(), b.cols()], b.shape())?;
    ShapeError::check([a.rows(), b.cols()], c.shape())?;
    ScratchError::check(gemm_scratch_len::<T, K>(c.rows(), c.cols(), a.cols()), scratch.len())?;
    kernel.product(c, accumulate, a, b, scratch);
    Ok(())
}
