//! `U` of one layer from the rows of its batch.

use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::evidence::{Evidence, Inputs, OutputGradients};
use crate::gradient::LayerGradient;
use crate::map::{BatchRows, RowProducts, RowsMap, form_gradient};
use crate::memory::{layer_rows_scratch_len, rows_scratch_len};
use crate::preconditioner::Preconditioner;
use crate::report::Preconditioned;
use crate::statistics::factor::SquareSum;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, MatRef, Scalar};

impl<T: Scalar, M: RowsMap<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// Scratch, in elements, that [`precondition_rows`](Self::precondition_rows) can do with for up to `batch` cases.
    pub fn rows_scratch_len(&self, batch: usize) -> usize {
        rows_scratch_len::<T, K, M>(&self.net, batch)
    }

    /// Writes to `out` the preconditioned gradient `U` of `V = (1/b) Σ_cases g āᵀ`, which need not be known: at small
    /// batches `U` comes from the rows for less than `V` would cost ([`RowsMap`]). Where it would cost more, by a count of flops
    /// ([`RowsRoute::is_cheaper`](crate::map::RowsRoute::is_cheaper)), or where the products of single rows cancel so far that their sums
    /// mean nothing, `V` is formed first. `b` is the number of cases that are not masked.
    ///
    /// `gradients` are those at the *training* targets, `per_case` or `of_mean_loss` of this batch; those of
    /// [`observe`](Self::observe) are other ones, unless the Fisher matrix is the empirical one. `out` is only written
    /// to, and only on success. The layers' reports add up with `+=`. `scratch`: [`rows_scratch_len`](Self::rows_scratch_len).
    ///
    /// # Errors
    /// As for [`precondition`](Self::precondition), for bad rows as [`Observation::add`](crate::Observation::add), and
    /// [`LayerErrorKind::SeveralPositions`] and [`LayerErrorKind::RowsWithWeightDecay`], where the rows do not make `V`.
    pub fn precondition_rows(
        &mut self,
        inputs: &(impl Inputs<T> + ?Sized),
        gradients: OutputGradients<'_, T>,
        out: &mut LayerGradient<'_, T>,
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerError> {
        let layer = out.layer();
        self.try_precondition_rows(inputs, gradients, out, scratch).map_err(|kind| kind.at(layer))
    }

    fn try_precondition_rows(
        &mut self,
        inputs: &(impl Inputs<T> + ?Sized),
        gradients: OutputGradients<'_, T>,
        out: &mut LayerGradient<'_, T>,
        scratch: &mut [T],
    ) -> Result<Preconditioned<T>, LayerErrorKind> {
        let layer = out.layer();
        let &shape = self.net.get(layer).ok_or(LayerErrorKind::NoSuchLayer { layers: self.net.len() })?;
        out.expect_shape(shape)?;
        let positions = inputs.positions().max(inputs.gradient_rows());
        if positions > 1 {
            return Err(LayerErrorKind::SeveralPositions { positions });
        }
        if self.l2 > T::ZERO {
            return Err(LayerErrorKind::RowsWithWeightDecay { l2: self.l2.to_f64() });
        }
        let needed = layer_rows_scratch_len::<T, K, M>(shape, inputs.cases());
        self.expect_scratch(layer, needed, scratch).map_err(|error| error.kind)?;
        self.expect_ready(layer)?;
        let evidence = Evidence { shape, inputs, gradients };
        let cases = evidence.check(scratch)?.cases;

        let (u, scratch) = scratch.split_at_mut(shape.weights());
        let products = if M::ROWS.is_cheaper(shape, cases) {
            self.by_rows(layer, &evidence, (cases, &mut *u), scratch)?
        } else {
            None
        };
        let products = match products {
            Some(products) => products,
            None => self.by_gradient(layer, &evidence, (cases, &mut *u), scratch)?,
        };
        for (index, row) in u.chunks_exact(shape.inputs()).enumerate() {
            out.write_row(index, row);
        }
        let RowProducts { inner, gradient_squares } = products;
        let stale_layers = usize::from(self.slots[layer].most_failures() > 0);
        Ok(Preconditioned { inner, gradient_squares, stale_layers })
    }

    /// By the map's own way from the rows.
    fn by_rows<I: Inputs<T> + ?Sized>(
        &mut self,
        layer: usize,
        evidence: &Evidence<'_, T, I>,
        (cases, u): (usize, &mut [T]),
        scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, LayerErrorKind> {
        let (n, m) = (evidence.shape.inputs(), evidence.shape.outputs());
        let (x, scratch) = scratch.split_at_mut(cases * n);
        let (d, scratch) = scratch.split_at_mut(cases * m);
        let rows = x.chunks_exact_mut(n).zip(d.chunks_exact_mut(m));
        for (place, (x, d)) in evidence.positions().zip(rows) {
            evidence.write_input(place, x);
            evidence.write_gradient(place, d);
        }
        let (map, kernel, lambda) = (self.map, self.kernel, self.damping);
        let (inputs, gradients) = (MatRef::row_major(x, cases, n)?, MatRef::row_major(d, cases, m)?);
        let rows = BatchRows { inputs, gradients, u: &mut *u };
        let products = map.apply_rows(kernel, &self.layer_state(layer), lambda, rows, scratch)?;
        if products.is_some() {
            SquareSum::of_rows(Quantity::Preconditioned, u, n)?;
        }
        Ok(products)
    }

    /// By `V`, as `precondition` does it.
    fn by_gradient<I: Inputs<T> + ?Sized>(
        &mut self,
        layer: usize,
        evidence: &Evidence<'_, T, I>,
        (cases, u): (usize, &mut [T]),
        scratch: &mut [T],
    ) -> Result<RowProducts<T>, LayerErrorKind> {
        let width = evidence.shape.inputs();
        form_gradient(self.kernel, evidence, T::ONE / T::from_usize(cases), u, scratch)?;
        let gradient_squares = Some(SquareSum::of_rows(Quantity::Gradient, u, width)?);
        let (v, scratch) = scratch.split_at_mut(u.len());
        v.copy_from_slice(u);
        self.apply_map(layer, u, scratch)?;
        Ok(RowProducts { inner: dot(u, v)?, gradient_squares })
    }
}
