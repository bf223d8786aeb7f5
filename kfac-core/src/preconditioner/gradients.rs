//! One gradient: checked, preconditioned, checked again.

use super::Preconditioner;
use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::gradient::LayerGradient;
use crate::map::Map;
use crate::memory::apply_scratch_len;
use crate::report::Preconditioned;
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar};

impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// Refuses a gradient that cannot be preconditioned, and adds `V·V`.
    pub(super) fn check_gradient(
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
    pub(super) fn precondition_layer(
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
        SquareSum::of_rows(Quantity::Preconditioned, v, self.net[layer].inputs())?;
        Ok(())
    }
}
