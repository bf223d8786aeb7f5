//! Rows, as the benchmarks describe them, become ratios.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A comparison. Benchmarks are named by their folder below `target/criterion`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// E.g. `gemm/f32/256/nn`.
    id: String,
    /// Our benchmark.
    ours: String,
    /// Name of the peer and its benchmark.
    peers: BTreeMap<String, String>,
    /// How the ratio is formed.
    ratio: Ratio,
    /// What is to be reached.
    goals: Vec<Bound>,
}

/// What becomes a ratio, and which way is better.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ratio {
    /// Time of the peer over ours: more is better.
    Speed,
    /// Our time over the peer's, divided by the ratio of our flops to the peer's: less is better.
    CostPerFlop { flops_ratio: f64 },
    /// Error of the peer over ours, whatever the times: more is better.
    Accuracy { ours: f64, peers: BTreeMap<String, f64> },
}

/// Which way a ratio is better, as `ratios.json` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    More,
    Less,
}

impl Ratio {
    /// Of our number and a peer's.
    fn of(&self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::Speed | Self::Accuracy { .. } => peer / ours,
            Self::CostPerFlop { flops_ratio } => ours / peer / flops_ratio,
        }
    }

    fn better(&self) -> Better {
        match self {
            Self::Speed | Self::Accuracy { .. } => Better::More,
            Self::CostPerFlop { .. } => Better::Less,
        }
    }
}

impl Better {
    /// How far beyond the goal, as a factor: 1 is just good enough.
    fn margin(self, ratio: f64, goal: f64) -> f64 {
        match self {
            Self::More => ratio / goal,
            Self::Less => goal / ratio,
        }
    }

    fn meets(self, ratio: f64, goal: f64) -> bool {
        match self {
            Self::More => ratio >= goal,
            Self::Less => ratio <= goal,
        }
    }

    /// The less good of two ratios.
    fn worse(self, a: f64, b: f64) -> bool {
        match self {
            Self::More => a < b,
            Self::Less => a > b,
        }
    }
}

/// Whom a goal speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Against {
    /// This one.
    Peer(String),
    /// Whoever of the peers is fastest.
    Fastest,
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(name) => f.write_str(name),
            Self::Fastest => f.write_str("the fastest"),
        }
    }
}

/// A goal of one row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    against: Against,
    ratio: f64,
}

/// A comparison, measured: an entry of `target/bench/ratios.json`.
///
/// `ratio`, `goal` and `met` are those of one of the comparisons: of all that have a goal the one with the least margin;
/// without goals the one with the fastest peer. So `met` says whether every goal of the row is met.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) ours_ns: f64,
    pub(super) peers: BTreeMap<String, f64>,
    /// Whom the next three are about.
    pub(super) against: Option<String>,
    pub(super) ratio: Option<f64>,
    pub(super) goal: Option<f64>,
    pub(super) met: Option<bool>,
    pub(super) better: Better,
    /// One for each peer, and one for the fastest where a goal speaks of it.
    pub(super) comparisons: Vec<Comparison>,
}

/// With one peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// Its name.
    pub(super) against: String,
    pub(super) ratio: f64,
    pub(super) goal: Option<f64>,
    pub(super) met: Option<bool>,
}

impl Row {
    /// # Errors
    /// Those of `time`, which says how long a benchmark takes.
    pub(super) fn measure<E>(&self, time: impl Fn(&str) -> Result<f64, E>) -> Result<Entry, E> {
        let ours_ns = time(&self.ours)?;
        let peers = self.peers.iter().map(|(name, benchmark)| Ok((name.clone(), time(benchmark)?)));
        let peers = peers.collect::<Result<BTreeMap<_, _>, _>>()?;
        let better = self.ratio.better();
        let (ours, theirs) = match &self.ratio {
            Ratio::Accuracy { ours, peers } => (*ours, peers),
            Ratio::Speed | Ratio::CostPerFlop { .. } => (ours_ns, &peers),
        };
        let compare = |against: Against, peer: f64| {
            let ratio = self.ratio.of(ours, peer);
            let goal = self.goals.iter().find(|bound| bound.against == against).map(|bound| bound.ratio);
            let met = goal.map(|goal| better.meets(ratio, goal));
            Comparison { against: against.to_string(), ratio, goal, met }
        };
        let each = theirs.iter().map(|(name, &peer)| compare(Against::Peer(name.clone()), peer));
        let mut comparisons: Vec<Comparison> = each.collect();
        let fastest = theirs.values().copied().reduce(f64::min);
        let fastest = fastest.map(|peer| compare(Against::Fastest, peer));
        comparisons.extend(fastest.clone().filter(|fastest| fastest.goal.is_some()));
        let with_goal = comparisons.iter().filter(|comparison| comparison.goal.is_some());
        let margin = |comparison: &Comparison| {
            better.margin(comparison.ratio, comparison.goal.unwrap_or(f64::INFINITY))
        };
        let tightest = with_goal.min_by(|a, b| margin(a).total_cmp(&margin(b))).cloned().or(fastest);
        Ok(Entry {
            id: self.id.clone(),
            ours_ns,
            peers,
            against: tightest.as_ref().map(|comparison| comparison.against.clone()),
            ratio: tightest.as_ref().map(|comparison| comparison.ratio),
            goal: tightest.as_ref().and_then(|comparison| comparison.goal),
            met: tightest.as_ref().and_then(|comparison| comparison.met),
            better,
            comparisons,
        })
    }
}

