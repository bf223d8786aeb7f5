//! Vector instructions must pay. A helper that the compiler does not inline is compiled without them, and its loop runs
//! 5 to 50 times slower; no other test sees that.

mod common;

use common::{relu_factor, rounded};
use kfac_linalg::eigh::qr;
use kfac_linalg::{Fast, InstructionSet, Kernel, MatMut, MatRef, ReproducibleOn, Scalar};
use std::time::{Duration, Instant};

const N: usize = 96;

/// Shortest of a few decompositions.
fn time<T: Scalar, K: Kernel<T>>(kernel: K, a: &[T]) -> Duration {
    let (mut q, mut d) = (vec![T::ZERO; N * N], vec![T::ZERO; N]);
    let scratch = &mut vec![T::ZERO; qr::scratch_len::<T>(N)];
    let a = MatRef::row_major(a, N, N).unwrap();
    let runs = (0..30).map(|_| {
        let start = Instant::now();
        qr::cold(kernel, a, MatMut::row_major(&mut q, N, N).unwrap(), &mut d, scratch).unwrap();
        start.elapsed()
    });
    runs.min().unwrap()
}

fn wider_registers_pay<T: Scalar>() {
    let a: Vec<T> = rounded(&relu_factor(N, 1));
    let plain = InstructionSet::available().last().unwrap();
    let limit = time(Fast::on(plain), &a);
    for set in InstructionSet::available().filter(|&set| set != plain) {
        let (fast, reproducible) = (time(Fast::on(set), &a), time(ReproducibleOn(set), &a));
        assert!(fast < limit, "Fast takes {fast:?} on {set}, {limit:?} on {plain}");
        // Without fused instructions half the width is no gain: only the fault itself is caught.
        assert!(
            reproducible < 2 * limit,
            "Reproducible takes {reproducible:?} on {set}, {limit:?} on {plain}"
        );
    }
}

#[test]
fn wider_registers_pay_in_qr() {
    wider_registers_pay::<f32>();
    wider_registers_pay::<f64>();
}
