//! Kernels: the arithmetic of a product, as a type.

use crate::arch;
use crate::product::Accumulate;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// How products are computed: [`Reproducible`] or [`Fast`] (sealed).
///
/// A type rather than a setting, so that firmware links the one it names.
pub trait Kernel<T: Scalar>: sealed::Sealed + Copy + Send + Sync {
    /// Rows gathered before one symmetric update of a factor.
    ///
    /// Frozen for [`Reproducible`]: how many rows enter one [`syrk`](crate::product::syrk) decides the bits.
    const PANEL_ROWS: usize;

    /// Scratch of one product, in elements.
    const PACK_LEN: usize;

    /// `C = scale A B` or `C += scale A B`; shapes and scratch have been checked.
    #[doc(hidden)]
    fn product(
        self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
        scratch: &mut [T],
    );
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Reproducible {}
    impl Sealed for super::Fast {}
}

/// The same bits on every target: unfused multiply-adds, one fixed chain per element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reproducible;

impl<T: Scalar> Kernel<T> for Reproducible {
    const PANEL_ROWS: usize = 16;
    const PACK_LEN: usize = 0;

    fn product(
        self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
        _: &mut [T],
    ) {
        arch::portable::product(c, accumulate, a, b);
    }
}

/// The fastest kernel of this machine. Results differ between machines in the last bits.
///
/// A value rather than a name: only [`detect`](Self::detect) makes one, after asking the processor.
#[derive(Clone, Copy, Debug)]
pub struct Fast {
    _detected: (),
}

impl Fast {
    /// Asks the processor what it can do.
    ///
    /// With the `matrixmultiply` feature that crate does the asking, in every call; without it the portable
    /// kernel serves, and there is nothing to ask.
    #[must_use]
    pub fn detect() -> Self {
        Self { _detected: () }
    }
}

impl<T: Scalar> Kernel<T> for Fast {
    const PANEL_ROWS: usize = 128;
    const PACK_LEN: usize = 0;

    fn product(
        self,
        c: MatMut<'_, T>,
        accumulate: Accumulate<T>,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
        _: &mut [T],
    ) {
        #[cfg(feature = "matrixmultiply")]
        arch::matrixmultiply::product(c, accumulate, a, b);
        #[cfg(not(feature = "matrixmultiply"))]
        arch::portable::product(c, accumulate, a, b);
    }
}
