//! Eigenvectors and eigenvalues, from nothing and from the basis before, and the tridiagonal form, against decompositions
//! from nothing.
//!
//! The two refreshes also run against the peak of the machine, which bounds what they can reach: the tridiagonal form
//! takes `8/3 n³` operations (half of them for `Q`), the subspace step `13/3 n³` (products `2 n³` and `n³`, Cholesky
//! `n³/3`, triangular solutions `n³`).

use crate::contest::{Contender, Contest, Stage};
use crate::matrices::{Features, ORDERS, flat_spectrum, moving_average, relu_factor};
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{faer, nalgebra, peak};
use crate::rows::{Family, Subject};
use kfac_linalg::eigh::{Jacobi, Qr};
use kfac_linalg::{Fast, MatRef, Reproducible};

/// Jacobi's method is for small matrices.
const LARGEST_FOR_JACOBI: usize = 32;

/// nalgebra is for small matrices too.
const LARGEST_FOR_NALGEBRA: usize = 64;

/// The average over 200 batches, and ten batches later.
const MOMENTS: [u64; 2] = [200, 210];

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS {
        for (spectrum, input) in [("relu", relu_factor as fn(usize) -> Vec<f64>), ("flat", flat_spectrum)] {
            let subject = |family| subject::<T>(family, n, spectrum);
            contest(stage, subject(Family::Eigh), || input(n), cold::<T>);
            contest::<T>(
                stage,
                subject(Family::EighReproducible),
                || input(n),
                |a| vec![ours::eigh(Reproducible, Qr, a), ours::eigh(Fast::detect(), Qr, a).named("Fast")],
            );
        }
        contest::<T>(
            stage,
            subject::<T>(Family::DampedRefresh, n, "relu"),
            || relu_factor(n),
            |a| vec![ours::tridiagonal(a), faer::eigh(a), peak::flops::<T>(8 * n * n * n / 3)],
        );
        refreshes::<T>(stage, n);
    }
}

/// From nothing.
fn cold<T: Number>(a: MatRef<'_, T>) -> Vec<Contender<'_>> {
    let mut contenders = vec![ours::eigh(Fast::detect(), Qr, a), faer::eigh(a)];
    if a.rows() <= LARGEST_FOR_NALGEBRA {
        contenders.push(nalgebra::eigh(a));
    }
    if a.rows() <= LARGEST_FOR_JACOBI {
        contenders.push(ours::eigh(Fast::detect(), Jacobi::default(), a).named("our Jacobi"));
    }
    contenders
}

/// Contests in which the factor has moved by ten batches.
fn refreshes<T: Number>(stage: &mut Stage, n: usize) {
    let jacobi = n <= LARGEST_FOR_JACOBI;
    let family = if jacobi { Family::JacobiWarm } else { Family::BasisRefresh };
    let subject = subject::<T>(family, n, "relu");
    if !stage.wants(&subject) {
        return;
    }
    let [before, after] = MOMENTS.map(|batches| moving_average(Features::Relu, n, batches));
    let before = Buffer::<T>::nearest(&before);
    let before = before.matrix(n, n);
    contest::<T>(
        stage,
        subject,
        || after.clone(),
        |a| {
            if jacobi {
                vec![ours::jacobi_warm(a, before), faer::eigh(a), nalgebra::eigh(a)]
            } else {
                vec![ours::refresh(a, before), faer::eigh(a), peak::flops::<T>(13 * n * n * n / 3)]
            }
        },
    );
}

fn subject<T: Number>(family: Family, n: usize, spectrum: &str) -> Subject {
    Subject { family, precision: T::PRECISION, size: n, case: format!("{n}/{spectrum}") }
}

/// One contest, on the matrix that `input` makes.
fn contest<T: Number>(
    stage: &mut Stage,
    subject: Subject,
    input: impl Fn() -> Vec<f64>,
    contenders: impl for<'a> Fn(MatRef<'a, T>) -> Vec<Contender<'a>>,
) {
    if !stage.wants(&subject) {
        return;
    }
    let n = subject.size;
    let a = Buffer::<T>::nearest(&input());
    stage.hold(Contest::of_speed(subject, rounding::<T>(4 * n)), contenders(a.matrix(n, n)));
}