/// A goal over many rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Summary {
    title: String,
    rows: Vec<String>,
    against: Against,
    worst: f64,
    mean: Option<f64>,
}

/// What is said of many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Statistic {
    Worst,
    GeometricMean,
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worst => "worst",
            Self::GeometricMean => "geometric mean",
        })
    }
}

/// A summary, measured: an entry of `target/bench/summary.json`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) title: String,
    pub(super) statistic: Statistic,
    pub(super) against: String,
    /// How many.
    pub(super) rows: usize,
    /// `None` when nothing of the kind has been measured.
    pub(super) value: Option<f64>,
    pub(super) goal: Option<f64>,
    pub(super) met: Option<bool>,
    /// Id of the row that it is, where it is one.
    pub(super) worst_row: Option<String>,
}

impl Summary {
    /// The worst; and, where it has a goal or there are rows enough, the mean.
    pub(super) fn lines(&self, entries: &[Entry]) -> Vec<Line> {
        let entries = entries.iter().filter(|entry| self.rows.contains(&entry.id));
        let ratios = entries.filter_map(|entry| Some((entry, entry.against(&self.against)?)));
        let ratios: Vec<(&Entry, f64)> = ratios.collect();
        let worst = ratios.iter().copied().reduce(|a, b| if b.0.better.worse(b.1, a.1) { b } else { a });
        let logarithms: f64 = ratios.iter().map(|(_, ratio)| ratio.ln()).sum();
        let mean = worst.map(|_| (logarithms / ratios.len() as f64).exp());
        let line = |statistic, value: Option<f64>, goal: Option<f64>| Line {
            title: self.title.clone(),
            statistic,
            against: self.against.to_string(),
            rows: ratios.len(),
            value,
            goal,
            met: worst.zip(value).zip(goal).map(|((worst, value), goal)| worst.0.better.meets(value, goal)),
            worst_row: worst.filter(|_| statistic == Statistic::Worst).map(|(entry, _)| entry.id.clone()),
        };
        let mut lines = vec![line(Statistic::Worst, worst.map(|(_, ratio)| ratio), Some(self.worst))];
        if self.mean.is_some() || ratios.len() > 1 {
            lines.push(line(Statistic::GeometricMean, mean, self.mean));
        }
        lines
    }
}

