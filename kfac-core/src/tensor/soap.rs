use super::accumulation::{Accumulation, SecondMoment, check_decay, check_positive};
use super::axes::{AxisError, Factor, multiply_axes};
use super::map::{GradientMap, MomentSpace, StepOrder};
use super::memory::{RefreshRoutine, TensorLayout, TensorState};
use super::shape::TensorShape;
use crate::error::SettingError;
use crate::map::{MapError, Refreshed, cube, is_zero, take};
use core::cmp::Ordering;
use kfac_linalg::eigh::{Eigensolver, EighError, Method, Qr, refresh};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// `U = Q [√(1-β2^t) (m' / (1-β1^t)) / (√s + ε)]`: Adam in the eigenbases `Q_i` of Shampoo's second moments, `Q` their
/// product along all axes. The first moment `m` lives in the space of the gradients and is turned into the basis, `m'`; the
/// second moment `s` is that of the gradients in the basis.
///
/// - The first gradient only makes the bases; `t` counts those after it.
/// - `L_i <- β L_i + (1-β) V_(i) V_(i)ᵀ` from 0, `β` = [`shampoo_beta`](Self::shampoo_beta).
/// - A refresh sorts the columns of `Q_i` by their Rayleigh quotients with `L_i` and takes `s` along, which is not
///   rotated: it stays with the column that it was measured in, or with the rank of it, where [`BasisRefresh`] decomposes.
/// - `ε` is added before the bias corrections.
///
/// An axis that is not preconditioned keeps the identity as its basis; where all do, this is Adam.
///
/// # Source
/// Vyas et al. 2024, arXiv:2409.11321, algorithm 3, and the authors' published implementation for what it leaves open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Soap<T, S = Qr> {
    /// `β1` of the first moment; without one, the gradient takes its place.
    pub beta1: Option<T>,
    /// `β2` of the second moment.
    pub beta2: T,
    /// `β` of the axes' second moments.
    pub shampoo_beta: T,
    /// `ε`, positive, in units of a gradient.
    pub epsilon: T,
    /// How a basis is renewed.
    pub refresh: BasisRefresh,
    /// What decomposes the first second moments, and those for which the old basis is of no use.
    pub solver: S,
}

/// How a basis is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasisRefresh {
    /// One step of subspace iteration, [`refresh::step_in_place`]: as published. Where the columns are lost, a decomposition.
    SubspaceStep,
    /// A decomposition.
    Decomposition,
}

impl<T: Scalar> Soap<T, Qr> {
    /// The defaults of the published implementation: `β1 = β2 = β = 0.95`, `ε = 1e-8`, subspace steps.
    pub fn published() -> Self {
        let beta = T::from_f64(0.95);
        Self {
            beta1: Some(beta),
            beta2: beta,
            shampoo_beta: beta,
            epsilon: T::from_f64(1e-8),
            refresh: BasisRefresh::SubspaceStep,
            solver: Qr,
        }
    }
}

impl<T: Scalar, S: Eigensolver> Soap<T, S> {
    /// Arrays kept per tensor, and scratch, for a `static`.
    pub const fn layout(&self) -> TensorLayout {
        TensorLayout {
            second_moments: 1,
            first_moments: self.beta1.is_some() as usize,
            refresh: RefreshRoutine::Basis(S::METHOD),
        }
    }
}

impl<T: Scalar, S: Eigensolver> GradientMap<T> for Soap<T, S> {
    const NAME: &'static str = match S::METHOD {
        Method::Qr => "soap",
        Method::Jacobi => "soap by jacobi",
    };
    const ORDER: StepOrder = StepOrder::RefreshLast;
    const SPACE: MomentSpace = MomentSpace::Basis;

    fn layout(&self) -> TensorLayout {
        self.layout()
    }

    fn check(&self) -> Result<(), SettingError> {
        check_decay("beta1", self.beta1.unwrap_or(T::ZERO))?;
        check_decay("beta2", self.beta2)?;
        check_decay("shampoo_beta", self.shampoo_beta)?;
        check_positive("epsilon", self.epsilon)
    }

    fn accumulation(&self) -> Accumulation<T> {
        Accumulation::Average { decay: self.shampoo_beta, epsilon: T::ZERO }
    }

    fn second_moment(&self) -> SecondMoment<T> {
        SecondMoment::Average { decay: self.beta2 }
    }

    fn first_moment(&self) -> Option<T> {
        self.beta1
    }

    fn refresh_flops(&self) -> u64 {
        // The product with the old basis; a step takes seven more, and a decomposition where it fails.
        let step = match self.refresh {
            BasisRefresh::SubspaceStep => 7,
            BasisRefresh::Decomposition => 0,
        };
        2 + step + S::METHOD.flops(1, self.solver.planned_sweeps(1))
    }

    fn in_moment_space<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &TensorState<'_, T>,
        gradient: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        multiply_axes(kernel, tensor, Factor::Transposed, gradient, scratch)
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &mut TensorState<'_, T>,
        axis: usize,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let arrays = tensor.axis(axis);
        let n = arrays.side;
        // First what outlives the rest, whose room the sorting of the second moment takes.
        let (order, basis) = (take(&mut scratch, n)?, take(&mut scratch, n * n)?);
        let (room, kept) = (&mut *scratch, &*arrays.matrix);
        let (moment, room) = room.split_at_mut(n * n);
        arrays.unpack(moment)?;
        let zero_trace = is_zero(moment, n);
        // A fresh tensor's basis is zero, which no orthogonal matrix is.
        let is_cold = kept.iter().all(|&value| value == T::ZERO);
        let (moment, kept) = (MatRef::row_major(moment, n, n)?, MatRef::row_major(kept, n, n)?);
        let (sweeps, flops) = if is_cold {
            let (d, room) = room.split_at_mut(n);
            let sweeps =
                decompose(self.solver.cold(kernel, moment, MatMut::row_major(basis, n, n)?, d, room));
            let sweeps = sweeps.map_err(|error| error.at(axis))?;
            (sweeps, S::METHOD.flops(n, sweeps))
        } else {
            let (product, room) = room.split_at_mut(n * n);
            let (d, room) = room.split_at_mut(n);
            gemm(kernel, MatMut::row_major(product, n, n)?, Accumulate::Replace(T::ONE), moment, kept, room)?;
            rayleigh_quotients(kept, product, d);
            ascending(d, order);
            sort(kept, d, order, (basis, product));
            let basis = MatMut::row_major(basis, n, n)?;
            self.renew(kernel, moment, basis, d, room).map_err(|error| error.at(axis))?
        };
        if basis.iter().any(|value| !value.is_finite()) {
            return Err(AxisError::NotFinite.at(axis));
        }
        arrays.matrix.copy_from_slice(basis);
        if !is_cold {
            let shape = tensor.shape;
            let copy = take(&mut scratch, shape.entries())?;
            copy.copy_from_slice(tensor.second_moment);
            permute(copy, tensor.second_moment, (shape, axis), order);
        }
        Ok(Refreshed { flops, sweeps, zero_trace, is_kept: false })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &TensorState<'_, T>,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        multiply_axes(kernel, tensor, Factor::Transposed, v, scratch)?;
        let correction = T::from_f64(tensor.second_weight).sqrt();
        for (v, &s) in v.iter_mut().zip(&*tensor.second_moment) {
            *v = correction * *v / (s.sqrt() + self.epsilon);
        }
        multiply_axes(kernel, tensor, Factor::Plain, v, scratch)
    }
}

