//! Golden eigenvalue problems, computed at 60 digits by an independent program.
//!
//! The vectors are read from the folder in `KFAC_GOLDEN_DIR` when it is set, else from `tests/golden`. Regenerate:
//! they are not ours to regenerate; `provenance` in each file says where they come from.

mod common;

use common::{minus, minus_identity, norm, rounded, times, transposed, widened};
use kfac_linalg::eigh::{Eigensolver, Jacobi, Qr};
use kfac_linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use serde_json::Value;
use std::path::PathBuf;

/// One symmetric matrix and what is known about its eigenvalues.
struct Case {
    name: String,
    n: usize,
    a: Vec<f64>,
    eigenvalues: Vec<f64>,
    frobenius: f64,
    eigenvalue_units: f64,
    vector_units: f64,
}

fn number(x: &Value) -> f64 {
    x.as_f64().unwrap_or_else(|| panic!("{x} is not a number"))
}

fn numbers(x: &Value) -> Vec<f64> {
    x["data"].as_array().expect("an array").iter().map(number).collect()
}

fn read(file: &str) -> Vec<Case> {
    let folder = std::env::var_os("KFAC_GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(file["format"], "kfac-golden-1");
    let cases = file["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "{} holds no case", path.display());
    cases.iter().map(parse).collect()
}

fn parse(case: &Value) -> Case {
    let name = case["name"].as_str().expect("a name").to_owned();
    assert_eq!(case["family"], "eigh", "{name}: unknown family");
    let n = case["inputs"]["n"].as_u64().expect("a size") as usize;
    let packed = numbers(&case["inputs"]["lower_packed"]);
    assert_eq!(packed.len(), n * (n + 1) / 2, "{name}");
    let mut a = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let x = packed[i * (i + 1) / 2 + j];
            (a[i * n + j], a[j * n + i]) = (x, x);
        }
    }
    Case {
        n,
        a,
        eigenvalues: numbers(&case["expected"]["eigenvalues_ascending"]),
        frobenius: number(&case["expected"]["frobenius"]),
        eigenvalue_units: number(&case["tolerance"]["eigenvalue_abs_in_units_of_n_eps_norm2"]),
        vector_units: number(&case["tolerance"]["residual_and_orthogonality_in_units_of_n_eps"]),
        name,
    }
}

impl Case {
    /// Solves the case by all solvers.
    fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        self.check_with::<T, K, _>(kernel, Jacobi::default());
        self.check_with::<T, K, _>(kernel, Qr);
    }

    /// Solves the case, cold and then warm, and compares everything. `unit` is `n eps`.
    fn check_with<T: Scalar, K: Kernel<T>, S: Eigensolver>(&self, kernel: K, solver: S) {
        let n = self.n;
        let unit = n as f64 * T::EPSILON.to_f64();
        let a: Vec<T> = rounded(&self.a);
        let (mut q, mut d) = (vec![T::ZERO; n * n], vec![T::ZERO; n]);
        let scratch = &mut vec![T::ZERO; S::METHOD.scratch_len::<T>(n)];
        for start in ["cold", "warm"] {
            let name = format!("{}, {:?}, {start}", self.name, S::METHOD);
            let (a, view) = (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
            let outcome = match start {
                "cold" => solver.cold(kernel, a, view, &mut d, scratch),
                _ => solver.warm(kernel, a, view, &mut d, scratch),
            };
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
            self.compare(unit, &widened(&q), &widened(&d), &name);
        }
    }

    fn compare(&self, unit: f64, q: &[f64], d: &[f64], name: &str) {
        let n = self.n;
        let top = self.eigenvalues.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
        for (i, (got, want)) in d.iter().zip(&self.eigenvalues).enumerate() {
            let allowed = self.eigenvalue_units * unit * top;
            assert!((got - want).abs() <= allowed, "{name}: eigenvalue {i} is {got:e}, not {want:e}");
        }
        let allowed = self.eigenvalue_units * unit * self.frobenius;
        assert!((norm(d) - self.frobenius).abs() <= allowed, "{name}: norm {:e}", norm(d));

        // Divided by the largest eigenvalue first: some matrices lie at the ends of the range.
        let size = if top > 0.0 { top } else { 1.0 };
        let a: Vec<f64> = self.a.iter().map(|x| x / size).collect();
        let qd: Vec<f64> = (0..n * n).map(|at| q[at] * (d[at % n] / size)).collect();
        let residual = norm(&minus(&times(&a, q, [n, n, n]), &qd)) / norm(&a).max(f64::MIN_POSITIVE);
        assert!(residual <= self.vector_units * unit, "{name}: residual {:.2} n eps", residual / unit);
        let gram = times(&transposed(q, [n, n]), q, [n, n, n]);
        let deviation = norm(&minus_identity(&gram, n));
        assert!(deviation <= self.vector_units * unit, "{name}: orthogonality {:.2} n eps", deviation / unit);
    }

    /// Whether the matrix survives rounding to `f32`: no element or eigenvalue leaves the normal range.
    fn fits_f32(&self) -> bool {
        let mut sizes = self.a.iter().chain(&self.eigenvalues).map(|x| x.abs()).filter(|&x| x > 0.0);
        let range = f64::from(f32::MIN_POSITIVE) / f64::from(f32::EPSILON)..f64::from(f32::MAX);
        sizes.all(|x| range.contains(&x) || x < f64::from(f32::EPSILON) * self.frobenius)
            && (self.frobenius == 0.0 || range.contains(&self.frobenius))
    }
}

fn check_file(file: &str) {
    let cases = read(file);
    for case in &cases {
        case.check::<f64, _>(Reproducible);
        case.check::<f64, _>(Fast::detect());
    }
    let in_f32: Vec<&Case> = cases.iter().filter(|case| case.fits_f32()).collect();
    assert!(!in_f32.is_empty(), "{file}: no case fits f32");
    for case in in_f32 {
        case.check::<f32, _>(Reproducible);
        case.check::<f32, _>(Fast::detect());
    }
}

#[test]
fn golden_eigh_small() {
    check_file("eigh_small.json");
}

#[test]
fn golden_eigh_mid() {
    check_file("eigh_mid.json");
}

#[test]
fn golden_eigh_64() {
    check_file("eigh_64.json");
}

#[test]
fn golden_eigh_100() {
    check_file("eigh_100.json");
}
