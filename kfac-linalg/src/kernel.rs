//! Kernels: the arithmetic of an operation, as a type.

use crate::arch::InstructionSet;
use crate::arch::compiled::Runs;
use crate::arch::product::Product;
use crate::scalar::Scalar;

/// How operations are computed: [`Reproducible`], [`ReproducibleOn`] or [`Fast`] (sealed).
///
/// A type rather than a setting, so that firmware links the one it names.
pub trait Kernel<T: Scalar>: sealed::Sealed + Copy + Send + Sync {
    /// Rows gathered before one symmetric update of a factor.
    ///
    /// Frozen for [`Reproducible`]: how many rows enter one [`syrk`](crate::product::syrk) decides the bits.
    const PANEL_ROWS: usize;

    /// Runs a task on the widest registers that the kernel may use.
    #[doc(hidden)]
    fn run<W>(self, task: W) -> <T as Runs<W>>::Output
    where
        T: Runs<W>;

    /// Forms a product, shapes and scratch checked.
    #[doc(hidden)]
    fn product(self, product: Product<'_, T>);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Reproducible {}
    impl Sealed for super::ReproducibleOn {}
    impl Sealed for super::Fast {}
}

/// The same bits on every target: multiply-adds rounded twice, one fixed chain per element of a product.
///
/// Runs on the widest registers of the processor, which move no bit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reproducible;

impl<T: Scalar> Kernel<T> for Reproducible {
    const PANEL_ROWS: usize = 16;

    #[inline]
    fn run<W>(self, task: W) -> <T as Runs<W>>::Output
    where
        T: Runs<W>,
    {
        T::unfused_on(InstructionSet::detect(), task)
    }

    #[inline]
    fn product(self, mut product: Product<'_, T>) {
        T::unfused_on(InstructionSet::detect(), &mut product);
    }
}

/// [`Reproducible`] on a set of instructions of the caller's choice: the same bits at another speed.
#[derive(Clone, Copy, Debug)]
pub struct ReproducibleOn(pub InstructionSet);

impl<T: Scalar> Kernel<T> for ReproducibleOn {
    const PANEL_ROWS: usize = <Reproducible as Kernel<T>>::PANEL_ROWS;

    #[inline]
    fn run<W>(self, task: W) -> <T as Runs<W>>::Output
    where
        T: Runs<W>,
    {
        T::unfused_on(self.0, task)
    }

    #[inline]
    fn product(self, mut product: Product<'_, T>) {
        T::unfused_on(self.0, &mut product);
    }
}

/// The fastest kernel of this machine: multiply-adds are fused where the processor has them.
///
/// Products have the same bits on every processor that does; other results differ between machines in the last bits.
#[derive(Clone, Copy, Debug)]
pub struct Fast {
    instructions: InstructionSet,
}

impl Fast {
    /// Asks the processor what it can do.
    #[must_use]
    pub fn detect() -> Self {
        Self::on(InstructionSet::detect())
    }

    /// On a set of instructions of the caller's choice.
    #[must_use]
    pub fn on(instructions: InstructionSet) -> Self {
        Self { instructions }
    }

    /// What it runs on.
    #[must_use]
    pub fn instructions(self) -> InstructionSet {
        self.instructions
    }
}

impl<T: Scalar> Kernel<T> for Fast {
    const PANEL_ROWS: usize = 128;

    #[inline]
    fn run<W>(self, task: W) -> <T as Runs<W>>::Output
    where
        T: Runs<W>,
    {
        T::on(self.instructions, task)
    }

    #[inline]
    fn product(self, mut product: Product<'_, T>) {
        #[cfg(feature = "matrixmultiply")]
        if !self.instructions.is_fused() {
            return crate::arch::matrixmultiply::product(product);
        }
        T::on(self.instructions, &mut product);
    }
}
