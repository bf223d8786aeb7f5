use super::StepError;
use crate::model::Network;
use crate::tape::Evidence;
use kfac_core::error::SettingError;
use kfac_core::evidence::{Inputs, OutputGradients};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Factored, RowsMap, Shifted};
use kfac_core::memory::StorageError;
use kfac_core::report::{Preconditioned, RefreshReport};
use kfac_core::schedule::Schedule;
use kfac_core::{LayerError, LayerGradient, LayerShape, Preconditioner};
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// The maps that a run can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapChoice {
    /// [`Factored`].
    Factored,
    /// [`Eigenbasis`], decomposed to full accuracy.
    Eigenbasis,
    /// [`Shifted`].
    Shifted,
    /// [`Ekfac`], decomposed to full accuracy.
    Ekfac,
}

impl MapChoice {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Factored, Self::Eigenbasis, Self::Shifted, Self::Ekfac];

    /// A preconditioner for `net` that owns its memory.
    pub(super) fn build<T: Scalar, K: Kernel<T> + 'static>(
        self,
        net: &[LayerShape],
        kernel: K,
        settings: Statistics<T>,
    ) -> Result<Box<dyn AnyMap<T, K>>, BuildError> {
        match self {
            Self::Factored => owned(net, Factored, kernel, settings),
            Self::Eigenbasis => owned(net, Eigenbasis::full(), kernel, settings),
            Self::Shifted => owned(net, Shifted::full(), kernel, settings),
            Self::Ekfac => owned(net, Ekfac::full(), kernel, settings),
        }
    }
}

/// How statistics are averaged and inverses renewed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics<T> {
    pub(super) schedule: Schedule,
    pub(super) decay: T,
    pub(super) l2: T,
}

/// A preconditioner that cannot be built.
pub(super) enum BuildError {
    Storage(StorageError),
    Setting(SettingError),
}

fn owned<T: Scalar, K: Kernel<T> + 'static, M: FactorMap<T> + RowsMap<T> + 'static>(
    net: &[LayerShape],
    map: M,
    kernel: K,
    settings: Statistics<T>,
) -> Result<Box<dyn AnyMap<T, K>>, BuildError> {
    let kfac = Preconditioner::on_heap(net, map, kernel)
        .map_err(BuildError::Storage)?
        .with_schedule(settings.schedule)
        .and_then(|kfac| kfac.with_decay(settings.decay))
        .and_then(|kfac| kfac.with_l2(settings.l2))
        .map_err(BuildError::Setting)?;
    let scratch = vec![T::ZERO; kfac.scratch_len()];
    Ok(Box::new(Owned { kfac, scratch, gradients: vec![Vec::new(); net.len()] }))
}

/// A preconditioner whose map was chosen at run time.
pub(super) trait AnyMap<T: Scalar, K: Kernel<T>> {
    fn wants_statistics(&self) -> bool;
    fn is_ready(&self) -> bool;
    fn observe(&mut self, network: &Network<T, K>, cases: usize) -> Result<(), StepError>;
    fn refresh(&mut self) -> Result<RefreshReport, LayerError>;
    fn refresh_all(&mut self) -> Result<RefreshReport, LayerError>;
    fn precondition(&mut self, gradient: &mut [T]) -> Result<Preconditioned<T>, LayerError>;
    /// Keeps `g` of the training targets, if `U` is cheaper made of it than of the gradient; says whether. Not where the
    /// squares of the gradient could leave the range of `T`: that is for the gradient to say.
    fn keep_rows(&mut self, network: &Network<T, K>) -> Result<bool, StepError>;
    /// `U` of the kept rows, to be followed by further [`keep_rows`](Self::keep_rows).
    fn precondition_rows(
        &mut self,
        network: &Network<T, K>,
        out: &mut [T],
    ) -> Result<Preconditioned<T>, StepError>;
    fn set_damping(&mut self, lambda: T) -> Result<(), SettingError>;
}

struct Owned<T: Scalar, M, K> {
    kfac: Preconditioner<'static, T, M, K>,
    scratch: Vec<T>,
    /// `g` of every block, of the training targets.
    gradients: Vec<Vec<T>>,
}

