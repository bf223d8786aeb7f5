//! matrixmultiply, through ndarray, which passes the call on with pointers and strides. Its operands are viewed before
//! the timed part; what is left of the way through is a comparison of shapes.

use crate::contest::Contender;
use crate::matrices::lower;
use crate::numbers::Number;
use kfac_linalg::{MatRef, Scalar};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

/// Name of this contender.
pub const NAME: &str = "matrixmultiply";

/// `C = A B`, row by row.
pub fn gemm<'a, T: Number>(c: &'a mut [T], a: MatRef<'a, T>, b: MatRef<'a, T>) -> Contender<'a> {
    let c = view_mut(c, a.rows(), b.cols());
    let (a, b) = (view(a), view(b));
    Contender::new(
        NAME,
        c,
        move |c| general_mat_mul(T::ONE, &a, &b, T::ZERO, c),
        |c| c.iter().map(|&x| Scalar::to_f64(x)).collect(),
    )
}

/// Lower triangle of `C = XᵀX`, by way of all of `C`: there is no symmetric product.
pub fn syrk<'a, T: Number>(c: &'a mut [T], x: MatRef<'a, T>) -> Contender<'a> {
    let c = view_mut(c, x.cols(), x.cols());
    let (x, transposed) = (view(x), view(x.transposed()));
    Contender::new(
        NAME,
        c,
        move |c| general_mat_mul(T::ONE, &transposed, &x, T::ZERO, c),
        |c| lower(c.nrows(), |i, j| Scalar::to_f64(c[[i, j]])),
    )
}

fn view<T: Number>(a: MatRef<'_, T>) -> ArrayView2<'_, T> {
    let shape = (a.rows(), a.cols()).strides((a.row_stride(), a.col_stride()));
    ArrayView2::from_shape(shape, a.data()).expect("a view reaches to its last element")
}

fn view_mut<T>(c: &mut [T], rows: usize, cols: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, cols), c).expect("the result has the length of the matrix")
}
