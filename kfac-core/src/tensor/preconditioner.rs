//! The algorithm on one page: observe, refresh, precondition, in the order of the map.

use super::accumulation::next_weight;
use super::axes::add_moment;
use super::map::{GradientMap, MomentSpace, StepOrder};
use super::memory::{TensorLayout, TensorSetupError, TensorSlot, TensorState, scratch_len, state_len};
use super::report::TensorStep;
use super::shape::TensorShape;
use crate::error::{LayerError, LayerErrorKind, Quantity, SettingError};
use crate::map::largest;
use crate::memory::{Buffer, Net, Storage, StorageError};
use crate::report::{Preconditioned, RefreshReport};
use crate::schedule::Schedule;
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar, ScratchError};

/// Preconditioning of gradients by second moments of their own, tensor by tensor.
///
/// [`step`](Self::step) is all that a training loop needs: it turns every gradient into a direction `U`, to be subtracted
/// from the weights times a rate. Its parts are verbs too, for who wants another order or period: every gradient is
/// [observed](Self::observe) once a step, the matrices of the axes are [refreshed](Self::refresh) in turn, and gradients are
/// [preconditioned](Self::precondition) in place.
///
/// Every verb takes one slice a tensor, all of them, in the order of the shapes. An error names the tensor as its layer,
/// and leaves state and gradients as if the call had not been made, but for two: `ThirdFailure`, where the rest of the
/// step's refreshes is done, and a `U` that leaves the range of `T`, where the tensors before it are already done.
pub struct TensorPreconditioner<'s, T, M, K> {
    pub(super) net: Net<'s, TensorShape>,
    pub(super) numbers: Buffer<'s, T>,
    pub(super) slots: Buffer<'s, TensorSlot>,
    pub(super) map: M,
    kernel: K,
    schedule: Schedule,
    pub(super) layout: TensorLayout,
    /// Steps begun: calls of `refresh`.
    pub(super) step: u64,
}

impl<'s, T: Scalar, M: GradientMap<T>, K: Kernel<T>> TensorPreconditioner<'s, T, M, K> {
    /// A preconditioner that has seen nothing, in borrowed storage: statistics and refreshes every step.
    ///
    /// # Errors
    /// [`TensorSetupError`] where the storage is too small, a tensor is empty, or the map has a setting out of range.
    pub fn new(
        net: &'s [TensorShape],
        map: M,
        kernel: K,
        storage: Storage<'s, T, TensorSlot>,
    ) -> Result<Self, TensorSetupError> {
        Self::with_storage(Net::Borrowed(net), map, kernel, storage)
    }

    fn with_storage(
        net: Net<'s, TensorShape>,
        map: M,
        kernel: K,
        storage: Storage<'s, T, TensorSlot>,
    ) -> Result<Self, TensorSetupError> {
        map.check()?;
        if let Some(layer) = net.iter().position(|shape| shape.entries() == 0) {
            return Err(StorageError::EmptyLayer { layer }.into());
        }
        let layout = map.layout();
        let Storage { numbers, slots } = storage.cleared_for(state_len(&net, layout), net.len())?;
        let schedule = Schedule::EVERY_STEP;
        let mut this = Self { net, numbers, slots, map, kernel, schedule, layout, step: 0 };
        schedule.deal_axes(&this.net, map.refresh_flops(), &mut this.slots);
        let initial = map.accumulation().initial();
        for tensor in 0..this.net.len() {
            let mut state = this.tensor_state(tensor);
            for axis in state.shape.axes() {
                let mut arrays = state.axis(axis);
                let side = arrays.side;
                if let Ok(mut moment) = arrays.moment_mut() {
                    (0..side).for_each(|i| moment.set(i, i, initial));
                }
            }
        }
        Ok(this)
    }

    /// Scratch, in elements, that every verb can do with.
    pub fn scratch_len(&self) -> usize {
        scratch_len::<T>(&self.net, self.layout)
    }

    /// Sets the periods of statistics and refreshes.
    ///
    /// # Errors
    /// [`SettingError`] where a period is 0.
    pub fn with_schedule(mut self, schedule: Schedule) -> Result<Self, SettingError> {
        schedule.check()?;
        schedule.deal_axes(&self.net, self.map.refresh_flops(), &mut self.slots);
        self.schedule = schedule;
        Ok(self)
    }

    /// The shapes of the tensors.
    pub fn net(&self) -> &[TensorShape] {
        &self.net
    }

    /// Do the second moments of the axes take a statistic at this step?
    pub fn wants_statistics(&self) -> bool {
        self.step.is_multiple_of(u64::from(self.schedule.statistics_every))
    }

