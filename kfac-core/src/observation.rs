//! One statistics update: evidence in, decayed sums out.

use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::evidence::{ChainMoments, Evidence, Inputs, Moments, OutputGradients};
use crate::map::{ChainMap, FactorMap, MomentMap, largest};
use crate::memory::{LayerSlot, observe_scratch_len};
use crate::preconditioner::Preconditioner;
use crate::shape::{LayerShape, Side};
use crate::statistics::average::ramp;
use crate::statistics::factor::SquareSum;
use crate::statistics::lengths;
use kfac_linalg::{Kernel, MatRef, PackedMut, PackedRef, Scalar};

/// One statistics update. The first accepted `add` of a layer decays its sums; every case adds its share.
pub struct Observation<'k, 's, T, M, K> {
    owner: &'k mut Preconditioner<'s, T, M, K>,
    cases: usize,
}

impl<'k, 's, T, M, K> Observation<'k, 's, T, M, K> {
    pub(crate) fn new(owner: &'k mut Preconditioner<'s, T, M, K>, cases: usize) -> Self {
        Self { owner, cases }
    }
}

impl<T: Scalar, M: FactorMap<T>, K: Kernel<T>> Observation<'_, '_, T, M, K> {
    /// Adds the cases of a (part of a) batch to `layer`.
    ///
    /// # Errors
    /// A [`LayerError`]: everything is checked before anything is touched, so a refused `add` leaves its layer as
    /// if it had not been called; other layers keep theirs.
    pub fn add(
        &mut self,
        layer: usize,
        inputs: &(impl Inputs<T> + ?Sized),
        gradients: OutputGradients<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        self.try_add(layer, inputs, gradients, scratch).map_err(|kind| kind.at(layer))
    }

    fn try_add(
        &mut self,
        layer: usize,
        inputs: &(impl Inputs<T> + ?Sized),
        gradients: OutputGradients<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let shape = self.shape_with_scratch(layer, scratch)?;
        let evidence = Evidence { shape, inputs, gradients };
        let checked = evidence.check(scratch)?;
        let update = self.plan(layer, inputs.cases())?;
        let mut state = self.owner.layer_state(layer);
        for (side, traces) in Side::BOTH.into_iter().zip(&checked.traces) {
            update.expect_room(state.side(side).magnitude(), traces)?;
        }
        // A lag sum needs no room of its own: no entry exceeds the trace of what is added to the moment, nor a quarter of the
        // largest number where it was handed in, and no average of two numbers is larger than both of them.
        if M::PER_CASE.is_squares() {
            update.expect_room_for_squares(state.per_weight, &checked.traces)?;
        }

        let scale = update.per_case;
        self.begin(layer, &update);
        let weights = [checked.rows, checked.cases].map(|count| scale.to_f64() * count as f64);
        // From here on nothing can fail: the evidence is checked, and the scratch is as long as the products need.
        let (map, kernel, has_bases) =
            (self.owner.map, self.owner.kernel, self.owner.slots[layer].is_ready());
        let mut state = self.owner.layer_state(layer);
        evidence.add_inputs(kernel, &mut state.input, scale, scratch)?;
        evidence.add_gradients(kernel, &mut state.output, scale, scratch)?;
        if has_bases || !M::PER_CASE.needs_bases() {
            map.learn(kernel, &mut state, &evidence, scale, scratch)?;
        }
        self.gain(layer, inputs.cases(), weights);
        Ok(())
    }

    fn shape_with_scratch(&self, layer: usize, scratch: &[T]) -> Result<LayerShape, LayerErrorKind> {
        let net = &self.owner.net;
        let &shape = net.get(layer).ok_or(LayerErrorKind::NoSuchLayer { layers: net.len() })?;
        let needed = observe_scratch_len::<T, K, M>(shape);
        self.owner.expect_scratch(layer, needed, scratch).map_err(|error| error.kind)?;
        Ok(shape)
    }

    /// How an `add` of `cases` cases to a layer would change its sums.
    fn plan(&self, layer: usize, cases: usize) -> Result<Update<T>, LayerErrorKind> {
        Update::plan(&self.owner.slots[layer], self.cases, cases, self.owner.decay)
    }

