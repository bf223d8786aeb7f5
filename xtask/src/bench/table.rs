//! What `cargo xtask bench` prints at the end.

use super::Conditions;
use super::ratios::{Comparison, Entry, Line};

/// Conditions, a line per row, a line per goal, and how many goals are met.
pub(super) fn render(conditions: &Conditions, entries: &[Entry], lines: &[Line]) -> String {
    let parts = [head(conditions), rows(entries), goals(lines), count(lines)];
    parts.iter().filter(|part| !part.is_empty()).map(|part| format!("\n{part}")).collect()
}

fn head(Conditions { machine, build, measurement, packages }: &Conditions) -> String {
    let mut cells = vec![
        ["machine".into(), machine.clone()],
        ["build".into(), format!("{build}; one executable for all contenders")],
        ["times".into(), format!("median of {} rounds, in turns; {}", measurement.rounds, measurement.clock)],
        ["kfac-linalg".into(), measurement.instructions.clone()],
    ];
    cells.extend(packages.iter().map(|(name, package)| [name.clone(), package.clone()]));
    aligned(&cells)
}

fn rows(entries: &[Entry]) -> String {
    let title = ["id", "ours", "met", "peers: time, ratio, goal"].map(String::from).to_vec();
    let row = |entry: &Entry| {
        let fixed = [entry.id.clone(), time(entry.ours_ns), met(entry.met).into()];
        let compared = entry.comparisons.iter().map(|comparison| cell(entry, comparison));
        fixed.into_iter().chain(compared).collect()
    };
    aligned(&std::iter::once(title).chain(entries.iter().map(row)).collect::<Vec<Vec<String>>>())
}

/// `faer 38.61 us: 0.862 (goal 1.05, NO)`. A digit more than goals have, so that a near miss is seen to be one.
fn cell(entry: &Entry, Comparison { against, ratio, goal, met }: &Comparison) -> String {
    let time = entry.peers.get(against).map(|&ns| format!(" {}", time(ns))).unwrap_or_default();
    let goal = match (goal, met) {
        (Some(goal), Some(false)) => format!(" (goal {goal:.2}, NO)"),
        (Some(goal), _) => format!(" (goal {goal:.2})"),
        (None, _) => String::new(),
    };
    format!("{against}{time}: {ratio:.3}{goal}")
}

fn goals(lines: &[Line]) -> String {
    let title = ["goal", "measured", "goal", "met", "rows", "worst row"].map(String::from);
    let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
    let rows = lines.iter().map(|line| {
        [
            format!("{}: {} against {}", line.title, line.statistic, line.against),
            line.value.map_or_else(|| "not measured".into(), |value| format!("{value:.3}")),
            number(line.goal),
            met(line.met).into(),
            line.rows.to_string(),
            line.worst_row.clone().unwrap_or_default(),
        ]
    });
    aligned(&std::iter::once(title).chain(rows).collect::<Vec<_>>())
}

fn count(lines: &[Line]) -> String {
    let goals: Vec<&Line> = lines.iter().filter(|line| line.goal.is_some()).collect();
    let count = |met| goals.iter().filter(|line| line.met == met).count();
    let (met, missed, unknown) = (count(Some(true)), count(Some(false)), count(None));
    format!("{} goals: {met} met, {missed} missed, {unknown} not measured\n", goals.len())
}

fn met(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn aligned(rows: &[impl AsRef<[String]>]) -> String {
    let mut widths = Vec::new();
    for cells in rows.iter().map(AsRef::as_ref) {
        widths.resize(cells.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(|cells| line(cells.as_ref())).collect()
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
    use super::super::Measurement;
    use super::super::ratios::Statistic;
    use super::super::ratios::tests::entry;
    use super::*;
    use std::collections::BTreeMap;

    fn conditions() -> Conditions {
        Conditions {
            machine: "A Chip, 2 cores, an OS".into(),
            build: "rustc 1.95.0, no RUSTFLAGS".into(),
            measurement: Measurement {
                rounds: 21,
                clock: "CPU time".into(),
                instructions: "AVX-512".into(),
                packages: vec!["faer".into()],
            },
            packages: BTreeMap::from([("faer".into(), "0.24.4 (linalg, std)".into())]),
        }
    }

    fn line(value: Option<f64>, met: Option<bool>) -> Line {
        Line {
            title: "gemm f32, n = 128 to 1024".into(),
            statistic: Statistic::GeometricMean,
            against: "faer".into(),
            rows: 2,
            value,
            goal: Some(1.05),
            met,
            worst_row: value.map(|_| "gemm/f32/129/nt".into()),
        }
    }

    #[test]
    fn the_head_names_machine_instructions_rounds_and_every_peer() {
        let text = render(&conditions(), &[], &[]);
        for part in
            ["A Chip", "AVX-512", "median of 21 rounds", "rustc 1.95.0", "faer         0.24.4 (linalg, std)"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_missed_goal_is_said_plainly_in_its_row_and_beside_its_peer() {
        let row = entry(
            r#"{"id": "gemm/f32/128/nn", "ours": "20000", "peers": {"faer": "18000", "matrixmultiply": "26000"},
                "ratio": "speed", "goals": [{"against": {"peer": "faer"}, "ratio": 1.05},
                                            {"against": {"peer": "matrixmultiply"}, "ratio": 1.15}]}"#,
        );
        assert_eq!(
            rows(&[row]),
            "id               ours      met  peers: time, ratio, goal\n\
             gemm/f32/128/nn  20.00 us  NO   faer 18.00 us: 0.900 (goal 1.05, NO)  matrixmultiply 26.00 us: 1.300 (goal 1.15)\n"
        );
    }

    #[test]
    fn the_fastest_has_a_ratio_and_no_time_of_its_own() {
        let row = entry(
            r#"{"id": "a", "ours": "1e9", "peers": {"x": "2e9"}, "ratio": "speed",
                "goals": [{"against": "fastest", "ratio": 1.4}]}"#,
        );
        let text = rows(&[row]);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words.join(" "), "a 1.00 s yes x 2.00 s: 2.000 the fastest: 2.000 (goal 1.40)");
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let lines = [line(Some(1.1), Some(true)), line(Some(0.9), Some(false)), line(None, None)];
        let text = goals(&lines);
        let starts = |index: usize, end: &str| {
            let line = text.lines().nth(index).unwrap();
            assert!(line.starts_with("gemm f32, n = 128 to 1024: geometric mean against faer"), "{line}");
            assert!(line.ends_with(end), "{line}");
        };
        starts(1, "1.100         1.05  yes  2     gemm/f32/129/nt");
        starts(2, "0.900         1.05  NO   2     gemm/f32/129/nt");
        starts(3, "not measured  1.05  -    2");
        assert_eq!(count(&lines), "3 goals: 1 met, 1 missed, 1 not measured\n");
    }
}
