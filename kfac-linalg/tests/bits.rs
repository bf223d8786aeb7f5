//! The bits of `Reproducible`, pinned: a change of any of them is a change of the crate's contract.
//!
//! Each constant is the FNV-1a hash of a result's little-endian bytes, the same on every target and under every
//! feature. If a change is meant, say so in the changelog and copy the new number from the failure.

mod common;

use common::{With, hash, positive_definite, random, relu_factor, rounded};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::product::{
    Accumulate, dot, gemv, gemv_dots, syrk, syrk_scratch_len, trsm_lower, trsm_scratch_len, trsm_upper,
};
use kfac_linalg::{
    InstructionSet, MatMut, MatRef, PackedMut, Reproducible, ReproducibleOn, Scalar, packed_len,
};

/// Long enough for two blocks of terms, and for blocks of 64 in Cholesky.
const N: usize = 150;
const TERMS: usize = 600;

#[track_caller]
fn assert_bits<T: Scalar>(numbers: &[T], want: u64) {
    let found = hash(numbers);
    assert!(found == want, "the bits have changed: {found:#018x} instead of {want:#018x}");
}

/// The same on every instruction set of this machine.
#[track_caller]
fn assert_bits_everywhere<T: Scalar>(result: impl Fn(ReproducibleOn) -> Vec<T>, want: u64) {
    for set in InstructionSet::available() {
        let found = hash(&result(ReproducibleOn(set)));
        assert!(found == want, "{set}: the bits have changed: {found:#018x} instead of {want:#018x}");
    }
}

fn gemm_result<T: Scalar>() -> Vec<T> {
    let (a, b, mut c) = (random::<T>(23 * TERMS, 1), random::<T>(TERMS * 37, 2), random::<T>(23 * 37, 3));
    let (a, b) = (MatRef::row_major(&a, 23, TERMS).unwrap(), MatRef::row_major(&b, TERMS, 37).unwrap());
    let view = MatMut::row_major(&mut c, 23, 37).unwrap();
    With(Reproducible).gemm(view, Accumulate::Add(T::from_f64(0.3)), a, b);
    c
}

#[test]
fn bits_of_gemm() {
    assert_bits(&gemm_result::<f32>(), 0x8b36_7515_f494_2286);
    assert_bits(&gemm_result::<f64>(), 0x2ea9_4ae4_746f_4eac);
}

fn syrk_result<T: Scalar>() -> Vec<T> {
    let (x, mut c) = (random::<T>(TERMS * 45, 4), vec![T::ZERO; packed_len(45)]);
    let scratch = &mut vec![T::ZERO; syrk_scratch_len::<T>(45, TERMS)];
    let (x, view) = (MatRef::row_major(&x, TERMS, 45).unwrap(), PackedMut::new(&mut c, 45).unwrap());
    syrk(Reproducible, view, Accumulate::Replace(T::from_f64(0.3)), x, scratch).unwrap();
    c
}

#[test]
fn bits_of_syrk() {
    assert_bits(&syrk_result::<f32>(), 0xb681_1580_fc31_6da6);
    assert_bits(&syrk_result::<f64>(), 0x2a89_4b66_cd9d_37b4);
}

fn dot_result<T: Scalar>() -> [T; 1] {
    [dot(&random::<T>(1003, 5), &random::<T>(1003, 6)).unwrap()]
}

#[test]
fn bits_of_dot() {
    assert_bits(&dot_result::<f32>(), 0x819f_809c_aab8_cf04);
    assert_bits(&dot_result::<f64>(), 0x8ae5_11c9_c557_9310);
}

fn gemv_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let (a, x) = (random::<T>(70 * TERMS, 12), random::<T>(TERMS, 13));
    let (a, mut y) = (MatRef::row_major(&a, 70, TERMS).unwrap(), random::<T>(140, 14));
    let (chains, dots) = y.split_at_mut(70);
    gemv(kernel, chains, Accumulate::Add(T::from_f64(0.3)), a, &x).unwrap();
    gemv_dots(kernel, dots, Accumulate::Add(T::from_f64(0.3)), a, &x).unwrap();
    y
}

#[test]
fn bits_of_gemv() {
    assert_bits_everywhere(gemv_result::<f32>, 0x29ab_31bf_aa77_d43d);
    assert_bits_everywhere(gemv_result::<f64>, 0xeef8_6e3d_fa28_f4ea);
}

