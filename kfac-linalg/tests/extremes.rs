//! Shapes that no memory holds, and empty ones of any length: named errors or nothing to do, never a panic or a hang.

use kfac_linalg::cholesky::{self, CholeskyError};
use kfac_linalg::eigh::refresh::{self, Settings};
use kfac_linalg::eigh::roots::{Below, Floor, Root, RootError};
use kfac_linalg::eigh::{EighError, Jacobi, Method, Qr, jacobi, qr, roots};
use kfac_linalg::product::{gemm_scratch_len, syrk_scratch_len, trsm_lower, trsm_scratch_len, trsm_upper};
use kfac_linalg::shifted;
use kfac_linalg::{Fault, MatMut, MatRef, Reproducible, ShapeError};

const MOST: usize = usize::MAX;

#[test]
fn scratch_lengths_saturate() {
    type OfOrder = fn(usize) -> usize;
    type OfShape = fn(usize, usize) -> usize;
    let of_order: [(&str, OfOrder); 9] = [
        ("qr", qr::scratch_len::<f32>),
        ("tridiagonal", qr::tridiagonal_scratch_len::<f32>),
        ("jacobi", jacobi::scratch_len::<f64>),
        ("roots", roots::scratch_len::<f32>),
        ("step", refresh::step_scratch_len::<f64>),
        ("step or QR", |n| refresh::step_or_cold_scratch_len::<f32>(n, Method::Qr)),
        ("step or Jacobi", |n| refresh::step_or_cold_scratch_len::<f32>(n, Method::Jacobi)),
        ("factor", cholesky::factor_scratch_len::<f32>),
        ("inverse", cholesky::inverse_scratch_len::<f32>),
    ];
    let of_shape: [(&str, OfShape); 3] = [
        ("trsm", trsm_scratch_len::<f32>),
        ("solve", cholesky::solve_scratch_len::<f64>),
        ("shifted", shifted::solve_scratch_len::<f32>),
    ];
    // Around every power of two: nowhere may a sum wrap on the way to the largest.
    let orders = || (2..usize::BITS).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([MOST]);
    for (name, len) in of_order {
        let lens: Vec<_> = orders().map(len).collect();
        assert!(lens.is_sorted() && len(MOST) == MOST, "{name}: {lens:?}");
    }
    for (name, len) in of_shape {
        for n in [1, 3, 65, MOST] {
            let lens: Vec<_> = orders().map(|columns| len(n, columns)).collect();
            assert!(lens.is_sorted() && len(n, MOST) == MOST, "{name}, n = {n}: {lens:?}");
            let lens: Vec<_> = orders().map(|rows| len(rows, n)).collect();
            assert!(lens.is_sorted(), "{name}, {n} columns: {lens:?}");
        }
    }
    // Packed operands are bounded.
    assert!(gemm_scratch_len::<f32>(MOST, MOST, MOST) < 1 << 20);
    assert!(syrk_scratch_len::<f64>(MOST, MOST) < 1 << 20);
}

/// All elements of a matrix of any order are one and the same.
fn repeated(order: usize) -> MatRef<'static, f32> {
    MatRef::with_strides(&[1.0], [order, order], [0, 0]).unwrap()
}

fn empty(data: &mut [f32; 0], shape: [usize; 2]) -> MatMut<'_, f32> {
    MatMut::with_strides(data, shape, [1, 1]).unwrap()
}

#[test]
fn right_hand_sides_without_rows_or_columns_are_solved_at_once() {
    for [n, columns] in [[0, MOST], [MOST, 0], [1 << 40, 0]] {
        let (t, b, scratch) = (repeated(n), &mut [], &mut []);
        assert_eq!(trsm_lower(Reproducible, t, empty(b, [n, columns]), scratch), Ok(()));
        assert_eq!(trsm_upper(Reproducible, t, empty(b, [n, columns]), scratch), Ok(()));
        assert_eq!(cholesky::solve(Reproducible, t, empty(b, [n, columns]), scratch), Ok(()));
    }
}

#[test]
fn views_without_columns_are_filled_and_copied_at_once() {
    for strides in [[1, 1], [2, 2]] {
        let (mut to, from) = ([0.0_f32; 0], MatRef::with_strides(&[], [MOST, 0], strides).unwrap());
        let mut to = MatMut::with_strides(&mut to, [MOST, 0], strides).unwrap();
        to.fill(1.0);
        to.copy_from(from).unwrap();
    }
}

