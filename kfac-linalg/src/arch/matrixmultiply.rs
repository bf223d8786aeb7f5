//! [`Fast`](crate::Fast) on the `matrixmultiply` crate.
#![allow(unsafe_code)]

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

/// `C = scale A B` or `C += scale A B`; shapes have been checked.
pub(crate) fn product<T: Scalar>(
    mut c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
) {
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
