//! `A = Q T Qᵀ`: reconstruction, orthogonality, exact cases and bits of the reduction.

mod common;

use common::{identity, minus, minus_identity, norm, relu_factor, rounded, times, tolerance, transposed};
use common::{widened, with_spectrum};
use kfac_linalg::eigh::{EighError, qr};
use kfac_linalg::{Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar};
use kfac_linalg::{ScratchError, ShapeError};

struct Found<T> {
    q: Vec<T>,
    diagonal: Vec<T>,
    off_diagonal: Vec<T>,
}

fn reduce<T: Scalar, K: Kernel<T>>(kernel: K, a: &[T], n: usize) -> Result<Found<T>, EighError> {
    let nan: T = common::nan();
    let (mut q, mut diagonal) = (vec![nan; n * n], vec![nan; n]);
    let mut off_diagonal = vec![nan; n.saturating_sub(1)];
    // Only the lower triangle is read.
    let a: Vec<T> = (0..n * n).map(|at| if at % n > at / n { nan } else { a[at] }).collect();
    let scratch = &mut vec![nan; qr::tridiagonal_scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    qr::tridiagonal(kernel, a, view, &mut diagonal, &mut off_diagonal, scratch)?;
    Ok(Found { q, diagonal, off_diagonal })
}

/// Residual and orthogonality, in units of `n eps`.
fn assert_reduces<T: Scalar>(a: &[T], found: &Found<T>, case: &str) {
    let n = found.diagonal.len();
    let unit = n.max(1) as f64 * T::EPSILON.to_f64();
    let (a, q) = (widened(a), widened(&found.q));
    let size = norm(&a).max(f64::MIN_POSITIVE);
    let scaled: Vec<f64> = a.iter().map(|x| x / size).collect();
    let mut t = vec![0.0; n * n];
    for i in 0..n {
        t[i * n + i] = found.diagonal[i].to_f64() / size;
        if i > 0 {
            let x = found.off_diagonal[i - 1].to_f64() / size;
            (t[i * n + i - 1], t[(i - 1) * n + i]) = (x, x);
        }
    }
    let residual = norm(&minus(&times(&scaled, &q, [n, n, n]), &times(&q, &t, [n, n, n]))) / unit;
    assert!(residual <= tolerance::EIGENVECTORS, "{case}: residual {residual:.2} n eps");
    let gram = times(&transposed(&q, [n, n]), &q, [n, n, n]);
    let orthogonality = norm(&minus_identity(&gram, n)) / unit;
    assert!(orthogonality <= tolerance::EIGENVECTORS, "{case}: orthogonality {orthogonality:.2} n eps");
}

fn sizes_reduce<T: Scalar, K: Kernel<T>>(kernel: K) {
    for n in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257] {
        let graded: Vec<f64> = (0..n).map(|i| 10_f64.powf(-12.0 * i as f64 / n as f64)).collect();
        for (name, a) in [("ReLU factor", relu_factor(n, 1)), ("graded", with_spectrum(&graded, 2))] {
            for scale in [1.0, 1e30, 1e-22] {
                let a: Vec<T> = rounded(&a.iter().map(|x| x * scale).collect::<Vec<_>>());
                let found = reduce(kernel, &a, n).unwrap();
                assert_reduces(&a, &found, &format!("{name} times {scale:e}, n = {n}"));
                if n > 100 {
                    break;
                }
            }
        }
    }
}

#[test]
fn matrices_of_every_size_reduce() {
    sizes_reduce::<f32, _>(Reproducible);
    sizes_reduce::<f64, _>(Reproducible);
    for set in InstructionSet::available() {
        sizes_reduce::<f32, _>(Fast::on(set));
        sizes_reduce::<f64, _>(Fast::on(set));
    }
}

