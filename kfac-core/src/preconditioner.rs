//! The algorithm on one page: observe, refresh, precondition.

use crate::error::{LayerError, LayerErrorKind, Quantity, SettingError};
use crate::gradient::LayerGradient;
use crate::map::{ChainMap, DampingInForce, FactorMap, Map};
use crate::memory::{
    Buffer, LayerSlot, LayerState, Moment, Net, SideLayout, Storage, StorageError, apply_scratch_len,
    scratch_len, state_len,
};
use crate::observation::Observation;
use crate::report::{LayerReport, Preconditioned, RefreshReport};
use crate::schedule::Schedule;
use crate::shape::{LayerShape, Side};
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, MatRef, PackedRef, Scalar, ScratchError, ShapeError, packed_len};

/// Natural-gradient preconditioning of a network's weight gradients by Kronecker factors.
///
/// A step is: [`observe`](Self::observe) when [`wants_statistics`](Self::wants_statistics), then
/// [`refresh`](Self::refresh), then [`precondition`](Self::precondition). With a refresh period above 1, begin with
/// [`refresh_all`](Self::refresh_all) as long as [`is_ready`](Self::is_ready) says no; a device that cannot afford it
/// waits one period, in which `precondition` answers `NotReady`. The state is a value in borrowed storage;
/// weights and gradients stay with the caller. An error leaves state and gradients as if the call had not been made,
/// but for two: `ThirdFailure`, where the rest of the step's refreshes is done, and a `U` that leaves the range of `T`,
/// where the gradients before it are already preconditioned.
pub struct Preconditioner<'s, T, M, K> {
    pub(crate) net: Net<'s>,
    pub(crate) numbers: Buffer<'s, T>,
    pub(crate) slots: Buffer<'s, LayerSlot>,
    pub(crate) map: M,
    pub(crate) kernel: K,
    pub(crate) schedule: Schedule,
    pub(crate) decay: T,
    pub(crate) damping: T,
    pub(crate) l2: T,
    /// Steps begun: calls of `refresh`.
    pub(crate) step: u64,
}

impl<'s, T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'s, T, M, K> {
    /// A preconditioner that has seen nothing, in borrowed storage: damping 0.1, decay 0.95, statistics and inverses
    /// every step.
    ///
    /// # Errors
    /// [`StorageError`] where the storage is too small or a layer is empty.
    pub fn new(
        net: &'s [LayerShape],
        map: M,
        kernel: K,
        storage: Storage<'s, T>,
    ) -> Result<Self, StorageError> {
        Self::with_storage(Net::Borrowed(net), map, kernel, storage)
    }

    fn with_storage(net: Net<'s>, map: M, kernel: K, storage: Storage<'s, T>) -> Result<Self, StorageError> {
        if let Some(layer) = net.iter().position(|shape| shape.weights() == 0) {
            return Err(StorageError::EmptyLayer { layer });
        }
        let Storage { numbers, mut slots } = storage.cleared_for(state_len(&net, M::LAYOUT), net.len())?;
        let schedule = Schedule::EVERY_STEP;
        schedule.deal(&net, map.cost(), &mut slots);
        let (decay, damping) = (T::from_f64(0.95), T::from_f64(0.1));
        Ok(Self { net, numbers, slots, map, kernel, schedule, decay, damping, l2: T::ZERO, step: 0 })
    }

    /// Scratch, in elements, that every verb can do with.
    pub fn scratch_len(&self) -> usize {
        scratch_len::<T, K, M>(&self.net)
    }

    /// With these periods of statistics and refreshes, otherwise as [`set_schedule`](Self::set_schedule).
    ///
    /// # Errors
    /// As there.
    pub fn with_schedule(mut self, schedule: Schedule) -> Result<Self, SettingError> {
        self.set_schedule(schedule)?;
        Ok(self)
    }

    /// Sets the periods of statistics and refreshes, and deals the refreshes anew. A unit whose turn moves may wait for up
    /// to two periods once.
    ///
    /// # Errors
    /// [`SettingError`] where a period is 0.
    pub fn set_schedule(&mut self, schedule: Schedule) -> Result<(), SettingError> {
        schedule.check()?;
        schedule.deal(&self.net, self.map.cost(), &mut self.slots);
        self.schedule = schedule;
        Ok(())
    }

