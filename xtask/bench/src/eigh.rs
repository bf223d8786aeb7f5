//! Eigenvectors and eigenvalues, from nothing and from the basis before, against decompositions from nothing.

use crate::contest::{Contender, Contest, Stage};
use crate::matrices::{ORDERS, flat_spectrum, relu_factor};
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{faer, nalgebra};
use crate::rows::{Family, Subject};
use kfac_linalg::MatRef;

/// Jacobi's method is for small matrices.
const LARGEST_FOR_JACOBI: usize = 32;

/// nalgebra is for small matrices too.
const LARGEST_FOR_NALGEBRA: usize = 64;

/// The old share of an average that moves with every batch.
const DECAY: f64 = 0.95;

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS.into_iter().filter(|&n| n <= LARGEST_FOR_JACOBI) {
        contest::<T>(stage, (Family::Eigh, n, "relu"), || relu_factor(n, 0), ours::jacobi);
        contest::<T>(stage, (Family::Eigh, n, "flat"), || flat_spectrum(n), ours::jacobi);
        refreshes::<T>(stage, n);
    }
}

/// Contests in which the factor has moved by one batch.
fn refreshes<T: Number>(stage: &mut Stage, n: usize) {
    let before = relu_factor(n, 0);
    let moved = || {
        let average = |(old, new): (&f64, f64)| DECAY * old + (1.0 - DECAY) * new;
        before.iter().zip(relu_factor(n, 1)).map(average).collect()
    };
    let before = Buffer::<T>::nearest(&before);
    let before = before.matrix(n, n);
    contest::<T>(stage, (Family::JacobiWarm, n, "relu"), moved, |a| ours::jacobi_warm(a, before));
}

/// One contest, on the matrix that `input` makes.
fn contest<T: Number>(
    stage: &mut Stage,
    (family, n, spectrum): (Family, usize, &str),
    input: impl Fn() -> Vec<f64>,
    ours: impl for<'a> Fn(MatRef<'a, T>) -> Contender<'a>,
) {
    let case = format!("{n}/{spectrum}");
    let subject = Subject { family, precision: T::PRECISION, size: n, case };
    if !stage.wants(&subject) {
        return;
    }
    let a = Buffer::<T>::nearest(&input());
    let a = a.matrix(n, n);
    let mut contenders = vec![ours(a), faer::eigh(a)];
    if n <= LARGEST_FOR_NALGEBRA {
        contenders.push(nalgebra::eigh(a));
    }
    stage.hold(Contest::of_speed(subject, rounding::<T>(4 * n)), contenders);
}
