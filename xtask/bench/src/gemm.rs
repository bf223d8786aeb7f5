//! General products: `Fast` against the peers and the peak of the machine, `Reproducible` against `Fast`.

use crate::contest::{Contender, Contest, Stage};
use crate::matrices::noise;
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{self, faer, matrixmultiply, peak};
use crate::rows::{Family, Subject};
use kfac_linalg::{Fast, InstructionSet, MatRef, Reproducible, ReproducibleOn};

/// `m x k x n`: the result, between its dimensions the terms of an element.
type Shape = [usize; 3];

/// Orders of square products.
const ORDERS: [usize; 13] = [16, 24, 32, 48, 64, 96, 128, 129, 200, 257, 512, 785, 1024];

/// The products of a layer of MNIST's size, on a batch and on the way back.
const RECTANGLES: [Shape; 2] = [[400, 785, 128], [128, 785, 400]];

/// Whole registers and whole cache lines.
const ALIGNED: [usize; 4] = [128, 256, 384, 512];

/// Every size from where `Reproducible` has a goal.
const REPRODUCIBLE: [usize; 6] = [64, 128, 200, 257, 512, 1024];

/// How an operand lies in memory.
#[derive(Clone, Copy)]
enum Order {
    /// Row by row.
    Rows,
    /// Column by column: the transpose of a matrix that lies row by row.
    Columns,
}

/// Names of the layouts, with those of A and B.
const LAYOUTS: [(&str, [Order; 2]); 4] = [
    ("nn", [Order::Rows, Order::Rows]),
    ("nt", [Order::Rows, Order::Columns]),
    ("tn", [Order::Columns, Order::Rows]),
    ("tt", [Order::Columns, Order::Columns]),
];

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    let squares = ORDERS.map(|n| [n; 3]);
    for shape in squares.into_iter().chain(RECTANGLES) {
        for (layout, orders) in LAYOUTS {
            let case = format!("{}/{layout}", name(shape));
            contest::<T, 4>(stage, (Family::Gemm, case), (shape, orders), |[w, x, y, z], a, b| {
                vec![
                    ours::gemm(Fast::detect(), w, a, b),
                    faer::gemm(x, a, b),
                    matrixmultiply::gemm(y, a, b),
                    peers::gemm::gemm(z, a, b),
                ]
            });
        }
    }
    let [(_, orders), ..] = LAYOUTS;
    for n in ALIGNED {
        contest::<T, 1>(stage, (Family::GemmPeak, n.to_string()), ([n; 3], orders), |[x], a, b| {
            vec![ours::gemm(Fast::detect(), x, a, b), peak::flops::<T>(2 * n * n * n)]
        });
    }
    for n in REPRODUCIBLE {
        let family = Family::GemmReproducible;
        contest::<T, 3>(stage, (family, n.to_string()), ([n; 3], orders), |[x, y, z], a, b| {
            let plain = InstructionSet::available().last().expect("every machine has plain arrays");
            vec![
                ours::gemm(Reproducible, x, a, b),
                ours::gemm(Fast::detect(), y, a, b).named("Fast"),
                ours::gemm(ReproducibleOn(plain), z, a, b).named("plain arrays"),
            ]
        });
    }
}

/// One contest: `N` of the contenders want memory for their result.
fn contest<T: Number, const N: usize>(
    stage: &mut Stage,
    (family, case): (Family, String),
    (shape, orders): (Shape, [Order; 2]),
    contenders: impl for<'a> Fn([&'a mut [T]; N], MatRef<'a, T>, MatRef<'a, T>) -> Vec<Contender<'a>>,
) {
    let [m, k, n] = shape;
    let subject = Subject { family, precision: T::PRECISION, size: m.min(k).min(n), case };
    if !stage.wants(&subject) {
        return;
    }
    let (a, b) = (Buffer::nearest(&noise(m * k, 1)), Buffer::nearest(&noise(k * n, 2)));
    let mut results: [Buffer<T>; N] = std::array::from_fn(|_| Buffer::zeros(m * n));
    let (a, b) = (matrix(&a, [m, k], orders[0]), matrix(&b, [k, n], orders[1]));
    let contenders = contenders(results.each_mut().map(|result| &mut **result), a, b);
    stage.hold(Contest::of_speed(subject, rounding::<T>(k)), contenders);
}

fn matrix<T: Number>(numbers: &Buffer<T>, [rows, cols]: [usize; 2], order: Order) -> MatRef<'_, T> {
    match order {
        Order::Rows => numbers.matrix(rows, cols),
        Order::Columns => numbers.matrix(cols, rows).transposed(),
    }
}

fn name([m, k, n]: Shape) -> String {
    if m == k && k == n { n.to_string() } else { format!("{m}x{k}x{n}") }
}
