//! Every public routine, under a global allocator that counts: no allocation, whatever the outcome.

mod common;

use common::{positive_definite, random, rounded};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::eigh::qr;
use kfac_linalg::eigh::refresh;
use kfac_linalg::eigh::roots::{self, Below, Floor, Root};
use kfac_linalg::product::{self, Accumulate};
use kfac_linalg::shifted::{self, Shifts, Tridiagonal};
use kfac_linalg::{MatMut, MatRef, PackedMut, Reproducible, Scalar, cholesky, packed_len};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations of this thread: the test harness has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches a plain thread-local cell
// that needs neither allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn assert_no_allocation(name: &str, body: impl FnOnce()) {
    let before = ALLOCATIONS.get();
    body();
    let made = ALLOCATIONS.get() - before;
    assert_eq!(made, 0, "{name} allocates");
}

fn no_routine_allocates<T: Scalar>() {
    let (n, k, columns) = (150, 300, 20);
    let x: Vec<T> = random(k * n, 1);
    let definite: Vec<T> = rounded(&positive_definite(n, 2));
    let (mut a, mut q, mut d) = (definite.clone(), vec![T::ZERO; n * n], vec![T::ZERO; n]);
    let (mut b, mut packed) = (vec![T::ONE; n * columns], vec![T::ZERO; packed_len(n)]);
    let longest = [
        product::gemm_scratch_len::<T>(n, n, k),
        product::syrk_scratch_len::<T>(n, k),
        product::trsm_scratch_len::<T>(n, columns),
        cholesky::factor_scratch_len::<T>(n),
        cholesky::solve_scratch_len::<T>(n, columns),
        cholesky::inverse_scratch_len::<T>(n),
        jacobi::scratch_len::<T>(n),
        qr::scratch_len::<T>(n),
        refresh::step_scratch_len::<T>(n),
        roots::scratch_len::<T>(n),
        shifted::solve_scratch_len::<T>(n, columns),
    ];
    let scratch = &mut vec![T::ZERO; longest.into_iter().max().unwrap()];
    let x = MatRef::row_major(&x, k, n).unwrap();
    let replace = Accumulate::Replace(T::ONE);

    assert_no_allocation("gemm", || {
        let c = MatMut::row_major(&mut a, n, n).unwrap();
        product::gemm(Reproducible, c, replace, x.transposed(), x, scratch).unwrap();
    });
    assert_no_allocation("syrk_lower", || {
        let c = MatMut::row_major(&mut a, n, n).unwrap();
        product::syrk_lower(Reproducible, c, replace, x, scratch).unwrap();
    });
    assert_no_allocation("syrk, pack and unpack", || {
        let mut c = PackedMut::new(&mut packed, n).unwrap();
        product::syrk(Reproducible, c.reborrow(), replace, x, scratch).unwrap();
        c.unpack(MatMut::row_major(&mut a, n, n).unwrap()).unwrap();
        c.pack(MatRef::row_major(&a, n, n).unwrap()).unwrap();
    });
    assert_no_allocation("dot and gemv", || {
        product::dot(&a, &a).unwrap();
        product::gemv(Reproducible, &mut d, replace, x.transposed(), &a[..k]).unwrap();
        product::gemv_dots(Reproducible, &mut d, replace, x.transposed(), &a[..k]).unwrap();
    });
    a.copy_from_slice(&definite);
    assert_no_allocation("factor, solve and trsm", || {
        cholesky::factor(Reproducible, MatMut::row_major(&mut a, n, n).unwrap(), scratch).unwrap();
        let l = MatRef::row_major(&a, n, n).unwrap();
        cholesky::solve(Reproducible, l, MatMut::row_major(&mut b, n, columns).unwrap(), scratch).unwrap();
        let b = MatMut::row_major(&mut b, n, columns).unwrap();
        product::trsm_lower(Reproducible, l, b, scratch).unwrap();
    });
    a.copy_from_slice(&definite);
    assert_no_allocation("inverse, and its failure", || {
        cholesky::inverse(Reproducible, MatMut::row_major(&mut a, n, n).unwrap(), scratch).unwrap();
        a[n * n - 1] = -T::ONE;
        cholesky::inverse(Reproducible, MatMut::row_major(&mut a, n, n).unwrap(), scratch).unwrap_err();
    });
    let definite = MatRef::row_major(&definite, n, n).unwrap();
    assert_no_allocation("jacobi", || {
        let q_view = MatMut::row_major(&mut q, n, n).unwrap();
        jacobi::cold(Reproducible, definite, q_view, &mut d, Budget::FULL, scratch).unwrap();
        let q_view = MatMut::row_major(&mut q, n, n).unwrap();
        jacobi::warm(Reproducible, definite, q_view, &mut d, Budget::FULL, scratch).unwrap();
        let q_view = MatMut::row_major(&mut q, n, n).unwrap();
        let none = Budget { sweeps: 0, ..Budget::FULL };
        jacobi::cold(Reproducible, definite, q_view, &mut d, none, scratch).unwrap_err();
    });
    assert_no_allocation("qr", || {
        let q_view = MatMut::row_major(&mut q, n, n).unwrap();
        qr::cold(Reproducible, definite, q_view, &mut d, scratch).unwrap();
        let q_view = MatMut::row_major(&mut q, n, n).unwrap();
        let off_diagonal = &mut b[..n - 1];
        qr::tridiagonal(Reproducible, definite, q_view, &mut d, off_diagonal, scratch).unwrap();
    });
    assert_no_allocation("a refresh step, and its failure", || {
        for lambda in [T::ONE, T::from_f64(f64::NAN)] {
            let (q, d) = (MatMut::row_major(&mut q, n, n).unwrap(), &mut d);
            let outcome = refresh::step(Reproducible, definite, q, d, lambda, scratch);
            assert_eq!(outcome.is_ok(), lambda == T::ONE, "{outcome:?}");
        }
    });
    assert_no_allocation("inverse roots, and their failure", || {
        for order in [3, 0] {
            let root = Root { order, floor: Floor::Relative(T::from_f64(0.1)), below: Below::Drop };
            let (q, a) = (MatRef::row_major(&q, n, n).unwrap(), MatMut::row_major(&mut a, n, n).unwrap());
            let outcome = roots::inverse_root(Reproducible, root, q, &d, a, scratch);
            assert_eq!(outcome.is_ok(), order > 0, "{outcome:?}");
        }
    });
    let (ones, halves) = (vec![T::ONE; n], vec![T::from_f64(0.5); n - 1]);
    assert_no_allocation("shifted solves, and their failure", || {
        let q = MatRef::row_major(&q, n, n).unwrap();
        let reduced = Tridiagonal { q, diagonal: &ones, off_diagonal: &halves };
        for lambda in [T::ONE, -T::ONE] {
            let (b, shifts) =
                (MatMut::row_major(&mut b, n, columns).unwrap(), Shifts { d: &ones[..columns], lambda });
            let outcome = shifted::solve(Reproducible, reduced, shifts, b, scratch);
            assert_eq!(outcome.is_ok(), lambda > T::ZERO, "{outcome:?}");
        }
    });
}

#[test]
fn no_routine_allocates_under_the_reproducible_kernel() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1_u8]));
    assert_eq!(ALLOCATIONS.get(), before + 1, "the allocator under test must be the counting one");
    no_routine_allocates::<f32>();
    no_routine_allocates::<f64>();
}
