//! Hard symmetric matrices, and what a decomposition must fulfil.

use super::{minus, minus_identity, norm, relu_factor, times, tolerance, transposed, widened, with_spectrum};
use kfac_linalg::Scalar;
use kfac_linalg::eigh::Outcome;

/// Eigenvectors and eigenvalues of one matrix, and how they were found.
#[derive(Clone, Debug)]
pub struct Found<T> {
    pub q: Vec<T>,
    pub d: Vec<T>,
    pub outcome: Outcome,
}

/// A symmetric matrix, with its eigenvalues where they are known.
pub struct Hard {
    pub name: &'static str,
    pub a: Vec<f64>,
    pub exact: Option<Vec<f64>>,
}

/// The matrices every solver must survive.
pub fn hard_matrices(n: usize) -> Vec<Hard> {
    let place = |i: usize| i as f64 / n.max(2) as f64;
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0_f64 } else { -1.0 };
    let spectra: [(&str, &dyn Fn(usize) -> f64); 8] = [
        ("graded over 12 decades", &|i| 10_f64.powf(-12.0 * place(i))),
        ("two clusters", &|i| sign(i).max(1e-3)),
        ("one cluster, spacing 10 eps", &|i| 1.0 + 10.0 * f64::EPSILON * i as f64),
        ("repeated", &|i| (i % 3) as f64 - 1.0),
        ("rank n/4", &|i| if 4 * i < n { 1.0 + i as f64 } else { 0.0 }),
        ("alternating signs", &|i| sign(i) * (1.0 + (i / 2) as f64)),
        ("uniform", &|i| 1.0 + i as f64),
        ("negative", &|i| -1.0 - place(i)),
    ];
    let mut cases: Vec<_> = spectra
        .into_iter()
        .map(|(name, d)| {
            let d: Vec<f64> = (0..n).map(d).collect();
            Hard { name, a: with_spectrum(&d, 1), exact: Some(d) }
        })
        .collect();
    let wilkinson = |i: usize, j: usize| match i.abs_diff(j) {
        0 => (i as f64 - (n - 1) as f64 / 2.0).abs(),
        1 => 1.0,
        _ => 0.0,
    };
    let arrow = |i: usize, j: usize| if i == j || i == 0 || j == 0 { 1.0 } else { 0.0 };
    let full = |element: &dyn Fn(usize, usize) -> f64| (0..n * n).map(|at| element(at / n, at % n)).collect();
    let diagonal = |i: usize, j: usize| if i == j { ((7 * i) % 5) as f64 } else { 0.0 };
    let band = |i: usize, j: usize| if i.abs_diff(j) == 1 { 1.0 } else { 0.0 };
    cases.push(Hard { name: "zero", a: vec![0.0; n * n], exact: Some(vec![0.0; n]) });
    cases.push(Hard { name: "diagonal", a: full(&diagonal), exact: None });
    cases.push(Hard { name: "no diagonal", a: full(&band), exact: None });
    cases.push(Hard { name: "ReLU factor", a: relu_factor(n, 2), exact: None });
    cases.push(Hard { name: "Wilkinson", a: full(&wilkinson), exact: None });
    cases.push(Hard { name: "arrow with equal diagonal", a: full(&arrow), exact: None });
    cases
}

/// Reconstruction, orthogonality, order, and the exact eigenvalues where known.
pub fn assert_decomposes<T: Scalar>(a: &[T], found: &Found<T>, exact: Option<&[f64]>, case: &str) {
    let n = found.d.len();
    let unit = n.max(1) as f64 * T::EPSILON.to_f64();
    let (a, q, d) = (widened(a), widened(&found.q), widened(&found.d));
    let size = norm(&a).max(f64::MIN_POSITIVE);
    let scaled: Vec<f64> = a.iter().map(|x| x / size).collect();
    let qd: Vec<f64> = (0..n * n).map(|at| q[at] * (d[at % n] / size)).collect();
    let residual = norm(&minus(&times(&scaled, &q, [n, n, n]), &qd)) / unit;
    assert!(residual <= tolerance::EIGENVECTORS, "{case}: residual {residual:.2} n eps");
    let gram = times(&transposed(&q, [n, n]), &q, [n, n, n]);
    let orthogonality = norm(&minus_identity(&gram, n)) / unit;
    assert!(orthogonality <= tolerance::EIGENVECTORS, "{case}: orthogonality {orthogonality:.2} n eps");
    assert!(d.windows(2).all(|pair| pair[0] <= pair[1]), "{case}: not ascending");
    assert!(found.outcome.converged, "{case}: {:?}", found.outcome);
    if let Some(exact) = exact {
        let mut exact = exact.to_vec();
        exact.sort_by(f64::total_cmp);
        let top = exact.iter().fold(0.0, |top: f64, x| top.max(x.abs()));
        let error = d.iter().zip(&exact).fold(0.0, |worst: f64, (d, x)| worst.max((d - x).abs()));
        assert!(error <= tolerance::EIGENVALUES * unit * top, "{case}: eigenvalue error {error:e}");
    }
}