fn trsm_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let (mut t, mut b) = (random::<T>(N * N, 15), random::<T>(N * 22, 16));
    (0..N).for_each(|i| t[i * N + i] = T::from_usize(N));
    let (t, scratch) =
        (MatRef::row_major(&t, N, N).unwrap(), &mut vec![T::ZERO; trsm_scratch_len::<T>(N, 11)]);
    let (lower, upper) = b.split_at_mut(N * 11);
    trsm_lower(kernel, t, MatMut::row_major(lower, N, 11).unwrap(), scratch).unwrap();
    trsm_upper(kernel, t, MatMut::row_major(upper, N, 11).unwrap(), scratch).unwrap();
    b
}

#[test]
fn bits_of_trsm() {
    assert_bits_everywhere(trsm_result::<f32>, 0x9a25_44b6_03d2_83dc);
    assert_bits_everywhere(trsm_result::<f64>, 0x05e6_140f_c627_20b6);
}

fn factor_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let mut a: Vec<T> = rounded(&positive_definite(N, 7));
    With(kernel).factor(&mut a, N).unwrap();
    a
}

#[test]
fn bits_of_the_cholesky_factor() {
    assert_bits_everywhere(factor_result::<f32>, 0x60ab_46a5_e9c5_7888);
    assert_bits_everywhere(factor_result::<f64>, 0x0eb1_95bf_2c16_39eb);
}

fn solve_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let mut b: Vec<T> = random(N * 11, 8);
    With(kernel).solve(&factor_result(kernel), &mut b, [N, 11]);
    b
}

#[test]
fn bits_of_solve() {
    assert_bits_everywhere(solve_result::<f32>, 0x1960_11f5_8048_2e51);
    assert_bits_everywhere(solve_result::<f64>, 0x4406_2d41_4f36_a2d5);
}

fn inverse_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let mut a: Vec<T> = rounded(&positive_definite(N, 9));
    let outcome = With(kernel).inverse(&mut a, N).unwrap();
    a.push(T::from_f64(outcome.log_determinant));
    a
}

#[test]
fn bits_of_the_inverse() {
    assert_bits_everywhere(inverse_result::<f32>, 0xacdd_5017_ab70_4d11);
    assert_bits_everywhere(inverse_result::<f64>, 0x735f_1578_f5d7_956c);
}

/// Cold on one matrix, then warm on another one nearby: eigenvectors and eigenvalues of the second.
fn jacobi_result<T: Scalar>() -> Vec<T> {
    let n = 35;
    let first: Vec<T> = rounded(&relu_factor(n, 10));
    let second: Vec<T> = first.iter().map(|&x| x + x * x).collect();
    let (mut q, mut d) = (vec![T::ZERO; n * n], vec![T::ZERO; n]);
    let scratch = &mut vec![T::ZERO; jacobi::scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(&first, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    jacobi::cold(Reproducible, a, view, &mut d, Budget::FULL, scratch).unwrap();
    let (a, view) = (MatRef::row_major(&second, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    jacobi::warm(Reproducible, a, view, &mut d, Budget::FULL, scratch).unwrap();
    q.extend(d);
    q
}

#[test]
fn bits_of_jacobi() {
    assert_bits(&jacobi_result::<f32>(), 0x0faf_b0ff_d847_8a7a);
    assert_bits(&jacobi_result::<f64>(), 0xe81f_967b_1d74_96cb);
}

#[test]
fn bits_of_the_transcendental_functions() {
    assert_bits(&function_values::<f32>(), 0x8d44_a5d3_86f0_b0c6);
    assert_bits(&function_values::<f64>(), 0x6b52_ad19_978e_b11a);
}

fn function_values<T: Scalar>() -> Vec<T> {
    let ten = T::from_f64(10.0);
    let values = random::<T>(1000, 11).into_iter().map(|x| x * ten);
    let functions = [
        T::exp,
        T::tanh,
        T::sigmoid,
        T::softplus,
        T::sin,
        T::cos,
        |x: T| x.abs().ln(),
        |x: T| x.abs().sqrt(),
    ];
    values.flat_map(|x| functions.map(|function| function(x))).collect()
}