    /// Has every preconditioned axis its matrix?
    pub fn is_ready(&self) -> bool {
        self.slots.iter().zip(self.net.iter()).all(|(slot, &shape)| slot.is_ready(shape))
    }

    /// One step: every gradient becomes a direction, in the [order](GradientMap::ORDER) of the map. What has no matrix yet is
    /// refreshed, all of it; otherwise this step's share is.
    ///
    /// # Errors
    /// Those of its parts. What came before the part that failed is done: gradients that are refused are refused
    /// before anything is touched; after a `ThirdFailure` of [`Soap`](super::Soap) the gradients hold their `U`.
    pub fn step<G: AsRef<[T]> + AsMut<[T]>>(
        &mut self,
        gradients: &mut [G],
        scratch: &mut [T],
    ) -> Result<TensorStep<T>, LayerError> {
        self.observe(gradients, scratch)?;
        let is_first = M::SPACE == MomentSpace::Basis
            && self.slots.iter().any(|slot| slot.weights[TensorSlot::SECOND] == 0.0);
        if is_first {
            let refresh = self.refresh_all(scratch)?;
            gradients.iter_mut().for_each(|gradient| gradient.as_mut().fill(T::ZERO));
            return Ok(TensorStep { refresh, preconditioned: None });
        }
        let mut preconditioned = None;
        if M::ORDER == StepOrder::RefreshLast {
            preconditioned = Some(self.precondition(gradients, scratch)?);
        }
        let refresh = if self.is_ready() { self.refresh(scratch) } else { self.refresh_all(scratch) }?;
        if M::ORDER == StepOrder::RefreshFirst {
            preconditioned = Some(self.precondition(gradients, scratch)?);
        }
        Ok(TensorStep { refresh, preconditioned })
    }

    /// Takes in the gradients of one step: once a step, also where [`wants_statistics`](Self::wants_statistics) says no and
    /// only the second moments of single numbers follow.
    ///
    /// # Errors
    /// A [`LayerError`] for a wrong number of gradients or length, a number that is not finite, moments that would overflow.
    pub fn observe<G: AsRef<[T]>>(&mut self, gradients: &[G], scratch: &mut [T]) -> Result<(), LayerError> {
        self.expect_gradients(gradients, scratch)?;
        for (tensor, gradient) in gradients.iter().enumerate() {
            self.check_moments(tensor, gradient.as_ref()).map_err(|kind| kind.at(tensor))?;
        }
        for (tensor, gradient) in gradients.iter().enumerate() {
            self.add(tensor, gradient.as_ref(), scratch).map_err(|kind| kind.at(tensor))?;
        }
        Ok(())
    }

    /// Refuses a gradient that the moments cannot take. No element of a second moment exceeds its trace.
    fn check_moments(&mut self, tensor: usize, gradient: &[T]) -> Result<(), LayerErrorKind> {
        let squares = gradient_squares(self.net[tensor], gradient)?;
        let (is_due, map) = (self.wants_statistics(), self.map);
        let mut state = self.tensor_state(tensor);
        let [keep, add] = map.accumulation().keep_and_add();
        for axis in state.shape.axes().filter(|_| is_due) {
            squares.bounded(keep * state.axis(axis).trace()? + add * squares.sum())?;
        }
        if let Some([keep, add]) = map.second_moment().keep_and_add() {
            squares.bounded(keep * largest(state.second_moment) + add * squares.sum())?;
        }
        Ok(())
    }

    fn add(&mut self, tensor: usize, gradient: &[T], scratch: &mut [T]) -> Result<(), LayerErrorKind> {
        let (map, kernel, is_due) = (self.map, self.kernel, self.wants_statistics());
        let (accumulation, second) = (map.accumulation().keep_and_add(), map.second_moment().keep_and_add());
        let slot = &self.slots[tensor];
        let learns = match M::SPACE {
            MomentSpace::Original => true,
            MomentSpace::Basis => slot.updates > 0 && slot.is_ready(self.net[tensor]),
        };
        let second = second.filter(|_| learns);

        let mut state = self.tensor_state(tensor);
        let shape = state.shape;
        for axis in shape.axes().filter(|_| is_due) {
            let [keep, add] = accumulation;
            let mut arrays = state.axis(axis);
            arrays.moment.iter_mut().for_each(|moment| *moment *= keep);
            add_moment(kernel, arrays.moment_mut()?, add, (shape, axis), gradient, scratch)?;
        }
        if let Some([keep, add]) = second {
            let (rotated, scratch) = scratch.split_at_mut(gradient.len());
            rotated.copy_from_slice(gradient);
            map.in_moment_space(kernel, &state, rotated, scratch)?;
            for (moment, &g) in state.second_moment.iter_mut().zip(&*rotated) {
                *moment = keep * *moment + add * (g * g);
            }
        }

        let slot = &mut self.slots[tensor];
        let [axes, single, _] = &mut slot.weights;
        if is_due {
            *axes = next_weight(*axes, accumulation);
            slot.updates = slot.updates.saturating_add(1);
        }
        if let Some(second) = second {
            *single = next_weight(*single, second);
        }
        Ok(())
    }

