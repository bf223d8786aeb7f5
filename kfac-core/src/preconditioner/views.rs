//! What can be seen of a preconditioner, and where its numbers lie.

use super::Preconditioner;
use crate::error::{LayerError, LayerErrorKind};
use crate::map::{ChainMap, DampingInForce, Map};
use crate::memory::{LayerState, Moment, SideLayout, state_len};
use crate::report::LayerReport;
use crate::shape::{LayerShape, Side};
use kfac_linalg::{Kernel, MatRef, PackedRef, Scalar, ScratchError, packed_len};

impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// The network's shapes.
    pub fn net(&self) -> &[LayerShape] {
        &self.net
    }

    /// Steps begun, which are calls of `refresh`: what [`Course::at`](crate::schedule::Course::at) takes, also after a restore.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The factor `A` or `G` of a layer as it stands: its weighted sum and the weight (`factor = sum / weight`), or
    /// `None` where the layer does not exist or has no statistics, or where the map does not keep the whole factor.
    pub fn factor(&self, layer: usize, side: Side) -> Option<(PackedRef<'_, T>, f64)> {
        let &shape = self.net.get(layer)?;
        let (sum, weight) = self.moment(layer, side);
        let sum = PackedRef::new(sum, shape.side(side)).ok()?;
        (M::LAYOUT.side(side).moment == Moment::Full && weight > 0.0).then_some((sum, weight))
    }

    /// What is kept of the factor of a layer that exists: as much of the weighted sum as [`Moment`] says, and the weight.
    pub(crate) fn moment(&self, layer: usize, side: Side) -> (&[T], f64) {
        let shape = self.net[layer];
        let start = self.side_start(layer, side);
        let len = M::LAYOUT.side(side).moment.len(shape.side(side));
        (&self.numbers[start..][..len], self.slots[layer].weights[side.index()])
    }

    /// The lag moment `E[x_t x_{t-1}ᵀ]` of a layer as it stands, the later position on the left: its weighted sum and the weight,
    /// which is that of [`factor`](Self::factor). `None` where the layer does not exist or has no statistics.
    pub fn lag_moment(&self, layer: usize, side: Side) -> Option<(MatRef<'_, T>, f64)>
    where
        M: ChainMap<T>,
    {
        let size = self.net.get(layer)?.side(side);
        let weight = self.slots[layer].weights[side.index()];
        let SideLayout { moment, packed, .. } = M::LAYOUT.side(side);
        let start = self.side_start(layer, side) + moment.len(size) + packed * packed_len(size);
        let sum = MatRef::row_major(self.numbers.get(start..)?, size, size).ok()?;
        (weight > 0.0).then_some((sum, weight))
    }

    /// The eigenvalues that a chain was last refreshed with, as its bound leaves them: `ψ` of
    /// [`ChainSymmetric`](crate::map::ChainSymmetric), `μ` of [`ChainLimit`](crate::map::ChainLimit), ascending. How far neighbouring steps
    /// go together, or `None` where the layer does not exist or was never refreshed.
    pub fn chain_eigenvalues(&self, layer: usize, side: Side) -> Option<&[T]>
    where
        M: ChainMap<T>,
    {
        let &shape = self.net.get(layer)?;
        let layout = M::LAYOUT.side(side);
        let end = self.side_start(layer, side) + layout.len(shape.side(side));
        let vectors = &self.numbers[end - layout.diagonal * shape.side(side)..end];
        self.slots[layer].is_ready().then(|| vectors.get(..shape.side(side)))?
    }

    /// Where the arrays of a side of a layer begin.
    fn side_start(&self, layer: usize, side: Side) -> usize {
        let input = M::LAYOUT.input.len(self.net[layer].inputs());
        state_len(&self.net[..layer], M::LAYOUT) + if side == Side::Output { input } else { 0 }
    }

    /// Age, failures and damping of a layer.
    pub fn layer_report(&self, layer: usize) -> Option<LayerReport> {
        let slot = self.slots.get(layer)?;
        let damping_in_force = match M::DAMPING {
            DampingInForce::Current => Some((self.damping + self.l2).to_f64()),
            DampingInForce::LastRefresh => slot.is_ready().then_some(slot.refreshed_damping),
        };
        let oldest = slot.refreshed[0].min(slot.refreshed[1]);
        Some(LayerReport {
            updates: slot.updates,
            age: slot.is_ready().then(|| self.step.saturating_sub(oldest)),
            failures: slot.most_failures(),
            damping_in_force,
        })
    }

    /// The arrays of a layer that exists.
    pub(crate) fn layer_state(&mut self, layer: usize) -> LayerState<'_, T> {
        let start = state_len(&self.net[..layer], M::LAYOUT);
        let shape = self.net[layer];
        let numbers = &mut self.numbers[start..][..M::LAYOUT.layer_len(shape)];
        LayerState::new(shape, M::LAYOUT, &self.slots[layer], numbers)
    }

    pub(crate) fn expect_scratch(
        &self,
        layer: usize,
        needed: usize,
        scratch: &[T],
    ) -> Result<(), LayerError> {
        if scratch.len() >= needed {
            return Ok(());
        }
        Err(LayerErrorKind::Scratch(ScratchError { needed, found: scratch.len() }).at(layer))
    }

    pub(crate) fn expect_ready(&self, layer: usize) -> Result<(), LayerErrorKind> {
        match self.slots[layer] {
            slot if slot.is_ready() => Ok(()),
            slot if slot.updates == 0 => Err(LayerErrorKind::NoStatistics),
            _ => Err(LayerErrorKind::NotReady),
        }
    }
}
