//! Cyclic two-sided Jacobi: rotate pairs of rows and columns until nothing is left off the diagonal.
//!
//! One sweep meets every pair of rows once, in `n - 1` rounds of `n / 2` disjoint pairs (a round-robin
//! tournament), and costs about `9 n³` flops whatever the matrix; off-diagonal elements shrink quadratically, so six to
//! nine sweeps do from a [`cold`] start. From a [`warm`] one it depends on how far the matrix has moved, relative to
//! its norm. Measured in `f64` at `n = 100`:
//!
//! | change | 0 | 1e-6 | 1e-3 | 1 % | 5 % | 20 % |
//! |---|---:|---:|---:|---:|---:|---:|
//! | sweeps | at most 1 | 2 | 3 | 4 | 5 | 6 |
//!
//! Work per call is bounded by the [`Budget`], and what was reached is reported.
//!
//! The matrix is first scaled by a power of two to a largest element in `[1, 2)`.
//!
//! It is the independent reference for every other solver. Source: Golub and Van Loan, Matrix Computations,
//! 4th edition, section 8.5; the order of pairs is that of Brent and Luk 1985, SIAM J. Sci. Stat. Comput. 6:69.
//!
//! # Example
//!
//! ```
//! use kfac_linalg::eigh::jacobi::{self, Budget};
//! use kfac_linalg::{MatMut, MatRef, Reproducible};
//!
//! let (mut q, mut d) = ([0.0_f32; 4], [0.0; 2]);
//! let mut scratch = [0.0; jacobi::scratch_len::<f32>(2)];
//!
//! let numbers = [2.0, 1.0, 1.0, 2.0];
//! let (a, view) = (MatRef::row_major(&numbers, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
//! jacobi::cold(Reproducible, a, view, &mut d, Budget::FULL, &mut scratch)?;
//! assert!((d[0] - 1.0).abs() < 1e-6 && (d[1] - 3.0).abs() < 1e-6);
//!
//! // The matrix has moved a little: two sweeps at most, whatever they reach.
//! let numbers = [2.1, 1.0, 1.0, 2.1];
//! let (a, view) = (MatRef::row_major(&numbers, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
//! let outcome = jacobi::warm(Reproducible, a, view, &mut d, Budget::bounded(2), &mut scratch)?;
//! assert!(outcome.sweeps <= 2 && (d[1] - 3.1).abs() < 1e-6);
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

mod sweep;
mod warm;

pub use super::{EighError, Outcome};
pub(crate) use sweep::JacobiTasks;
pub use warm::warm;

use super::check_shapes;
use super::order::{RowsToColumns, ascending, place};
use super::scale::Scale;
use crate::error::ScratchError;
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::product::gemm_scratch_len;
use crate::scalar::Scalar;
use crate::triangle::copy::Mirror;
use crate::view::{MatMut, MatRef};
use sweep::{Sweeps, Tournament, tournament_len};

/// How long to sweep, and what to accept when the sweeps are spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Most sweeps.
    pub sweeps: u8,
    /// Converged when the relative off-diagonal norm is at most `tolerance n eps`. Below 1/2 it may never be: pairs
    /// that are diagonal to working precision are left alone.
    pub tolerance: f64,
    /// Relative off-diagonal norm still accepted when the sweeps are spent; above it is
    /// [`EighError::BudgetSpent`].
    pub accept: f64,
}

impl Budget {
    /// To convergence: 30 sweeps, three times what the hardest known spectra take; unconverged is an error.
    pub const FULL: Self = Self { sweeps: 30, tolerance: 0.5, accept: 0.0 };

    /// At most `sweeps` sweeps; whatever was reached is taken.
    #[must_use]
    pub const fn bounded(sweeps: u8) -> Self {
        Self { sweeps, accept: 1.0, ..Self::FULL }
    }
}

/// Scratch, in elements, that [`cold`] and [`warm`] need for an `n x n` matrix: two squares, whose rows are padded to
/// whole registers, and a few rows; on 64-bit targets copies of operands too. At most `2 n² + 500 n + 200`.
pub const fn scratch_len<T: Scalar>(n: usize) -> usize {
    if !countable(n, n) {
        return usize::MAX;
    }
    tournament_len(n) + gemm_scratch_len::<T>(n, n, n)
}

/// `A = Q diag(d) Qᵀ`, starting from the identity.
///
/// Eigenvalues ascend; eigenvector `j` is column `j` of `q`, of either sign.
///
/// # Shapes
/// `a`: `n x n`, its lower triangle is read; `q`: `n x n`; `d`: `n`; `scratch`: [`scratch_len`].
///
/// # Errors
/// [`EighError::NotFinite`], [`EighError::Shape`], [`EighError::Scratch`]: `q` and `d` are untouched.
/// [`EighError::BudgetSpent`]: `q` and `d` hold the unconverged result, `q` orthonormal all the same.
/// [`EighError::Overflow`]: an eigenvalue exceeds the largest number though no element does.
pub fn cold<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    d: &mut [T],
    budget: Budget,
    scratch: &mut [T],
) -> Result<Outcome, EighError> {
    check(&a, &q, d, scratch.len())?;
    let scale = Scale::of_rows(kernel, &a)?;
    let mut tournament = Tournament::new(scratch, a.rows());
    tournament.vectors_mut()?.fill(T::ZERO);
    for (i, row) in tournament.v.chunks_exact_mut(a.rows().max(1)).enumerate() {
        row[i] = T::ONE;
    }
    fill(kernel, a, &scale, tournament.matrix_mut()?);
    finish(kernel, tournament, (q, d), budget, scale)
}

/// Writes both triangles of the scaled matrix from the lower triangle of `a`.
fn fill<T: Scalar, K: Kernel<T>>(kernel: K, a: MatRef<'_, T>, scale: &Scale<T>, mut to: MatMut<'_, T>) {
    for i in 0..a.rows() {
        match (a.row(i), to.row_mut(i)) {
            (Some(from), Some(to)) => to[..=i].iter_mut().zip(from).for_each(|(to, &x)| *to = x * scale.down),
            _ => (0..=i).for_each(|j| to.set(i, j, a.at(i, j) * scale.down)),
        }
    }
    kernel.run(Mirror(to));
}

/// Shapes and scratch of [`cold`] and [`warm`].
fn check<T: Scalar>(a: &MatRef<'_, T>, q: &MatMut<'_, T>, d: &[T], scratch: usize) -> Result<(), EighError> {
    let n = check_shapes(a, q, d)?;
    ScratchError::check(scratch_len::<T>(n), scratch)?;
    Ok(())
}

/// Sweeps within the budget, sorts, and writes the result.
fn finish<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut tournament: Tournament<'_, T>,
    (q, d): (MatMut<'_, T>, &mut [T]),
    budget: Budget,
    scale: Scale<T>,
) -> Result<Outcome, EighError> {
    let outcome = kernel.run(Sweeps { tournament: &mut tournament, budget, d: &mut *d });
    let (order, rest) = tournament.tables.split_at_mut(d.len());
    let found = &mut rest[..d.len()];
    found.copy_from_slice(d);
    ascending(found, order);
    for (d, &index) in d.iter_mut().zip(&*order) {
        *d = found[place(index)] * scale.up;
    }
    kernel.run(RowsToColumns { rows: tournament.v, order, q });
    if let Some(index) = d.iter().position(|x| !x.is_finite()) {
        return Err(EighError::Overflow { index });
    }
    if outcome.converged || outcome.off_diagonal <= budget.accept {
        Ok(outcome)
    } else {
        Err(EighError::BudgetSpent(outcome))
    }
}
