//! Triangular systems: residuals, every triangle and layout, what is not read, and every way to fail.

mod common;

use common::{nan, random, tolerance, widened};
use kfac_linalg::product::{TrsmError, trsm_lower, trsm_scratch_len, trsm_upper};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar, ScratchError,
    ShapeError,
};

/// Around groups of eight rows and blocks of 64.
const SIZES: [usize; 14] = [0, 1, 2, 3, 5, 7, 8, 9, 63, 64, 65, 100, 128, 257];

/// A well-conditioned lower triangle, row-major, and what must not be read above it.
fn triangle<T: Scalar>(n: usize) -> Vec<T> {
    let mut t: Vec<T> = random(n * n, 1);
    for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let x = &mut t[i * n + j];
        *x = match i.cmp(&j) {
            std::cmp::Ordering::Less => nan::<T>(),
            // Negative too: a triangle need not be a factor.
            std::cmp::Ordering::Equal if i % 3 == 1 => T::from_f64(-2.0),
            std::cmp::Ordering::Equal => T::from_f64(2.0),
            std::cmp::Ordering::Greater => *x / T::from_usize(n),
        };
    }
    t
}

/// Which triangle of which view.
#[derive(Clone, Copy, Debug)]
enum Side {
    Lower,
    Upper,
}