/// Can `Σ V·V` of the gradient that these rows make be a number? `|V| <= |x| |g|`.
fn are_in_range<T: Scalar>(inputs: &Evidence<'_, T>, gradients: MatRef<'_, T>, scratch: &mut [T]) -> bool {
    let row = &mut scratch[..inputs.features()];
    let mut squares = [T::from_usize(inputs.cases()), T::ZERO];
    for case in 0..inputs.cases() {
        inputs.write_row(case, 0, row);
        squares[0] += dot(row, row).expect("one length");
        let g = gradients.row(case).expect("a tape lies row by row");
        squares[1] += dot(g, g).expect("one length");
    }
    let [inputs, gradients] = squares;
    inputs * gradients < T::MAX / T::from_usize(4)
}

impl<T: Scalar, K: Kernel<T>, M: FactorMap<T> + RowsMap<T>> AnyMap<T, K> for Owned<T, M, K> {
    fn wants_statistics(&self) -> bool {
        self.kfac.wants_statistics()
    }

    fn is_ready(&self) -> bool {
        self.kfac.is_ready()
    }

    fn observe(&mut self, network: &Network<T, K>, cases: usize) -> Result<(), StepError> {
        let mut observation = self.kfac.observe(cases);
        for (layer, (inputs, gradients)) in network.evidence()?.enumerate() {
            observation.add(layer, &inputs, gradients, &mut self.scratch)?;
        }
        Ok(())
    }

    fn refresh(&mut self) -> Result<RefreshReport, LayerError> {
        self.kfac.refresh(&mut self.scratch)
    }

    fn refresh_all(&mut self) -> Result<RefreshReport, LayerError> {
        self.kfac.refresh_all(&mut self.scratch)
    }

    fn precondition(&mut self, gradient: &mut [T]) -> Result<Preconditioned<T>, LayerError> {
        self.kfac.precondition_flat(gradient, &mut self.scratch)
    }

    fn keep_rows(&mut self, network: &Network<T, K>) -> Result<bool, StepError> {
        if self.kfac.l2() > T::ZERO {
            return Ok(false);
        }
        let mut is_cheaper = false;
        for ((inputs, g), &shape) in network.evidence()?.zip(self.kfac.net()) {
            if inputs.positions() > 1 || !are_in_range(&inputs, g.rows(), &mut self.scratch) {
                return Ok(false);
            }
            is_cheaper |= M::ROWS.is_cheaper(shape, inputs.cases());
        }
        if is_cheaper {
            for ((_, g), kept) in network.evidence()?.zip(&mut self.gradients) {
                let rows = g.rows();
                kept.clear();
                (0..rows.rows()).for_each(|row| kept.extend(rows.row(row).into_iter().flatten()));
            }
        }
        Ok(is_cheaper)
    }

    fn precondition_rows(
        &mut self,
        network: &Network<T, K>,
        out: &mut [T],
    ) -> Result<Preconditioned<T>, StepError> {
        let (mut total, mut rest) = (Preconditioned::NOTHING, out);
        for (layer, ((inputs, _), g)) in network.evidence()?.zip(&self.gradients).enumerate() {
            let needed = self.kfac.rows_scratch_len(inputs.cases()).max(self.scratch.len());
            self.scratch.resize(needed, T::ZERO);
            let shape = self.kfac.net()[layer];
            let (block, tail) = rest.split_at_mut(shape.weights());
            rest = tail;
            let g = MatRef::row_major(g, inputs.cases(), shape.outputs()).expect("a row for each case");
            let weight = MatMut::row_major(block, shape.outputs(), shape.inputs()).expect("a block's part");
            let mut out = LayerGradient::joint(layer, weight);
            let g = OutputGradients::per_case(g);
            total += self.kfac.precondition_rows(&inputs, g, &mut out, &mut self.scratch)?;
        }
        Ok(total)
    }

    fn set_damping(&mut self, lambda: T) -> Result<(), SettingError> {
        self.kfac.set_damping(lambda)
    }
}
