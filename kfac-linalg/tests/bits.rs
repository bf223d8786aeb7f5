//! The bits of `Reproducible`, pinned: a change of any of them is a change of the crate's contract.
//!
//! Each constant is the FNV-1a hash of a result's little-endian bytes, the same on every target and under every
//! feature. If a change is meant, say so in the changelog and copy the new number from the failure.

mod common;

use common::{With, hash, positive_definite, random, relu_factor, rounded};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::eigh::qr;
use kfac_linalg::eigh::refresh;
use kfac_linalg::eigh::roots::{self, Below, Floor, Root};
use kfac_linalg::product::{
    Accumulate, dot, gemv, gemv_dots, syrk, syrk_scratch_len, trsm_lower, trsm_scratch_len, trsm_upper,
};
use kfac_linalg::shifted::{self, Shifts, Tridiagonal};
use kfac_linalg::{InstructionSet, MatMut, MatRef, PackedMut, ReproducibleOn, Scalar, packed_len};

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

fn gemm_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let (a, b, mut c) = (random::<T>(23 * TERMS, 1), random::<T>(TERMS * 37, 2), random::<T>(23 * 37, 3));
    let (a, b) = (MatRef::row_major(&a, 23, TERMS).unwrap(), MatRef::row_major(&b, TERMS, 37).unwrap());
    let view = MatMut::row_major(&mut c, 23, 37).unwrap();
    With(kernel).gemm(view, Accumulate::Add(T::from_f64(0.3)), a, b);
    c
}

#[test]
fn bits_of_gemm() {
    assert_bits_everywhere(gemm_result::<f32>, 0x8b36_7515_f494_2286);
    assert_bits_everywhere(gemm_result::<f64>, 0x2ea9_4ae4_746f_4eac);
}

fn syrk_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let (x, mut c) = (random::<T>(TERMS * 45, 4), vec![T::ZERO; packed_len(45)]);
    let scratch = &mut vec![T::ZERO; syrk_scratch_len::<T>(45, TERMS)];
    let (x, view) = (MatRef::row_major(&x, TERMS, 45).unwrap(), PackedMut::new(&mut c, 45).unwrap());
    syrk(kernel, view, Accumulate::Replace(T::from_f64(0.3)), x, scratch).unwrap();
    c
}

#[test]
fn bits_of_syrk() {
    assert_bits_everywhere(syrk_result::<f32>, 0xb681_1580_fc31_6da6);
    assert_bits_everywhere(syrk_result::<f64>, 0x2a89_4b66_cd9d_37b4);
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

fn shifted_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let (n, columns) = (60, 21);
    let [q, diagonal, off_diagonal] = common::tridiagonal(&rounded::<T>(&positive_definite(n, 12)), n);
    let (mut b, d) =
        (random(n * columns, 13), random::<T>(columns, 14).iter().map(|x| *x * *x).collect::<Vec<_>>());
    let scratch = &mut vec![T::ZERO; shifted::solve_scratch_len::<T>(n, columns)];
    let q = MatRef::row_major(&q, n, n).unwrap();
    let reduced = Tridiagonal { q, diagonal: &diagonal, off_diagonal: &off_diagonal };
    let shifts = Shifts { d: &d, lambda: T::from_f64(0.01) };
    shifted::solve(kernel, reduced, shifts, MatMut::row_major(&mut b, n, columns).unwrap(), scratch).unwrap();
    b
}

#[test]
fn bits_of_shifted_solves() {
    assert_bits_everywhere(shifted_result::<f32>, 0xff94_4d83_00b8_f884);
    assert_bits_everywhere(shifted_result::<f64>, 0xf1fc_6122_2e2a_42e3);
}

