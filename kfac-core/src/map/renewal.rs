//! How the eigenbasis of a factor is renewed.

use crate::error::SettingError;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Qr};

/// How the eigenbasis of a factor is renewed: by an eigensolver, [`Qr`] or [`Jacobi`], or by one only when the old basis no
/// longer does, [`Skipping`].
pub trait Renewal: Copy + Send + Sync {
    /// What decomposes the factor.
    type Solver: Eigensolver;

    /// Is the old basis tested first?
    const TESTS: bool;

    /// What decomposes the factor.
    fn solver(self) -> Self::Solver;

    /// The off-diagonal part of `QᵀAQ`, as a share of all of it in Frobenius norm, up to which the old basis `Q` is kept.
    fn tolerance(self) -> f64;
}

/// Keeps the old basis `Q` of a factor `A` as long as `‖QᵀAQ - diag‖ <= tolerance ‖QᵀAQ‖` in Frobenius norm, with the diagonal
/// of `QᵀAQ` for eigenvalues; beyond that, the solver decomposes `A`.
///
/// The test costs two products, `4 n³` flops, a third or less of a decomposition. On a moving average with decay 0.95 a
/// tolerance of 0.1 keeps most bases for tens of steps.
///
/// ```
/// use kfac_core::map::{Eigenbasis, Skipping};
/// let map = Eigenbasis { solver: Skipping::new(kfac_core::linalg::eigh::Qr, 0.05)? };
/// # let _ = map;
/// # Ok::<(), kfac_core::error::SettingError>(())
/// ```
///
/// # Source
/// Eschenhagen, Defazio, Lee, Turner and Shi 2025, arXiv:2506.03595: the relative size of what is off the diagonal of the rotated factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skipping<S> {
    solver: S,
    tolerance: f64,
}

impl<S: Eigensolver> Skipping<S> {
    /// Keeps a basis up to `tolerance`, between 0, which only a diagonal residual of exactly 0 passes, and 1.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `[0, 1)`.
    pub fn new(solver: S, tolerance: f64) -> Result<Self, SettingError> {
        SettingError::unless((0.0..1.0).contains(&tolerance), "tolerance", tolerance)?;
        Ok(Self { solver, tolerance })
    }
}

impl<S: Eigensolver> Renewal for Skipping<S> {
    type Solver = S;
    const TESTS: bool = true;

    fn solver(self) -> S {
        self.solver
    }

    fn tolerance(self) -> f64 {
        self.tolerance
    }
}

macro_rules! always {
    ($solver:ty) => {
        impl Renewal for $solver {
            type Solver = Self;
            const TESTS: bool = false;

            fn solver(self) -> Self {
                self
            }

            fn tolerance(self) -> f64 {
                0.0
            }
        }
    };
}
always!(Qr);
always!(Jacobi);
