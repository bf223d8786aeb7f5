//! A new eigenbasis from an old one: one step of subspace iteration, by shifted Cholesky QR.
//!
//! `A` is the factor now, `V diag(d) Vᵀ` what it was some steps ago, `λ` the damping it will be used with.
//!
//! ```text
//!     W = (A + λI) V (diag(d) + λI)⁻¹        nearly V, columns of norm 1
//!     WᵀW = L Lᵀ                             columns from the largest eigenvalue down
//!     Q = W L⁻ᵀ                              orthonormal: W = Q Lᵀ
//! ```
//!
//! A third of a cold decomposition's flops, all of them in long products. It is no decomposition: where neighbouring
//! eigenvectors have mixed, one step undoes a part of it, and each further step some more. For a moving average of
//! noisy statistics, whose two states differ by more than that, it is enough, and the error is reported.
//!
//! # Eigenvalues and error, from the triangle alone
//!
//! `(A + λI) V = Q R` with `R = Lᵀ (diag(d) + λI)`, so `B = Qᵀ(A + λI)Q = R Cᵀ` with the rotation `C = QᵀV` between the
//! bases. Write `C = exp(E)`, `Eᵀ = -E`: `B` is symmetric, `R` triangular, and to first order in `E` that leaves
//!
//! ```text
//!     e_ij = r_ij / (r_ii + r_jj),    b_ij = r_jj e_ij                          (i < j)
//!     b_ii = r_ii (1 - ½ Σ_j e_ij²) + Σ_(j>i) (r_ii + r_jj) e_ij²               to second order
//! ```
//!
//! The diagonal of `B` is the Rayleigh quotients of the new basis, its other elements are the error. Both cost `n²`
//! divisions instead of the `4 n³` flops of forming `B`.
//!
//! Source: one QR step on the old basis is SOAP's refresh (Vyas et al. 2024, arXiv:2409.11321, algorithm 4). Shift,
//! Cholesky (Stathopoulos and Wu 2002, SIAM J. Sci. Comput. 23:2165; Yamamoto et al. 2015, ETNA 44:306, for the second
//! pass) and the estimates are ours.

mod passes;

use super::order::{RowsToColumns, ascending, place};
use super::scale::Scale;
use super::{Eigensolver, EighError, Method, Outcome, check_shapes};
use crate::cholesky::{self, CholeskyError, factor_scratch_len};
use crate::error::ScratchError;
use crate::kernel::Kernel;
use crate::lengths::{countable, largest_len};
use crate::product::{
    Accumulate, dot, gemm, gemm_scratch_len, gemv, gemv_dots, syrk_lower, syrk_scratch_len,
};
use crate::product::{trsm_lower, trsm_scratch_len};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
pub(crate) use passes::RefreshTasks;
use passes::{Estimate, ScaleReversed, WithShift, vectors_len};

/// In units of `n eps`, the deviation from which on a second pass is taken. (Ten are promised: see [`PROBES`].)
const DEVIATION: f64 = 2.0;

/// In units of `n eps`, the deviation after a second pass from which on the columns are lost. (With one column, rounding
/// alone leaves up to 3.5, and measuring adds one.)
const DEVIATION_LEFT: f64 = 5.0;

/// Random vectors that measure the deviation of the result: where all of it lies in one direction, which is the worst, the
/// estimate falls short by a factor of 5 in one case of 300, and of 2 in one of 11.
const PROBES: usize = 4;

/// Deviation of the old basis from which on a step is refused: errors of that relative size enter the new eigenvalues,
/// as large as those of second order.
const FAR: f64 = 1e-3;

/// The [`Settings::largest_error`] of [`Settings::new`].
///
/// Measured on moving averages (decay 0.95, `n` of 32 and 64, spectra from flat to `i^-4`, batches of `n/4` vectors
/// and more, `λ` from 1e-3 to 1e-1 of the mean eigenvalue), one step every 20 batches, each from the basis that the last
/// one left: at most 0.28, and at most 0.14 with batches of `n`. Between unrelated matrices of spectrum `1/i`: 0.39 to 0.67
/// for `n = 8`, 0.23 to 0.28 for `n = 128`, where a step from any basis is as good as that.
pub const LARGEST_ERROR: f64 = 0.3;

