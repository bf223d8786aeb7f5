//! The literature's claims, each measured against a baseline tuned as hard as the method.
//!
//! `cargo xtask reproduce` runs the claims of [`all`] and prints their [`ClaimRecord`]s; what is measured, and
//! how, is decided here alone.

mod autoencoder;
mod contender;
mod contest;
mod convolution;
mod progress;
mod record;
mod recurrent;
mod task;
mod verdict;

pub use crate::tuning::Optimum;
pub use progress::{Progress, Silent};
pub use record::{AxisScale, ClaimRecord, Curve, Figure, Row, Search, SeedResult, Side, Verdict};

use std::path::PathBuf;

/// How long a reproduction may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Minutes on two cores: a search starts at a recorded optimum and goes on until its neighbours are worse, for six
    /// rounds at most. Runs on MNIST, where it is given, are short.
    Quick,
    /// A search from 25 starts for every row, and whole runs. The lattice itself has no end.
    Full,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long it may take.
    pub profile: Profile,
    /// Folder with `mnist/`; the rows on it are run when it is given.
    pub data: Option<PathBuf>,
    /// Number of seeds per contender.
    pub seeds: usize,
    /// Runs that go on at the same time.
    pub threads: usize,
}

/// A claim that can be run.
pub struct Claim {
    /// Short name, as in `--claim NAME`.
    pub name: &'static str,
    /// One line for the command's help.
    pub summary: &'static str,
    /// Measures it.
    pub run: fn(&Settings, &dyn Progress) -> Result<ClaimRecord, ClaimError>,
}

/// Why a claim could not be measured at all. (A run that diverges is a result, not an error.)
#[derive(Debug)]
#[non_exhaustive]
pub enum ClaimError {
    /// A data file is missing or damaged.
    Data(crate::data::DataError),
}

impl std::fmt::Display for ClaimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Data(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClaimError {}

impl From<crate::data::DataError> for ClaimError {
    fn from(error: crate::data::DataError) -> Self {
        Self::Data(error)
    }
}

/// Reads the data files that the claims will want, so that a damaged one is known before anything is run.
///
/// # Errors
/// [`ClaimError::Data`] names the file and the number.
pub fn check_data(settings: &Settings) -> Result<(), ClaimError> {
    autoencoder::mnist_training_set(settings).map(drop)
}

/// Every claim, in the order of the report.
pub fn all() -> Vec<Claim> {
    vec![
        Claim { name: "recurrent", summary: "adding problem, tanh RNN", run: recurrent::run },
        Claim {
            name: "autoencoder",
            summary: "digits, CURVES-like images, with --data MNIST",
            run: autoencoder::run,
        },
        Claim { name: "convolution", summary: "digits, small convolutional net", run: convolution::run },
    ]
}
