//! Inverse roots: golden matrices, powers that give back the inverse, and every way to treat small eigenvalues.
//!
//! The golden vectors are read from the folder in `KFAC_GOLDEN_DIR` when it is set, else from `tests/golden`.

mod common;

use common::{identity, norm, random, relu_factor, rounded, times, transposed, widened, with_spectrum};
use kfac_linalg::eigh::roots::{self, Below, Floor, Outcome, Root, RootError};
use kfac_linalg::eigh::{Eigensolver, Jacobi, Qr};
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar, ScratchError,
    ShapeError,
};
use serde_json::Value;
use std::path::PathBuf;

/// No floor: every eigenvalue must be positive.
fn plain<T: Scalar>(order: u32) -> Root<T> {
    Root { order, floor: Floor::Absolute(T::ZERO), below: Below::Raise }
}

/// The root from given eigenvectors and eigenvalues; scratch is as short as promised and full of NaN.
fn inverse_root<T: Scalar, K: Kernel<T>>(
    kernel: K,
    root: Root<T>,
    [q, d]: [&[T]; 2],
) -> Result<(Vec<T>, Outcome), RootError> {
    let n = d.len();
    let mut to = vec![common::nan(); n * n];
    let scratch = &mut vec![common::nan(); roots::scratch_len::<T>(n)];
    let (q, view) = (MatRef::row_major(q, n, n).unwrap(), MatMut::row_major(&mut to, n, n).unwrap());
    let outcome = roots::inverse_root(kernel, root, q, d, view, scratch);
    assert!(outcome.is_ok() || to.iter().all(|x| x.to_f64().is_nan()), "{outcome:?}: written all the same");
    outcome.map(|outcome| (to, outcome))
}

/// Eigenvectors and eigenvalues.
fn decompose<T: Scalar, K: Kernel<T>, S: Eigensolver>(
    kernel: K,
    solver: S,
    a: &[T],
    n: usize,
) -> [Vec<T>; 2] {
    let (mut q, mut d) = (vec![T::ZERO; n * n], vec![T::ZERO; n]);
    let scratch = &mut vec![T::ZERO; S::METHOD.scratch_len::<T>(n)];
    let (a, view) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    solver.cold(kernel, a, view, &mut d, scratch).unwrap();
    [q, d]
}

fn numbers(x: &Value) -> Vec<f64> {
    let data = x["data"].as_array().expect("an array");
    data.iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn check_case<T: Scalar, K: Kernel<T>, S: Eigensolver>(case: &Value, kernel: K, solver: S) {
    let name = case["name"].as_str().expect("a name");
    assert_eq!(case["family"], "inverse_root", "{name}: unknown family");
    let n = case["inputs"]["n"].as_u64().expect("a size") as usize;
    let (packed, epsilon) =
        (numbers(&case["inputs"]["lower_packed"]), &case["inputs"]["epsilon_added_to_diagonal"]);
    let mut a = vec![0.0; n * n];
    for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
        a[i * n + j] = packed[i * (i + 1) / 2 + j];
    }
    (0..n).for_each(|i| a[i * n + i] += epsilon.as_f64().expect("a number"));
    // For f32 the inputs are rounded, and the tolerance grows by 2^29.
    let digits = T::EPSILON.to_f64() / f64::EPSILON;
    let rtol = case["tolerance"]["relative_to_largest_entry"].as_f64().expect("a tolerance") * digits;
    if rtol > 1e-2 {
        return;
    }
    let [q, d] = decompose(kernel, solver, &rounded::<T>(&a), n);
    let v = numbers(&case["inputs"]["v"]);
    let quantities = case["expected"].as_object().expect("an object");
    assert_eq!(quantities.len(), 2, "{name}");
    for (quantity, want) in quantities {
        let order = if quantity.starts_with("inverse_root_2_") { 2 } else { 4 };
        let (root, outcome) = inverse_root(kernel, plain(order), [&q, &d]).unwrap();
        assert_eq!(outcome, Outcome { below: 0, floor: 0.0 });
        let (root, want) = (widened(&root), numbers(want));
        let got: Vec<f64> = match quantity.as_str() {
            "inverse_root_2_lower_packed" | "inverse_root_4_lower_packed" => {
                (0..n).flat_map(|i| root[i * n..=i * n + i].to_vec()).collect()
            }
            "inverse_root_2_times_v" | "inverse_root_4_times_v" => times(&root, &v, [n, n, v.len() / n]),
            _ => panic!("{name}: unknown quantity {quantity}"),
        };
        assert_eq!(got.len(), want.len(), "{name}, {quantity}");
        let top = want.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= rtol * top, "{name}, {quantity}: {got:e} is not {want:e}");
        }
    }
}

