//! What the verbs of a preconditioner report: plain numbers.

use crate::map::Refreshed;
use kfac_linalg::Scalar;

/// What one call of [`refresh`](crate::Preconditioner::refresh) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshReport {
    /// Units renewed.
    pub units: u32,
    /// Units among these whose old eigenbasis was good enough, see [`Skipping`](crate::map::Skipping).
    pub kept: u32,
    /// Units that failed and keep their last good inverse.
    pub failures: u32,
    /// Units of layers without statistics, left alone.
    pub without_statistics: u32,
    /// Units in which a factor vanished, or all but vanished, so that damping alone is left: `U = V / λ`.
    pub zero_traces: u32,
    /// Most sweeps that an eigenvalue method took.
    pub sweeps: u32,
    /// Floating-point operations, leading order.
    pub flops: u64,
}

impl RefreshReport {
    /// Adds a unit that was renewed: its failures are forgotten.
    pub(crate) fn count_success(&mut self, refreshed: Refreshed, failures: &mut u8) {
        *failures = 0;
        self.units += 1;
        self.kept += u32::from(refreshed.is_kept);
        self.zero_traces += u32::from(refreshed.zero_trace);
        self.sweeps = self.sweeps.max(refreshed.sweeps);
        self.flops += refreshed.flops;
    }

    /// Adds a unit that failed: is it the third time in a row, or more?
    pub(crate) fn count_failure(&mut self, failures: &mut u8) -> bool {
        *failures = failures.saturating_add(1);
        self.failures += 1;
        *failures >= 3
    }
}

/// What one call of [`precondition`](crate::Preconditioner::precondition) did, summed over the layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioned<T> {
    /// `Σ U·V`.
    pub inner: T,
    /// `Σ V·V`; `None` where a layer was preconditioned from its rows in a way that does not come by it
    /// ([`RowsRoute::Inverses`](crate::map::RowsRoute::Inverses)), and then `Σ U·V` is positive.
    pub gradient_squares: Option<T>,
    /// Layers whose last refresh failed: they were preconditioned with an older inverse.
    pub stale_layers: usize,
}

impl<T: Scalar> Preconditioned<T> {
    /// No layer yet.
    pub const NOTHING: Self = Self { inner: T::ZERO, gradient_squares: Some(T::ZERO), stale_layers: 0 };
}

/// Adds further layers.
impl<T: Scalar> core::ops::AddAssign for Preconditioned<T> {
    fn add_assign(&mut self, other: Self) {
        self.inner += other.inner;
        let both = self.gradient_squares.zip(other.gradient_squares);
        self.gradient_squares = both.map(|(own, others)| own + others);
        self.stale_layers += other.stale_layers;
    }
}

/// The state of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerReport {
    /// Statistics updates taken.
    pub updates: u32,
    /// Steps since the older of its two sides was refreshed; `None` before the first time.
    pub age: Option<u64>,
    /// Failed refreshes in a row; where each side is a unit of its own, of the one that fails longest.
    pub failures: u8,
    /// The damping that preconditioning uses now; `None` where that is the one of a refresh which has not been yet.
    pub damping_in_force: Option<f64>,
}
