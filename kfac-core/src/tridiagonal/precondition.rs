//! `V` to `U` in the caller's memory: every gradient is read and checked, all are transformed together, then written.

use super::Tridiagonal;
use super::layout::weights_len;
use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::gradient::LayerGradient;
use crate::report::Preconditioned;
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar, ShapeError};

impl<T: Scalar, K: Kernel<T>> Tridiagonal<'_, T, K> {
    /// Turns every `V` into `U` in place: each layer of the network once, in any order, since the `U` of a layer depends on
    /// the `V` of all.
    ///
    /// # Errors
    /// A [`LayerError`] for a layer that is missing, there twice, or does not exist, a wrong shape, a number that is not
    /// finite, a network without an inverse, and a `U` that leaves the range of `T`. No gradient is touched then.
    pub fn precondition(
        &mut self,
        gradients: &mut [LayerGradient<'_, T>],
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        let layers = self.net.len();
        if let Some(stranger) = gradients.iter().find(|gradient| gradient.layer() >= layers) {
            return Err(LayerErrorKind::NoSuchLayer { layers }.at(stranger.layer()));
        }
        let is_repeated =
            |layer: &usize| gradients.iter().filter(|gradient| gradient.layer() == *layer).count() > 1;
        if let Some(layer) = (0..layers).find(is_repeated) {
            return Err(LayerErrorKind::RepeatedLayer.at(layer));
        }
        self.expect_ready(scratch)?;
        let (v, scratch) = scratch.split_at_mut(weights_len(&self.net));
        let mut total = self.nothing_yet();
        // In the order of the network, so that the sums do not depend on that of the gradients.
        for layer in 0..layers {
            let of_layer = gradients.iter().find(|gradient| gradient.layer() == layer);
            let gradient = of_layer.ok_or(LayerErrorKind::MissingLayer.at(layer))?;
            self.read(gradient, &mut v[self.place_of(layer)], &mut total)?;
        }
        self.transform(v, scratch)?;
        for layer in 0..layers {
            let of_layer = gradients.iter_mut().find(|gradient| gradient.layer() == layer);
            let gradient = of_layer.ok_or(LayerErrorKind::MissingLayer.at(layer))?;
            self.write(gradient, &v[self.place_of(layer)], scratch, &mut total)?;
        }
        Ok(total)
    }

    /// [`precondition`](Self::precondition) for the joint gradients of all layers in one slice, layer by layer, row by row.
    ///
    /// # Errors
    /// As there, and [`LayerErrorKind::Shape`] at the first layer for which the slice is too short, or at the last
    /// one where it is too long.
    pub fn precondition_flat(
        &mut self,
        gradients: &mut [T],
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        self.expect_ready(scratch)?;
        let (v, scratch) = scratch.split_at_mut(weights_len(&self.net));
        let mut total = self.nothing_yet();
        let mut rest = &mut *gradients;
        for (layer, &shape) in self.net.iter().enumerate() {
            let (gradient, tail) = LayerGradient::first_of(rest, layer, shape)?;
            self.read(&gradient, &mut v[self.place_of(layer)], &mut total)?;
            rest = tail;
        }
        if !rest.is_empty() {
            let (layer, expected) = (self.net.len().saturating_sub(1), v.len());
            let error = ShapeError::new([expected, 1], [expected + rest.len(), 1]);
            return Err(LayerErrorKind::Shape { quantity: Quantity::Gradient, error }.at(layer));
        }
        self.transform(v, scratch)?;
        let mut rest = gradients;
        for (layer, &shape) in self.net.iter().enumerate() {
            let (mut gradient, tail) = LayerGradient::first_of(rest, layer, shape)?;
            self.write(&mut gradient, &v[self.place_of(layer)], scratch, &mut total)?;
            rest = tail;
        }
        Ok(total)
    }

    fn expect_ready(&self, scratch: &[T]) -> Result<(), LayerError> {
        self.expect_scratch(scratch).map_err(|kind| kind.at(0))?;
        match (self.is_ready(), self.slot().updates) {
            (true, _) => Ok(()),
            (false, 0) => Err(LayerErrorKind::NoStatistics.at(0)),
            (false, _) => Err(LayerErrorKind::NotReady.at(0)),
        }
    }

    /// An old inverse is old for every layer.
    fn nothing_yet(&self) -> Preconditioned<T> {
        let stale_layers = if self.slot().most_failures() > 0 { self.net.len() } else { 0 };
        Preconditioned { stale_layers, ..Preconditioned::NOTHING }
    }

    /// Where a layer's gradient lies among those of all.
    fn place_of(&self, layer: usize) -> core::ops::Range<usize> {
        let start = weights_len(&self.net[..layer]);
        start..start + self.net[layer].weights()
    }

    /// Copies one gradient, refuses it where it cannot be preconditioned, and adds `V·V`.
    fn read(
        &self,
        gradient: &LayerGradient<'_, T>,
        v: &mut [T],
        total: &mut Preconditioned<T>,
    ) -> Result<(), LayerError> {
        let shape = self.net[gradient.layer()];
        let read = |v: &mut [T]| {
            gradient.expect_shape(shape)?;
            for (index, row) in v.chunks_exact_mut(shape.inputs()).enumerate() {
                gradient.read_row(index, row);
            }
            SquareSum::of_rows(Quantity::Gradient, v, shape.inputs())
        };
        let gradient_squares = Some(read(v).map_err(|kind| kind.at(gradient.layer()))?);
        *total += Preconditioned { gradient_squares, ..Preconditioned::NOTHING };
        Ok(())
    }

    /// `V` to `U` of all layers, refused where one is not finite.
    fn transform(&self, v: &mut [T], scratch: &mut [T]) -> Result<(), LayerError> {
        self.apply(v, scratch).map_err(|error| LayerErrorKind::from(error).at(0))?;
        for (layer, &shape) in self.net.iter().enumerate() {
            SquareSum::of_rows(Quantity::Preconditioned, &v[self.place_of(layer)], shape.inputs())
                .map_err(|kind| kind.at(layer))?;
        }
        Ok(())
    }

    /// Replaces one `V` by its `U`, and adds `U·V`.
    fn write(
        &self,
        gradient: &mut LayerGradient<'_, T>,
        u: &[T],
        row: &mut [T],
        total: &mut Preconditioned<T>,
    ) -> Result<(), LayerError> {
        let layer = gradient.layer();
        let inputs = self.net[layer].inputs();
        let row = &mut row[..inputs];
        let mut inner = T::ZERO;
        for (index, u_row) in u.chunks_exact(inputs).enumerate() {
            gradient.read_row(index, row);
            inner += dot(u_row, row).map_err(|error| LayerErrorKind::Internal(error).at(layer))?;
            gradient.write_row(index, u_row);
        }
        total.inner += inner;
        Ok(())
    }
}
