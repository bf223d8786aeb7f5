//! `cargo xtask bench`: criterion's benchmarks, then the ratios to the peers.
//!
//! The benchmarks write `target/bench/rows.json`, which says what is to be compared with what; the times are
//! criterion's medians. A row's ratio is ours over the fastest peer, divided by the ratio of their flops.

use crate::Outcome;
use crate::report::files::{self, WriteError};
use crate::report::json;
use crate::step::Cmd;
use crate::workspace::Metadata;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Tells the benchmarks where to write their rows (`rows::PATH_VARIABLE` of kfac-bench).
const ROWS_VARIABLE: &str = "KFAC_BENCH_ROWS";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Few samples per benchmark
    #[arg(long)]
    quick: bool,
}

/// A comparison, as the benchmarks describe it. Benchmarks are named by their folder below `target/criterion`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// E.g. `gemm/f32/256`.
    id: String,
    /// Our benchmark.
    ours: String,
    /// Name of the peer and its benchmark.
    peers: BTreeMap<String, String>,
    /// Our flops over the peers'; 1 when left out.
    #[serde(default = "one")]
    flops_ratio: f64,
    /// The ratio must not be above this; no goal when left out.
    #[serde(default)]
    goal: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// A comparison, measured: an entry of `target/bench/ratios.json`.
#[derive(Debug, PartialEq, Serialize)]
struct Ratio {
    id: String,
    ours_ns: f64,
    peers: BTreeMap<String, f64>,
    ratio: Option<f64>,
    goal: Option<f64>,
    met: Option<bool>,
}

/// Why there are no ratios.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// Cargo could not be run or could not describe the workspace.
    Cargo(String),
    /// A file that should have been written cannot be used.
    Input { path: PathBuf, reason: String },
    /// The ratios could not be written.
    Write(WriteError),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cargo(sentence) => f.write_str(sentence),
            Self::Input { path, reason } => write!(f, "cannot use {}: {reason}", path.display()),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BenchError {}

