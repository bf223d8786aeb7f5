//! Products against the triple loop: to the bit under `Reproducible`, within rounding under `Fast`.

mod common;

use common::{With, random};
use kfac_linalg::product::{
    Accumulate, ProductError, chain_len, dot, gemm, syrk, syrk_lower, syrk_scratch_len,
};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, PackedMut, Reproducible, ReproducibleOn, Scalar,
    ShapeError, packed_len,
};

/// How the multiply-adds of a kernel round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    /// After the multiplication and after the addition: `Reproducible` on everything, `Fast` on plain arrays.
    Twice,
    /// After both: `Fast` on instructions that fuse them.
    Once,
    /// Another library's: within `(k + 3) eps (|c| + |scale| Σ |a b|)`, any order of the terms, fused or not.
    Anyhow,
}

/// `x + y z`, rounded once.
fn fused<T: Scalar>(x: T, y: T, z: T) -> T {
    let [x, y, z] = [x, y, z].map(T::to_f64);
    if T::BYTES == 8 {
        return T::from_f64(y.mul_add(z, x));
    }
    T::from_f64(f64::from((y as f32).mul_add(z as f32, x as f32)))
}

impl Rounding {
    fn of(kernel: Fast) -> Self {
        let plain = !kernel.instructions().is_fused();
        match plain {
            true if cfg!(feature = "matrixmultiply") => Self::Anyhow,
            true => Self::Twice,
            false => Self::Once,
        }
    }

    fn mul_add<T: Scalar>(self, x: T, y: T, z: T) -> T {
        if self == Self::Once { fused(x, y, z) } else { x + y * z }
    }

    /// The frozen definition of an element, as the documentation of `gemm` states it.
    fn oracle<T: Scalar>(self, c: T, accumulate: Accumulate<T>, a: &[T], b: &[T]) -> T {
        let (mut c, scale) = match accumulate {
            Accumulate::Replace(scale) => (None, scale),
            Accumulate::Add(scale) => (Some(c), scale),
        };
        let len = chain_len(a.len());
        for (a, b) in a.chunks(len).zip(b.chunks(len)) {
            let sum = a.iter().zip(b).fold(T::ZERO, |sum, (&a, &b)| self.mul_add(sum, a, b));
            c = Some(c.map_or(scale * sum, |c| self.mul_add(c, scale, sum)));
        }
        c.unwrap_or(T::ZERO)
    }

    fn check<T: Scalar>(self, got: T, want: T, [c, a, b]: [&[T]; 3], case: &str) {
        if self != Self::Anyhow {
            assert!(got == want, "{case}: {got:e} is not {want:e}");
        } else {
            let size = a.iter().zip(b).fold(T::ZERO, |sum, (&a, &b)| sum + (a * b).abs()) + c[0].abs();
            let bound = T::from_usize(a.len() + 3) * T::EPSILON * size * T::from_usize(2);
            assert!((got - want).abs() <= bound, "{case}: {got:e} is not {want:e} within {bound:e}");
        }
    }
}

/// Strides of an `rows x cols` operand: row-major, column-major, or with gaps in both directions.
fn strides(layout: usize, rows: usize, cols: usize) -> [usize; 2] {
    [[cols, 1], [1, rows], [3 * cols + 2, 3]][layout]
}

fn every_product_agrees<T: Scalar, K: Kernel<T>>(kernel: K, rounding: Rounding) {
    // Edges of registers, of tiles, of what is packed, of blocks of rows and of terms.
    let edges = [0, 1, 4, 5, 9, 17, 33];
    let mut shapes =
        vec![[65, 65, 65], [1, 65, 300], [65, 1, 300], [300, 1, 9], [3, 100, 1025], [49, 50, 513]];
    shapes.extend([[97, 113, 30], [113, 97, 30], [260, 130, 11], [1, 400, 7], [400, 3, 7], [9, 790, 5]]);
    for m in edges {
        for n in edges {
            shapes.extend([0, 1, 17].map(|k| [m, n, k]));
        }
    }
    for [m, n, k] in shapes {
        for layouts in
            [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1], [2, 2, 2], [2, 0, 2]]
        {
            product_agrees(kernel, rounding, [m, n, k], layouts);
        }
    }
}

