//! What a claim leaves behind: plain data that `cargo xtask reproduce` writes as HTML, JSON and Markdown.
//!
//! Nothing here computes. A claim fills these records while it runs; the report prints every field of them, so
//! a number that is not in a record cannot be in the report.

use crate::tuning::Optimum;
use serde::{Deserialize, Serialize};

/// One claim, measured: the statement, where it comes from, and a row per task it was tried on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// Short name, as in `--claim NAME`.
    pub name: String,
    /// Heading of its section in the report.
    pub title: String,
    /// The statement under test, in one sentence.
    pub claim: String,
    /// Who made it, and where.
    pub source: String,
    /// One row per task and target.
    pub rows: Vec<Row>,
    /// Learning curves and sweeps to plot.
    pub figures: Vec<Figure>,
    /// What a reader must know before quoting a number of this section.
    pub notes: Vec<String>,
}

/// One task and one target: the method against its baseline over all seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was trained: task, network, batch size.
    pub task: String,
    /// What counts as done, e.g. `validation half-MSE <= 0.01`.
    pub target: String,
    /// The method under test.
    pub method: Side,
    /// What it is compared with.
    pub baseline: Side,
    /// How the baseline's settings were found.
    pub search: Search,
    /// Median updates of the baseline over median updates of the method; `None` when either is infinite.
    pub ratio: Option<f64>,
    /// Smallest and largest ratio over the seeds where both sides arrived.
    pub ratio_range: Option<[f64; 2]>,
    /// Baseline seconds over method seconds to the target, by medians; `None` as for `ratio`.
    pub time_ratio: Option<f64>,
    /// The ratios this row was held against, e.g. `>= 10, in part >= 4`; a note of the claim says why these.
    pub bar: String,
    /// Does the claim hold here?
    pub verdict: Verdict,
    /// The verdict in words, with the reason.
    pub remark: String,
}

/// One contender of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Name of the optimizer, e.g. `K-FAC Factored, quadratic model`.
    pub name: String,
    /// All settings that were in force, as `key value` pairs in reading order.
    pub settings: Vec<(String, String)>,
    /// One result per seed, in the order of the seeds.
    pub seeds: Vec<SeedResult>,
    /// Time of one update, in milliseconds: median over the seeds.
    pub milliseconds_per_update: f64,
}

/// What one seed needed to reach the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed: initial weights and order of the data.
    pub seed: u64,
    /// Updates to the target, `None` when it was not reached within the budget.
    pub updates: Option<u64>,
    /// Training examples used up to there (updates times batch size).
    pub examples: Option<u64>,
    /// Seconds of training up to there, by the clock that the report names, evaluation excluded.
    pub seconds: Option<f64>,
    /// Updates that were allowed.
    pub budget: u64,
    /// The metric when the run stopped.
    pub final_value: f64,
    /// Set when the run ended by a named error, with its sentence.
    pub failure: Option<String>,
}

/// How a side's settings were chosen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// The grid that was searched, e.g. `learning rate {..} x momentum {..} x clip {..}`.
    pub grid: String,
    /// Training runs spent on the search: one per setting and seed, and fewer where a setting could no longer win.
    pub runs: usize,
    /// Where the best setting lies.
    pub optimum: Optimum,
    /// The best settings of the search, best first: description and the value they were ranked by. Settings whose runs
    /// were stopped because they could no longer win have no value and are left out.
    pub leaders: Vec<(String, f64)>,
    /// Fewest updates to the target of any run of the search, for each seed separately: the hardest comparison. Runs
    /// that could no longer win were stopped before.
    pub per_seed_oracle: Vec<Option<u64>>,
}

/// Does the claim hold on this row?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The measured figure meets the bar.
    Holds,
    /// It points the claimed way but misses the bar.
    HoldsInPart,
    /// It does not.
    DoesNotHold,
    /// Nothing can be said: a side never arrived on most seeds, or the row was not run.
    NotMeasured,
}

impl Verdict {
    /// The verdict as it is printed.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::HoldsInPart => "holds in part",
            Self::DoesNotHold => "does not hold",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A plot: curves over one pair of axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Caption.
    pub title: String,
    /// Label of the horizontal axis, with its unit.
    pub x_label: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// How the horizontal axis is divided.
    pub x_scale: AxisScale,
    /// How the vertical axis is divided.
    pub y_scale: AxisScale,
    /// A horizontal line to reach, drawn dashed.
    pub target: Option<f64>,
    /// The curves, in drawing order.
    pub curves: Vec<Curve>,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AxisScale {
    /// Equal steps.
    Linear,
    /// Equal factors; every value must be positive.
    Logarithmic,
}

/// One curve of a [`Figure`]. Curves with the same label are seeds of the same contender and share a colour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// Name in the legend.
    pub label: String,
    /// `(x, y)` in order of x.
    pub points: Vec<(f64, f64)>,
}
