//! Several threads give the bits of one.
#![cfg(feature = "threads")]

mod common;

use common::{nan, random};
use kfac_linalg::product::{
    Accumulate, OnThreads, ProductError, gemm, gemm_scratch_len, syrk_lower, threads_gemm_scratch_len,
    threads_syrk_scratch_len,
};
use kfac_linalg::{
    AlignedVec, Fast, Kernel, MatMut, MatRef, PackedMut, Reproducible, Scalar, ScratchError, packed_len,
};
use std::num::NonZeroUsize;

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// Row-major, column-major, and gaps in both directions, where one thread has to do.
fn layouts([rows, cols]: [usize; 2]) -> [[usize; 2]; 3] {
    [[cols + 1, 1], [1, rows], [2, 3 * rows.max(1)]]
}

fn gemm_equals_one_thread<T: Scalar, K: Kernel<T>>(kernel: K) {
    for [m, n, k] in [[0, 5, 3], [5, 7, 0], [3, 2, 4], [97, 130, 20], [150, 20, 513]] {
        let (a, b, before) =
            (random::<T>(m * k, 1), random::<T>(k * n, 2), random::<T>(4 * (m + 1) * (n + 1), 3));
        let (a, b) = (MatRef::row_major(&a, m, k).unwrap(), MatRef::row_major(&b, k, n).unwrap());
        for (count, strides) in [1, 2, 3, 8].into_iter().flat_map(|t| layouts([m, n]).map(|s| (t, s))) {
            let (mut one, mut several) = (before.clone(), before.clone());
            let accumulate = Accumulate::Add(T::from_f64(0.3));
            let view = MatMut::with_strides(&mut one, [m, n], strides).unwrap();
            gemm(kernel, view, accumulate, a, b, &mut vec![nan::<T>(); gemm_scratch_len::<T>(m, n, k)])
                .unwrap();
            let count = threads(count);
            let scratch = &mut vec![nan::<T>(); threads_gemm_scratch_len::<T>(count, m, n, k)];
            let view = MatMut::with_strides(&mut several, [m, n], strides).unwrap();
            OnThreads::new(kernel, count).gemm(view, accumulate, a, b, scratch).unwrap();
            assert!(one == several, "{m} x {n} x {k}, strides {strides:?}, {count} threads");
        }
    }
}

#[test]
fn gemm_gives_the_bits_of_one_thread() {
    gemm_equals_one_thread::<f32, _>(Reproducible);
    gemm_equals_one_thread::<f64, _>(Fast::detect());
}

fn syrk_equals_one_thread<T: Scalar, K: Kernel<T>>(kernel: K) {
    for [n, k] in [[0, 3], [1, 0], [5, 7], [97, 20], [200, 520]] {
        let (x, before) = (random::<T>(k * n, 4), random::<T>(6 * (n + 1) * (n + 1), 5));
        let x = MatRef::row_major(&x, k, n).unwrap();
        let accumulate = Accumulate::Add(T::from_f64(-0.7));
        for (count, strides) in [1, 2, 3, 8].into_iter().flat_map(|t| layouts([n, n]).map(|s| (t, s))) {
            let count = threads(count);
            let mut scratch = AlignedVec::<T>::zeros(threads_syrk_scratch_len::<T>(count, n, k));
            let (mut one, mut several) = (before.clone(), before.clone());
            let view = MatMut::with_strides(&mut one, [n, n], strides).unwrap();
            syrk_lower(kernel, view, accumulate, x, &mut scratch).unwrap();
            let view = MatMut::with_strides(&mut several, [n, n], strides).unwrap();
            OnThreads::new(kernel, count).syrk_lower(view, accumulate, x, &mut scratch).unwrap();
            assert!(one == several, "{n} x {k}, strides {strides:?}, {count} threads");

            let mut packed = vec![T::ZERO; packed_len(n)];
            let mut packed = PackedMut::new(&mut packed, n).unwrap();
            packed.pack(MatRef::with_strides(&before, [n, n], strides).unwrap()).unwrap();
            OnThreads::new(kernel, count).syrk(packed.reborrow(), accumulate, x, &mut scratch).unwrap();
            let one = MatRef::with_strides(&one, [n, n], strides).unwrap();
            for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                assert!(packed.at(i, j) == one.at(i, j), "packed {n} x {k}, {count} threads, ({i}, {j})");
            }
        }
    }
}

#[test]
fn syrk_gives_the_bits_of_one_thread_in_every_storage() {
    syrk_equals_one_thread::<f32, _>(Reproducible);
    syrk_equals_one_thread::<f64, _>(Fast::detect());
}

#[test]
fn short_scratch_is_refused_before_anything_is_written() {
    let (mut c, x) = ([7.0; 4], [1.0; 6]);
    let x = MatRef::row_major(&x, 3, 2).unwrap();
    let needed = threads_syrk_scratch_len::<f64>(threads(2), 2, 3);
    let view = MatMut::row_major(&mut c, 2, 2).unwrap();
    let scratch = &mut vec![0.0; needed - 1];
    let refused =
        OnThreads::new(Reproducible, threads(2)).syrk_lower(view, Accumulate::Replace(1.0), x, scratch);
    assert_eq!(refused, Err(ProductError::Scratch(ScratchError { needed, found: needed - 1 })));
    assert_eq!(c, [7.0; 4]);
}