fn product_agrees<T: Scalar, K: Kernel<T>>(
    kernel: K,
    rounding: Rounding,
    [m, n, k]: [usize; 3],
    layouts: [usize; 3],
) {
    let case = format!("{m} x {n} x {k}, layouts {layouts:?}");
    let [cs, as_, bs] = [strides(layouts[0], m, n), strides(layouts[1], m, k), strides(layouts[2], k, n)];
    let room = |rows: usize, cols: usize| 9 * rows * cols + 8 * (rows + cols) + 8;
    let (a, b) = (random::<T>(room(m, k), 1), random::<T>(room(k, n), 2));
    let a = MatRef::with_strides(&a, [m, k], as_).unwrap();
    let b = MatRef::with_strides(&b, [k, n], bs).unwrap();
    for (accumulate, before) in [
        (Accumulate::Replace(T::from_f64(0.7)), vec![common::nan::<T>(); room(m, n)]),
        (Accumulate::Add(T::from_f64(-1.3)), random::<T>(room(m, n), 3)),
    ] {
        let mut after = before.clone();
        With(kernel).gemm(MatMut::with_strides(&mut after, [m, n], cs).unwrap(), accumulate, a, b);
        for i in 0..m {
            let row: Vec<T> = (0..k).map(|p| a.at(i, p)).collect();
            for j in 0..n {
                let column: Vec<T> = (0..k).map(|p| b.at(p, j)).collect();
                let at = i * cs[0] + j * cs[1];
                let want = rounding.oracle(before[at], accumulate, &row, &column);
                let old = if matches!(accumulate, Accumulate::Add(_)) { before[at] } else { T::ZERO };
                rounding.check(after[at], want, [&[old], &row, &column], &format!("{case}, ({i}, {j})"));
                after[at] = before[at];
            }
        }
        let untouched = after.iter().zip(&before).all(|(a, b)| a == b || a.to_f64().is_nan());
        assert!(untouched, "{case}: a number between the elements of C has changed");
    }
}

#[test]
fn reproducible_products_equal_the_triple_loop_on_every_instruction_set() {
    every_product_agrees::<f32, _>(Reproducible, Rounding::Twice);
    every_product_agrees::<f64, _>(Reproducible, Rounding::Twice);
    for set in InstructionSet::available() {
        every_product_agrees::<f32, _>(ReproducibleOn(set), Rounding::Twice);
        every_product_agrees::<f64, _>(ReproducibleOn(set), Rounding::Twice);
    }
}

#[test]
fn fast_products_equal_the_fused_triple_loop_on_every_instruction_set() {
    for kernel in InstructionSet::available().map(Fast::on) {
        every_product_agrees::<f32, _>(kernel, Rounding::of(kernel));
        every_product_agrees::<f64, _>(kernel, Rounding::of(kernel));
    }
}

/// `syrk`, `syrk_lower` and the lower triangle of `gemm`, which must be the same numbers.
fn symmetric_products_agree<T: Scalar, K: Kernel<T>>(kernel: K, rounding: Rounding) {
    for n in [0, 1, 2, 3, 31, 32, 33, 64, 65, 100, 210] {
        for k in [0, 1, 7, 512, 513, 1027] {
            let x = random::<T>(k * n, 4);
            let x = MatRef::row_major(&x, k, n).unwrap();
            let scratch = &mut vec![common::nan::<T>(); syrk_scratch_len::<T>(n, k)];
            for accumulate in [Accumulate::Replace(T::from_f64(0.3)), Accumulate::Add(T::from_f64(-0.9))] {
                let before = random::<T>(n * n, 5);
                let (mut whole, mut lower) = (before.clone(), before.clone());
                let mut packed = vec![T::ZERO; packed_len(n)];
                let mut view = PackedMut::new(&mut packed, n).unwrap();
                view.pack(MatRef::row_major(&before, n, n).unwrap()).unwrap();

                let whole_view = MatMut::row_major(&mut whole, n, n).unwrap();
                With(kernel).gemm(whole_view, accumulate, x.transposed(), x);
                let lower_view = MatMut::row_major(&mut lower, n, n).unwrap();
                syrk_lower(kernel, lower_view, accumulate, x, scratch).unwrap();
                syrk(kernel, view.reborrow(), accumulate, x, scratch).unwrap();

                for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let case = format!("n = {n}, k = {k}, {accumulate:?}, ({i}, {j})");
                    if j > i {
                        assert!(lower[i * n + j] == before[i * n + j], "{case}: written above the diagonal");
                        continue;
                    }
                    let column = |j| (0..k).map(|p| x.at(p, j)).collect::<Vec<T>>();
                    let operands: [&[T]; 3] = [&[T::ONE], &column(i), &column(j)];
                    rounding.check(lower[i * n + j], whole[i * n + j], operands, &case);
                    rounding.check(view.at(i, j), lower[i * n + j], operands, &case);
                }
            }
        }
    }
}

