//! Products of random shapes and strides against the triple loop, on every instruction set.
//!
//! Under valgrind these are the memory checks of the vector code (its processor has AVX2 and no AVX-512):
//!
//! ```text
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind -q --error-exitcode=1" PROPTEST_CASES=16 \
//!     cargo test -p kfac-linalg --test shapes
//! ```

mod common;

use common::{nan, random};
use kfac_linalg::product::{
    Accumulate, chain_len, gemm, gemm_scratch_len, gemv, gemv_dots, syrk_lower, syrk_scratch_len, trsm_lower,
    trsm_scratch_len, trsm_upper,
};
use kfac_linalg::{InstructionSet, MatMut, MatRef, ReproducibleOn};
use proptest::prelude::*;

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
struct Lie {
    by_columns: bool,
    /// Between neighbours, and beyond the end of a row or column.
    gaps: [usize; 2],
}

impl Lie {
    fn strides(self, [rows, cols]: [usize; 2]) -> [usize; 2] {
        let (near, len) = (self.gaps[0] + 1, if self.by_columns { rows } else { cols });
        let far = near * len.max(1) + self.gaps[1];
        if self.by_columns { [near, far] } else { [far, near] }
    }

    /// Exactly as many numbers as the matrix needs.
    fn numbers(self, shape: [usize; 2], seed: u64) -> Vec<f32> {
        let strides = self.strides(shape);
        let last = |len: usize, stride: usize| len.saturating_sub(1) * stride;
        let empty = shape.contains(&0);
        random(if empty { 0 } else { last(shape[0], strides[0]) + last(shape[1], strides[1]) + 1 }, seed)
    }

    fn view<'a>(self, numbers: &'a [f32], shape: [usize; 2]) -> MatRef<'a, f32> {
        MatRef::with_strides(numbers, shape, self.strides(shape)).unwrap()
    }

    fn view_mut<'a>(self, numbers: &'a mut [f32], shape: [usize; 2]) -> MatMut<'a, f32> {
        MatMut::with_strides(numbers, shape, self.strides(shape)).unwrap()
    }
}

fn lie() -> impl Strategy<Value = Lie> {
    let gap = || prop_oneof![3 => Just(0), 1 => 1..4_usize];
    (any::<bool>(), gap(), gap()).prop_map(|(by_columns, near, far)| Lie { by_columns, gaps: [near, far] })
}

fn kernel() -> impl Strategy<Value = ReproducibleOn> {
    prop::sample::select(InstructionSet::available().map(ReproducibleOn).collect::<Vec<_>>())
}

fn accumulate() -> impl Strategy<Value = Accumulate<f32>> {
    prop_oneof![Just(Accumulate::Replace(0.7)), Just(Accumulate::Add(-1.3))]
}

/// One element of a product, as `gemm` defines it.
fn element(c: f32, accumulate: Accumulate<f32>, terms: &[[f32; 2]]) -> f32 {
    let (mut c, scale) = match accumulate {
        Accumulate::Replace(scale) => (None, scale),
        Accumulate::Add(scale) => (Some(c), scale),
    };
    for block in terms.chunks(chain_len(terms.len())) {
        let sum = block.iter().fold(0.0, |sum, [a, b]| sum + a * b);
        c = Some(c.map_or(scale * sum, |c| c + scale * sum));
    }
    c.unwrap_or(0.0)
}