/// The solution, with scratch of exactly the promised length, filled with NaN.
fn solution<T: Scalar, K: Kernel<T>>(
    kernel: K,
    (side, t): (Side, MatRef<'_, T>),
    b: MatRef<'_, T>,
    strides: [usize; 2],
) -> Vec<T> {
    let [n, cols] = b.shape();
    let scratch = &mut vec![nan::<T>(); trsm_scratch_len::<T>(n, cols)];
    let mut data = vec![T::ZERO; 4 * n * cols + 8];
    let mut x = MatMut::with_strides(&mut data, [n, cols], strides).unwrap();
    x.copy_from(b).unwrap();
    match side {
        Side::Lower => trsm_lower(kernel, t, x.reborrow(), scratch).unwrap(),
        Side::Upper => trsm_upper(kernel, t, x.reborrow(), scratch).unwrap(),
    }
    (0..n * cols).map(|at| x.at(at / cols, at % cols)).collect()
}

fn residual_is_small<T: Scalar, K: Kernel<T>>(kernel: K, types: &str) {
    for (n, cols) in SIZES.into_iter().flat_map(|n| [(n, 1), (n, 19), (n, 70)]) {
        let (t, b) = (triangle::<T>(n), random::<T>(n * cols, 2));
        let (t, b) = (MatRef::row_major(&t, n, n).unwrap(), MatRef::row_major(&b, n, cols).unwrap());
        for side in [Side::Lower, Side::Upper] {
            // The upper triangle is the transpose of the lower one.
            let view = if let Side::Lower = side { t } else { t.transposed() };
            let x = widened(&solution(kernel, (side, view), b, [cols, 1]));
            for (i, j) in (0..n).flat_map(|i| (0..cols).map(move |j| (i, j))) {
                let range = if let Side::Lower = side { 0..i + 1 } else { i..n };
                let terms = || range.clone().map(|p| view.at(i, p).to_f64() * x[p * cols + j]);
                let left: f64 = terms().sum::<f64>() - b.at(i, j).to_f64();
                let size = terms().map(f64::abs).sum::<f64>() + b.at(i, j).to_f64().abs();
                let units = left.abs() / (size * T::EPSILON.to_f64() * n as f64).max(f64::MIN_POSITIVE);
                let bound = tolerance::TRIANGLE;
                assert!(units <= bound, "{types}, {side:?}, {n} x {cols}, ({i}, {j}): {units:.2} n eps");
            }
        }
    }
}

#[test]
fn the_triangle_times_the_solution_is_the_right_hand_side() {
    residual_is_small::<f32, _>(Reproducible, "f32, Reproducible");
    residual_is_small::<f64, _>(Reproducible, "f64, Reproducible");
    for set in InstructionSet::available() {
        residual_is_small::<f32, _>(Fast::on(set), &format!("f32, Fast on {set}"));
        residual_is_small::<f64, _>(Fast::on(set), &format!("f64, Fast on {set}"));
    }
}

fn bits_do_not_depend_on_layout_or_registers<T: Scalar>() {
    let (n, cols) = (100, 37);
    let (t, b) = (triangle::<T>(n), random::<T>(n * cols, 3));
    let (t, b) = (MatRef::row_major(&t, n, n).unwrap(), MatRef::row_major(&b, n, cols).unwrap());
    let spread: Vec<T> = (0..2 * n * n).map(|at| t.at(at / 2 % n, at / 2 / n)).collect();
    let spread = MatRef::with_strides(&spread, [n, n], [2, 2 * n]).unwrap();
    for (side, view, same) in [(Side::Lower, t, spread), (Side::Upper, t.transposed(), spread.transposed())] {
        let plain = solution(Reproducible, (side, view), b, [cols, 1]);
        for set in InstructionSet::available() {
            for strides in [[cols, 1], [1, n], [1, n + 1], [3 * cols, 2]] {
                for t in [view, same] {
                    let found = solution(ReproducibleOn(set), (side, t), b, strides);
                    assert!(found == plain, "{side:?}, {set}, strides {strides:?}");
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_the_numbers_alone() {
    bits_do_not_depend_on_layout_or_registers::<f32>();
    bits_do_not_depend_on_layout_or_registers::<f64>();
}

#[test]
fn a_column_does_not_depend_on_its_neighbours() {
    let (n, cols) = (130, 50);
    let (t, b) = (triangle::<f32>(n), random::<f32>(n * cols, 4));
    let (t, b) = (MatRef::row_major(&t, n, n).unwrap(), MatRef::row_major(&b, n, cols).unwrap());
    let all = solution(Reproducible, (Side::Lower, t), b, [cols, 1]);
    for j in [0, 17, 49] {
        let one = solution(Reproducible, (Side::Lower, t), b.block(0..n, j..j + 1).unwrap(), [1, 1]);
        assert!((0..n).all(|i| one[i] == all[i * cols + j]), "column {j}");
    }
}

#[test]
fn what_cannot_be_solved_is_refused_by_name_and_nothing_is_written() {
    let scratch = &mut [0.0; trsm_scratch_len::<f64>(2, 3)];
    let mut b = [7.0; 6];
    for bad in [0.0, -0.0, f64::NAN, f64::INFINITY, 5e-324] {
        for at in [0, 1] {
            let mut t = [1.0, 0.0, 3.0, 1.0];
            t[3 * at] = bad;
            let t = MatRef::row_major(&t, 2, 2).unwrap();
            let refusals = [
                trsm_lower(Reproducible, t, MatMut::row_major(&mut b, 2, 3).unwrap(), scratch),
                trsm_upper(Reproducible, t, MatMut::row_major(&mut b, 2, 3).unwrap(), scratch),
            ];
            for refusal in refusals {
                let Err(TrsmError::Diagonal { index, value }) = refusal else {
                    panic!("{bad:e} at {at} was not refused: {refusal:?}");
                };
                assert!(
                    index == at && value.to_bits() == bad.to_bits(),
                    "{bad:e} at {at}: {value:e} at {index}"
                );
            }
        }
    }
    let t = MatRef::row_major(&[1.0; 4], 2, 2).unwrap();
    let refused = trsm_lower(Reproducible, t, MatMut::row_major(&mut b, 3, 2).unwrap(), scratch);
    assert_eq!(refused, Err(TrsmError::Shape(ShapeError::matrix("B", [2, 2], [3, 2]))));
    let oblong = MatRef::row_major(&[1.0; 6], 2, 3).unwrap();
    let refused = trsm_upper(Reproducible, oblong, MatMut::row_major(&mut b, 2, 3).unwrap(), scratch);
    assert_eq!(refused, Err(TrsmError::Shape(ShapeError::matrix("T", [2, 2], [2, 3]))));
    let refused = trsm_lower(Reproducible, t, MatMut::row_major(&mut b, 2, 3).unwrap(), &mut scratch[1..]);
    let needed = trsm_scratch_len::<f64>(2, 3);
    assert_eq!(refused, Err(TrsmError::Scratch(ScratchError { needed, found: needed - 1 })));
    assert_eq!(b, [7.0; 6]);
}
