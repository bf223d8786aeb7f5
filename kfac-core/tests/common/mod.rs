//! What the tests share: numbers without a generator crate, plain loops to compare with, storage of exactly the
//! promised length, and the reader of the golden files.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

pub mod bad;
pub mod chain;
pub mod chain_net;
pub mod convolution;
pub mod dense;
pub mod golden;
pub mod layer;
pub mod net;
pub mod recursion;
pub mod rows;
pub mod run;
pub mod sequences;
pub mod tensor;

use dense::Matrix;
use kfac_core::linalg::{Kernel, Scalar};
use kfac_core::map::Map;
use kfac_core::memory::{Buffer, LayerSlot, Storage, scratch_len, state_len};
use kfac_core::shape::Side;
use kfac_core::{LayerShape, Preconditioner};

/// A stream of numbers that is the same everywhere: SplitMix64 (Steele, Lea and Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// Uniform in `[-1, 1)`.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// `len` numbers, uniform in `[-1, 1)`.
pub fn random<T: Scalar>(len: usize, seed: u64) -> Vec<T> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| T::from_f64(numbers.next())).collect()
}

/// Widens every number, exactly.
pub fn widened<T: Scalar>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.to_f64()).collect()
}

/// The bits of every number, for comparisons that forgive nothing.
pub fn bits<T: Scalar>(numbers: &[T]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_f64().to_bits()).collect()
}

/// Storage and scratch of exactly the promised length; the scratch begins as NaN, so that reading it shows.
pub struct Room<T> {
    pub numbers: Vec<T>,
    pub slots: Vec<LayerSlot>,
    pub scratch: Vec<T>,
}

impl<T: Scalar> Room<T> {
    pub fn new<M: Map<T>, K: Kernel<T>>(net: &[LayerShape]) -> Self {
        Self {
            numbers: vec![T::ZERO; state_len(net, M::LAYOUT)],
            slots: vec![LayerSlot::EMPTY; net.len()],
            scratch: vec![T::from_f64(f64::NAN); scratch_len::<T, K, M>(net)],
        }
    }

    /// A preconditioner that has seen nothing, and its scratch.
    pub fn precondition<'r, M: Map<T>, K: Kernel<T>>(
        &'r mut self,
        net: &'r [LayerShape],
        map: M,
        kernel: K,
    ) -> (Preconditioner<'r, T, M, K>, &'r mut [T]) {
        let Self { numbers, slots, scratch } = self;
        let storage = Storage { numbers: Buffer::Borrowed(numbers), slots: Buffer::Borrowed(slots) };
        (Preconditioner::new(net, map, kernel, storage).unwrap(), scratch)
    }
}

/// The factor of a layer, `sum / weight`.
///
/// # Panics
/// If the layer has no statistics.
pub fn factor<T: Scalar, M: Map<T>, K: Kernel<T>>(
    kfac: &Preconditioner<'_, T, M, K>,
    layer: usize,
    side: Side,
) -> Matrix {
    let (sum, weight) = kfac.factor(layer, side).unwrap();
    Matrix::from_fn(sum.n(), sum.n(), |i, j| sum.at(i, j).to_f64() / weight)
}

/// What `save` writes.
pub fn saved<T: Scalar, M: Map<T>, K: Kernel<T>>(kfac: &Preconditioner<'_, T, M, K>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| -> Result<(), core::convert::Infallible> {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let Ok(()) = kfac.save(write);
    bytes
}