#[test]
fn syrk_is_the_lower_triangle_of_gemm_in_every_storage() {
    for set in InstructionSet::available() {
        symmetric_products_agree::<f32, _>(ReproducibleOn(set), Rounding::Twice);
        symmetric_products_agree::<f64, _>(ReproducibleOn(set), Rounding::Twice);
        symmetric_products_agree::<f32, _>(Fast::on(set), Rounding::of(Fast::on(set)));
        symmetric_products_agree::<f64, _>(Fast::on(set), Rounding::of(Fast::on(set)));
    }
}

#[test]
fn covariance_of_a_small_table() {
    // Portable test T31: (1/3) XᵀX, exact in any order.
    let x = [1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let (mut c, mut full) = ([0.0; 6], [0.0; 9]);
    let mut c = PackedMut::new(&mut c, 3).unwrap();
    let x = MatRef::row_major(&x, 3, 3).unwrap();
    syrk(Reproducible, c.reborrow(), Accumulate::Replace(1.0), x, &mut [0.0; syrk_scratch_len::<f64>(3, 3)])
        .unwrap();
    c.unpack(MatMut::row_major(&mut full, 3, 3).unwrap()).unwrap();
    assert_eq!(full.map(|x| x / 3.0), [22.0, 26.0, 30.0, 26.0, 31.0, 36.0, 30.0, 36.0, 42.0]);
}

#[test]
fn dot_sums_sixteen_lanes_and_joins_them_in_halves() {
    for n in [0, 1, 2, 15, 16, 17, 31, 32, 33, 1000] {
        let (x, y) = (random::<f32>(n, 6), random::<f32>(n, 7));
        let mut lanes = [0.0_f32; 16];
        (0..n).for_each(|i| lanes[i % 16] += x[i] * y[i]);
        let eight: [f32; 8] = std::array::from_fn(|l| lanes[l] + lanes[l + 8]);
        let four: [f32; 4] = std::array::from_fn(|l| eight[l] + eight[l + 4]);
        let want = (four[0] + four[2]) + (four[1] + four[3]);
        assert_eq!(dot(&x, &y).unwrap().to_bits(), want.to_bits(), "n = {n}");
    }
    assert_eq!(dot(&[1.0], &[1.0, 2.0]), Err(ShapeError::vector("another slice", 1, 2)));
}

#[test]
fn shapes_that_do_not_fit_are_refused_before_anything_is_written() {
    let (a, b) = ([1.0_f64; 6], [1.0; 6]);
    let mut c = [7.0; 4];
    let a = MatRef::row_major(&a, 2, 3).unwrap();
    let b = MatRef::row_major(&b, 2, 3).unwrap();
    let replace = Accumulate::Replace(1.0);

    let refused = gemm(Reproducible, MatMut::row_major(&mut c, 2, 2).unwrap(), replace, a, b, &mut []);
    assert_eq!(refused, Err(ProductError::Shape(ShapeError::matrix("B", [3, 3], [2, 3]))));
    assert_eq!(refused.unwrap_err().to_string(), "B is 2 x 3, 3 x 3 expected");
    let refused =
        gemm(Reproducible, MatMut::row_major(&mut c, 1, 2).unwrap(), replace, a, b.transposed(), &mut []);
    assert_eq!(refused, Err(ProductError::Shape(ShapeError::matrix("C", [2, 2], [1, 2]))));
    let refused = syrk_lower(Reproducible, MatMut::row_major(&mut c, 2, 2).unwrap(), replace, a, &mut []);
    assert_eq!(refused, Err(ProductError::Shape(ShapeError::matrix("X", [2, 2], [2, 3]))));
    let refused =
        syrk_lower(Reproducible, MatMut::row_major(&mut c, 2, 2).unwrap(), replace, a.transposed(), &mut []);
    if let needed @ 1.. = syrk_scratch_len::<f64>(2, 3) {
        let message = format!("scratch must hold {needed} elements, found 0");
        assert_eq!(refused.unwrap_err().to_string(), message);
    }
    assert_eq!(c, [7.0; 4]);
}
