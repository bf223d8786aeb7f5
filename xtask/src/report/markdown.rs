//! results.md: summary and tables, short enough for an issue.

use super::{Report, text};
use kfac_train::claims::{ClaimRecord, Row, Side};

/// The whole document.
pub(crate) fn render(report: &Report) -> String {
    let head = &report.head;
    let commit = head.versions.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let mut lines = vec![
        "# K-FAC: claims re-measured".into(),
        String::new(),
        escape(&report.tally()),
        String::new(),
        format!("- {}, {}", escape(&head.date), escape(&head.command)),
        format!(
            "- {}, {} cores, {}; workspace {}{}; {}",
            escape(&head.machine.cpu),
            head.machine.cores,
            escape(&head.machine.system),
            escape(&head.versions.workspace),
            escape(&commit),
            escape(&head.versions.rustc)
        ),
        format!(
            "- profile {}; seeds {}; runs at a time {}; wall time {}; times of runs are {}, evaluation excluded",
            escape(&head.profile),
            head.seeds,
            head.threads,
            text::duration(head.wall_seconds),
            escape(&head.clock)
        ),
        String::new(),
    ];
    summary(&mut lines, &report.claims);
    for claim in &report.claims {
        section(&mut lines, claim);
    }
    lines.join("\n") + "\n"
}

/// The text as one line that Markdown (with tables and embedded HTML) shows unchanged.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' => escaped.extend(['\\', c]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// [`escape`], for a text that begins a line or a list item, where `-`, `+` and `1.` would begin a list.
fn escape_at_start(text: &str) -> String {
    let escaped = escape(text.trim_start());
    let digits = escaped.bytes().take_while(u8::is_ascii_digit).count();
    match escaped.as_bytes().get(digits) {
        Some(b'-' | b'+' | b'=') if digits == 0 => format!("\\{escaped}"),
        Some(b'.' | b')') if digits > 0 => format!("{}\\{}", &escaped[..digits], &escaped[digits..]),
        _ => escaped,
    }
}

fn table(lines: &mut Vec<String>, header: &[&str], rows: &[Vec<String>]) {
    lines.push(format!("| {} |", header.join(" | ")));
    lines.push(format!("|{}", "---|".repeat(header.len())));
    lines.extend(rows.iter().map(|row| format!("| {} |", row.join(" | "))));
    lines.push(String::new());
}

fn summary(lines: &mut Vec<String>, claims: &[ClaimRecord]) {
    if claims.is_empty() {
        lines.extend(["No claim was run.".into(), String::new()]);
        return;
    }
    let rows = claims.iter().flat_map(|claim| claim.rows.iter().map(move |row| (claim, row)));
    let rows: Vec<_> = rows
        .map(|(claim, row)| {
            vec![
                escape(&claim.title),
                escape(&row.task),
                escape(&row.target),
                escape(&text::contenders(row)),
                text::ratio(row),
                text::optional(row.time_ratio),
                escape(&row.bar),
                format!("**{}**", row.verdict.words()),
            ]
        })
        .collect();
    let header =
        ["claim", "task", "target", "contenders", "ratio of updates", "ratio of time", "bar", "verdict"];
    table(lines, &header, &rows);
    lines.extend([
        "Ratios are baseline over method, medians over the seeds (smallest to largest).".into(),
        String::new(),
    ]);
}

fn section(lines: &mut Vec<String>, claim: &ClaimRecord) {
    lines.extend([format!("## {}", escape(&claim.title)), String::new()]);
    lines.extend([format!("> {}", escape_at_start(&claim.claim)), String::new()]);
    lines.extend([format!("Source: {}", escape(&claim.source)), String::new()]);
    if claim.rows.is_empty() {
        lines.extend(["No row was measured.".into(), String::new()]);
    }
    for row in &claim.rows {
        measured(lines, row);
    }
    if !claim.notes.is_empty() {
        lines.extend(claim.notes.iter().map(|note| format!("- {}", escape_at_start(note))));
        lines.push(String::new());
    }
}

