//! General matrix product.

use super::{Accumulate, ProductError};
use crate::arch::product::{Packing, Product, Wanted, scratch_len};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Scratch, in elements, that [`gemm`] needs for an `m x n` result and `k` terms per element.
pub const fn gemm_scratch_len<T: Scalar>(m: usize, n: usize, k: usize) -> usize {
    scratch_len::<T>(m, n, k)
}

/// `C = scale A B` or `C += scale A B`.
///
/// An element of `C` depends on its row of `A`, its column of `B` and nothing else, to the bit: not on the shape of
/// the others, on strides, on the register width. The terms are cut into blocks of
/// [`chain_len`](super::chain_len), the last one shorter. In each block, `acc = acc + a b` from zero, in order; then
/// `c = scale acc` (the first block of [`Replace`](Accumulate::Replace)) or `c = c + scale acc`. Without terms,
/// `Replace` writes zero and `Add` leaves `C` as it was.
///
/// `x + y z` is rounded twice under [`Reproducible`](crate::Reproducible), so these bits are those of every target;
/// once under [`Fast`](crate::Fast), where the processor can.
///
/// # Shapes
/// `c`: `m x n`, `a`: `m x k`, `b`: `k x n`, any strides; a transposed operand is a transposed view.
/// `scratch`: [`gemm_scratch_len`].
///
/// # Errors
/// [`ProductError::Shape`], [`ProductError::Scratch`]; `c` is untouched then.
///
/// # Example
/// ```
/// use kfac_linalg::product::{Accumulate, gemm, gemm_scratch_len};
/// use kfac_linalg::{Fast, MatMut, MatRef};
///
/// let (a, b) = ([1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 10.0, 100.0]);
/// let mut c = [7.0; 2];
/// let mut scratch = [0.0; gemm_scratch_len::<f32>(2, 1, 3)];
/// let (a, b) = (MatRef::row_major(&a, 2, 3)?, MatRef::row_major(&b, 3, 1)?);
///
/// gemm(Fast::detect(), MatMut::row_major(&mut c, 2, 1)?, Accumulate::Replace(1.0), a, b, &mut scratch)?;
/// assert_eq!(c, [321.0, 654.0]);
/// // A transpose is another view of the same numbers.
/// let mut d = [0.0; 3];
/// let c = MatRef::row_major(&c, 2, 1)?;
/// let scratch = &mut [0.0; gemm_scratch_len::<f32>(3, 1, 2)];
/// gemm(Fast::detect(), MatMut::row_major(&mut d, 3, 1)?, Accumulate::Add(0.5), a.transposed(), c, scratch)?;
/// assert_eq!(d, [1468.5, 1956.0, 2443.5]);
/// # Ok::<(), kfac_linalg::Error>(())
/// ```
pub fn gemm<T: Scalar, K: Kernel<T>>(
    kernel: K,
    c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    ShapeError::check("B", [a.cols(), b.cols()], b.shape())?;
    ShapeError::check("C", [a.rows(), b.cols()], c.shape())?;
    ScratchError::check(gemm_scratch_len::<T>(c.rows(), c.cols(), a.cols()), scratch.len())?;
    let (wanted, packing) = (Wanted::All, Packing::Measured);
    kernel.product(Product { c, store: accumulate, a, b, wanted, packing, scratch });
    Ok(())
}
