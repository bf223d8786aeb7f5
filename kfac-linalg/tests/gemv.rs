//! Matrix times vector: the bits of `gemm` in one order of summation, those of `dot` in the other.

mod common;

use common::{With, nan, random};
use kfac_linalg::product::{Accumulate, dot, gemv, gemv_dots};
use kfac_linalg::{Fast, InstructionSet, Kernel, MatMut, MatRef, ReproducibleOn, Scalar, ShapeError};

/// Rows and terms around registers, around what is under way at a time, and past one chain of terms.
const SHAPES: [[usize; 2]; 18] = [
    [0, 0],
    [0, 3],
    [3, 0],
    [1, 1],
    [1, 5],
    [1, 100],
    [2, 17],
    [3, 16],
    [5, 3],
    [15, 33],
    [16, 16],
    [17, 15],
    [100, 1],
    [100, 513],
    [257, 100],
    [511, 7],
    [513, 64],
    [1030, 9],
];

/// Row-major, column-major, gaps beside contiguous rows or columns, and gaps everywhere.
fn layouts([rows, cols]: [usize; 2]) -> [[usize; 2]; 5] {
    [[cols, 1], [1, rows], [cols + 3, 1], [1, rows + 3], [3 * cols + 2, 3]]
}

/// Both ways to write a result; what `Replace` finds must not be read.
fn accumulations<T: Scalar>(m: usize) -> [(Accumulate<T>, Vec<T>); 2] {
    let (replace, add) = (Accumulate::Replace(T::from_f64(0.7)), Accumulate::Add(T::from_f64(-1.3)));
    [(replace, vec![nan::<T>(); m]), (add, random(m, 3))]
}

fn gemv_equals_gemm<T: Scalar, K: Kernel<T>>(kernel: K, case: &str) {
    for [m, k] in SHAPES {
        let (numbers, x) = (random::<T>((3 * m + 3) * (k + 3) + 9, 1), random::<T>(k, 2));
        for strides in layouts([m, k]) {
            let a = MatRef::with_strides(&numbers, [m, k], strides).unwrap();
            for (accumulate, before) in accumulations::<T>(m) {
                let (mut y, mut want) = (before.clone(), before);
                gemv(kernel, &mut y, accumulate, a, &x).unwrap();
                let c = MatMut::row_major(&mut want, m, 1).unwrap();
                With(kernel).gemm(c, accumulate, a, MatRef::row_major(&x, k, 1).unwrap());
                assert!(y == want, "{case}: {m} x {k}, strides {strides:?}, {accumulate:?}");
            }
        }
    }
}

#[test]
fn gemv_gives_the_bits_of_gemm_on_every_instruction_set() {
    for set in InstructionSet::available() {
        gemv_equals_gemm::<f32, _>(ReproducibleOn(set), &format!("f32, Reproducible on {set}"));
        gemv_equals_gemm::<f64, _>(ReproducibleOn(set), &format!("f64, Reproducible on {set}"));
        // Elsewhere another library may form the product.
        if set.is_fused() {
            gemv_equals_gemm::<f32, _>(Fast::on(set), &format!("f32, Fast on {set}"));
            gemv_equals_gemm::<f64, _>(Fast::on(set), &format!("f64, Fast on {set}"));
        }
    }
}

fn dots_agree<T: Scalar, K: Kernel<T>>(kernel: K, exactly: bool, case: &str) {
    for [m, k] in SHAPES {
        let (numbers, x) = (random::<T>((3 * m + 3) * (k + 3) + 9, 4), random::<T>(k, 5));
        for strides in layouts([m, k]) {
            let a = MatRef::with_strides(&numbers, [m, k], strides).unwrap();
            for (accumulate, before) in accumulations::<T>(m) {
                let mut y = before.clone();
                gemv_dots(kernel, &mut y, accumulate, a, &x).unwrap();
                for i in 0..m {
                    let row: Vec<T> = (0..k).map(|p| a.at(i, p)).collect();
                    let sum = dot(&row, &x).unwrap();
                    let (want, size) = match accumulate {
                        Accumulate::Replace(scale) => (scale * sum, T::ZERO),
                        Accumulate::Add(scale) => (before[i] + scale * sum, before[i].abs()),
                    };
                    let size = row.iter().zip(&x).fold(size, |size, (&a, &x)| size + (a * x).abs());
                    let bound = if exactly { T::ZERO } else { T::from_usize(2 * k + 4) * T::EPSILON * size };
                    let close = y[i] == want || (y[i] - want).abs() <= bound;
                    assert!(close, "{case}: {m} x {k}, strides {strides:?}, {accumulate:?}, row {i}");
                }
            }
        }
    }
}

#[test]
fn gemv_dots_gives_the_bits_of_dot_on_every_instruction_set() {
    for set in InstructionSet::available() {
        dots_agree::<f32, _>(ReproducibleOn(set), true, &format!("f32, Reproducible on {set}"));
        dots_agree::<f64, _>(ReproducibleOn(set), true, &format!("f64, Reproducible on {set}"));
        dots_agree::<f32, _>(Fast::on(set), false, &format!("f32, Fast on {set}"));
        dots_agree::<f64, _>(Fast::on(set), false, &format!("f64, Fast on {set}"));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_before_anything_is_written() {
    let (kernel, replace) = (Fast::detect(), Accumulate::Replace(1.0));
    let a = MatRef::row_major(&[1.0; 6], 2, 3).unwrap();
    let mut y = [7.0; 3];
    let refused = Err(ShapeError::matrix("A", [3, 3], [2, 3]));
    assert_eq!(gemv(kernel, &mut y, replace, a, &[1.0; 3]), refused);
    assert_eq!(gemv_dots(kernel, &mut y, replace, a, &[1.0; 3]), refused);
    let refused = Err(ShapeError::matrix("A", [2, 2], [2, 3]));
    assert_eq!(gemv(kernel, &mut y[..2], replace, a, &[1.0; 2]), refused);
    assert_eq!(gemv_dots(kernel, &mut y[..2], replace, a, &[1.0; 2]), refused);
    assert_eq!(y, [7.0; 3]);
}
