//! Inverse of a damped factor, against faer's and nalgebra's through Cholesky.

use crate::contest::{Contest, Stage};
use crate::matrices::{ORDERS, damped, relu_factor};
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{faer, nalgebra};
use crate::rows::{Family, Subject};

/// Ten times slower than the others, nalgebra would take most of the time above.
const LARGEST_FOR_NALGEBRA: usize = 256;

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS {
        let subject =
            Subject { family: Family::Inverse, precision: T::PRECISION, size: n, case: n.to_string() };
        if !stage.wants(&subject) {
            continue;
        }
        let a = Buffer::<T>::nearest(&damped(relu_factor(n), n));
        let (a, mut inverse) = (a.matrix(n, n), Buffer::zeros(n * n));
        let mut contenders = vec![ours::inverse(&mut inverse, a), faer::inverse(a)];
        if n <= LARGEST_FOR_NALGEBRA {
            contenders.push(nalgebra::inverse(a));
        }
        // Twice the condition of the matrix.
        stage.hold(Contest::of_speed(subject, rounding::<T>(10 * n)), contenders);
    }
}
