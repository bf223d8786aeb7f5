//! `Q` from its reflectors, a block of them at a time.
//!
//! The product of a block of reflectors, the last one leftmost, is `I - V T Vᵀ` with `T` lower triangular:
//!
//! ```text
//!     t_j = -τ_j Σ_(p<j) (v_jᵀ v_p) t_p,  t_jj = τ_j        rows of T
//! ```
//!
//! Blocks are applied from the first one on, `Q -= V (T (Vᵀ Q))`, and each touches only the leading square that its
//! reflectors reach. In the last rows and columns of that square, those of the block, `Q` is the identity before: they
//! need no product with `Vᵀ`.
//!
//! Source: Schreiber and Van Loan 1989, SIAM J. Sci. Stat. Comput. 10:53.

use super::reduce::Columns;
use crate::arch::simd::{Simd, Task};
use crate::kernel::Kernel;
use crate::lengths::largest_len;
use crate::product::{Accumulate, ProductError, gemm, gemm_scratch_len, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::storage::{IN_LINE, row_len};
use crate::view::{MatMut, MatRef};

/// The most reflectors that are applied together.
const BLOCK: usize = 32;

/// Reflectors that are applied together, the first of them that of column `start`: fewer where the products with `T`
/// would be much beside those with `Q`. (All 16, measured: 3 % slower from 512 on; all 32: 9 % at 64; 64 from 512 on: no
/// faster.)
const fn block_len(start: usize) -> usize {
    if start < TALL { BLOCK / 2 } else { BLOCK }
}

/// Columns from which on blocks are full.
const TALL: usize = 128;

/// Room for the reflectors of an `n x n` matrix that are applied together, and for what is made of them.
#[derive(Clone, Copy)]
struct Room {
    /// The most reflectors.
    most: usize,
    /// Numbers in a row of `T`: whole registers.
    width: usize,
    /// Numbers in a reflector, padded: small matrices do without, all of theirs lie in the nearest cache.
    len: usize,
}

impl Room {
    const fn new(n: usize) -> Self {
        let width = if n <= TALL { BLOCK / 2 } else { BLOCK };
        let most = if n < width { n } else { width };
        Self { most, width, len: if n <= 2 * BLOCK { n.next_multiple_of(IN_LINE) } else { row_len(n) } }
    }

    /// Numbers in a square of `T`.
    const fn square(self) -> usize {
        self.most * self.width
    }

    /// Numbers in all reflectors.
    const fn rows(self) -> usize {
        self.most * self.len
    }
}

/// Scratch, in elements, that [`form_q`] needs.
pub(super) const fn scratch_len<T: Scalar>(n: usize) -> usize {
    let room = Room::new(n);
    let products = largest_len([
        gemm_scratch_len::<T>(n, n, room.most),
        syrk_scratch_len::<T>(room.most, n),
        gemm_scratch_len::<T>(room.most, n, n),
    ]);
    2 * room.square() + 3 * room.rows() + products
}

/// Writes `Q = H_(n-1) ... H_2`.
///
/// # Errors
/// None, if the lengths are those of the reduction.
pub(super) fn form_q<T: Scalar, K: Kernel<T>>(
    kernel: K,
    reflectors: &Columns<'_, T>,
    tau: &[T],
    mut q: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    let n = q.rows();
    let room @ Room { width, len, .. } = Room::new(n);
    let (gram, rest) = scratch.split_at_mut(room.square());
    let (triangle, rest) = rest.split_at_mut(room.square());
    let (v, rest) = rest.split_at_mut(room.rows());
    let (first, rest) = rest.split_at_mut(room.rows());
    let (second, pack) = rest.split_at_mut(room.rows());
    q.fill(T::ZERO);
    for i in 0..n {
        q.set(i, i, T::ONE);
    }
    let (replace, subtract) = (Accumulate::Replace(T::ONE), Accumulate::Add(-T::ONE));
    let mut end = 0;
    while end < n {
        let start = end;
        end = n.min(start + block_len(start));
        let cols = end - start;
        for (k, column) in (start..end).zip(v.chunks_exact_mut(len)) {
            reflectors.write_reflector(k, &mut column[..end]);
        }
        let v = MatRef::with_strides(v, [end, cols], [1, len])?;
        syrk_lower(kernel, MatMut::with_strides(gram, [cols, cols], [width, 1])?, replace, v, pack)?;
        kernel.run(Triangle { gram, tau: &tau[start..end], triangle, width });
        let t = MatRef::with_strides(triangle, [cols, cols], [width, 1])?;
        // Rows or columns of these two are neighbours where those of Q are.
        let strides = if q.col_stride() == 1 { [len, 1] } else { [1, width] };
        let mut v_q = MatMut::with_strides(first, [cols, end], strides)?;
        let (v_above, v_here) = (v.block(0..start, 0..cols)?, v.block(start..end, 0..cols)?);
        let done = q.as_ref().block(0..start, 0..start)?;
        gemm(kernel, v_q.reborrow().block(0..cols, 0..start)?, replace, v_above.transposed(), done, pack)?;
        v_q.reborrow().block(0..cols, start..end)?.copy_from(v_here.transposed())?;
        let mut t_v_q = MatMut::with_strides(second, [cols, end], strides)?;
        gemm(kernel, t_v_q.reborrow(), replace, t, v_q.as_ref(), pack)?;
        gemm(kernel, q.reborrow().block(0..end, 0..end)?, subtract, v, t_v_q.as_ref(), pack)?;
    }
    Ok(())
}

/// `T` of one block, row after row, from the lower triangle of `VᵀV`.
pub struct Triangle<'a, T> {
    gram: &'a [T],
    tau: &'a [T],
    triangle: &'a mut [T],
    /// Numbers in a row of both, whole registers.
    width: usize,
}

impl<T: Scalar> Task<T> for Triangle<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let width = self.width;
        self.triangle.fill(T::ZERO);
        for (j, &tau) in self.tau.iter().enumerate() {
            let (done, row) = self.triangle.split_at_mut(j * width);
            let factors = &self.gram[j * width..][..j];
            for (lanes, to) in row[..width].chunks_exact_mut(S::LANES).enumerate() {
                let mut sum = simd.zero();
                for (&factor, t) in factors.iter().zip(done.chunks_exact(width)) {
                    sum = simd.mul_add(simd.splat(factor), simd.load(&t[lanes * S::LANES..]), sum);
                }
                simd.store(to, simd.mul(simd.splat(-tau), sum));
            }
            row[j] = tau;
        }
    }
}