    /// Decays the sums at the first accepted `add`.
    fn begin(&mut self, layer: usize, update: &Update<T>) {
        if self.owner.slots[layer].added > 0 {
            return;
        }
        self.owner.layer_state(layer).decay(M::PER_CASE, update.keep);
        let slot = &mut self.owner.slots[layer];
        slot.updates = update.updates;
        slot.weights = slot.weights.map(|weight| weight * update.keep.to_f64());
    }

    /// Books what has been added.
    fn gain(&mut self, layer: usize, cases: usize, weights: [f64; 2]) {
        let slot = &mut self.owner.slots[layer];
        slot.added += cases;
        for (total, weight) in slot.weights.iter_mut().zip(weights) {
            *total += weight;
        }
    }
}

impl<T: Scalar, M: MomentMap<T>, K: Kernel<T>> Observation<'_, '_, T, M, K> {
    /// Adds finished moments that stand for all cases of this update.
    ///
    /// # Errors
    /// As for [`add`](Self::add); [`LayerErrorKind::EmptyBatch`] unless they stand for more than 0 positions.
    pub fn add_moments(
        &mut self,
        layer: usize,
        moments: Moments<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        self.try_add_moments(layer, moments, scratch).map_err(|kind| kind.at(layer))
    }

    /// Adds the cases of a (part of a) batch to `layer`: `A` from the rows of the inputs, `G` from a finished matrix that
    /// stands for these cases, as the [recursion](crate::statistics::kfra) leaves it.
    ///
    /// # Shapes
    /// `g_bar`: `m x m`, its lower triangle is read.
    /// # Units
    /// `g_bar`: the mean over the cases of the sum over positions of `g gᵀ`. With several positions to a case it is therefore
    /// the sum of what the recursion gives at each of them. Every position that the inputs say they have is read.
    /// # Errors
    /// As for [`add`](Self::add), and for [`add_moments`](Self::add_moments) as far as they concern `G`.
    pub fn add_with_output_moment(
        &mut self,
        layer: usize,
        inputs: &(impl Inputs<T> + ?Sized),
        g_bar: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        self.try_add_with_output_moment(layer, inputs, g_bar, scratch).map_err(|kind| kind.at(layer))
    }

    fn try_add_with_output_moment(
        &mut self,
        layer: usize,
        inputs: &(impl Inputs<T> + ?Sized),
        g_bar: MatRef<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let shape = self.shape_with_scratch(layer, scratch)?;
        let gradients = OutputGradients::per_case(MatRef::row_major(&[], 0, 0)?);
        let evidence = Evidence { shape, inputs, gradients };
        let checked = evidence.check_inputs(scratch)?;
        let update = self.plan(layer, inputs.cases())?;
        update.expect_room(self.owner.layer_state(layer).input.magnitude(), &checked.trace)?;
        let weights = [checked.rows, checked.cases].map(|count| update.per_case.to_f64() * count as f64);
        let share = T::from_f64(weights[1]);
        let present = self.owner.factor(layer, Side::Output);
        check_moment(Quantity::OutputMoment, shape.outputs(), present, g_bar, [update.keep, share])?;

        self.begin(layer, &update);
        let kernel = self.owner.kernel;
        let mut state = self.owner.layer_state(layer);
        evidence.add_inputs(kernel, &mut state.input, update.per_case, scratch)?;
        add_moment(state.output.sum_mut()?, share, g_bar);
        self.gain(layer, inputs.cases(), weights);
        Ok(())
    }

    fn try_add_moments(
        &mut self,
        layer: usize,
        Moments { a, g, positions }: Moments<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        self.shape_with_scratch(layer, scratch)?;
        let is_positive = positions > T::ZERO;
        if !is_positive {
            return Err(LayerErrorKind::EmptyBatch);
        }
        let update = self.plan(layer, self.cases)?;
        let moments = self.checked_moments(layer, &update, [(a, positions), (g, T::ONE)])?;
        self.begin(layer, &update);
        self.add_checked_moments(layer, &moments)?;
        self.gain(layer, self.cases, moments.map(|moment| moment.scale.to_f64()));
        Ok(())
    }
}