/// In units of `n eps`, the relative pivot below which columns are lost: the second pass needs a deviation below 1/2.
const LOST_BELOW: f64 = 4.0;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refreshed {
    /// How often the columns were made orthonormal: 1, or 2 where the first pass had left them too far from it.
    pub passes: u8,
    /// Estimate of `||QᵀQ - I||_F` for the new basis, from its products with four random vectors: at most `5 n eps`, the
    /// true deviation at most twice as much, but in one case of 11 of those that come so far at all.
    pub deviation: f64,
    /// The smallest pivot of the Cholesky factor over its diagonal element, in `(0, 1]`: the squared sine of the angle
    /// between a column of `W` and those of larger eigenvalues.
    pub pivot: f64,
    /// Estimate of `||offdiag(QᵀAQ)||_F / ||A||_F`, the measure of [`Outcome`].
    pub off_diagonal: f64,
    /// Estimate of `||(A + λI)⁻¹ - Q (diag(d) + λI)⁻¹ Qᵀ||_F / ||(A + λI)⁻¹||_F`: the error of the preconditioner.
    ///
    /// To first order in the rotation between the bases. Up to [`LARGEST_ERROR`] it is within a fifth of the truth, mostly
    /// a few per cent above it; between unrelated matrices up to 1.7 times too large. It says nothing where `A + λI` is not
    /// positive definite: from the eigenvectors of `A`, a step with `-A` takes the signs of eigenvalues wrong and
    /// estimates no error.
    pub inverse_error: f64,
}

/// Scratch, in elements, that [`step`] needs for an `n x n` matrix: two squares, a few rows, and that of products.
pub const fn step_scratch_len<T: Scalar>(n: usize) -> usize {
    if !countable(n, n) {
        return usize::MAX;
    }
    let rest = largest_len([
        gemm_scratch_len::<T>(n, n, n),
        syrk_scratch_len::<T>(n, n),
        factor_scratch_len::<T>(n),
        trsm_scratch_len::<T>(n, n),
        DEVIATION_ROWS * n,
    ]);
    2 * n * n + 2 * n + vectors_len(n) + rest
}