    /// Renews this step's share of the axes, and moves on to the next step.
    ///
    /// A tensor without statistics is left alone. An axis that fails keeps its last good matrix, and the failure is counted;
    /// one success of the axis resets the count.
    ///
    /// # Errors
    /// [`LayerErrorKind::ThirdFailure`] where an axis failed for the third time in a row (the others of this step are
    /// renewed all the same); [`LayerErrorKind::Scratch`] before anything is touched.
    pub fn refresh(&mut self, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        let place = (self.step % u64::from(self.schedule.refresh_every)) as u32;
        self.refresh_where(|due| due == place, scratch)
    }

    /// Renews every axis now. Counts as this step's refresh.
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
        self.expect_scratch(scratch)?;
        self.step += 1;
        let (map, kernel) = (self.map, self.kernel);
        let mut report = RefreshReport::default();
        let mut third_failure = None;
        for tensor in 0..self.net.len() {
            for axis in self.net[tensor].axes() {
                if !is_due(self.slots[tensor].due[axis]) {
                    continue;
                }
                if self.slots[tensor].updates == 0 {
                    report.without_statistics += 1;
                    continue;
                }
                let outcome = map.refresh(kernel, &mut self.tensor_state(tensor), axis, scratch);
                let slot = &mut self.slots[tensor];
                match outcome {
                    Ok(refreshed) => {
                        slot.refreshed[axis] = self.step;
                        report.count_success(refreshed, &mut slot.failures[axis]);
                    }
                    Err(error) => {
                        if report.count_failure(&mut slot.failures[axis]) {
                            third_failure.get_or_insert(LayerErrorKind::ThirdFailure(error).at(tensor));
                        }
                    }
                }
            }
        }
        third_failure.map_or(Ok(report), Err)
    }

    /// Turns every `V` into `U` in place, after it has been observed. Where the map has a first moment, it follows `V`.
    ///
    /// All gradients are checked before any is touched.
    ///
    /// # Errors
    /// A [`LayerError`] for a wrong number of gradients or length, a number that is not finite, a tensor that was never
    /// observed or has no matrices yet. Where `U` itself overflows, the tensors before it already hold their `U`, and have
    /// counted it.
    pub fn precondition<G: AsRef<[T]> + AsMut<[T]>>(
        &mut self,
        gradients: &mut [G],
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        self.expect_gradients(gradients, scratch)?;
        let mut total = Preconditioned::NOTHING;
        for (tensor, gradient) in gradients.iter().enumerate() {
            let squares = self.check_gradient(tensor, gradient.as_ref()).map_err(|kind| kind.at(tensor))?;
            total += Preconditioned { gradient_squares: Some(squares), ..Preconditioned::NOTHING };
            total.stale_layers += usize::from(self.slots[tensor].most_failures() > 0);
        }
        for (tensor, gradient) in gradients.iter_mut().enumerate() {
            let inner = self.apply(tensor, gradient.as_mut(), scratch).map_err(|kind| kind.at(tensor))?;
            total.inner += inner;
        }
        Ok(total)
    }

    fn check_gradient(&self, tensor: usize, gradient: &[T]) -> Result<T, LayerErrorKind> {
        let (slot, shape) = (&self.slots[tensor], self.net[tensor]);
        let squares = gradient_squares(shape, gradient)?;
        if slot.updates == 0 {
            return Err(LayerErrorKind::NoStatistics);
        }
        if self.map.needs_refresh(slot.preconditioned) && !slot.is_ready(shape) {
            return Err(LayerErrorKind::NotReady);
        }
        if M::SPACE == MomentSpace::Basis && slot.weights[TensorSlot::SECOND] == 0.0 {
            return Err(LayerErrorKind::NoMomentsInBasis);
        }
        Ok(squares.sum())
    }

    /// Replaces one checked `V` by `U`; gives `U·V`.
    fn apply(&mut self, tensor: usize, gradient: &mut [T], scratch: &mut [T]) -> Result<T, LayerErrorKind> {
        let (map, kernel, slot) = (self.map, self.kernel, self.slots[tensor]);
        let mut first_weight = slot.weights[TensorSlot::FIRST];
        let state = self.tensor_state(tensor);
        let (v, scratch) = scratch.split_at_mut(gradient.len());
        let (first, scratch) = scratch.split_at_mut(state.first_moment.len());
        match map.first_moment() {
            None => v.copy_from_slice(gradient),
            Some(beta) => {
                first_weight = next_weight(first_weight, [beta, T::ONE - beta]);
                let correction = T::from_f64(1.0 / first_weight);
                let old = state.first_moment.iter().zip(&*gradient);
                for ((first, v), (&old, &g)) in first.iter_mut().zip(&mut *v).zip(old) {
                    *first = beta * old + (T::ONE - beta) * g;
                    *v = *first * correction;
                }
            }
        }
        map.apply(kernel, &state, v, scratch)?;
        let u = v;
        let mut squares = SquareSum::new(Quantity::Preconditioned);
        squares.add(0, u).map_err(|kind| in_rows(state.shape, kind))?;
        squares.finish()?;
        let inner = dot(u, gradient)?;
        gradient.copy_from_slice(u);
        state.first_moment.copy_from_slice(first);
        let slot = &mut self.slots[tensor];
        slot.weights[TensorSlot::FIRST] = first_weight;
        slot.preconditioned = slot.preconditioned.saturating_add(1);
        Ok(inner)
    }

    /// Where the numbers of a tensor begin.
    pub(super) fn start(&self, tensor: usize) -> usize {
        state_len(&self.net[..tensor], self.layout)
    }

    /// The arrays of a tensor that exists.
    fn tensor_state(&mut self, tensor: usize) -> TensorState<'_, T> {
        let (start, shape) = (self.start(tensor), self.net[tensor]);
        let numbers = &mut self.numbers[start..][..self.layout.tensor_len(shape)];
        TensorState::new(shape, self.layout, &self.slots[tensor], numbers)
    }

    fn expect_gradients<G: AsRef<[T]>>(&self, gradients: &[G], scratch: &[T]) -> Result<(), LayerError> {
        let (needed, found) = (self.net.len(), gradients.len());
        if found > needed {
            return Err(LayerErrorKind::NoSuchLayer { layers: needed }.at(needed));
        }
        for (tensor, shape) in self.net.iter().enumerate() {
            let len = gradients.get(tensor).map_or(0, |gradient| gradient.as_ref().len());
            let expected = Quantity::Gradient.expect([shape.entries(), 1], [len, 1]);
            expected.map_err(|kind| kind.at(tensor))?;
        }
        self.expect_scratch(scratch)
    }

    fn expect_scratch(&self, scratch: &[T]) -> Result<(), LayerError> {
        let (needed, found) = (self.scratch_len(), scratch.len());
        if found >= needed {
            Ok(())
        } else {
            Err(LayerErrorKind::Scratch(ScratchError { needed, found }).at(0))
        }
    }
}