/// The numbers of a view, row by row.
fn list(view: MatRef<'_, f32>) -> Vec<f32> {
    let [rows, cols] = view.shape();
    (0..rows).flat_map(|i| (0..cols).map(move |j| view.at(i, j))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gemm_is_the_triple_loop(
        (kernel, accumulate, lies) in (kernel(), accumulate(), [lie(), lie(), lie()]),
        [m, n] in [0..70_usize, 0..70],
        k in prop_oneof![4 => 0..70_usize, 1 => 500..530_usize],
    ) {
        let [lc, la, lb] = lies;
        let (a, b, mut c) = (la.numbers([m, k], 1), lb.numbers([k, n], 2), lc.numbers([m, n], 3));
        let (a, b, before) = (la.view(&a, [m, k]), lb.view(&b, [k, n]), list(lc.view(&c, [m, n])));
        let scratch = &mut vec![nan::<f32>(); gemm_scratch_len::<f32>(m, n, k)];
        gemm(kernel, lc.view_mut(&mut c, [m, n]), accumulate, a, b, scratch).unwrap();
        let c = lc.view(&c, [m, n]);
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms: Vec<_> = (0..k).map(|p| [a.at(i, p), b.at(p, j)]).collect();
            prop_assert_eq!(c.at(i, j), element(before[i * n + j], accumulate, &terms), "({}, {})", i, j);
        }
    }

    #[test]
    fn syrk_is_the_triple_loop(
        (kernel, accumulate, lies) in (kernel(), accumulate(), [lie(), lie()]),
        [n, k] in [0..90_usize, 0..70],
    ) {
        let [lc, lx] = lies;
        let (x, mut c) = (lx.numbers([k, n], 1), lc.numbers([n, n], 2));
        let (x, before) = (lx.view(&x, [k, n]), list(lc.view(&c, [n, n])));
        let scratch = &mut vec![nan::<f32>(); syrk_scratch_len::<f32>(n, k)];
        syrk_lower(kernel, lc.view_mut(&mut c, [n, n]), accumulate, x, scratch).unwrap();
        let c = lc.view(&c, [n, n]);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms: Vec<_> = (0..k).map(|p| [x.at(p, i), x.at(p, j)]).collect();
            let old = before[i * n + j];
            let want = if j > i { old } else { element(old, accumulate, &terms) };
            prop_assert_eq!(c.at(i, j), want, "({}, {})", i, j);
        }
    }

    #[test]
    fn gemv_is_the_double_loop(
        (kernel, accumulate, lie) in (kernel(), accumulate(), lie()),
        [m, k] in [0..90_usize, 0..90],
    ) {
        let (a, x, before) = (lie.numbers([m, k], 1), random::<f32>(k, 2), random::<f32>(m, 3));
        let (a, mut chains, mut dots) = (lie.view(&a, [m, k]), before.clone(), before.clone());
        gemv(kernel, &mut chains, accumulate, a, &x).unwrap();
        gemv_dots(kernel, &mut dots, accumulate, a, &x).unwrap();
        for i in 0..m {
            let terms: Vec<_> = (0..k).map(|p| [a.at(i, p), x[p]]).collect();
            prop_assert_eq!(chains[i], element(before[i], accumulate, &terms), "row {}", i);
            let size = terms.iter().fold(before[i].abs(), |size, [a, x]| size + (a * x).abs());
            prop_assert!((dots[i] - chains[i]).abs() <= 3.0 * (k + 2) as f32 * f32::EPSILON * size, "row {}", i);
        }
    }

    #[test]
    fn trsm_undoes_the_triangle(
        (kernel, lies) in (kernel(), [lie(), lie()]),
        [n, cols] in [0..140_usize, 0..70],
        upper in any::<bool>(),
    ) {
        let [lt, lb] = lies;
        let (mut t, mut b) = (lt.numbers([n, n], 1), lb.numbers([n, cols], 2));
        let mut triangle = lt.view_mut(&mut t, [n, n]);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let wanted = if upper { j >= i } else { j <= i };
            let x = if i == j { 2.0 } else { triangle.at(i, j) / n as f32 };
            triangle.set(i, j, if wanted { x } else { f32::NAN });
        }
        let (t, before) = (triangle.as_ref(), list(lb.view(&b, [n, cols])));
        let scratch = &mut vec![nan::<f32>(); trsm_scratch_len::<f32>(n, cols)];
        let view = lb.view_mut(&mut b, [n, cols]);
        if upper {
            trsm_upper(kernel, t, view, scratch).unwrap();
        } else {
            trsm_lower(kernel, t, view, scratch).unwrap();
        }
        let x = lb.view(&b, [n, cols]);
        for (i, j) in (0..n).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            let terms = || (if upper { i..n } else { 0..i + 1 }).map(|p| t.at(i, p) * x.at(p, j));
            let (sum, size) = (terms().sum::<f32>(), terms().map(f32::abs).sum::<f32>());
            let left = (sum - before[i * cols + j]).abs();
            prop_assert!(left <= 4.0 * n as f32 * f32::EPSILON * size.max(before[i * cols + j].abs()), "({i}, {j})");
        }
    }
}
