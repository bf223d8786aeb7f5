//! Symmetric products `XᵀX` of `b` observations of `n` numbers, lower triangle, against faer's triangular product and
//! matrixmultiply's full one.

use crate::contest::{Contest, Stage};
use crate::matrices::noise;
use crate::numbers::{Buffer, Number, rounding};
use crate::ours;
use crate::peers::{faer, matrixmultiply};
use crate::rows::{Family, Subject};

const ORDERS: [usize; 6] = [16, 64, 128, 256, 512, 1024];
const OBSERVATIONS: [usize; 4] = [64, 128, 256, 1024];

/// All contests of one precision.
pub fn hold<T: Number>(stage: &mut Stage) {
    for n in ORDERS {
        for b in OBSERVATIONS {
            contest::<T>(stage, n, b, Storage::Packed);
            contest::<T>(stage, n, b, Storage::Square);
        }
    }
}

/// Where our triangle goes; the peers know squares only.
#[derive(Clone, Copy)]
enum Storage {
    Packed,
    Square,
}

fn contest<T: Number>(stage: &mut Stage, n: usize, b: usize, storage: Storage) {
    let name = match storage {
        Storage::Packed => "packed",
        Storage::Square => "square",
    };
    let case = format!("{n}x{b}/{name}");
    let subject = Subject { family: Family::Syrk, precision: T::PRECISION, size: n, case };
    if !stage.wants(&subject) {
        return;
    }
    let x = Buffer::<T>::nearest(&noise(b * n, 1));
    let x = x.matrix(b, n);
    let [mut own, mut one, mut other] = [(); 3].map(|()| Buffer::zeros(n * n));
    let ours = match storage {
        Storage::Packed => ours::syrk_packed(x),
        Storage::Square => ours::syrk_lower(&mut own, x),
    };
    let contenders = vec![ours, faer::syrk(&mut one, x), matrixmultiply::syrk(&mut other, x)];
    stage.hold(Contest::of_speed(subject, rounding::<T>(b)), contenders);
}
