//! Tells `cargo xtask bench` what has been compared with what, how, and what was to be reached.

use crate::numbers::Precision;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Environment variable with the path to write to; without it nothing is written.
pub const PATH_VARIABLE: &str = "KFAC_BENCH_ROWS";

/// Operations that are compared alike: criterion's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A whole training step.
    Step,
    /// General products.
    Gemm,
    /// General products against the peak of the machine.
    GemmPeak,
    /// General products under the `Reproducible` kernel.
    GemmReproducible,
    /// Products of a matrix and a vector.
    Gemv,
    /// The same with the rows of the matrix in memory, in the order of a general product.
    GemvInOrder,
    /// Symmetric products.
    Syrk,
    /// Inverse of a positive definite matrix.
    Inverse,
    /// Its Cholesky factor alone.
    Cholesky,
    /// Eigenvectors and eigenvalues, from nothing.
    Eigh,
    /// The same under the `Reproducible` kernel.
    EighReproducible,
    /// The same by Jacobi's method, from the basis before.
    JacobiWarm,
    /// One subspace step from the basis before.
    BasisRefresh,
    /// What exact damping needs of the larger side: reduction and Q.
    DampedRefresh,
    /// Exactly damped solutions, by their errors.
    Accuracy,
}

impl Family {
    /// First part of the ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Gemm => "gemm",
            Self::GemmPeak => "gemm-peak",
            Self::GemmReproducible => "gemm-reproducible",
            Self::Gemv => "gemv",
            Self::GemvInOrder => "gemv-in-order",
            Self::Syrk => "syrk",
            Self::Inverse => "inverse",
            Self::Cholesky => "cholesky",
            Self::Eigh => "eigh",
            Self::EighReproducible => "eigh-reproducible",
            Self::JacobiWarm => "jacobi-warm",
            Self::BasisRefresh => "basis-refresh",
            Self::DampedRefresh => "damped-refresh",
            Self::Accuracy => "accuracy",
        }
    }
}

/// What a contest is about: its name, and what decides which goals it is under.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Group of operations.
    pub family: Family,
    /// Type of the numbers.
    pub precision: Precision,
    /// Order of the matrix; of a rectangular problem, the least of its dimensions that the goals speak of.
    pub size: usize,
    /// The rest of the id, e.g. `400x785x128/nt`.
    pub case: String,
}

impl Subject {
    /// `family/precision/case`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.family.name(), self.within_family())
    }

    /// The id without the family.
    pub fn within_family(&self) -> String {
        format!("{}/{}", self.precision, self.case)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// What becomes a ratio, and which way is better.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    /// Time of the peer over ours: more is better.
    Speed,
    /// Our time over the peer's, divided by the ratio of our flops to the peer's: less is better.
    CostPerFlop {
        /// Our flops over the peer's.
        flops_ratio: f64,
    },
    /// Error of the peer over ours, whatever the times: more is better.
    Accuracy {
        /// Relative error of our result.
        ours: f64,
        /// Those of the peers.
        peers: BTreeMap<&'static str, f64>,
    },
}

/// Whom a goal speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// This one.
    Peer(&'static str),
    /// Whoever of the peers is fastest.
    Fastest,
}

/// A goal of one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Whom it speaks of.
    pub against: Against,
    /// The ratio that is just good enough.
    pub ratio: f64,
}

/// A comparison. Benchmarks are named by their folder below criterion's.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the comparison.
    pub id: String,
    /// Our benchmark.
    pub ours: String,
    /// Name of each peer and its benchmark.
    pub peers: BTreeMap<String, String>,
    /// How the ratio is formed.
    pub ratio: Ratio,
    /// What is to be reached.
    pub goals: Vec<Bound>,
}

/// A goal over many rows: the worst of them, and their geometric mean.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Which rows, in words.
    pub title: String,
    /// Their ids; empty when nothing of the kind can be measured yet.
    pub rows: Vec<String>,
    /// Whom it speaks of.
    pub against: Against,
    /// Goal of the worst.
    pub worst: f64,
    /// Goal of the mean.
    pub mean: Option<f64>,
}

/// How the measurement was made.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Turns that each contender took; the times are medians over them.
    pub rounds: usize,
    /// What a time is.
    pub clock: String,
    /// The instructions that `Fast` has chosen.
    pub instructions: String,
    /// Packages whose versions and features belong to the result.
    pub packages: Vec<&'static str>,
}

/// All that `cargo xtask bench` needs beside criterion's times.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it was measured.
    pub conditions: Conditions,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What is said of all of it.
    pub summaries: Vec<Summary>,
}

impl Report {
    /// Writes it where `cargo xtask bench` asks for it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self) -> io::Result<()> {
        let Some(path) = std::env::var_os(PATH_VARIABLE).map(PathBuf::from) else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)?)
    }
}

/// Criterion's folder for a function of a group: slashes would be folders.
pub fn folder(group: &str, function: &str) -> String {
    format!("{group}/{}", function.replace('/', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_with_the_family_and_the_precision() {
        let subject = Subject {
            family: Family::Gemm,
            precision: Precision::F32,
            size: 128,
            case: "400x785x128/nt".into(),
        };
        assert_eq!(subject.to_string(), "gemm/f32/400x785x128/nt");
        assert_eq!(folder("gemm", "f32/128/nn/faer"), "gemm/f32_128_nn_faer");
    }

    #[test]
    fn a_row_is_written_in_the_words_that_xtask_reads() {
        let row = Row {
            id: "step".into(),
            ours: "a".into(),
            peers: BTreeMap::new(),
            ratio: Ratio::CostPerFlop { flops_ratio: 2.0 },
            goals: vec![
                Bound { against: Against::Peer("faer"), ratio: 1.5 },
                Bound { against: Against::Fastest, ratio: 1.0 },
            ],
        };
        let json = serde_json::to_string(&row).unwrap();
        assert!(json.contains(r#""ratio":{"cost_per_flop":{"flops_ratio":2.0}}"#), "{json}");
        assert!(json.contains(r#"{"against":{"peer":"faer"},"ratio":1.5}"#), "{json}");
        assert!(json.contains(r#"{"against":"fastest","ratio":1.0}"#), "{json}");
        assert_eq!(serde_json::to_string(&Ratio::Speed).unwrap(), r#""speed""#);
    }
}
