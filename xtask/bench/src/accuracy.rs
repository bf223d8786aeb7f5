//! What single precision leaves of an exactly damped preconditioner, with a factor that it can hardly represent.

use crate::contest::{Contest, Stage, distance};
use crate::matrices::{Features, moving_average, noise};
use crate::numbers::{Buffer, Precision};
use crate::ours;
use crate::peers::faer;
use crate::rows::{Family, Ratio, Subject};
use kfac_linalg::shifted::Shifts;
use kfac_linalg::{Fast, MatRef, cholesky};

/// Order of the factor.
const ORDERS: [usize; 3] = [128, 256, 512];

/// Eigenvalues of the gradient factor: they fall like `j^(-3/2)`, with mean 1.
const COLUMNS: usize = 16;

/// Batches that the average has seen.
const BATCHES: u64 = 200;

/// All contests.
pub fn hold(stage: &mut Stage) {
    for n in ORDERS {
        let case = format!("{n}/gauss");
        contest(stage, Subject { family: Family::Accuracy, precision: Precision::F32, size: n, case });
    }
}

/// `(d_j A + λ I)⁻¹ b_j` with `λ = 10⁻³ tr(A) / n`, in single precision, against Cholesky in double precision.
fn contest(stage: &mut Stage, subject: Subject) {
    if !stage.wants(&subject) {
        return;
    }
    let n = subject.size;
    let a = Buffer::<f32>::nearest(&moving_average(Features::Gauss, n, BATCHES));
    let b = Buffer::<f32>::nearest(&noise(n * COLUMNS, 3));
    let mut d = Buffer::<f32>::nearest(&falling());
    let trace: f32 = a.iter().step_by(n + 1).sum();
    let shifts = Shifts { d: &mut d, lambda: 1e-3 * trace / n as f32 };
    let exact = solution(&a, shifts, &b);
    let (a, b) = (a.matrix(n, n), b.matrix(n, COLUMNS));
    let mut contenders = [ours::damped_solve(a, shifts, b), faer::damped_solve(a, shifts, b)];
    let mut errors = contenders.iter_mut().map(|contender| {
        let (name, result) = contender.compute();
        (name, result.map_or(f64::NAN, |result| distance(&result, &exact)))
    });
    let (_, ours) = errors.next().expect("we take part");
    let ratio = Ratio::Accuracy { ours, peers: errors.collect() };
    // They differ by the errors that the contest is about.
    stage.hold(Contest { subject, ratio, tolerance: 1.0 }, contenders.into());
}

/// Eigenvalues of the gradient factor.
fn falling() -> Vec<f64> {
    let values: Vec<f64> = (1..=COLUMNS).map(|j| (j as f64).powf(-1.5)).collect();
    let mean = values.iter().sum::<f64>() / COLUMNS as f64;
    values.iter().map(|value| value / mean).collect()
}

/// The solutions in double precision, row by row.
fn solution(a: &[f32], shifts: Shifts<'_, f32>, b: &[f32]) -> Vec<f64> {
    let n = b.len() / COLUMNS;
    let mut x = vec![0.0; b.len()];
    let mut scratch = vec![0.0; cholesky::factor_scratch_len::<f64>(n)];
    for (j, &d) in shifts.d.iter().enumerate() {
        let mut l: Vec<f64> = a.iter().map(|&a| f64::from(a) * f64::from(d)).collect();
        l.iter_mut().step_by(n + 1).for_each(|x| *x += f64::from(shifts.lambda));
        let fits = "the damped factor is positive definite";
        let kernel = Fast::detect();
        let view = kfac_linalg::MatMut::row_major(&mut l, n, n).expect(fits);
        cholesky::factor(kernel, view, &mut scratch).expect(fits);
        let mut column: Vec<f64> = b.iter().skip(j).step_by(COLUMNS).map(|&b| f64::from(b)).collect();
        let view = kfac_linalg::MatMut::row_major(&mut column, n, 1).expect(fits);
        cholesky::solve(kernel, MatRef::row_major(&l, n, n).expect(fits), view, &mut scratch).expect(fits);
        x.iter_mut().skip(j).step_by(COLUMNS).zip(column).for_each(|(x, solution)| *x = solution);
    }
    x
}