#[test]
fn golden_inverse_roots() {
    let folder = std::env::var_os("KFAC_GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
    let path = folder.join("eigh_inverse_roots.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(file["format"], "kfac-golden-1");
    let cases = file["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "{} holds no case", path.display());
    for case in cases {
        check_case::<f64, _, _>(case, Reproducible, Qr);
        check_case::<f64, _, _>(case, Reproducible, Jacobi::default());
        check_case::<f64, _, _>(case, Fast::detect(), Qr);
        check_case::<f32, _, _>(case, Reproducible, Qr);
        check_case::<f32, _, _>(case, Fast::detect(), Jacobi::default());
    }
}

fn a_root_to_its_power_is_the_inverse<T: Scalar, K: Kernel<T>>(kernel: K) {
    for n in [0, 1, 2, 3, 5, 31, 32, 33, 100] {
        let d: Vec<f64> = (0..n).map(|i| 0.5 + i as f64 / n as f64).collect();
        let a = with_spectrum(&d, 1);
        let [q, d] = decompose(kernel, Qr, &rounded::<T>(&a), n);
        for order in [1, 2, 3, 4, 6, 7, 8] {
            let (root, _) = inverse_root(kernel, plain(order), [&q, &d]).unwrap();
            for (i, j) in (0..n).flat_map(|i| (0..i).map(move |j| (i, j))) {
                assert!(root[i * n + j] == root[j * n + i], "n = {n}, order {order}: ({i}, {j})");
            }
            let mut product = a.clone();
            (0..order).for_each(|_| product = times(&product, &widened(&root), [n, n, n]));
            let error = norm(&common::minus_identity(&product, n));
            // Each factor adds what one product and one decomposition round.
            let allowed = 2.0 * f64::from(order + 1) * n as f64 * T::EPSILON.to_f64();
            assert!(error <= allowed, "n = {n}, order {order}: {error:e} instead of {allowed:e}");
        }
    }
}

#[test]
fn a_root_to_its_power_is_the_inverse_in_f32_and_f64() {
    a_root_to_its_power_is_the_inverse::<f32, _>(Reproducible);
    a_root_to_its_power_is_the_inverse::<f64, _>(Reproducible);
    InstructionSet::available().for_each(|set| a_root_to_its_power_is_the_inverse::<f32, _>(Fast::on(set)));
    InstructionSet::available().for_each(|set| a_root_to_its_power_is_the_inverse::<f64, _>(Fast::on(set)));
}

#[test]
fn roots_of_powers_are_exact_where_square_roots_are() {
    let (d, mut to) = ([16.0_f32, 1.0, 65536.0, 0.0625], [0.0; 4]);
    plain(4).of_eigenvalues(&d, &mut to).unwrap();
    assert_eq!(to, [0.5, 1.0, 0.0625, 2.0]);
    let (d, mut to) = ([8.0_f64, 27.0, 1e300, 1e-300], [0.0; 4]);
    plain(3).of_eigenvalues(&d, &mut to).unwrap();
    for (to, want) in to.iter().zip([0.5, 1.0 / 3.0, 1e-100, 1e100]) {
        assert!((to - want).abs() <= 1e-13 * want, "{to:e} is not {want:e}");
    }
}

#[test]
fn small_eigenvalues_are_raised_or_dropped() {
    let d = [-1e-9_f64, 0.0, 1e-4, 0.25, 4.0];
    let root = |floor, below| Root { order: 2, floor, below };
    let run = |root: Root<f64>| {
        let mut to = [7.0; 5];
        root.of_eigenvalues(&d, &mut to).map(|outcome| (to, outcome))
    };
    let (to, outcome) = run(root(Floor::Absolute(0.01), Below::Raise)).unwrap();
    assert_eq!((to, outcome), ([10.0, 10.0, 10.0, 2.0, 0.5], Outcome { below: 3, floor: 0.01 }));
    let (to, outcome) = run(root(Floor::Relative(0.015_625), Below::Raise)).unwrap();
    assert_eq!((to, outcome), ([4.0, 4.0, 4.0, 2.0, 0.5], Outcome { below: 3, floor: 0.0625 }));
    let (to, outcome) = run(root(Floor::Relative(1e-8), Below::Drop)).unwrap();
    assert_eq!((to, outcome), ([0.0, 0.0, 100.0, 2.0, 0.5], Outcome { below: 2, floor: 4e-8 }));
    // An eigenvalue that is the floor counts as below it.
    let (to, outcome) = run(root(Floor::Absolute(0.25), Below::Drop)).unwrap();
    assert_eq!((to, outcome), ([0.0, 0.0, 0.0, 0.0, 0.5], Outcome { below: 4, floor: 0.25 }));
}

#[test]
fn the_root_of_a_singular_matrix_is_that_of_its_pseudo_inverse() {
    let (n, rank) = (30, 11);
    let x: Vec<f64> = random(n * rank, 2);
    let a = times(&x, &transposed(&x, [n, rank]), [n, rank, n]);
    let [q, d] = decompose(Reproducible, Qr, &a, n);
    let root = Root { order: 2, floor: Floor::Relative(n as f64 * f64::EPSILON), below: Below::Drop };
    let (half, outcome) = inverse_root(Reproducible, root, [&q, &d]).unwrap();
    assert_eq!(outcome.below, n - rank);
    // A A⁺ A = A, and A⁺ = (A^(-1/2))².
    let pseudo = times(&half, &half, [n, n, n]);
    let back = times(&times(&a, &pseudo, [n, n, n]), &a, [n, n, n]);
    let error = norm(&common::minus(&back, &a)) / norm(&a);
    assert!(error <= 1e-12, "{error:e}");
    // The zero matrix has no direction left.
    let (zero, outcome) = inverse_root(Reproducible, root, [&identity::<f64>(3), &[0.0; 3]]).unwrap();
    assert_eq!((zero, outcome), (vec![0.0; 9], Outcome { below: 3, floor: 0.0 }));
}

#[test]
fn what_has_no_root_is_named_and_leaves_the_result_untouched() {
    let q = identity::<f32>(3);
    let run = |root: Root<f32>, d: [f32; 3]| inverse_root(Reproducible, root, [&q, &d]).unwrap_err();
    let floor = |floor| Root { order: 2, floor, below: Below::Drop };
    assert_eq!(run(plain(0), [1.0; 3]), RootError::OrderZero);
    assert_eq!(run(plain(2), [1.0, f32::NAN, 1.0]), RootError::NotFinite { index: 1 });
    assert_eq!(run(plain(2), [1.0, 1.0, f32::INFINITY]), RootError::NotFinite { index: 2 });
    assert_eq!(run(plain(2), [0.0, 1.0, 1.0]), RootError::Singular { index: 0 });
    assert_eq!(run(plain(2), [1.0, -0.5, 1.0]), RootError::Negative { index: 1, value: -0.5 });
    let found = run(floor(Floor::Relative(0.25)), [-0.5, 1.0, 1.0]);
    assert_eq!(found, RootError::Negative { index: 0, value: -0.5 });
    assert_eq!(run(floor(Floor::Absolute(-1.0)), [1.0; 3]), RootError::Floor { value: -1.0 });
    assert!(
        matches!(run(floor(Floor::Relative(f32::NAN)), [1.0; 3]), RootError::Floor { value } if value.is_nan())
    );
    assert_eq!(run(plain(1), [1.0, 1e-40, 1.0]), RootError::Overflow { index: 1 });
    assert_eq!(
        found.to_string(),
        "eigenvalue 0 is -5e-1, negative by more than the floor (where that is rounding: `Floor::Relative(n * EPSILON)`)"
    );
}

#[test]
fn wrong_shapes_and_short_scratch_are_refused() {
    let (q, mut to) = (identity::<f64>(3), [7.0; 9]);
    let needed = roots::scratch_len::<f64>(3);
    let mut scratch = vec![0.0; needed];
    let q = MatRef::row_major(&q, 3, 3).unwrap();
    let mut run = |q, d: &[f64], scratch: &mut [f64]| {
        let view = MatMut::row_major(&mut to, 3, 3).unwrap();
        roots::inverse_root(Reproducible, plain(2), q, d, view, scratch).unwrap_err()
    };
    let short = RootError::Scratch(ScratchError { needed, found: 4 });
    assert_eq!(run(q, &[1.0; 3], &mut scratch[..4]), short);
    let shape = |name, expected, found| RootError::Shape(ShapeError::matrix(name, expected, found));
    assert_eq!(run(q, &[1.0; 2], &mut scratch), shape("Q", [2, 2], [3, 3]));
    assert_eq!(run(q.block(0..3, 0..2).unwrap(), &[1.0; 3], &mut scratch), shape("Q", [3, 3], [3, 2]));
    assert_eq!(
        plain(2).of_eigenvalues(&[1.0; 3], &mut [0.0; 2]).unwrap_err(),
        RootError::Shape(ShapeError::vector("the result", 3, 2))
    );
    assert_eq!(to, [7.0; 9]);
}

fn bits_are_those_of_every_register<T: Scalar>() {
    let n = 50;
    let [q, d] = decompose(Reproducible, Qr, &rounded::<T>(&relu_factor(n, 3)), n);
    for order in [2, 3, 4] {
        let root = Root { order, floor: Floor::Relative(T::from_f64(1e-3)), below: Below::Raise };
        let (want, _) = inverse_root(Reproducible, root, [&q, &d]).unwrap();
        for set in InstructionSet::available() {
            let (found, _) = inverse_root(ReproducibleOn(set), root, [&q, &d]).unwrap();
            assert!(found == want, "order {order}, {set}");
        }
        // Columns of q and of the result as neighbours down the rows.
        let (turned, mut to) = (rounded::<T>(&transposed(&widened(&q), [n, n])), vec![common::nan(); n * n]);
        let scratch = &mut vec![common::nan(); roots::scratch_len::<T>(n)];
        let view = MatMut::row_major(&mut to, n, n).unwrap().transposed();
        let turned = MatRef::row_major(&turned, n, n).unwrap().transposed();
        roots::inverse_root(Reproducible, root, turned, &d, view, scratch).unwrap();
        assert!(to == want, "order {order}: another view");
    }
}

#[test]
fn bits_are_those_of_every_register_width() {
    bits_are_those_of_every_register::<f32>();
    bits_are_those_of_every_register::<f64>();
}