/// Replaces the eigenvectors and eigenvalues of a matrix that has changed: reads the old ones from `q` and `d`, leaves
/// approximations to the new ones there.
///
/// Eigenvalues ascend; eigenvector `j` is column `j` of `q`. The new `d` are the Rayleigh quotients of the new basis to
/// second order, see [the module](self). Negative old ones count as zero.
///
/// `Ok` says that the columns are orthonormal and finite, not that they are near eigenvectors: for a matrix that has
/// nothing to do with the old basis that takes many steps. How near they are says [`Refreshed::inverse_error`]; a caller
/// who does not look at it should call [`step_or_cold`], which does.
///
/// # Shapes
/// `a`: `n x n`, its lower triangle is read, `A + λI` positive definite (where it is not, the step cannot tell); `q`:
/// `n x n`, orthonormal columns; `d`: `n`, finite and ascending: columns are made orthonormal from the last to the first
/// (in another order the eigenvalues are less accurate, and columns are lost sooner); `scratch`: [`step_scratch_len`].
///
/// # Units
/// `lambda`: that of an eigenvalue of `A`, not negative. Zero needs eigenvalues above zero in `d`.
///
/// # Errors
/// `q` and `d` are untouched by all of them. [`EighError::SubspaceLost`] when the columns of `W` are linearly dependent in
/// working precision, or not finite (as where an element of `q` or `d` is not): a cold decomposition is due
/// ([`step_or_cold`] runs one). In single precision that happens on spectra falling faster than `i^-1` after long gaps.
/// [`EighError::NotFinite`] names an element of `a`. [`EighError::Damping`] when `lambda` is negative or not finite, or
/// so small that an eigenvalue of zero and it cannot be divided by. [`EighError::NotOrthonormal`] when the columns of `q` are
/// too far from orthonormal; [`EighError::Shape`], [`EighError::Scratch`].
///
/// # Example
/// ```
/// use kfac_linalg::eigh::{qr, refresh};
/// use kfac_linalg::{MatMut, MatRef, Reproducible};
///
/// let (mut q, mut d) = ([0.0_f64; 4], [0.0; 2]);
/// let mut scratch = vec![0.0; qr::scratch_len::<f64>(2).max(refresh::step_scratch_len::<f64>(2))];
/// let (old, new) = ([2.0, 0.3, 0.3, 1.0], [2.1, 0.35, 0.35, 1.0]);
///
/// let (a, view) = (MatRef::row_major(&old, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
/// qr::cold(Reproducible, a, view, &mut d, &mut scratch)?;
/// let (a, view) = (MatRef::row_major(&new, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
/// let found = refresh::step(Reproducible, a, view, &mut d, 0.1, &mut scratch)?;
///
/// assert!(found.inverse_error < 0.02);
/// // Eigenvalues of the new matrix, 1.55 -+ sqrt(0.55² + 0.35²), to second order.
/// let root = (0.55_f64 * 0.55 + 0.35 * 0.35).sqrt();
/// assert!((d[0] - (1.55 - root)).abs() < 1e-4 && (d[1] - (1.55 + root)).abs() < 1e-4);
/// # Ok::<(), kfac_linalg::Error>(())
/// ```
pub fn step<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    d: &mut [T],
    lambda: T,
    scratch: &mut [T],
) -> Result<Refreshed, EighError> {
    let accepted = Accepted { places: Places::Ascending, lambda, largest_error: None };
    whole_step(kernel, a, q, d, accepted, scratch)
}

/// [`step`], with every column in the place of the one that it comes from: for who keeps numbers that belong to the
/// columns. `d` follows the columns, and is no longer sorted where two of them have changed their order.
///
/// # Shapes
/// As [`step`].
///
/// # Errors
/// As [`step`].
pub fn step_in_place<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    d: &mut [T],
    lambda: T,
    scratch: &mut [T],
) -> Result<Refreshed, EighError> {
    let accepted = Accepted { places: Places::Kept, lambda, largest_error: None };
    whole_step(kernel, a, q, d, accepted, scratch)
}

/// A step whose failure says whether `a` is at fault.
fn whole_step<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    d: &mut [T],
    accepted: Accepted<T>,
    scratch: &mut [T],
) -> Result<Refreshed, EighError> {
    match attempt(kernel, a, q, d, accepted, scratch) {
        Err(lost @ EighError::SubspaceLost { .. }) => {
            // Looked for where it is too late: what is not finite in `a` leaves no pivot.
            Scale::of(&a)?;
            Err(lost)
        }
        outcome => outcome,
    }
}

fn check_damping<T: Scalar>(lambda: T) -> Result<(), EighError> {
    let fits = lambda >= T::ZERO && lambda.is_finite();
    if fits { Ok(()) } else { Err(EighError::Damping { value: lambda.to_f64() }) }
}

/// Where the columns of a new basis lie.
#[derive(Clone, Copy, PartialEq)]
enum Places {
    /// By their Rayleigh quotients.
    Ascending,
    /// Where the old ones were.
    Kept,
}

/// What a step is for, and how good it has to be.
#[derive(Clone, Copy)]
struct Accepted<T> {
    places: Places,
    lambda: T,
    /// See [`Settings`]; any error where there is none.
    largest_error: Option<f64>,
}