/// The squares of a gradient, refused where they leave the range of `T`.
fn gradient_squares<T: Scalar>(shape: TensorShape, gradient: &[T]) -> Result<SquareSum<T>, LayerErrorKind> {
    let mut squares = SquareSum::new(Quantity::Gradient);
    squares.add(0, gradient).map_err(|kind| in_rows(shape, kind))?;
    squares.finish()?;
    Ok(squares)
}

/// Rows of a tensor run along its last axis.
fn in_rows(shape: TensorShape, kind: LayerErrorKind) -> LayerErrorKind {
    match kind {
        LayerErrorKind::NotFinite { quantity, column, .. } => {
            let width = shape.side(shape.order().saturating_sub(1));
            LayerErrorKind::NotFinite { quantity, row: column / width, column: column % width }
        }
        other => other,
    }
}

#[cfg(feature = "alloc")]
impl<T: Scalar, M: GradientMap<T>, K: Kernel<T>> TensorPreconditioner<'static, T, M, K> {
    /// A preconditioner that owns its storage, otherwise as [`new`](Self::new).
    ///
    /// # Errors
    /// As for [`new`](Self::new); [`StorageError::Numbers`] where no memory can hold the tensors.
    pub fn on_heap(net: &[TensorShape], map: M, kernel: K) -> Result<Self, TensorSetupError> {
        let storage = Storage::owned(state_len(net, map.layout()), net.len())?;
        Self::with_storage(Net::Owned(net.to_vec()), map, kernel, storage)
    }
}