    /// With this decay of the statistics' moving average, otherwise as [`set_decay`](Self::set_decay).
    ///
    /// # Errors
    /// As there.
    pub fn with_decay(mut self, decay: T) -> Result<Self, SettingError> {
        self.set_decay(decay)?;
        Ok(self)
    }

    /// Sets the decay of the statistics' moving average, from the next update on.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `[0, 1)`.
    pub fn set_decay(&mut self, decay: T) -> Result<(), SettingError> {
        SettingError::unless(decay >= T::ZERO && decay < T::ONE, "decay", decay)?;
        self.decay = decay;
        Ok(())
    }

    /// Sets `η`, the l2 weight decay that is part of the loss: `λ + η` takes the place of `λ` everywhere. The
    /// gradients must already contain `ηθ`.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and not negative.
    pub fn with_l2(mut self, l2: T) -> Result<Self, SettingError> {
        SettingError::unless(l2 >= T::ZERO && l2.is_finite(), "l2", l2)?;
        self.l2 = l2;
        Ok(self)
    }

    /// Sets the damping `λ`, in units of an eigenvalue of `A (x) G`. Taken up at once or at the next
    /// refresh, as [`Map::DAMPING`] says of the map.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and positive.
    pub fn set_damping(&mut self, lambda: T) -> Result<(), SettingError> {
        SettingError::unless(lambda > T::ZERO && lambda.is_finite(), "damping", lambda)?;
        self.damping = lambda;
        Ok(())
    }

    /// The damping `λ`, without `η`.
    pub fn damping(&self) -> T {
        self.damping
    }

    /// The l2 weight decay `η`.
    pub fn l2(&self) -> T {
        self.l2
    }

    /// The network's shapes.
    pub fn net(&self) -> &[LayerShape] {
        &self.net
    }

    /// Is a statistics update due at this step?
    pub fn wants_statistics(&self) -> bool {
        self.step.is_multiple_of(u64::from(self.schedule.statistics_every))
    }