#[test]
fn zero_identity_and_tridiagonal_matrices_are_their_own_form() {
    for n in [0, 1, 2, 3, 5, 33] {
        let band = |i: usize, j: usize| match i.abs_diff(j) {
            0 => 1.0 + i as f64,
            1 => 0.5 - j.min(i) as f64,
            _ => 0.0,
        };
        let tridiagonal: Vec<f64> = (0..n * n).map(|at| band(at / n, at % n)).collect();
        for a in [vec![0.0; n * n], identity(n), tridiagonal] {
            let found = reduce(Reproducible, &a, n).unwrap();
            assert_eq!(found.q, identity(n));
            assert!((0..n).all(|i| found.diagonal[i] == a[i * n + i]));
            assert!(
                (1..n).all(|i| found.off_diagonal[i - 1] == a[i * n + i - 1]),
                "{:?}",
                found.off_diagonal
            );
        }
    }
}

fn register_width_moves_no_bit<T: Scalar>() {
    for n in [1, 2, 5, 16, 33, 100, 150] {
        let a: Vec<T> = rounded(&relu_factor(n, 3));
        let want = reduce(Reproducible, &a, n).unwrap();
        for set in InstructionSet::available() {
            let found = reduce(ReproducibleOn(set), &a, n).unwrap();
            assert_eq!(found.diagonal, want.diagonal, "diagonal on {set}, n = {n}");
            assert_eq!(found.off_diagonal, want.off_diagonal, "off-diagonal on {set}, n = {n}");
            assert_eq!(found.q, want.q, "Q on {set}, n = {n}");
        }
    }
}

#[test]
fn the_register_width_moves_no_bit() {
    register_width_moves_no_bit::<f32>();
    register_width_moves_no_bit::<f64>();
}

#[test]
fn every_view_gives_the_same_bits() {
    let n = 40;
    let a: Vec<f64> = relu_factor(n, 4);
    let want = reduce(Reproducible, &a, n).unwrap();
    let (mut q, mut d, mut e) = (vec![0.0; 2 * n * n], vec![0.0; n], vec![0.0; n - 1]);
    let scratch = &mut vec![0.0; qr::tridiagonal_scratch_len::<f64>(n)];
    let a = MatRef::row_major(&a, n, n).unwrap().transposed();
    for strides in [[2, 2 * n], [1, n], [2 * n, 1]] {
        let mut view = MatMut::with_strides(&mut q, [n, n], strides).unwrap();
        qr::tridiagonal(Reproducible, a, view.reborrow(), &mut d, &mut e, scratch).unwrap();
        assert!((0..n * n).all(|at| view.at(at / n, at % n) == want.q[at]), "{strides:?}");
        assert_eq!((&d, &e), (&want.diagonal, &want.off_diagonal));
    }
}

#[test]
fn bad_input_is_named_and_leaves_the_result_untouched() {
    let n = 3;
    let (mut q, mut d, mut e) = ([7.0_f32; 9], [7.0_f32; 3], [7.0_f32; 2]);
    let mut a = [1.0_f32; 9];
    let needed = qr::tridiagonal_scratch_len::<f32>(n);
    let mut scratch = vec![0.0; needed];
    let mut run = |a: &[f32], d: &mut [f32], e: &mut [f32], scratch: &mut [f32]| {
        let (a, view) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
        let refused = qr::tridiagonal(Reproducible, a, view, d, e, scratch).unwrap_err();
        assert_eq!(q, [7.0; 9]);
        refused
    };
    let found = run(&a, &mut d, &mut e, &mut scratch[1..]);
    assert_eq!(found, EighError::Scratch(ScratchError { needed, found: needed - 1 }));
    let found = run(&a, &mut d[1..], &mut e, &mut scratch);
    assert_eq!(found, EighError::Shape(ShapeError::vector("d", 3, 2)));
    let found = run(&a, &mut d, &mut e[1..], &mut scratch);
    assert_eq!(found, EighError::Shape(ShapeError::vector("the off-diagonal", 2, 1)));
    a[7] = f32::INFINITY;
    assert_eq!(run(&a, &mut d, &mut e, &mut scratch), EighError::NotFinite { row: 2, col: 1 });
    assert_eq!((d, e), ([7.0; 3], [7.0; 2]));
}

#[test]
fn an_element_beyond_the_range_is_named() {
    assert!(reduce(Reproducible, &[f32::MAX; 4], 2).is_ok());
    // The norm of a column.
    assert_eq!(reduce(Reproducible, &[f32::MAX; 9], 3).err(), Some(EighError::Overflow { index: 1 }));
}
