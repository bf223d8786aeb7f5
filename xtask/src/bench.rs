//! `cargo xtask bench`: criterion's benchmarks, then the ratios to the peers.
//!
//! The benchmarks write `target/bench/rows.json`, which says what is to be compared with what and what is to be reached;
//! the times are criterion's medians. What comes of it is printed and left in `target/bench`: `ratios.json`, an entry
//! per comparison, and `summary.json`, the conditions and what is said of all comparisons of a kind.

mod ratios;
mod table;

use crate::Outcome;
use crate::report::files::{self, WriteError};
use crate::report::head::{Machine, Versions};
use crate::report::json;
use crate::step::Cmd;
use crate::workspace::Metadata;
use ratios::{Entry, Line, Row, Summary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Tells the benchmarks where to write their rows (`rows::PATH_VARIABLE` of kfac-bench).
const ROWS_VARIABLE: &str = "KFAC_BENCH_ROWS";

/// Tells them which ids to measure (`contest::PREFIX_VARIABLE`).
const PREFIX_VARIABLE: &str = "KFAC_BENCH_PREFIX";

/// Tells them to be quick (`contest::QUICK_VARIABLE`).
const QUICK_VARIABLE: &str = "KFAC_BENCH_QUICK";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the benchmarks whose id begins with this, e.g. `gemm` or `gemm/f32/128`
    prefix: Option<String>,
    /// Fewer and shorter turns
    #[arg(long)]
    quick: bool,
}

/// What the benchmarks say of a run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    conditions: Measurement,
    rows: Vec<Row>,
    summaries: Vec<Summary>,
}

/// How the benchmarks have measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measurement {
    /// The times are medians over so many.
    rounds: usize,
    /// What a time is.
    clock: String,
    /// The instructions that we use.
    instructions: String,
    /// Packages whose versions and features belong to the result.
    packages: Vec<String>,
}

/// Everything that a ratio may depend on.
#[derive(Debug, Serialize)]
struct Conditions {
    machine: String,
    build: String,
    measurement: Measurement,
    /// Version and features of each package.
    packages: BTreeMap<String, String>,
}

/// What stands in `summary.json`.
#[derive(Serialize)]
struct Whole<'a> {
    conditions: &'a Conditions,
    summaries: &'a [Line],
}

/// Why there are no ratios.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// Cargo could not be run or could not describe the workspace.
    Cargo(String),
    /// No benchmark's id begins so.
    NoSuchId(String),
    /// A file that should have been written cannot be used.
    Input { path: PathBuf, reason: String },
    /// The ratios could not be written.
    Write(WriteError),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cargo(sentence) => f.write_str(sentence),
            Self::NoSuchId(prefix) => {
                write!(f, "no benchmark's id begins with {prefix}; ids look like gemm/f32/128/nn")
            }
            Self::Input { path, reason } => write!(f, "cannot use {}: {reason}", path.display()),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BenchError {}

/// Runs the benchmarks, prints the tables and writes the files. A goal that is missed is printed, not failed: times
/// depend on the machine.
///
/// # Errors
/// [`BenchError`]; older files are then as they were.
pub(crate) fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Metadata::read().map_err(BenchError::Cargo)?.target_directory();
    let rows_path = target.join("bench/rows.json");
    // Rows of an older run must not be taken for those of this one.
    let _ = std::fs::remove_file(&rows_path);
    if !command(options, &rows_path).show().map_err(BenchError::Cargo)? {
        return Ok(Outcome::Bad);
    }
    let Report { conditions, rows, summaries } = read(&rows_path)?;
    if rows.is_empty() {
        return Err(BenchError::NoSuchId(options.prefix.clone().unwrap_or_default()));
    }
    let criterion = target.join("criterion");
    let measured = rows.iter().map(|row| row.measure(|benchmark| median(&criterion, benchmark)));
    let entries = measured.collect::<Result<Vec<Entry>, _>>()?;
    let lines: Vec<Line> = summaries.iter().flat_map(|summary| summary.lines(&entries)).collect();
    let conditions = Conditions::of(conditions)?;
    let whole = Whole { conditions: &conditions, summaries: &lines };
    let contents = [("ratios.json", json::render(&entries)), ("summary.json", json::render(&whole))];
    let contents = contents.each_ref().map(|(name, text)| (*name, text.as_str()));
    files::write_together(&target.join("bench"), &contents).map_err(BenchError::Write)?;
    print!("{}", table::render(&conditions, &entries, &lines));
    Ok(Outcome::Good)
}

