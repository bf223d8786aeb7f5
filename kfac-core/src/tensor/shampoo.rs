use super::accumulation::{Accumulation, SecondMoment, check_decay};
use super::axes::{AxisError, Factor, multiply_axes};
use super::grafting::{Grafting, norm};
use super::map::{GradientMap, MomentSpace, StepOrder};
use super::memory::{RefreshRoutine, TensorLayout, TensorState};
use crate::error::SettingError;
use crate::map::{MapError, Refreshed, is_zero, take};
use kfac_linalg::eigh::roots::{Below, Floor, Root, inverse_root};
use kfac_linalg::eigh::{Eigensolver, Method, Qr};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// `U = V ×_1 M_1^(-1/2k) .. ×_k M_k^(-1/2k)`, `M_i` the second moment of axis `i`, see [`Accumulation`]; `k` counts the
/// axes that are preconditioned. A matrix: `U = L^(-1/4) V R^(-1/4)`.
///
/// A tensor without such axes, a scalar for one, has `U = V`, or the step of the method that is grafted.
///
/// Eigenvalues of `M_i` up to `n eps` times the largest are noise of the decomposition. They are raised to that number, or
/// their directions dropped, as [`below`](Self::below) says; an `M_i` that is zero has no root where they are raised.
///
/// # Source
/// Gupta, Koren and Singer 2018, arXiv:1802.09568; Anil et al. 2020, arXiv:2002.09018 (grafting); Shi et al. 2023,
/// arXiv:2309.06497 (averages, bias correction, warm-up).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shampoo<T, S = Qr> {
    /// How the second moments follow the gradients.
    pub accumulation: Accumulation<T>,
    /// Which root is taken.
    pub root: RootOrder,
    /// What becomes of eigenvalues that are noise.
    pub below: Below,
    /// Whose size `U` takes.
    pub grafting: Grafting<T>,
    /// So many times, at the beginning, `U` is the step of the grafted method itself, which needs no roots (a
    /// [`step`](super::TensorPreconditioner::step) renews them all the same). 0 where none is grafted.
    pub warm_up: u32,
    /// `β` of a first moment: `m / (1 - β^t)`, `m <- β m + (1-β) V`, takes the place of `V`.
    pub beta1: Option<T>,
    /// What decomposes the second moments.
    pub solver: S,
}

/// Which inverse root is taken of a second moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootOrder {
    /// `-1/2k` for `k` preconditioned axes: as published.
    TwiceTheAxes,
    /// `-1/p` whatever the order, `p` at least 1.
    Fixed(u32),
}

impl<T: Copy> Shampoo<T, Qr> {
    /// As published, without grafting.
    pub const fn new(accumulation: Accumulation<T>) -> Self {
        Self {
            accumulation,
            root: RootOrder::TwiceTheAxes,
            below: Below::Raise,
            grafting: Grafting::None,
            warm_up: 0,
            beta1: None,
            solver: Qr,
        }
    }
}

impl<T: Scalar, S: Eigensolver> Shampoo<T, S> {
    /// The same with another solver.
    pub const fn with_solver<R: Eigensolver>(self, solver: R) -> Shampoo<T, R> {
        let Self { accumulation, root, below, grafting, warm_up, beta1, .. } = self;
        Shampoo { accumulation, root, below, grafting, warm_up, beta1, solver }
    }

    /// Arrays kept per tensor, and scratch, for a `static`.
    pub const fn layout(&self) -> TensorLayout {
        TensorLayout {
            second_moments: self.grafting.second_moments(),
            first_moments: self.beta1.is_some() as usize,
            refresh: RefreshRoutine::Root(S::METHOD),
        }
    }

    /// `V` to the step of the grafted method; without one, it stays.
    fn graft_alone(&self, tensor: &TensorState<'_, T>, v: &mut [T]) {
        let direction = self.grafting.direction(tensor.second_weight);
        match &*tensor.second_moment {
            // Nothing is read of a second moment that there is not.
            [] => v.iter_mut().for_each(|v| *v = direction(*v, T::ZERO)),
            second => v.iter_mut().zip(second).for_each(|(v, &s)| *v = direction(*v, s)),
        }
    }