/// A step, unless its error is too large: nothing has been written then.
fn attempt<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    d: &mut [T],
    Accepted { places, lambda, largest_error }: Accepted<T>,
    scratch: &mut [T],
) -> Result<Refreshed, EighError> {
    let n = check_shapes(&a, &q, d)?;
    ScratchError::check(step_scratch_len::<T>(n), scratch.len())?;
    check_damping(lambda)?;
    if n == 0 {
        return Ok(Refreshed {
            passes: 1,
            deviation: 0.0,
            pivot: 1.0,
            off_diagonal: 0.0,
            inverse_error: 0.0,
        });
    }
    let unit = n as f64 * T::EPSILON.to_f64();
    let (w, rest) = scratch.split_at_mut(n * n);
    let (l, rest) = rest.split_at_mut(n * n);
    let (beta, rest) = rest.split_at_mut(n);
    let (squares, rest) = rest.split_at_mut(n);
    let (vectors, rest) = rest.split_at_mut(vectors_len(n));
    // What is not finite is left to the pivots.
    let deviation = measured_deviation(kernel, q.as_ref(), 1, rest)?;
    if deviation.is_finite() && deviation > FAR {
        return Err(EighError::NotOrthonormal { deviation });
    }
    let mut step = Step { kernel, n, w, l, squares, rest };

    // Row j of Wᵀ is column n - 1 - j of W, so that Cholesky meets the largest eigenvalue first.
    for (beta, &d) in beta.iter_mut().zip(d.iter().rev()) {
        *beta = d.maximum(T::ZERO) + lambda;
    }
    if beta.iter().any(|&beta| beta.is_finite() && !(T::ONE / beta).is_finite()) {
        return Err(EighError::Damping { value: lambda.to_f64() });
    }
    step.iterate(a, q.as_ref(), beta, lambda)?;
    let pivot = step.factor()?;
    if pivot < LOST_BELOW * unit {
        return Err(EighError::SubspaceLost { pivot });
    }
    let [off_diagonal, inverse_error] =
        kernel.run(Estimate { l: step.l, beta, lambda, vectors: &mut *vectors });
    // Written so that NaN is refused.
    let taken = largest_error.is_none_or(|largest| inverse_error <= largest);
    if !taken {
        return Err(EighError::Inaccurate { inverse_error });
    }
    step.solve()?;
    // No pivot bounds it: Kahan's matrices are nearly singular without a small one.
    let (mut passes, mut deviation) = (1, step.deviation()?);
    if deviation > DEVIATION * unit {
        // What is left to do is so small that it moves neither eigenvalues nor estimates.
        step.factor()?;
        step.solve()?;
        (passes, deviation) = (2, step.deviation()?);
    }
    if deviation.is_nan() || deviation > DEVIATION_LEFT * unit {
        return Err(EighError::SubspaceLost { pivot });
    }

    let (found, order) = (&vectors[..n], beta);
    match places {
        Places::Ascending => ascending(found, order),
        // Row n - 1 - j of Wᵀ came from column j.
        Places::Kept => {
            order.iter_mut().rev().enumerate().for_each(|(row, index)| *index = T::from_usize(row))
        }
    }
    for (d, &index) in d.iter_mut().zip(&*order) {
        *d = found[place(index)];
    }
    kernel.run(RowsToColumns { rows: step.w, order, q });
    Ok(Refreshed { passes, deviation, pivot, off_diagonal, inverse_error })
}

/// How [`step_or_cold`] refreshes.
#[derive(Clone, Copy, Debug)]
pub struct Settings<T, S> {
    /// `λ`, see [`step`].
    pub lambda: T,
    /// What decomposes a matrix for which the old basis is of no use.
    pub fallback: S,
    /// The largest [`Refreshed::inverse_error`] of a step that is taken. Infinity takes every step.
    pub largest_error: f64,
}

impl<T, S> Settings<T, S> {
    /// With [`LARGEST_ERROR`].
    #[must_use]
    pub const fn new(lambda: T, fallback: S) -> Self {
        Self { lambda, fallback, largest_error: LARGEST_ERROR }
    }
}

/// How [`step_or_cold`] came to its result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refresh {
    /// By a step.
    Step(Refreshed),
    /// By a cold decomposition.
    Cold {
        /// Why there was no step: [`EighError::SubspaceLost`], [`EighError::NotOrthonormal`], [`EighError::Inaccurate`], or
        /// [`EighError::Damping`] where an old eigenvalue and `λ` are both zero.
        cause: EighError,
        /// What the solver reports.
        outcome: Outcome,
    },
}