/// The command line that measures: a line of output per benchmark.
fn command(options: &Options, rows: &Path) -> Cmd {
    let arguments = "bench -p kfac-bench --bench contests -- --output-format bencher";
    let mut command = Cmd::cargo(arguments.split(' ')).env(ROWS_VARIABLE, rows.to_string_lossy());
    if let Some(prefix) = &options.prefix {
        command = command.env(PREFIX_VARIABLE, prefix);
    }
    if options.quick {
        command = command.env(QUICK_VARIABLE, "1");
    }
    command
}

impl Conditions {
    fn of(measurement: Measurement) -> Result<Self, BenchError> {
        let (machine, versions) = (Machine::this(), Versions::this());
        let flags = std::env::var("RUSTFLAGS").ok().filter(|flags| !flags.is_empty());
        let flags = flags.map_or("no RUSTFLAGS".into(), |flags| format!("RUSTFLAGS {flags}"));
        let commit = versions.commit.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
        Ok(Self {
            machine: format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.system),
            build: format!("{commit}{}, {flags}", versions.rustc),
            packages: packages(&measurement.packages)?,
            measurement,
        })
    }
}

/// Version and features of packages, as cargo has resolved them for the benchmarks.
fn packages(names: &[String]) -> Result<BTreeMap<String, String>, BenchError> {
    let arguments = "tree -p kfac-bench --edges normal --depth 1 --prefix none --format";
    let output = Cmd::cargo(arguments.split(' ').chain(["{p} {f}"])).capture().map_err(BenchError::Cargo)?;
    if !output.success {
        return Err(BenchError::Cargo(format!("cargo tree failed: {}", output.stderr)));
    }
    Ok(packages_in(&output.stdout, names))
}

/// From lines like `faer v0.24.4 linalg,std`.
fn packages_in(tree: &str, names: &[String]) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let features = words.next().map_or("no features".into(), |features| features.replace(',', ", "));
        names
            .iter()
            .any(|wanted| wanted == name)
            .then(|| (name.to_owned(), format!("{version} ({features})")))
    };
    tree.lines().filter_map(line).collect()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, BenchError> {
    let input = |reason: String| BenchError::Input { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| input(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| input(error.to_string()))
}

/// Criterion's median of a benchmark, in nanoseconds per iteration.
fn median(criterion: &Path, benchmark: &str) -> Result<f64, BenchError> {
    #[derive(Deserialize)]
    struct Estimates {
        median: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        point_estimate: f64,
    }
    let estimates: Estimates = read(&criterion.join(benchmark).join("new/estimates.json"))?;
    Ok(estimates.median.point_estimate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;

    #[test]
    fn a_time_is_criterions_median() {
        let folder = Folder::new("median");
        let path = folder.path().join("step/sgd/new");
        std::fs::create_dir_all(&path).unwrap();
        let text = r#"{"mean":{"point_estimate":1.0},"median":{"point_estimate":2000.5}}"#;
        std::fs::write(path.join("estimates.json"), text).unwrap();
        assert_eq!(median(folder.path(), "step/sgd").unwrap(), 2000.5);
    }

    #[test]
    fn a_missing_estimate_is_named() {
        let folder = Folder::new("no-estimate");
        let error = median(folder.path(), "group/a").unwrap_err().to_string();
        assert!(error.contains("estimates.json") && error.contains("group"), "{error}");
    }

    #[test]
    fn the_benchmarks_own_words_are_read() {
        let text = r#"{
            "conditions": {"rounds": 21, "clock": "CPU time", "instructions": "AVX-512", "packages": ["faer"]},
            "rows": [{"id": "step/f32", "ours": "step/a", "peers": {"SGD": "step/b"},
                      "ratio": {"cost_per_flop": {"flops_ratio": 2.0}},
                      "goals": [{"against": {"peer": "SGD"}, "ratio": 1.3}]},
                     {"id": "gemm/f32", "ours": "gemm/a", "peers": {}, "ratio": "speed",
                      "goals": [{"against": "fastest", "ratio": 1.4}]}],
            "summaries": [{"title": "step", "rows": ["step/f32"], "against": "fastest", "worst": 1.3, "mean": null}]
        }"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!((report.rows.len(), report.summaries.len(), report.conditions.rounds), (2, 1, 21));
        assert!(serde_json::from_str::<Report>(&text.replace("goals", "gaols")).is_err());
    }

    #[test]
    fn versions_and_features_are_those_of_cargo_tree() {
        let tree = "kfac-bench v0.1.0 (/path)\nfaer v0.24.4 linalg,std\npulp v0.22.3\nserde v1.0.0 derive\n";
        let packages = packages_in(tree, &["faer".into(), "pulp".into()]);
        let expected = [("faer", "0.24.4 (linalg, std)"), ("pulp", "0.22.3 (no features)")]
            .map(|(a, b)| (a.into(), b.into()));
        assert_eq!(packages, BTreeMap::from(expected));
    }
}