    fn root(&self, axes: usize, side: usize) -> Root<T> {
        let order = match self.root {
            RootOrder::TwiceTheAxes => 2 * axes as u32,
            RootOrder::Fixed(order) => order,
        };
        let noise = T::from_usize(side) * T::EPSILON;
        Root { order, floor: Floor::Relative(noise), below: self.below }
    }
}

impl<T: Scalar, S: Eigensolver> GradientMap<T> for Shampoo<T, S> {
    const NAME: &'static str = match S::METHOD {
        Method::Qr => "shampoo",
        Method::Jacobi => "shampoo by jacobi",
    };
    const ORDER: StepOrder = StepOrder::RefreshFirst;
    const SPACE: MomentSpace = MomentSpace::Original;

    fn layout(&self) -> TensorLayout {
        self.layout()
    }

    fn check(&self) -> Result<(), SettingError> {
        self.accumulation.check()?;
        self.grafting.check()?;
        if let Some(beta1) = self.beta1 {
            check_decay("beta1", beta1)?;
        }
        let has_warm_up = self.warm_up == 0 || self.grafting != Grafting::None;
        SettingError::unless(has_warm_up, "warm_up without grafting", f64::from(self.warm_up))?;
        SettingError::unless(self.root != RootOrder::Fixed(0), "order of the root", 0.0)
    }

    fn accumulation(&self) -> Accumulation<T> {
        self.accumulation
    }

    fn second_moment(&self) -> SecondMoment<T> {
        self.grafting.second_moment()
    }

    fn first_moment(&self) -> Option<T> {
        self.beta1
    }

    fn needs_refresh(&self, preconditioned: u32) -> bool {
        preconditioned >= self.warm_up
    }

    fn refresh_flops(&self) -> u64 {
        S::METHOD.flops(1, self.solver.planned_sweeps(1)) + 1
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &mut TensorState<'_, T>,
        axis: usize,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let (weight, axes) = (tensor.weight, tensor.shape.preconditioned_axes());
        let arrays = tensor.axis(axis);
        let n = arrays.side;
        let (moment, q, d) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?, take(&mut scratch, n)?);
        arrays.unpack(moment)?;
        let outcome = {
            let (a, q) = (MatRef::row_major(moment, n, n)?, MatMut::row_major(q, n, n)?);
            self.solver.cold(kernel, a, q, d, scratch).map_err(|error| AxisError::Eigh(error).at(axis))?
        };
        if q.iter().any(|value| !value.is_finite()) {
            return Err(AxisError::NotFinite.at(axis));
        }
        let [scale, shift] = self.accumulation.scale_and_shift(weight);
        for d in &mut *d {
            // A second moment has no negative eigenvalue; rounding has.
            *d = d.maximum(T::ZERO) * scale + shift;
        }
        let (root, to) = (self.root(axes, n), MatMut::row_major(arrays.matrix, n, n)?);
        inverse_root(kernel, root, MatRef::row_major(q, n, n)?, d, to, scratch)
            .map_err(|error| AxisError::Root(error).at(axis))?;
        let flops = S::METHOD.flops(n, outcome.sweeps).saturating_add(crate::map::cube(n));
        let zero_trace = is_zero(moment, n);
        Ok(Refreshed { flops, sweeps: outcome.sweeps, zero_trace, is_kept: false })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &TensorState<'_, T>,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        if tensor.preconditioned < self.warm_up || tensor.shape.preconditioned_axes() == 0 {
            self.graft_alone(tensor, v);
            return Ok(());
        }
        if self.grafting == Grafting::None {
            return multiply_axes(kernel, tensor, Factor::Plain, v, scratch);
        }
        let direction = self.grafting.direction(tensor.second_weight);
        let size = match &*tensor.second_moment {
            [] => norm([v, v], direction)?,
            second => norm([v, second], direction)?,
        };
        multiply_axes(kernel, tensor, Factor::Plain, v, scratch)?;
        let own = norm([v, v], |u, _| u)?;
        if own != T::ZERO {
            // In this order no quotient of two norms leaves the range.
            v.iter_mut().for_each(|u| *u = *u / own * size);
        }
        Ok(())
    }
}
