//! The algorithm on one page: observe, refresh, precondition.

mod gradients;
mod settings;
mod views;

use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::gradient::LayerGradient;
use crate::map::{FactorMap, Map};
use crate::memory::{Buffer, LayerSlot, Net, Storage, StorageError, scratch_len, state_len};
use crate::observation::Observation;
use crate::report::{Preconditioned, RefreshReport};
use crate::schedule::Schedule;
use crate::shape::LayerShape;
use kfac_linalg::{Kernel, Scalar, ShapeError};

/// Natural-gradient preconditioning of a network's weight gradients by Kronecker factors.
///
/// A step is: [`observe`](Self::observe) when [`wants_statistics`](Self::wants_statistics), then
/// [`refresh`](Self::refresh), then [`precondition`](Self::precondition). With a refresh period above 1, the first refresh, once
/// the first statistics are there, is [`refresh_all`](Self::refresh_all); a device that cannot afford it
/// waits one period, in which `precondition` answers `NotReady`. The state is a value in borrowed storage;
/// weights and gradients stay with the caller. An error leaves state and gradients as if the call had not been made,
/// but for two: `ThirdFailure`, where the rest of the step's refreshes is done, and a `U` that leaves the range of `T`,
/// where the gradients before it are already preconditioned.
///
/// # When a layer keeps failing
/// Its last good inverse stays in force, and the third failure in a row is returned. Who does not want to end the run there
/// takes a plain gradient step, at a rate that suits one, until the layer recovers:
///
#[cfg_attr(feature = "alloc", doc = "```")]
#[cfg_attr(not(feature = "alloc"), doc = "```ignore")]
/// # use kfac_core::linalg::{MatRef, Reproducible};
/// # use kfac_core::{LayerShape, Preconditioner, evidence::Moments, map::Factored};
/// # let net = [LayerShape::dense(1, 2).without_bias()];
/// # let mut kfac = Preconditioner::on_heap(&net, Factored, Reproducible)?;
/// # let (mut scratch, mut v) = (vec![0.0; kfac.scratch_len()], [1.0, 2.0]);
/// # let (a, g) = ([1.0], [1.0, 0.0, 0.0, -9.0]); // no second moment
/// # let (a, g) = (MatRef::row_major(&a, 1, 1)?, MatRef::row_major(&g, 2, 2)?);
/// # kfac.observe(1).add_moments(0, Moments { a, g, positions: 1.0 }, &mut scratch)?;
/// # let (rate, plain_rate, mut rates) = (1.0, 0.01, vec![]);
/// # for _ in 0..3 {
/// let rate = match kfac.refresh(&mut scratch) {
///     Ok(_) => kfac.precondition_flat(&mut v, &mut scratch).map_or(plain_rate, |_| rate), // v is U now
///     Err(_) => plain_rate,                                                               // v is still V
/// };
/// # rates.push(rate);
/// # }
/// # assert_eq!((rates, v), (vec![0.01; 3], [1.0, 2.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

    /// Is a statistics update due at this step?
    pub fn wants_statistics(&self) -> bool {
        self.step.is_multiple_of(u64::from(self.schedule.statistics_every))
    }

    /// Has every layer that was observed an inverse? Layers that never are, since another optimizer has them, do not count;
    /// before the first statistics the answer is no.
    pub fn is_ready(&self) -> bool {
        let mut observed = self.slots.iter().filter(|slot| slot.updates > 0 || slot.is_ready()).peekable();
        observed.peek().is_some() && observed.all(LayerSlot::is_ready)
    }

    /// Lets the next statistic of every layer replace what has been gathered, and begins its average anew: for data whose
    /// distribution has shifted. Until then, and until they are refreshed, factors and inverses stay as they are, and
    /// [`refresh`](Self::refresh) leaves such a layer alone. To be done with the old data at once: forget, observe, whatever
    /// [`wants_statistics`](Self::wants_statistics) says, and [`refresh_all`](Self::refresh_all).
    pub fn forget(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.updates = 0);
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
                        report.count_success(refreshed, &mut slot.failures[side.index()]);
                    }
                    Err(error) => {
                        if report.count_failure(&mut slot.failures[side.index()]) {
                            third_failure.get_or_insert(LayerErrorKind::ThirdFailure(error).at(layer));
                        }
                    }
                }
            }
            self.complete(layer);
        }
        third_failure.map_or(Ok(report), Err)
    }

    /// Tells the map once both sides have been refreshed since the last time, and not only kept: after all of them that were due,
    /// so that it finds no old side beside a new one.
    fn complete(&mut self, layer: usize) {
        let (map, step, slot) = (self.map, self.step, &mut self.slots[layer]);
        if slot.refreshed.iter().any(|&refreshed| refreshed <= slot.completed) {
            return;
        }
        slot.completed = step;
        if core::mem::take(&mut slot.renewed) {
            map.complete(&mut self.layer_state(layer));
        }
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