/// Scratch, in elements, that [`step_or_cold`] needs for an `n x n` matrix and a solver of that method.
pub const fn step_or_cold_scratch_len<T: Scalar>(n: usize, fallback: Method) -> usize {
    largest_len([step_scratch_len::<T>(n), fallback.scratch_len::<T>(n)])
}

/// [`step`], or a cold decomposition where the old basis is of no use, or the step not accurate enough.
///
/// # Shapes
/// As [`step`]; `scratch`: [`step_or_cold_scratch_len`].
///
/// # Errors
/// Those of the solver, which also names what is not finite in `a`; [`EighError::Damping`] when `λ` is negative or not
/// finite. A basis that is not orthonormal, or eigenvalues that are not finite, are no error here: they are replaced.
///
/// # Example
/// ```
/// use kfac_linalg::eigh::refresh::{self, Refresh, Settings};
/// use kfac_linalg::eigh::{EighError, Eigensolver, Qr};
/// use kfac_linalg::{MatMut, MatRef, Reproducible};
///
/// // The identity's basis knows nothing of this matrix.
/// let (mut q, mut d) = ([1.0_f64, 0.0, 0.0, 1.0], [1.0; 2]);
/// let numbers = [2.0, 1.0, 1.0, 2.0];
/// let (a, view) = (MatRef::row_major(&numbers, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
/// let mut scratch = vec![0.0; refresh::step_or_cold_scratch_len::<f64>(2, Qr::METHOD)];
/// let settings = Settings::new(0.1, Qr);
///
/// let found = refresh::step_or_cold(Reproducible, a, view, &mut d, settings, &mut scratch)?;
/// assert!(matches!(found, Refresh::Cold { cause: EighError::Inaccurate { .. }, .. }));
/// assert!((d[0] - 1.0).abs() < 1e-15 && (d[1] - 3.0).abs() < 1e-15);
/// # Ok::<(), kfac_linalg::Error>(())
/// ```
pub fn step_or_cold<T: Scalar, K: Kernel<T>, S: Eigensolver>(
    kernel: K,
    a: MatRef<'_, T>,
    mut q: MatMut<'_, T>,
    d: &mut [T],
    settings: Settings<T, S>,
    scratch: &mut [T],
) -> Result<Refresh, EighError> {
    let n = check_shapes(&a, &q, d)?;
    ScratchError::check(step_or_cold_scratch_len::<T>(n, S::METHOD), scratch.len())?;
    let Settings { lambda, fallback, largest_error } = settings;
    check_damping(lambda)?;
    let accepted = Accepted { places: Places::Ascending, lambda, largest_error: Some(largest_error) };
    match attempt(kernel, a, q.reborrow(), d, accepted, scratch) {
        Ok(refreshed) => Ok(Refresh::Step(refreshed)),
        Err(
            cause @ (EighError::SubspaceLost { .. }
            | EighError::NotOrthonormal { .. }
            | EighError::Inaccurate { .. }
            | EighError::Damping { .. }),
        ) => {
            let outcome = fallback.cold(kernel, a, q, d, scratch)?;
            Ok(Refresh::Cold { cause, outcome })
        }
        Err(error) => Err(error),
    }
}

/// The two squares of a step.
struct Step<'a, T, K> {
    kernel: K,
    n: usize,
    /// `Wᵀ`, then `Qᵀ`.
    w: &'a mut [T],
    /// `WᵀW`, then `L`.
    l: &'a mut [T],
    /// The diagonal of `WᵀW`.
    squares: &'a mut [T],
    rest: &'a mut [T],
}