    /// Has every layer an inverse?
    pub fn is_ready(&self) -> bool {
        self.slots.iter().all(LayerSlot::is_ready)
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

    /// Lets the next statistic of every layer replace what has been gathered, and begins its average anew: for data whose
    /// distribution has shifted. Until then, and until they are refreshed, factors and inverses stay as they are, and
    /// [`refresh`](Self::refresh) leaves such a layer alone.
    pub fn forget(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.updates = 0);
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

    /// Renews this step's share of the inverses, and moves on to the next step.
    ///
    /// A layer without statistics is left alone. A unit that fails keeps its last good inverse, and the failure is
    /// counted; one success of the unit resets the count.
    ///
    /// # Errors
    /// [`LayerErrorKind::ThirdFailure`] where a unit failed for the third time in a row (the other units of this
    /// step are renewed all the same); [`LayerErrorKind::Scratch`] before anything is touched.
    pub fn refresh(&mut self, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        let place = (self.step % u64::from(self.schedule.refresh_every)) as u32;
        self.refresh_where(|due| due == place, scratch)
    }

    /// Renews every inverse now, which no bound on the cost of a step holds for: the explicit cold start. Counts as
    /// this step's refresh.
    ///
    /// # Errors
    /// As for [`refresh`](Self::refresh).
    pub fn refresh_all(&mut self, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        self.refresh_where(|_| true, scratch)
    }

    fn refresh_where(
        &mut self,
        is_due: impl Fn(u32) -> bool,
        scratch: &mut [T],
    ) -> Result<RefreshReport, LayerError> {
        self.expect_scratch(0, scratch_len::<T, K, M>(&self.net), scratch)?;
        self.step += 1;
        let lambda = self.damping + self.l2;
        let mut report = RefreshReport::default();
        let mut third_failure = None;
        for layer in 0..self.net.len() {
            for &side in M::UNIT.sides() {
                if !is_due(self.slots[layer].due[side.index()]) {
                    continue;
                }
                if self.slots[layer].updates == 0 {
                    report.without_statistics += 1;
                    continue;
                }
                let (map, kernel) = (self.map, self.kernel);
                let outcome = map.refresh(kernel, &mut self.layer_state(layer), side, lambda, scratch);
                let slot = &mut self.slots[layer];
                match outcome {
                    Ok(refreshed) => {
                        for renewed in M::UNIT.renews(side) {
                            slot.refreshed[renewed.index()] = self.step;
                        }
                        slot.refreshed_damping = lambda.to_f64();
                        slot.renewed |= !refreshed.is_kept;
                        if slot.refreshed.iter().all(|&step| step > slot.completed) {
                            slot.completed = self.step;
                            if core::mem::take(&mut slot.renewed) {
                                map.complete(&mut self.layer_state(layer));
                            }
                        }
                        report.count_success(refreshed, &mut self.slots[layer].failures[side.index()]);
                    }
                    Err(error) => {
                        if report.count_failure(&mut slot.failures[side.index()]) {
                            third_failure.get_or_insert(LayerErrorKind::ThirdFailure(error).at(layer));
                        }
                    }
                }
            }
        }
        third_failure.map_or(Ok(report), Err)
    }

    /// Turns every `V` into `U` in place.
    ///
    /// All gradients are checked before any is touched. Layers that are absent are simply unused in this step.
    ///
    /// # Errors
    /// A [`LayerError`] for a wrong shape, a number that is not finite, a layer that has no inverse yet. Where `U`
    /// itself overflows, or the map cannot be applied in the range of `T`, the layers before it in `gradients` already hold their `U`.
    pub fn precondition(
        &mut self,
        gradients: &mut [LayerGradient<'_, T>],
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        let mut total = Preconditioned::NOTHING;
        for gradient in &*gradients {
            self.check_gradient(gradient, &mut total, scratch)?;
        }
        for gradient in gradients {
            self.precondition_layer(gradient, &mut total, scratch)?;
        }
        Ok(total)
    }

    /// [`precondition`](Self::precondition) for the gradients of all layers in one slice: block after block in the
    /// order of the network, each `m x n` row-major with the bias last.
    ///
    /// # Errors
    /// As there, and [`LayerErrorKind::Shape`] at the first layer for which the slice is too short, or at the last
    /// one where it is too long.
    pub fn precondition_flat(
        &mut self,
        gradients: &mut [T],
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        let mut total = Preconditioned::NOTHING;
        let mut rest = &mut *gradients;
        for (layer, &shape) in self.net.iter().enumerate() {
            let (gradient, tail) = LayerGradient::first_of(rest, layer, shape)?;
            self.check_gradient(&gradient, &mut total, scratch)?;
            rest = tail;
        }
        if !rest.is_empty() {
            let layer = self.net.len().saturating_sub(1);
            let expected = self.net.iter().map(|shape| shape.weights()).sum();
            let error = ShapeError::new([expected, 1], [expected + rest.len(), 1]);
            return Err(LayerErrorKind::Shape { quantity: Quantity::Gradient, error }.at(layer));
        }
        let mut rest = gradients;
        for layer in 0..self.net.len() {
            let (mut gradient, tail) = LayerGradient::first_of(rest, layer, self.net[layer])?;
            self.precondition_layer(&mut gradient, &mut total, scratch)?;
            rest = tail;
        }
        Ok(total)
    }

    /// Refuses a gradient that cannot be preconditioned, and adds `V·V`.
    fn check_gradient(
        &self,
        gradient: &LayerGradient<'_, T>,
        total: &mut Preconditioned<T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        let layer = gradient.layer();
        let gradient_squares = self.gradient_squares(gradient, scratch).map_err(|kind| kind.at(layer))?;
        *total += Preconditioned {
            inner: T::ZERO,
            gradient_squares: Some(gradient_squares),
            stale_layers: usize::from(self.slots[layer].most_failures() > 0),
        };
        Ok(())
    }

    fn gradient_squares(
        &self,
        gradient: &LayerGradient<'_, T>,
        scratch: &mut [T],
    ) -> Result<T, LayerErrorKind> {
        let layer = gradient.layer();
        let &shape = self.net.get(layer).ok_or(LayerErrorKind::NoSuchLayer { layers: self.net.len() })?;
        gradient.expect_shape(shape)?;
        self.expect_scratch(layer, apply_scratch_len::<T, M>(shape), scratch).map_err(|error| error.kind)?;
        self.expect_ready(layer)?;
        let row = &mut scratch[..shape.inputs()];
        let mut squares = SquareSum::new(Quantity::Gradient);
        for index in 0..shape.outputs() {
            gradient.read_row(index, row);
            squares.add(index, row)?;
        }
        squares.finish()
    }

    /// Replaces one checked `V` by `U`, and adds `U·V`.
    fn precondition_layer(
        &mut self,
        gradient: &mut LayerGradient<'_, T>,
        total: &mut Preconditioned<T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        let layer = gradient.layer();
        total.inner += self.apply(gradient, scratch).map_err(|kind| kind.at(layer))?;
        Ok(())
    }

    fn apply(&mut self, gradient: &mut LayerGradient<'_, T>, scratch: &mut [T]) -> Result<T, LayerErrorKind> {
        let layer = gradient.layer();
        let shape = self.net[layer];
        let (v, scratch) = scratch.split_at_mut(shape.weights());
        let (row, scratch) = scratch.split_at_mut(shape.inputs());
        for (index, out) in v.chunks_exact_mut(shape.inputs()).enumerate() {
            gradient.read_row(index, out);
        }
        self.apply_map(layer, v, scratch)?;
        let u = v;
        let mut inner = T::ZERO;
        for (index, u_row) in u.chunks_exact(shape.inputs()).enumerate() {
            gradient.read_row(index, row);
            inner += dot(u_row, row)?;
            gradient.write_row(index, u_row);
        }
        Ok(inner)
    }

    /// `V` to `U` in place, refused where it left the range of `T`.
    pub(crate) fn apply_map(
        &mut self,
        layer: usize,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let (map, kernel, lambda) = (self.map, self.kernel, self.damping + self.l2);
        map.apply(kernel, &self.layer_state(layer), lambda, v, scratch)?;
        Self::expect_finite(v, self.net[layer].inputs())
    }

    /// Refuses a `U` that is not finite, or whose squares are not.
    pub(crate) fn expect_finite(u: &[T], width: usize) -> Result<(), LayerErrorKind> {
        let mut squares = SquareSum::new(Quantity::Preconditioned);
        for (index, row) in u.chunks_exact(width).enumerate() {
            squares.add(index, row)?;
        }
        squares.finish().map(|_| ())
    }

    pub(crate) fn expect_ready(&self, layer: usize) -> Result<(), LayerErrorKind> {
        match self.slots[layer] {
            slot if slot.is_ready() => Ok(()),
            slot if slot.updates == 0 => Err(LayerErrorKind::NoStatistics),
            _ => Err(LayerErrorKind::NotReady),
        }
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
}

#[cfg(feature = "alloc")]
impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'static, T, M, K> {
    /// A preconditioner that owns its storage, otherwise as [`new`](Self::new): a struct keeps it as, spelled out,
    /// `Preconditioner<'static, f32, Eigenbasis, Fast>`.
    ///
    /// # Errors
    /// [`StorageError::EmptyLayer`], and [`StorageError::Numbers`] where no memory can hold the network.
    pub fn on_heap(net: &[LayerShape], map: M, kernel: K) -> Result<Self, StorageError> {
        let storage = Storage::on_heap(net, M::LAYOUT)?;
        Self::with_storage(Net::Owned(net.to_vec()), map, kernel, storage)
    }
}

impl<'s, T: Scalar, M: FactorMap<T>, K: Kernel<T>> Preconditioner<'s, T, M, K> {
    /// Begins one statistics update over `cases` cases, which may be added whole, in parts, or one by one.
    ///
    /// `cases` sets how much each of them weighs against the decayed past. Fewer may be added (a case that was refused, say):
    /// the factors are still means, and the past weighs a little more. More are an error.
    pub fn observe(&mut self, cases: usize) -> Observation<'_, 's, T, M, K> {
        for slot in self.slots.iter_mut() {
            slot.added = 0;
        }
        Observation::new(self, cases)
    }
}
