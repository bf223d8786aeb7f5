use super::StepError;
use crate::model::Network;
use kfac_core::error::SettingError;
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Factored, Shifted};
use kfac_core::memory::StorageError;
use kfac_core::report::{Preconditioned, RefreshReport};
use kfac_core::schedule::Schedule;
use kfac_core::{LayerError, LayerShape, Preconditioner};
use kfac_linalg::{Kernel, Scalar};

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

fn owned<T: Scalar, K: Kernel<T> + 'static, M: FactorMap<T> + 'static>(
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
    Ok(Box::new(Owned { kfac, scratch }))
}

/// A preconditioner whose map was chosen at run time.
pub(super) trait AnyMap<T: Scalar, K: Kernel<T>> {
    fn wants_statistics(&self) -> bool;
    fn is_ready(&self) -> bool;
    fn observe(&mut self, network: &Network<T, K>, cases: usize) -> Result<(), StepError>;
    fn refresh(&mut self) -> Result<RefreshReport, LayerError>;
    fn refresh_all(&mut self) -> Result<RefreshReport, LayerError>;
    fn precondition(&mut self, gradient: &mut [T]) -> Result<Preconditioned<T>, LayerError>;
    fn set_damping(&mut self, lambda: T) -> Result<(), SettingError>;
}

struct Owned<T: Scalar, M, K> {
    kfac: Preconditioner<'static, T, M, K>,
    scratch: Vec<T>,
}

impl<T: Scalar, K: Kernel<T>, M: FactorMap<T>> AnyMap<T, K> for Owned<T, M, K> {
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

    fn set_damping(&mut self, lambda: T) -> Result<(), SettingError> {
        self.kfac.set_damping(lambda)
    }
}