/// Runs the benchmarks, prints the table and writes `ratios.json`. A goal that is missed is printed, not failed:
/// times depend on the machine.
///
/// # Errors
/// [`BenchError`]; an older `ratios.json` is then as it was.
pub(crate) fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Metadata::read().map_err(BenchError::Cargo)?.target_directory();
    let rows_path = target.join("bench/rows.json");
    // Rows of an older run must not be taken for those of this one.
    let _ = std::fs::remove_file(&rows_path);
    // `--bench *`: the benchmarks only; the library's own harness would refuse criterion's options.
    let quick = options.quick.then_some("--quick");
    let command = Cmd::cargo(["bench", "-p", "kfac-bench", "--bench", "*", "--"].into_iter().chain(quick))
        .env(ROWS_VARIABLE, rows_path.to_string_lossy());
    if !command.show().map_err(BenchError::Cargo)? {
        return Ok(Outcome::Bad);
    }
    let rows: Vec<Row> = read(&rows_path)?;
    let ratios =
        rows.iter().map(|row| measure(row, &target.join("criterion"))).collect::<Result<Vec<_>, _>>()?;
    files::write_together(&target.join("bench"), &[("ratios.json", &json::render(&ratios))])
        .map_err(BenchError::Write)?;
    print!("{}", table(&ratios));
    Ok(Outcome::Good)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, BenchError> {
    let input = |reason: String| BenchError::Input { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| input(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| input(error.to_string()))
}

fn measure(row: &Row, criterion: &Path) -> Result<Ratio, BenchError> {
    let ours_ns = median(criterion, &row.ours)?;
    let peers = row.peers.iter().map(|(name, id)| Ok((name.clone(), median(criterion, id)?)));
    let peers = peers.collect::<Result<BTreeMap<_, _>, _>>()?;
    let fastest = peers.values().copied().reduce(f64::min);
    let ratio = fastest.map(|peer| ours_ns / peer / row.flops_ratio);
    let met = ratio.zip(row.goal).map(|(ratio, goal)| ratio <= goal);
    Ok(Ratio { id: row.id.clone(), ours_ns, peers, ratio, goal: row.goal, met })
}

/// Criterion's median of a benchmark, in nanoseconds per iteration.
fn median(criterion: &Path, id: &str) -> Result<f64, BenchError> {
    #[derive(Deserialize)]
    struct Estimates {
        median: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        point_estimate: f64,
    }
    let estimates: Estimates = read(&criterion.join(id).join("new/estimates.json"))?;
    Ok(estimates.median.point_estimate)
}

fn table(ratios: &[Ratio]) -> String {
    let width = ratios.iter().map(|ratio| ratio.id.chars().count()).max().unwrap_or(0).max(2);
    let mut text =
        format!("{:width$}  {:>12}  {:>8}  {:>8}  {:6}  peers\n", "id", "ours", "ratio", "goal", "met");
    for Ratio { id, ours_ns, peers, ratio, goal, met } in ratios {
        let number = |value: &Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
        let met = met.map_or("-", |met| if met { "yes" } else { "NO" });
        let peers: Vec<String> = peers.iter().map(|(name, ns)| format!("{name} {}", time(*ns))).collect();
        text += &format!(
            "{id:width$}  {:>12}  {:>8}  {:>8}  {met:6}  {}\n",
            time(*ours_ns),
            number(ratio),
            number(goal),
            peers.join(", ")
        );
    }
    text
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;

    fn estimate(folder: &Folder, id: &str, nanoseconds: f64) {
        let path = folder.path().join(id).join("new");
        std::fs::create_dir_all(&path).unwrap();
        let text = format!(
            "{{\"mean\":{{\"point_estimate\":1.0}},\"median\":{{\"point_estimate\":{nanoseconds}}}}}"
        );
        std::fs::write(path.join("estimates.json"), text).unwrap();
    }

    #[test]
    fn a_ratio_is_to_the_fastest_peer_and_per_flop() {
        let folder = Folder::new("ratio");
        estimate(&folder, "step/kfac", 5000.0);
        estimate(&folder, "step/sgd", 2000.0);
        estimate(&folder, "step/adam", 4000.0);
        let row = r#"{"id": "step/f32", "ours": "step/kfac", "peers": {"sgd": "step/sgd", "adam": "step/adam"},
                      "flops_ratio": 2.0, "goal": 1.3}"#;
        let ratio = measure(&serde_json::from_str(row).unwrap(), folder.path()).unwrap();
        assert_eq!((ratio.ours_ns, ratio.ratio, ratio.met), (5000.0, Some(1.25), Some(true)));
        let json = json::render(&[&ratio]);
        for key in ["\"id\"", "\"ours_ns\"", "\"peers\"", "\"ratio\"", "\"goal\"", "\"met\""] {
            assert!(json.contains(key), "{json}");
        }
        assert!(table(&[ratio]).contains("sgd 2.00 us"));
    }

    #[test]
    fn a_row_without_peers_or_goal_has_no_ratio() {
        let folder = Folder::new("no-peers");
        estimate(&folder, "a", 10.0);
        let row = serde_json::from_str(r#"{"id": "a", "ours": "a", "peers": {}}"#).unwrap();
        let ratio = measure(&row, folder.path()).unwrap();
        assert_eq!((ratio.ratio, ratio.met), (None, None));
    }

    #[test]
    fn a_missing_estimate_is_named() {
        let folder = Folder::new("no-estimate");
        let row = serde_json::from_str(r#"{"id": "a", "ours": "group/a", "peers": {}}"#).unwrap();
        let error = measure(&row, folder.path()).unwrap_err().to_string();
        assert!(error.contains("estimates.json") && error.contains("group"), "{error}");
        assert!(serde_json::from_str::<Row>(r#"{"id": "a", "ours": "a", "peers": {}, "gaol": 1}"#).is_err());
    }
}