impl<T: Scalar, S: Eigensolver> Soap<T, S> {
    /// A sorted basis and its Rayleigh quotients to a new basis: sweeps and flops.
    fn renew<K: Kernel<T>>(
        &self,
        kernel: K,
        moment: MatRef<'_, T>,
        mut basis: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<(u32, u64), AxisError> {
        let n = d.len();
        let outcome = match self.refresh {
            BasisRefresh::SubspaceStep => {
                match refresh::step_in_place(kernel, moment, basis.reborrow(), d, T::ZERO, scratch) {
                    Ok(_) => return Ok((0, cube(n).saturating_mul(9))),
                    // A moment that was zero, or lost its rank, has no step without damping.
                    Err(
                        EighError::SubspaceLost { .. }
                        | EighError::NotOrthonormal { .. }
                        | EighError::Damping { .. },
                    ) => self.solver.cold(kernel, moment, basis, d, scratch),
                    Err(error) => Err(error),
                }
            }
            BasisRefresh::Decomposition => self.solver.warm(kernel, moment, basis, d, scratch),
        };
        let sweeps = decompose(outcome)?;
        Ok((sweeps, S::METHOD.flops(n, sweeps)))
    }
}

/// The sweeps of a decomposition.
fn decompose(outcome: Result<kfac_linalg::eigh::Outcome, EighError>) -> Result<u32, AxisError> {
    outcome.map(|outcome| outcome.sweeps).map_err(AxisError::Eigh)
}

/// `d_j = q_jᵀ L q_j`, not below 0, from `Q` and `L Q`.
fn rayleigh_quotients<T: Scalar>(q: MatRef<'_, T>, product: &[T], d: &mut [T]) {
    d.fill(T::ZERO);
    for (i, row) in product.chunks_exact(d.len()).enumerate() {
        for (j, (d, &x)) in d.iter_mut().zip(row).enumerate() {
            *d += q.at(i, j) * x;
        }
    }
    d.iter_mut().for_each(|d| *d = d.maximum(T::ZERO));
}

/// The places of `keys`, smallest key first and equals in order, as numbers for want of other room: exact up to 2^24.
fn ascending<T: Scalar>(keys: &[T], order: &mut [T]) {
    for (place, index) in order.iter_mut().enumerate() {
        *index = T::from_usize(place);
    }
    let key = |index: &T| (keys[place(*index)], *index);
    order.sort_unstable_by(|i, j| key(i).partial_cmp(&key(j)).unwrap_or(Ordering::Equal));
}

fn place<T: Scalar>(index: T) -> usize {
    index.to_f64() as usize
}

/// Columns of `q` and their keys in this order; `room` holds the keys meanwhile.
fn sort<T: Scalar>(q: MatRef<'_, T>, keys: &mut [T], order: &[T], (to, room): (&mut [T], &mut [T])) {
    let n = keys.len();
    room[..n].copy_from_slice(keys);
    for (j, &from) in order.iter().enumerate() {
        let from = place(from);
        keys[j] = room[from];
        (0..n).for_each(|i| to[i * n + j] = q.at(i, from));
    }
}

/// `to[.., j, ..] = from[.., order[j], ..]` along one axis.
fn permute<T: Scalar>(from: &[T], to: &mut [T], (shape, axis): (TensorShape, usize), order: &[T]) {
    let [_, side, after] = shape.blocks(axis);
    let len = side * after;
    for (from, to) in from.chunks_exact(len).zip(to.chunks_exact_mut(len)) {
        for (to, &index) in to.chunks_exact_mut(after).zip(order) {
            to.copy_from_slice(&from[place(index) * after..][..after]);
        }
    }
}