#[test]
fn a_matrix_of_another_order_than_its_basis_is_refused_for_its_shape() {
    for order in [2, 1 << 40, MOST] {
        let (mut q, mut d) = ([1.0_f32], [1.0_f32]);
        let expected = EighError::Shape(ShapeError::matrix("Q", [order, order], [1, 1]));
        let mut view = MatMut::row_major(&mut q, 1, 1).unwrap();
        let (a, settings) = (repeated(order), Settings::new(0.1, Qr));
        let found = refresh::step_or_cold(Reproducible, a, view.reborrow(), &mut d, settings, &mut []);
        assert_eq!(found, Err(expected));
        let settings = Settings::new(0.1, Jacobi::default());
        let found = refresh::step_or_cold(Reproducible, a, view, &mut d, settings, &mut []);
        assert_eq!(found, Err(expected));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let numbers = [0.0_f32; 9];
    let view = MatRef::row_major(&numbers, 3, 3).unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "that is the case")]
    let reversed = view.block(3..1, 0..2).unwrap_err();
    assert_eq!(reversed, ShapeError { fault: Fault::Reversed, expected: [3, 0], found: [1, 2] });
    assert_eq!(reversed.to_string(), "the block ends before it begins: from (3, 0) to (1, 2)");
    let outside = view.block(1..4, 0..2).unwrap_err();
    assert_eq!(outside, ShapeError { fault: Fault::Outside, expected: [3, 3], found: [4, 2] });
    assert_eq!(outside.to_string(), "the block ends at (4, 2), outside of 3 x 3");
    let mut numbers = numbers;
    let overlap = MatMut::with_strides(&mut numbers, [4, 3], [2, 1]).unwrap_err();
    assert_eq!(overlap, ShapeError { fault: Fault::Overlap, expected: [3, 1], found: [2, 1] });
    let message =
        "two elements of the view share memory: its strides are 2 and 1, row after row they would be 3 and 1";
    assert_eq!(overlap.to_string(), message);
    let other = ShapeError::new([3, 4], [2, 1]);
    assert_eq!((other.fault, other.to_string().as_str()), (Fault::Other, "3 x 4 expected, found 2 x 1"));

    // The floor itself, not the harmless part that was given.
    let root = |floor| Root { order: 2, floor, below: Below::Raise }.of_eigenvalues(&[1e30_f32], &mut [0.0]);
    let beyond = root(Floor::Relative(1e30)).unwrap_err();
    assert_eq!(beyond, RootError::Floor { value: f64::INFINITY });
    assert_eq!(root(Floor::Relative(-1.0)).unwrap_err(), RootError::Floor { value: -1.0 });

    // Positive, but without a reciprocal.
    let tiny = [1e-40_f32];
    let l = MatRef::row_major(&tiny, 1, 1).unwrap();
    let scratch = &mut vec![0.0; cholesky::solve_scratch_len::<f32>(1, 1)];
    let found = cholesky::solve(Reproducible, l, MatMut::row_major(&mut [1.0], 1, 1).unwrap(), scratch);
    assert_eq!(found, Err(CholeskyError::NotPositiveDefinite { pivot: 0, value: f64::from(1e-40_f32) }));
    assert_eq!(found.unwrap_err().to_string(), "pivot 0 is 9.99994610111476e-41, too small to be inverted");
}

#[test]
fn an_inverse_beyond_all_numbers_is_an_overflow() {
    // Its pivots have reciprocals, its inverse is 1e40.
    let (s, ratio) = (1e-35_f32, 1e3_f32.sqrt());
    let mut a = [s, f32::NAN, s * ratio, s * (ratio * ratio) * (1.0 + 1e-5)];
    let scratch = &mut vec![0.0; cholesky::inverse_scratch_len::<f32>(2)];
    for transposed in [false, true] {
        if transposed {
            (a[1], a[2]) = (a[2], f32::NAN);
        }
        let mut a = a;
        let view = MatMut::row_major(&mut a, 2, 2).unwrap();
        let view = if transposed { view.transposed() } else { view };
        assert_eq!(cholesky::inverse(Reproducible, view, scratch), Err(CholeskyError::Overflow));
    }
}

#[test]
fn solutions_beyond_all_numbers_are_an_overflow_of_their_column() {
    // Both rotated elements are 0.9 times the largest number, turned back their sum is larger.
    let (h, lambda) = (core::f32::consts::FRAC_1_SQRT_2, 2_f32.powi(-10));
    let q = [h, -h, h, h];
    let tridiagonal = shifted::Tridiagonal {
        q: MatRef::row_major(&q, 2, 2).unwrap(),
        diagonal: &[0.0, 0.0],
        off_diagonal: &[0.0],
    };
    let shifts = shifted::Shifts { d: &[1.0; 2], lambda };
    let mut b = [0.0, lambda * 0.9 * f32::MAX * 2.0 * h, 1.0, 0.0];
    let scratch = &mut vec![0.0; shifted::solve_scratch_len::<f32>(2, 2)];
    let b = MatMut::row_major(&mut b, 2, 2).unwrap();
    let found = shifted::solve(Reproducible, tridiagonal, shifts, b, scratch);
    assert_eq!(found, Err(shifted::ShiftedError::Overflow { column: 1 }));
}

#[cfg(feature = "alloc")]
#[test]
#[should_panic(expected = "capacity overflow")]
fn more_zeros_than_any_memory_holds_are_refused_as_by_every_vector() {
    let _ = kfac_linalg::AlignedVec::<f32>::zeros(MOST);
}

#[cfg(feature = "threads")]
#[test]
fn more_threads_than_bands_are_not_started() {
    use kfac_linalg::product::{Accumulate, OnThreads};
    for threads in [1 << 33, MOST] {
        let kernel = OnThreads::new(Reproducible, threads.try_into().unwrap());
        let (mut c, nothing) = ([1.0_f32], MatRef::row_major(&[], 1, 0).unwrap());
        let view = MatMut::row_major(&mut c, 1, 1).unwrap();
        let replace = Accumulate::Replace(1.0);
        kernel.gemm(view, replace, nothing, nothing.transposed(), &mut []).unwrap();
        assert_eq!(c, [0.0]);
        let tall = MatRef::with_strides(&[1.0], [MOST, 1], [0, 0]).unwrap();
        let b = MatRef::with_strides(&[], [1, 0], [1, 1]).unwrap();
        kernel.gemm(empty(&mut [], [MOST, 0]), replace, tall, b, &mut []).unwrap();
    }
}
