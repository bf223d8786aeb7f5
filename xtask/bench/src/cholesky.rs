//! Cholesky factor of a damped factor, against faer's.

use crate::contest::{Contest, Stage};
use crate::matrices::{ORDERS, damped, relu_factor};
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::faer;
use crate::rows::{Family, Subject};

/// Below, the inverse is what counts.
const SMALLEST: usize = 64;

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS.into_iter().filter(|&n| n >= SMALLEST) {
        let subject =
            Subject { family: Family::Cholesky, precision: T::PRECISION, size: n, case: n.to_string() };
        if !stage.wants(&subject) {
            continue;
        }
        let a = Buffer::<T>::nearest(&damped(relu_factor(n), n));
        let (a, mut factor) = (a.matrix(n, n), Buffer::zeros(n * n));
        let contenders = vec![ours::cholesky(&mut factor, a), faer::cholesky(a)];
        // Twice the condition of the matrix.
        stage.hold(Contest::of_speed(subject, rounding::<T>(10 * n)), contenders);
    }
}
