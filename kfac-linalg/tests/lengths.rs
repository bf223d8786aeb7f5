//! Lengths of scratch: what the docs promise of them.

use kfac_linalg::eigh::{Method, jacobi, qr, refresh, roots};
use kfac_linalg::{Scalar, cholesky, largest_len, packed_len, product, shifted};
use proptest::prelude::*;

/// Every length of the crate for the same three numbers, those that take fewer the first ones.
fn lengths<T: Scalar>([m, n, k]: [usize; 3]) -> [(&'static str, usize); 15] {
    [
        ("gemm", product::gemm_scratch_len::<T>(m, n, k)),
        ("syrk", product::syrk_scratch_len::<T>(m, n)),
        ("trsm", product::trsm_scratch_len::<T>(m, n)),
        ("factor", cholesky::factor_scratch_len::<T>(m)),
        ("solve", cholesky::solve_scratch_len::<T>(m, n)),
        ("inverse", cholesky::inverse_scratch_len::<T>(m)),
        ("jacobi", jacobi::scratch_len::<T>(m)),
        ("qr", qr::scratch_len::<T>(m)),
        ("tridiagonal", qr::tridiagonal_scratch_len::<T>(m)),
        ("step", refresh::step_scratch_len::<T>(m)),
        ("step or Jacobi", refresh::step_or_cold_scratch_len::<T>(m, Method::Jacobi)),
        ("step or QR", refresh::step_or_cold_scratch_len::<T>(m, Method::Qr)),
        ("roots", roots::scratch_len::<T>(m)),
        ("shifted", shifted::solve_scratch_len::<T>(m, n)),
        ("packed", packed_len(m)),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..1200_usize, 1 => any::<usize>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_length_shrinks_when_an_argument_grows(
        sizes in [size(), size(), size()],
        argument in 0..3_usize,
        more in prop_oneof![3 => 1..3_usize, 1 => 1..500_usize],
    ) {
        let mut larger = sizes;
        larger[argument] = larger[argument].saturating_add(more);
        let both = |small: [(&str, usize); 15], large: [(&str, usize); 15]| {
            for ((name, small), (_, large)) in small.into_iter().zip(large) {
                prop_assert!(small <= large, "{}: {:?} needs {}, {:?} {}", name, sizes, small, larger, large);
            }
            Ok(())
        };
        both(lengths::<f32>(sizes), lengths::<f32>(larger))?;
        both(lengths::<f64>(sizes), lengths::<f64>(larger))?;
    }
}

#[test]
fn no_length_shrinks_from_one_order_to_the_next() {
    let pairs = (0..1200).map(|n| [lengths::<f32>([n; 3]), lengths::<f32>([n + 1; 3])]);
    for (n, [small, large]) in pairs.enumerate() {
        for ((name, small), (_, large)) in small.into_iter().zip(large) {
            assert!(small <= large, "{name}: n = {n} needs {small}, the next one {large}");
        }
    }
}

#[test]
fn an_empty_matrix_needs_no_scratch() {
    for (name, len) in lengths::<f32>([0; 3]).into_iter().chain(lengths::<f64>([0; 3])) {
        assert_eq!(len, 0, "{name}");
    }
}

#[test]
fn decompositions_need_no_more_than_documented() {
    for n in 1..=700 {
        let check = |name: &str, len: usize, documented: usize| {
            assert!(len <= documented, "{name}, n = {n}: {len}, documented {documented}");
        };
        for (qr, tridiagonal, jacobi) in [
            (qr::scratch_len::<f32>(n), qr::tridiagonal_scratch_len::<f32>(n), jacobi::scratch_len::<f32>(n)),
            (qr::scratch_len::<f64>(n), qr::tridiagonal_scratch_len::<f64>(n), jacobi::scratch_len::<f64>(n)),
        ] {
            check("qr", qr, n * n + 410 * n + 200);
            check("tridiagonal", tridiagonal, n * n / 2 + 600 * n + 200);
            check("jacobi", jacobi, 2 * n * n + 500 * n + 200);
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[test]
fn the_table_of_kib_is_that_of_the_docs() {
    let kib = |len: usize| format!("{:.1}", len as f64 * 4.0 / 1024.0);
    let table = [8, 16, 32, 64].map(|n| [kib(jacobi::scratch_len::<f32>(n)), kib(qr::scratch_len::<f32>(n))]);
    assert_eq!(table.concat(), ["2.9", "4.8", "6.4", "8.6", "18.4", "20.1", "68.7", "57.9"]);
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[test]
fn small_matrices_need_little() {
    let qr = [2, 25].map(qr::scratch_len::<f32>);
    let single_block = [
        cholesky::factor_scratch_len::<f32>(25),
        cholesky::inverse_scratch_len::<f32>(25),
        cholesky::solve_scratch_len::<f32>(25, 1),
    ];
    assert_eq!((qr, single_block), ([598, 4506], [2608, 3632, 3120]));
}

#[test]
fn the_largest_length_is_one_of_them() {
    const LARGEST: usize = largest_len([3, 9, 0, 9, 4]);
    assert_eq!((LARGEST, largest_len([]), largest_len([7])), (9, 0, 7));
    assert_eq!([largest_len([8, 2]), largest_len([2, 8])], [8; 2]);
}