impl<T: Scalar, K: Kernel<T>> Step<'_, T, K> {
    /// `Wᵀ`, rows from the largest eigenvalue down.
    fn iterate(
        &mut self,
        a: MatRef<'_, T>,
        v: MatRef<'_, T>,
        beta: &[T],
        lambda: T,
    ) -> Result<(), EighError> {
        let (n, kernel) = (self.n, self.kernel);
        kernel.run(WithShift { a, lambda, to: self.w });
        let shifted = MatRef::row_major(self.w, n, n)?;
        let product = MatMut::row_major(self.l, n, n)?;
        gemm(kernel, product, Accumulate::Replace(T::ONE), v.transposed(), shifted, self.rest)?;
        kernel.run(ScaleReversed { from: self.l, beta, to: self.w });
        Ok(())
    }

    /// `L`, and the smallest relative pivot.
    fn factor(&mut self) -> Result<f64, EighError> {
        let (n, kernel) = (self.n, self.kernel);
        let w = MatRef::row_major(self.w, n, n)?.transposed();
        syrk_lower(kernel, MatMut::row_major(self.l, n, n)?, Accumulate::Replace(T::ONE), w, self.rest)?;
        for (i, square) in self.squares.iter_mut().enumerate() {
            *square = self.l[i * n + i];
        }
        cholesky::factor(kernel, MatMut::row_major(self.l, n, n)?, self.rest)
            .map_err(|error| lost(error, self.squares))?;
        let pivots = self.squares.iter().enumerate().map(|(i, &square)| {
            let root = self.l[i * n + i];
            (root * root / square).to_f64()
        });
        Ok(pivots.fold(1.0, f64::min))
    }

    /// `Qᵀ = L⁻¹ Wᵀ` in place of `Wᵀ`.
    fn solve(&mut self) -> Result<(), EighError> {
        let (l, w) = (MatRef::row_major(self.l, self.n, self.n)?, MatMut::row_major(self.w, self.n, self.n)?);
        trsm_lower(self.kernel, l, w, self.rest).map_err(|error| lost(error.into(), self.squares))
    }

    /// The deviation of `Q`, which is that of `Qᵀ`.
    fn deviation(&mut self) -> Result<f64, EighError> {
        measured_deviation(self.kernel, MatRef::row_major(self.w, self.n, self.n)?, PROBES, self.rest)
    }
}

/// What an error of the factor, or of a division by it, is to a step. `squares` is the diagonal of the matrix factored.
fn lost<T: Scalar>(error: CholeskyError, squares: &[T]) -> EighError {
    match error {
        CholeskyError::Shape(error) => error.into(),
        CholeskyError::Scratch(error) => error.into(),
        CholeskyError::NotPositiveDefinite { pivot, value } => {
            let relative = value / squares[pivot].to_f64();
            EighError::SubspaceLost { pivot: if relative.is_finite() { relative } else { f64::NAN } }
        }
        CholeskyError::Overflow => EighError::SubspaceLost { pivot: f64::NAN },
    }
}

/// Rows that [`measured_deviation`] works with.
const DEVIATION_ROWS: usize = 3;

/// About `||QᵀQ - I||_F` of a square: `E ||QᵀQ x - x||² / E x_i²` for vectors of random numbers, its root.
fn measured_deviation<T: Scalar, K: Kernel<T>>(
    kernel: K,
    q: MatRef<'_, T>,
    probes: usize,
    room: &mut [T],
) -> Result<f64, EighError> {
    let n = q.rows();
    let (x, rest) = room.split_at_mut(n);
    let (y, rest) = rest.split_at_mut(n);
    let z = &mut rest[..n];
    let [mut change, mut size] = [0.0; 2];
    for probe in 0..probes {
        for (index, (x, z)) in x.iter_mut().zip(&mut *z).enumerate() {
            // A multiplicative hash, from -1 to 1: with signs alone, opposite errors in two columns cancel every other time.
            let hash = ((probe * n + index) as u32 ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
            let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
            *x = T::from_f64(f64::from((hash ^ (hash >> 16)) as i32) / 2_147_483_648.0);
            *z = -*x;
        }
        gemv_dots(kernel, y, Accumulate::Replace(T::ONE), q, x)?;
        gemv(kernel, z, Accumulate::Add(T::ONE), q.transposed(), y)?;
        change += dot(z, z)?.to_f64();
        size += dot(x, x)?.to_f64();
    }
    Ok(libm::sqrt(n as f64 * change / size))
}
