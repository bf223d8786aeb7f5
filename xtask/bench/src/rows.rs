//! Tells `cargo xtask bench` which benchmark is to be compared with which.

use serde::Serialize;
use std::collections::BTreeMap;

/// A comparison. Benchmarks are named `group/function`.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the comparison.
    pub id: String,
    /// Our benchmark.
    pub ours: String,
    /// Name of each peer and its benchmark.
    pub peers: BTreeMap<String, String>,
    /// Our flops over the peer's.
    pub flops_ratio: f64,
    /// What the ratio of the times, divided by that of the flops, should not exceed.
    pub goal: Option<f64>,
}

/// Environment variable with the path to write to; without it nothing is written.
pub const PATH_VARIABLE: &str = "KFAC_BENCH_ROWS";

/// Writes the comparisons where `cargo xtask bench` asks for them.
///
/// # Errors
/// What the file system says.
pub fn write(rows: &[Row]) -> std::io::Result<()> {
    let Some(path) = std::env::var_os(PATH_VARIABLE).map(std::path::PathBuf::from) else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, serde_json::to_string_pretty(rows)?)
}