impl Entry {
    fn against(&self, whom: &Against) -> Option<f64> {
        let name = whom.to_string();
        self.comparisons.iter().find(|comparison| comparison.against == name).map(|found| found.ratio)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row of benchmarks that are named by their times.
    pub(in super::super) fn entry(row: &str) -> Entry {
        let row: Row = serde_json::from_str(row).unwrap();
        row.measure(|benchmark| benchmark.parse::<f64>()).unwrap()
    }

    fn product(n: usize, faer: f64) -> Entry {
        entry(&format!(
            r#"{{"id": "gemm/{n}", "ours": "100", "peers": {{"faer": "{faer}", "gemm": "90"}}, "ratio": "speed",
                "goals": [{{"against": {{"peer": "faer"}}, "ratio": 1.05}}]}}"#
        ))
    }

    fn summary(text: &str) -> Summary {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn more_speed_is_better_and_less_cost_is_better() {
        let row = |ratio: &str, goal: f64| {
            entry(&format!(
                r#"{{"id": "a", "ours": "5000", "peers": {{"b": "2000"}}, "ratio": {ratio},
                    "goals": [{{"against": {{"peer": "b"}}, "ratio": {goal}}}]}}"#
            ))
        };
        let cost = r#"{"cost_per_flop": {"flops_ratio": 2.0}}"#;
        for (ratio, goal, expected, met, better) in [
            (r#""speed""#, 0.4, 0.4, true, Better::More),
            (r#""speed""#, 0.41, 0.4, false, Better::More),
            (cost, 1.25, 1.25, true, Better::Less),
            (cost, 1.2, 1.25, false, Better::Less),
        ] {
            let entry = row(ratio, goal);
            assert_eq!(
                (entry.ratio, entry.met, entry.better),
                (Some(expected), Some(met), better),
                "{ratio}"
            );
        }
    }

    #[test]
    fn an_accuracy_is_a_ratio_of_errors_and_not_of_times() {
        let entry = entry(
            r#"{"id": "a", "ours": "10", "peers": {"x": "20"}, "goals": [{"against": {"peer": "x"}, "ratio": 5.0}],
                "ratio": {"accuracy": {"ours": 0.001, "peers": {"x": 0.004}}}}"#,
        );
        assert_eq!((entry.ratio, entry.met, entry.ours_ns), (Some(4.0), Some(false), 10.0));
        assert_eq!(entry.peers["x"], 20.0);
    }

    #[test]
    fn a_row_is_judged_by_the_goal_with_the_least_margin() {
        let entry = entry(
            r#"{"id": "a", "ours": "10", "peers": {"x": "20", "y": "12"}, "ratio": "speed",
                "goals": [{"against": {"peer": "x"}, "ratio": 2.5}, {"against": {"peer": "y"}, "ratio": 1.0}]}"#,
        );
        assert_eq!((entry.against.as_deref(), entry.ratio, entry.goal), (Some("x"), Some(2.0), Some(2.5)));
        assert_eq!(entry.met, Some(false));
        let met: Vec<_> = entry.comparisons.iter().map(|comparison| comparison.met).collect();
        assert_eq!(met, [Some(false), Some(true)]);
    }

    #[test]
    fn a_goal_may_speak_of_the_fastest() {
        let entry = entry(
            r#"{"id": "a", "ours": "10", "peers": {"x": "20", "y": "12"}, "ratio": "speed",
                "goals": [{"against": "fastest", "ratio": 1.1}]}"#,
        );
        assert_eq!((entry.against.as_deref(), entry.ratio), (Some("the fastest"), Some(1.2)));
        assert_eq!((entry.comparisons.len(), entry.met), (3, Some(true)));
    }

    #[test]
    fn a_row_without_goals_shows_the_fastest_and_one_without_peers_shows_nothing() {
        let compared = entry(
            r#"{"id": "a", "ours": "10", "peers": {"x": "20", "y": "12"}, "ratio": "speed", "goals": []}"#,
        );
        assert_eq!((compared.ratio, compared.met, compared.comparisons.len()), (Some(1.2), None, 2));
        let alone = entry(r#"{"id": "a", "ours": "10", "peers": {}, "ratio": "speed", "goals": []}"#);
        assert_eq!((alone.ratio, alone.met), (None, None));
    }

    #[test]
    fn ratios_json_has_the_keys_of_the_design() {
        let json = serde_json::to_value(product(128, 120.0)).unwrap();
        for key in ["id", "ours_ns", "peers", "ratio", "goal", "met"] {
            assert!(json.get(key).is_some(), "{key} in {json}");
        }
        assert_eq!((&json["better"], &json["peers"]["faer"]), (&"more".into(), &120.0.into()));
    }

    #[test]
    fn a_summary_is_the_worst_row_and_the_geometric_mean() {
        let entries = [product(128, 200.0), product(129, 50.0), product(200, 800.0), product(16, 1.0)];
        let summary = summary(
            r#"{"title": "gemm, n >= 128", "rows": ["gemm/128", "gemm/129", "gemm/200"], "against": {"peer": "faer"},
                "worst": 0.6, "mean": 1.5}"#,
        );
        let [worst, mean] = &summary.lines(&entries)[..] else { panic!("two lines") };
        assert_eq!((worst.value, worst.met, worst.rows), (Some(0.5), Some(false), 3));
        assert_eq!(worst.worst_row.as_deref(), Some("gemm/129"));
        assert!((mean.value.unwrap() - 2.0).abs() < 1e-12 && mean.met == Some(true), "{mean:?}");
    }

    #[test]
    fn where_less_is_better_the_largest_is_the_worst() {
        let step = |ours: f64| {
            entry(&format!(
                r#"{{"id": "step/{ours}", "ours": "{ours}", "peers": {{"SGD": "10"}}, "goals": [],
                    "ratio": {{"cost_per_flop": {{"flops_ratio": 1.0}}}}}}"#
            ))
        };
        let summary = summary(
            r#"{"title": "step", "rows": ["step/12", "step/11"], "against": {"peer": "SGD"}, "worst": 1.2, "mean": null}"#,
        );
        let lines = summary.lines(&[step(12.0), step(11.0)]);
        assert_eq!((lines[0].value, lines[0].met), (Some(1.2), Some(true)));
        assert_eq!((lines[1].goal, lines[1].met), (None, None));
    }

    #[test]
    fn a_goal_without_rows_is_neither_met_nor_missed() {
        let summary = summary(
            r#"{"title": "gemv", "rows": [], "against": {"peer": "faer"}, "worst": 0.95, "mean": null}"#,
        );
        let lines = summary.lines(&[product(128, 1.0)]);
        let [line] = &lines[..] else { panic!("one line") };
        assert_eq!((line.value, line.goal, line.met, line.rows), (None, Some(0.95), None, 0));
    }
}