impl<T: Scalar, M: ChainMap<T>, K: Kernel<T>> Observation<'_, '_, T, M, K> {
    /// Adds finished moments of sequences that stand for all cases of this update.
    ///
    /// # Errors
    /// As for [`add`](Self::add); [`LayerErrorKind::LengthShare`], and [`LayerErrorKind::EmptyBatch`] unless one share of a
    /// length is positive.
    pub fn add_chain_moments(
        &mut self,
        layer: usize,
        moments: ChainMoments<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        self.try_add_chain_moments(layer, moments, scratch).map_err(|kind| kind.at(layer))
    }

    fn try_add_chain_moments(
        &mut self,
        layer: usize,
        ChainMoments { a, a_lag, g, g_lag, lengths }: ChainMoments<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let shape = self.shape_with_scratch(layer, scratch)?;
        let (cases, positions) = count(lengths)?;
        let update = self.plan(layer, self.cases)?;
        let moments = self.checked_moments(layer, &update, [(a, positions / cases), (g, T::ONE)])?;
        let lags = [(Quantity::InputLagMoment, a_lag), (Quantity::OutputLagMoment, g_lag)];
        for ((quantity, lag), &CheckedMoment { side, scale, .. }) in lags.into_iter().zip(&moments) {
            let size = shape.side(side);
            quantity.expect([size, size], [lag.rows(), lag.cols()])?;
            let mut state = self.owner.layer_state(layer);
            let mut magnitudes = SquareSum::new(quantity);
            for (at, &old) in state.side(side).lag().iter().enumerate() {
                let (row, column) = (at / size, at % size);
                magnitudes.add_moment((row, column), update.keep * old, scale, lag.at(row, column))?;
            }
            magnitudes.finish()?;
        }

        self.begin(layer, &update);
        self.add_checked_moments(layer, &moments)?;
        let mut state = self.owner.layer_state(layer);
        for ((_, lag), &CheckedMoment { side, scale, .. }) in lags.iter().zip(&moments) {
            let size = shape.side(side);
            for (at, sum) in state.side(side).lag_mut().iter_mut().enumerate() {
                *sum += scale * lag.at(at / size, at % size);
            }
        }
        let share = T::ONE - update.epsilon;
        for &(length, cases_of_length) in
            lengths.iter().filter(|&&(length, share)| length > 0 && share > T::ZERO)
        {
            let positions = T::from_usize(length) * (cases_of_length / cases);
            lengths::add(state.per_layer, length, share * positions);
        }
        self.gain(layer, self.cases, moments.map(|moment| moment.scale.to_f64()));
        Ok(())
    }
}

/// The sum of the shares of lengths, and of shares times lengths.
fn count<T: Scalar>(lengths: &[(usize, T)]) -> Result<(T, T), LayerErrorKind> {
    let (mut cases, mut positions) = (T::ZERO, T::ZERO);
    for &(length, share) in lengths {
        if !(share >= T::ZERO && share.is_finite()) {
            return Err(LayerErrorKind::LengthShare { length, share: share.to_f64() });
        }
        if length > 0 {
            cases += share;
            positions += share * T::from_usize(length);
        }
        if !positions.is_finite() {
            return Err(LayerErrorKind::LengthShare { length, share: share.to_f64() });
        }
    }
    if cases > T::ZERO { Ok((cases, positions)) } else { Err(LayerErrorKind::EmptyBatch) }
}

/// A finished moment that can be added: `scale` times its numbers.
#[derive(Clone, Copy)]
struct CheckedMoment<'a, T> {
    side: Side,
    moment: MatRef<'a, T>,
    scale: T,
}

