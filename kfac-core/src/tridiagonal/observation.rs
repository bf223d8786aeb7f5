//! One statistics update of the whole network: rows or moments in, decayed sums out.

use super::Tridiagonal;
use super::layout::{next_range, statistics_len};
use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::evidence::{Evidence, Inputs, OutputGradients, Rows};
use crate::map::take;
use crate::observation::{Update, add_moment, check_moment};
use crate::shape::{LayerShape, Side};
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// What a (part of a) batch leaves at one dense layer. There are no other layers here: the factors between neighbours are
/// those of the rows of one case, of which a layer with several positions has more than one.
#[derive(Clone, Copy)]
pub struct LayerRows<'a, T> {
    /// Inputs `a`, a row for every case.
    pub inputs: Rows<'a, T>,
    /// Gradients `g` at the layer's output, a row for every case.
    pub gradients: OutputGradients<'a, T>,
}

/// Two finished moments, of inputs and of output gradients.
#[derive(Clone, Copy)]
pub struct MomentPair<'a, T> {
    /// Of `ā`.
    pub a: MatRef<'a, T>,
    /// Of `g`.
    pub g: MatRef<'a, T>,
}

/// Finished moments of a network, which stand for all cases of an update.
#[derive(Clone, Copy)]
pub struct NetworkMoments<'a, T> {
    /// Of every layer, the means over cases of `ā āᵀ` (`n x n`) and `g gᵀ` (`m x m`). Only the lower triangles are read.
    pub own: &'a [MomentPair<'a, T>],
    /// Of every layer but the last with the next one, the means of `ā_i ā_{i+1}ᵀ` (`n x n'`) and `g_i g_{i+1}ᵀ` (`m x m'`).
    pub next: &'a [MomentPair<'a, T>],
}

/// One statistics update. The first accepted `add` decays the sums; every case adds its share.
pub struct TridiagonalObservation<'k, 's, T, K> {
    owner: &'k mut Tridiagonal<'s, T, K>,
    cases: usize,
}

impl<'k, 's, T: Scalar, K: Kernel<T>> TridiagonalObservation<'k, 's, T, K> {
    pub(super) fn new(owner: &'k mut Tridiagonal<'s, T, K>, cases: usize) -> Self {
        Self { owner, cases }
    }

