//! Products for the models: a kernel and the scratch it needs, grown once and reused.

use kfac_linalg::product::{Accumulate, gemm, gemm_scratch_len};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// A kernel with its scratch.
#[derive(Clone, Debug)]
pub struct Engine<T, K> {
    kernel: K,
    scratch: Vec<T>,
    /// Rows gathered from images.
    pub(crate) panel: Vec<T>,
    /// Products of such rows.
    pub(crate) panel_product: Vec<T>,
}

impl<T: Scalar, K: Kernel<T>> Engine<T, K> {
    /// An engine that runs on `kernel`.
    pub fn new(kernel: K) -> Self {
        Self { kernel, scratch: Vec::new(), panel: Vec::new(), panel_product: Vec::new() }
    }

    /// The kernel.
    pub fn kernel(&self) -> K {
        self.kernel
    }

    /// `c = a b`.
    pub(crate) fn set_product(&mut self, c: MatMut<'_, T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
        self.product(c, Accumulate::Replace(T::ONE), a, b);
    }

    /// `c += a b`.
    pub(crate) fn add_product(&mut self, c: MatMut<'_, T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
        self.product(c, Accumulate::Add(T::ONE), a, b);
    }

    /// `c = scale a b` or `c += scale a b`.
    pub(crate) fn product(
        &mut self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
    ) {
        let needed = gemm_scratch_len::<T>(a.rows(), b.cols(), a.cols());
        if self.scratch.len() < needed {
            self.scratch.resize(needed, T::ZERO);
        }
        gemm(self.kernel, c, accumulate, a, b, &mut self.scratch).expect("layers pass shapes that fit");
    }
}