impl<T: Scalar, M: FactorMap<T>, K: Kernel<T>> Observation<'_, '_, T, M, K> {
    /// `A` and `G` as they are handed in, each with what it is a mean over of one case, as sums over the cases are.
    fn checked_moments<'a>(
        &self,
        layer: usize,
        update: &Update<T>,
        [(a, of_a), (g, of_g)]: [(MatRef<'a, T>, T); 2],
    ) -> Result<[CheckedMoment<'a, T>; 2], LayerErrorKind> {
        let share = T::ONE - update.epsilon;
        let moments = [
            CheckedMoment { side: Side::Input, moment: a, scale: share * of_a },
            CheckedMoment { side: Side::Output, moment: g, scale: share * of_g },
        ];
        let quantities = [Quantity::InputMoment, Quantity::OutputMoment];
        for (quantity, CheckedMoment { side, moment, scale }) in quantities.into_iter().zip(moments) {
            let size = self.owner.net()[layer].side(side);
            let present = self.owner.factor(layer, side);
            check_moment(quantity, size, present, moment, [update.keep, scale])?;
        }
        Ok(moments)
    }

    fn add_checked_moments(
        &mut self,
        layer: usize,
        moments: &[CheckedMoment<'_, T>; 2],
    ) -> Result<(), LayerErrorKind> {
        let mut state = self.owner.layer_state(layer);
        for &CheckedMoment { side, moment, scale } in moments {
            add_moment(state.side(side).sum_mut()?, scale, moment);
        }
        Ok(())
    }
}

/// Refuses a moment of another shape, one with a number that is not finite, and one under which `keep sum + scale moment`
/// could leave the range of `T`. Nothing says that it is a moment of anything, so every entry is watched, not the trace
/// alone.
pub(crate) fn check_moment<T: Scalar>(
    quantity: Quantity,
    size: usize,
    present: Option<(PackedRef<'_, T>, f64)>,
    moment: MatRef<'_, T>,
    [keep, scale]: [T; 2],
) -> Result<(), LayerErrorKind> {
    quantity.expect([size, size], [moment.rows(), moment.cols()])?;
    let mut magnitudes = SquareSum::new(quantity);
    for row in 0..size {
        for column in 0..=row {
            let old = present.map_or(T::ZERO, |(sum, _)| keep * sum.at(row, column));
            magnitudes.add_moment((row, column), old, scale, moment.at(row, column))?;
        }
    }
    magnitudes.finish().map(|_| ())
}

/// `sum += scale moment`.
pub(crate) fn add_moment<T: Scalar>(mut sum: PackedMut<'_, T>, scale: T, moment: MatRef<'_, T>) {
    for row in 0..sum.n() {
        for column in 0..=row {
            sum.add(row, column, scale * moment.at(row, column));
        }
    }
}

/// What an `add` does to the sums: `S <- keep S + per_case Σ_cases`.
pub(crate) struct Update<T> {
    /// `k`, counting this update.
    pub(crate) updates: u32,
    /// `ε` of this update.
    pub(crate) epsilon: T,
    /// `ε` at the first `add`, 1 at those that follow.
    pub(crate) keep: T,
    /// `(1 - ε) / N`.
    pub(crate) per_case: T,
}

impl<T: Scalar> Update<T> {
    /// How an `add` of `cases` of the `announced` cases changes the sums behind a slot.
    pub(crate) fn plan(
        slot: &LayerSlot,
        announced: usize,
        cases: usize,
        decay: T,
    ) -> Result<Self, LayerErrorKind> {
        if announced == 0 || cases == 0 {
            return Err(LayerErrorKind::EmptyBatch);
        }
        let found = slot.added.saturating_add(cases);
        if found > announced {
            return Err(LayerErrorKind::TooManyCases { announced, found });
        }
        let updates = if slot.added > 0 { slot.updates } else { slot.updates.saturating_add(1) };
        let epsilon = ramp(updates, decay);
        let keep = if slot.added > 0 { T::ONE } else { epsilon };
        Ok(Self { updates, epsilon, keep, per_case: (T::ONE - epsilon) / T::from_usize(announced) })
    }

    /// Refuses evidence under which the sum could leave the range of `T`: `present`, the magnitude of its diagonal, bounds
    /// every entry.
    pub(crate) fn expect_room(&self, present: T, added: &SquareSum<T>) -> Result<(), LayerErrorKind> {
        added.bounded(self.keep * present + self.per_case * added.sum()).map(|_| ())
    }

    /// The same for sums of squared gradients: no case's is larger than the product of its sums of squares, and it is
    /// squared before it is scaled.
    fn expect_room_for_squares(&self, sums: &[T], added: &[SquareSum<T>; 2]) -> Result<(), LayerErrorKind> {
        let [inputs, gradients] = added;
        let squares = gradients.bounded(inputs.sum() * gradients.sum())?;
        gradients.bounded(self.keep * largest(sums) + self.per_case * squares).map(|_| ())
    }
}