    /// Adds the cases of a (part of a) batch, `layers` in the order of the network. Row `i` belongs to the same case in all
    /// of them.
    ///
    /// # Errors
    /// A [`LayerError`]: everything is checked before anything is touched, so a refused `add` leaves the network as if it
    /// had not been called. [`LayerErrorKind::MissingLayer`] where `layers` ends too early.
    pub fn add(&mut self, layers: &[LayerRows<'_, T>], scratch: &mut [T]) -> Result<(), LayerError> {
        self.owner.expect_scratch(scratch).map_err(|kind| kind.at(0))?;
        self.expect_layers(layers.len(), self.owner.net.len())?;
        let cases = layers.first().map_or(0, |layer| layer.inputs.cases());
        let update = self.plan(cases)?;
        for (layer, rows) in layers.iter().enumerate() {
            self.check(layer, rows, cases, &update, scratch).map_err(|kind| kind.at(layer))?;
        }

        self.begin(&update);
        for layer in 0..layers.len() {
            self.add_layer(layer, layers, update.per_case, scratch).map_err(|kind| kind.at(layer))?;
        }
        self.gain(cases, update.per_case.to_f64() * cases as f64);
        Ok(())
    }

    /// Adds finished moments that stand for all cases of this update.
    ///
    /// # Errors
    /// As for [`add`](Self::add); [`LayerErrorKind::MissingLayer`] at a layer without moments, of its own or with the next
    /// layer.
    pub fn add_moments(
        &mut self,
        moments: NetworkMoments<'_, T>,
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        self.owner.expect_scratch(scratch).map_err(|kind| kind.at(0))?;
        let layers = self.owner.net.len();
        self.expect_layers(moments.own.len(), layers)?;
        self.expect_layers(moments.next.len(), layers.saturating_sub(1))?;
        let update = self.plan(self.cases)?;
        let share = T::ONE - update.epsilon;
        for (layer, pair) in moments.own.iter().enumerate() {
            for (side, quantity, moment) in
                [(Side::Input, Quantity::InputMoment, pair.a), (Side::Output, Quantity::OutputMoment, pair.g)]
            {
                let (size, present) = (self.owner.net[layer].side(side), self.owner.factor(layer, side));
                check_moment(quantity, size, present, moment, [update.keep, share])
                    .map_err(|kind| kind.at(layer))?;
            }
        }
        for (layer, pair) in moments.next.iter().enumerate() {
            self.check_next(layer, pair, [update.keep, share]).map_err(|kind| kind.at(layer))?;
        }

        self.begin(&update);
        for (layer, pair) in moments.own.iter().enumerate() {
            let mut state = self.owner.layer_state(layer);
            for (side, moment) in [(Side::Input, pair.a), (Side::Output, pair.g)] {
                let sum = state.side(side).sum_mut();
                add_moment(sum.map_err(|error| LayerErrorKind::Internal(error).at(layer))?, share, moment);
            }
        }
        for (layer, pair) in moments.next.iter().enumerate() {
            for (side, moment) in [(Side::Input, pair.a), (Side::Output, pair.g)] {
                let range = next_range(&self.owner.net, layer, side);
                for (at, sum) in self.owner.numbers[range].iter_mut().enumerate() {
                    *sum += share * moment.at(at / moment.cols(), at % moment.cols());
                }
            }
        }
        self.gain(self.cases, share.to_f64());
        Ok(())
    }

    /// Refuses too few or too many entries, by the first layer that lacks one or does not exist.
    fn expect_layers(&self, found: usize, expected: usize) -> Result<(), LayerError> {
        if found < expected {
            return Err(LayerErrorKind::MissingLayer.at(found));
        }
        if found > expected {
            return Err(LayerErrorKind::NoSuchLayer { layers: expected }.at(expected));
        }
        Ok(())
    }

    fn plan(&self, cases: usize) -> Result<Update<T>, LayerError> {
        Update::plan(self.owner.slot(), self.cases, cases, self.owner.decay).map_err(|kind| kind.at(0))
    }

    /// Refuses rows that cannot be learnt from. An entry between two layers is no larger than the larger of the traces.
    fn check(
        &mut self,
        layer: usize,
        rows: &LayerRows<'_, T>,
        cases: usize,
        update: &Update<T>,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let shape = self.owner.net[layer];
        Quantity::Inputs.expect([cases, shape.features()], rows.inputs.0.shape())?;
        let checked = rows.evidence(shape).check(scratch)?;
        let mut state = self.owner.layer_state(layer);
        for (side, traces) in Side::BOTH.into_iter().zip(&checked.traces) {
            update.expect_room(state.side(side).magnitude(), traces)?;
        }
        Ok(())
    }

    /// The same for moments with the next layer, of which every entry is watched.
    fn check_next(
        &self,
        layer: usize,
        pair: &MomentPair<'_, T>,
        [keep, share]: [T; 2],
    ) -> Result<(), LayerErrorKind> {
        for (side, quantity, moment) in [
            (Side::Input, Quantity::NextInputMoment, pair.a),
            (Side::Output, Quantity::NextOutputMoment, pair.g),
        ] {
            let net = &self.owner.net;
            quantity.expect([net[layer].side(side), net[layer + 1].side(side)], moment.shape())?;
            let mut magnitudes = SquareSum::new(quantity);
            let sums = &self.owner.numbers[next_range(net, layer, side)];
            for (at, &sum) in sums.iter().enumerate() {
                let place = (at / moment.cols(), at % moment.cols());
                magnitudes.add_moment(place, keep * sum, share, moment.at(place.0, place.1))?;
            }
            magnitudes.finish()?;
        }
        Ok(())
    }

    /// Decays the sums at the first accepted `add`.
    fn begin(&mut self, update: &Update<T>) {
        let len = statistics_len(&self.owner.net);
        let slot = &mut self.owner.slots[0];
        if slot.added > 0 {
            return;
        }
        slot.updates = update.updates;
        slot.weights = slot.weights.map(|weight| weight * update.keep.to_f64());
        self.owner.numbers[..len].iter_mut().for_each(|sum| *sum *= update.keep);
    }

    /// Books what has been added. Every case has one position: both sides weigh the same.
    fn gain(&mut self, cases: usize, weight: f64) {
        let slot = &mut self.owner.slots[0];
        slot.added += cases;
        slot.weights.iter_mut().for_each(|total| *total += weight);
    }

    /// The sums of a layer, and those with the next one. The evidence has been checked.
    fn add_layer(
        &mut self,
        layer: usize,
        layers: &[LayerRows<'_, T>],
        per_case: T,
        scratch: &mut [T],
    ) -> Result<(), LayerErrorKind> {
        let (kernel, shape, this) = (self.owner.kernel, self.owner.net[layer], layers[layer]);
        let evidence = this.evidence(shape);
        let mut state = self.owner.layer_state(layer);
        evidence.add_inputs(kernel, &mut state.input, per_case, scratch)?;
        evidence.add_gradients(kernel, &mut state.output, per_case, scratch)?;
        let Some(next) = layers.get(layer + 1) else { return Ok(()) };
        let next = next.evidence(self.owner.net[layer + 1]);
        for side in Side::BOTH {
            let range = next_range(&self.owner.net, layer, side);
            let sum =
                MatMut::row_major(&mut self.owner.numbers[range], shape.side(side), next.shape.side(side))?;
            add_pairs(kernel, side, [&evidence, &next], (sum, per_case), scratch)?;
        }
        Ok(())
    }
}

impl<'a, T: Scalar> LayerRows<'a, T> {
    fn evidence(&self, shape: LayerShape) -> Evidence<'_, T, Rows<'a, T>> {
        Evidence { shape, inputs: &self.inputs, gradients: self.gradients }
    }
}

/// `sum += per_case Σ_cases x x'ᵀ`, `x` and `x'` the rows of either layer at `side`: a panel of cases at a time.
fn add_pairs<T: Scalar, K: Kernel<T>>(
    kernel: K,
    side: Side,
    layers: [&Evidence<'_, T, Rows<'_, T>>; 2],
    (mut sum, per_case): (MatMut<'_, T>, T),
    mut scratch: &mut [T],
) -> Result<(), LayerErrorKind> {
    let widths = [sum.rows(), sum.cols()];
    let (cases, rows) = (layers[0].inputs.cases(), K::PANEL_ROWS);
    let mut panel = |width: usize| take(&mut scratch, rows * width).map_err(LayerErrorKind::Scratch);
    let mut panels = [panel(widths[0])?, panel(widths[1])?];
    for first in (0..cases).step_by(rows) {
        let count = rows.min(cases - first);
        for ((evidence, panel), width) in layers.iter().zip(&mut panels).zip(widths) {
            for (case, row) in (first..first + count).zip(panel.chunks_exact_mut(width)) {
                match side {
                    Side::Input => evidence.write_input((case, 0), row),
                    Side::Output => evidence.write_gradient((case, 0), row),
                }
            }
        }
        let x = MatRef::row_major(&*panels[0], count, widths[0])?.transposed();
        let next = MatRef::row_major(&*panels[1], count, widths[1])?;
        gemm(kernel, sum.reborrow(), Accumulate::Add(per_case), x, next, scratch)?;
    }
    Ok(())
}