/// Cold on one matrix, then warm on another one nearby: eigenvectors and eigenvalues of the second.
fn jacobi_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let n = 35;
    let first: Vec<T> = rounded(&relu_factor(n, 10));
    let second: Vec<T> = first.iter().map(|&x| x + x * x).collect();
    let (mut q, mut d) = (vec![T::ZERO; n * n], vec![T::ZERO; n]);
    let scratch = &mut vec![T::ZERO; jacobi::scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(&first, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    jacobi::cold(kernel, a, view, &mut d, Budget::FULL, scratch).unwrap();
    let (a, view) = (MatRef::row_major(&second, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    jacobi::warm(kernel, a, view, &mut d, Budget::FULL, scratch).unwrap();
    q.extend(d);
    q
}

#[test]
fn bits_of_jacobi() {
    assert_bits_everywhere(jacobi_result::<f32>, 0xfe7f_b7ec_4711_e064);
    assert_bits_everywhere(jacobi_result::<f64>, 0xb621_9936_dcc3_ccff);
}

/// Tridiagonal form, eigenvectors and eigenvalues.
fn qr_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let n = 75;
    let a: Vec<T> = rounded(&relu_factor(n, 12));
    let a = MatRef::row_major(&a, n, n).unwrap();
    let (mut q, mut d, mut e) = (vec![T::ZERO; n * n], vec![T::ZERO; n], vec![T::ZERO; n - 1]);
    let scratch = &mut vec![T::ZERO; qr::scratch_len::<T>(n)];
    let view = MatMut::row_major(&mut q, n, n).unwrap();
    qr::tridiagonal(kernel, a, view, &mut d, &mut e, scratch).unwrap();
    let mut all = [d.clone(), e].concat();
    let view = MatMut::row_major(&mut q, n, n).unwrap();
    qr::cold(kernel, a, view, &mut d, scratch).unwrap();
    all.extend(q);
    all.extend(d);
    all
}

#[test]
fn bits_of_qr() {
    assert_bits_everywhere(qr_result::<f32>, 0x2cf8_1ff9_b6ca_0b85);
    assert_bits_everywhere(qr_result::<f64>, 0xa9b8_1e55_5bf9_1afd);
}

fn refresh_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let n = 45;
    let a: Vec<T> = rounded(&relu_factor(n, 15));
    let (mut q, mut d): (Vec<T>, _) = (common::identity(n), vec![T::ONE; n]);
    let scratch = &mut vec![T::ZERO; refresh::step_scratch_len::<T>(n)];
    for _ in 0..2 {
        let (a, q) = (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
        refresh::step(kernel, a, q, &mut d, T::from_f64(0.01), scratch).unwrap();
    }
    q.extend(d);
    q
}

#[test]
fn bits_of_a_refresh_step() {
    assert_bits_everywhere(refresh_result::<f32>, 0x2317_f7de_8f5c_1bb2);
    assert_bits_everywhere(refresh_result::<f64>, 0xeda3_8f8e_2b8a_bce2);
}

fn roots_result<T: Scalar>(kernel: ReproducibleOn) -> Vec<T> {
    let n = 40;
    let (q, mut all): (Vec<T>, _) = (random(n * n, 16), Vec::new());
    let d: Vec<T> = random::<T>(n, 17).iter().map(|x| x.abs()).collect();
    for order in [1, 2, 3, 4, 6] {
        let root = Root { order, floor: Floor::Relative(T::from_f64(0.1)), below: Below::Raise };
        let (q, mut to) = (MatRef::row_major(&q, n, n).unwrap(), vec![T::ZERO; n * n]);
        let (view, scratch) =
            (MatMut::row_major(&mut to, n, n).unwrap(), &mut vec![T::ZERO; roots::scratch_len::<T>(n)]);
        roots::inverse_root(kernel, root, q, &d, view, scratch).unwrap();
        all.extend(to);
    }
    all
}

#[test]
fn bits_of_inverse_roots() {
    assert_bits_everywhere(roots_result::<f32>, 0x3824_2db4_a6d5_be3d);
    assert_bits_everywhere(roots_result::<f64>, 0x1460_926f_5c11_bef6);
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
