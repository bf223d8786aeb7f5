//! Products of a matrix and a vector, in both layouts.

use crate::contest::{Contest, Stage};
use crate::matrices::noise;
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{self, faer, matrixmultiply};
use crate::rows::{Family, Subject};

const ORDERS: [usize; 3] = [64, 256, 1024];

/// How the matrix lies in memory, and which of our two products multiplies it.
#[derive(Clone, Copy)]
enum Way {
    /// Column by column: sums of columns.
    Columns,
    /// Row by row: dot products.
    RowsByDots,
    /// Row by row, in the order of a general product.
    RowsInOrder,
}

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS {
        for (family, name, way) in [
            (Family::Gemv, "columns", Way::Columns),
            (Family::Gemv, "rows", Way::RowsByDots),
            (Family::GemvInOrder, "rows", Way::RowsInOrder),
        ] {
            let case = format!("{n}/{name}");
            contest::<T>(stage, Subject { family, precision: T::PRECISION, size: n, case }, way);
        }
    }
}

fn contest<T: Number>(stage: &mut Stage, subject: Subject, way: Way) {
    if !stage.wants(&subject) {
        return;
    }
    let n = subject.size;
    let (a, x) = (Buffer::<T>::nearest(&noise(n * n, 1)), Buffer::<T>::nearest(&noise(n, 2)));
    let (rows, column) = (a.matrix(n, n), x.matrix(n, 1));
    let [mut own, mut one, mut other, mut third] = [(); 4].map(|()| Buffer::<T>::zeros(n));
    let (a, ours) = match way {
        Way::Columns => (rows.transposed(), ours::gemv(&mut own, rows.transposed(), &x)),
        Way::RowsByDots => (rows, ours::gemv_dots(&mut own, rows, &x)),
        Way::RowsInOrder => (rows, ours::gemv(&mut own, rows, &x)),
    };
    let contenders = vec![
        ours,
        faer::gemm(&mut one, a, column),
        matrixmultiply::gemm(&mut other, a, column),
        peers::gemm::gemm(&mut third, a, column),
    ];
    stage.hold(Contest::of_speed(subject, rounding::<T>(n)), contenders);
}