fn measured(lines: &mut Vec<String>, row: &Row) {
    lines.extend([format!("### {}", escape(&row.task)), String::new()]);
    lines.extend([
        format!(
            "Target {}. **{}**: ratio of updates {}, of time {}; bar {}. {}",
            escape(&row.target),
            row.verdict.words(),
            text::ratio(row),
            text::optional(row.time_ratio),
            escape(&row.bar),
            escape(&row.remark)
        ),
        String::new(),
    ]);
    let (method, baseline) = (&row.method, &row.baseline);
    let n_seeds = method.seeds.len().max(baseline.seeds.len());
    let mut rows = Vec::new();
    for index in 0..n_seeds {
        let results = [method.seeds.get(index), baseline.seeds.get(index)];
        let mut cells = vec![text::seeds(results)];
        for result in results {
            match result {
                Some(result) => {
                    let why = result.failure.as_ref().map(|failure| format!(": {}", escape(failure)));
                    cells.push(text::updates(result) + &why.unwrap_or_default());
                    cells.push(text::examples(result));
                    cells.push(text::optional(result.seconds));
                    cells.push(text::number(result.final_value));
                }
                None => cells.extend(["not run", "–", "–", "–"].map(String::from)),
            }
        }
        rows.push(cells);
    }
    let names = [escape(&method.name), escape(&baseline.name)];
    let [method_updates, baseline_updates] = names.clone().map(|name| format!("{name}: updates"));
    let header = [
        "seed",
        &method_updates,
        "examples",
        "seconds",
        "final",
        &baseline_updates,
        "examples",
        "seconds",
        "final",
    ];
    table(lines, &header, &rows);
    for (name, side) in names.iter().zip([method, baseline]) {
        let each = text::number(side.milliseconds_per_update);
        lines.push(format!("- {name}: {each} ms per update; {}", settings(side)));
    }
    let search = &row.search;
    let place = text::optimum(search.optimum);
    let runs = text::count(search.runs as u64);
    lines.push(format!("- search for the baseline over {}: {runs} runs; {place}", escape(&search.grid)));
    if !search.leaders.is_empty() {
        let leaders = search.leaders.iter();
        let leaders =
            leaders.map(|(setting, value)| format!("{} ({})", escape(setting), text::number(*value)));
        lines.push(format!("- best settings: {}", leaders.collect::<Vec<_>>().join("; ")));
    }
    if !search.per_seed_oracle.is_empty() {
        let oracle = search.per_seed_oracle.iter();
        let oracle = oracle.map(|updates| text::oracle(Some(*updates)));
        let oracle = oracle.collect::<Vec<_>>().join("; ");
        lines.push(format!("- fewest updates of any run of the search, seed by seed: {oracle}"));
    }
    lines.push(String::new());
}

fn settings(side: &Side) -> String {
    if side.settings.is_empty() {
        return "no settings".into();
    }
    let pairs = side.settings.iter().map(|(key, value)| format!("{} {}", escape(key), escape(value)));
    pairs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;

    #[test]
    fn hostile_text_neither_breaks_a_table_nor_becomes_markup() {
        let report = Report { claims: vec![made_up::hostile()], ..made_up::report() };
        let document = render(&report);
        assert!(!document.contains("<script") && !document.contains('\u{0}'), "{document}");
        let mut width = None;
        for line in document.lines() {
            if line.starts_with('|') {
                let bars = line.replace("\\|", "").matches('|').count();
                assert_eq!(*width.get_or_insert(bars), bars, "{line}");
            } else {
                width = None;
            }
        }
        let backticks = document.replace("\\`", "");
        assert!(!backticks.contains('`'), "{document}");
    }

    #[test]
    fn a_text_at_the_start_of_an_item_does_not_begin_a_list() {
        let texts =
            ["- a", "+ a", "12. a", "1) a", "12.5 is a number", "plain", "", "  - a"].map(escape_at_start);
        let expected = ["\\- a", "\\+ a", "12\\. a", "1\\) a", "12\\.5 is a number", "plain", "", "\\- a"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_empty_report_says_so() {
        let report = Report { claims: Vec::new(), ..made_up::report() };
        assert!(render(&report).contains("No claim was run."));
        let report = Report { claims: vec![made_up::empty()], ..made_up::report() };
        assert!(render(&report).contains("No row was measured."));
    }
}
