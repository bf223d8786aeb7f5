//! Products of [`Fast`](crate::Fast) by the `matrixmultiply` crate, for machines whose registers are plain arrays to us.

use super::product::{Product, Wanted};
use crate::product::Accumulate;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// One operand as `matrixmultiply` takes it: first element, distance between rows, distance between columns.
type Strided<P> = (P, isize, isize);

/// A number type with a `matrixmultiply` routine.
pub trait Gemm: Sized {
    /// `C = alpha A B + beta C`; `C` is not read when `beta` is zero.
    ///
    /// # Safety
    /// `c`, `a` and `b` are valid for `m x n`, `m x k` and `k x n` elements at their strides, and no element
    /// of `c` shares memory with another one of `c`, `a` or `b`.
    unsafe fn gemm(
        m_k_n: [usize; 3],
        alpha_beta: [Self; 2],
        c: Strided<*mut Self>,
        a: Strided<*const Self>,
        b: Strided<*const Self>,
    );
}

macro_rules! gemm {
    ($float:ident, $gemm:ident) => {
        impl Gemm for $float {
            unsafe fn gemm(
                [m, k, n]: [usize; 3],
                [alpha, beta]: [Self; 2],
                (c, rsc, csc): Strided<*mut Self>,
                (a, rsa, csa): Strided<*const Self>,
                (b, rsb, csb): Strided<*const Self>,
            ) {
                // SAFETY: the caller vouches for the three operands, in the routine's own terms.
                unsafe { matrixmultiply::$gemm(m, k, n, alpha, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc) }
            }
        }
    };
}

gemm!(f32, sgemm);
gemm!(f64, dgemm);

/// The distance to a neighbour, or 1 where there is none: such a stride is never used and may be any number.
///
/// A used stride is at most the length of a slice, which fits `isize`.
fn stride(stride: usize, neighbours: usize) -> isize {
    if neighbours > 1 { stride as isize } else { 1 }
}

/// Columns of a block on the diagonal. What is not wanted of it is computed and thrown away, so blocks are no larger
/// than a product needs to run at speed.
const DIAGONAL: usize = 32;

/// Forms the product. Blocks on the diagonal of a triangle go by way of the stack.
pub(crate) fn product<T: Scalar>(product: Product<'_, T>) {
    let Product { c, store, a, b, wanted, .. } = product;
    match wanted {
        Wanted::All => rectangle(c, store, a, b),
        Wanted::Lower => lower(c, store, a, b),
        Wanted::Upper => lower(c.transposed(), store, b.transposed(), a.transposed()),
    }
}

fn lower<T: Scalar>(mut c: MatMut<'_, T>, store: Accumulate<T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let ([m, n], k) = (c.shape(), a.cols());
    // Rows below the diagonal.
    let end = m.min(n);
    if let (Ok(below), Ok(theirs)) = (a.block(end..m, 0..k), c.reborrow().block(end..m, 0..n)) {
        rectangle(theirs, store, below, b);
    }
    for start in (0..end).step_by(DIAGONAL) {
        let rows = start..end.min(start + DIAGONAL);
        // Blocks of checked shapes exist; the pattern says so without a panic.
        let (Ok(mine), Ok(before), Ok(theirs)) =
            (a.block(rows.clone(), 0..k), b.block(0..k, 0..start), b.block(0..k, rows.clone()))
        else {
            return;
        };
        if let Ok(left) = c.reborrow().block(rows.clone(), 0..start) {
            rectangle(left, store, mine, before);
        }
        let mut square = [T::ZERO; DIAGONAL * DIAGONAL];
        let Ok(sums) = MatMut::row_major(&mut square, rows.len(), rows.len()) else { return };
        rectangle(sums, Accumulate::Replace(T::ONE), mine, theirs);
        for (row, sums) in rows.clone().zip(square.chunks(rows.len())) {
            for (col, &sum) in (start..=row).zip(sums) {
                let element = match store {
                    Accumulate::Replace(scale) => scale * sum,
                    Accumulate::Add(scale) => c.at(row, col) + scale * sum,
                };
                c.set(row, col, element);
            }
        }
    }
}

fn rectangle<T: Scalar>(mut c: MatMut<'_, T>, accumulate: Accumulate<T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let ([m, n], k) = (c.shape(), a.cols());
    assert!(a.shape() == [m, k] && b.shape() == [k, n], "gemm and syrk check shapes first");
    let (scale, keep) = match accumulate {
        Accumulate::Replace(scale) => (scale, T::ZERO),
        Accumulate::Add(scale) => (scale, T::ONE),
    };
    let c_strides = [stride(c.row_stride(), m), stride(c.col_stride(), n)];
    let a_strides = [stride(a.row_stride(), m), stride(a.col_stride(), k)];
    let b_strides = [stride(b.row_stride(), k), stride(b.col_stride(), n)];
    // SAFETY: a view's slice reaches from its first element to its last, so each pointer is valid for its shape,
    // compared above, at its strides. `MatMut` refuses strides under which two elements share memory, and its
    // exclusive borrow keeps `a` and `b` apart from it.
    unsafe {
        T::gemm(
            [m, k, n],
            [scale, keep],
            (c.data_mut().as_mut_ptr(), c_strides[0], c_strides[1]),
            (a.data().as_ptr(), a_strides[0], a_strides[1]),
            (b.data().as_ptr(), b_strides[0], b_strides[1]),
        );
    }
}
