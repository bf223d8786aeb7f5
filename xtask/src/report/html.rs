//! report.html: one self-contained page without scripts.
//!
//! Every text of a record goes through [`escape`]; only the markup of this file is markup.

use super::figures::{self, Drawing, Entry};
use super::head::Head;
use super::{Report, text};
use kfac_train::claims::{ClaimRecord, Figure, Row, Search, SeedResult, Side, Verdict};

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub(crate) fn render(report: &Report) -> String {
    let sections: Vec<String> =
        report.claims.iter().enumerate().map(|(index, claim)| section(index, claim)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>K-FAC: claims re-measured</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         {head}{summary}{sections}</body>\n</html>\n",
        head = head(report),
        summary = summary(report),
        sections = sections.concat(),
    )
}

/// The text for an HTML element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(report: &Report) -> String {
    let Head {
        date,
        command,
        profile,
        seeds,
        threads,
        data,
        clock,
        machine,
        versions,
        wall_seconds,
        timings,
    } = &report.head;
    let commit = versions.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let resumed = timings.iter().filter(|timing| timing.resumed).map(|timing| timing.claim.as_str());
    let mut wall = text::duration(*wall_seconds);
    if timings.iter().any(|timing| timing.resumed) {
        wall += ", of which taken over from an interrupted run with the same settings and executable: ";
        wall += &resumed.collect::<Vec<_>>().join(", ");
    }
    let facts = [
        ("Date", date.clone()),
        ("Machine", format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.system)),
        ("Versions", format!("workspace {}{commit}; {}", versions.workspace, versions.rustc)),
        ("Profile", format!("{profile}; seeds per contender: {seeds}; runs at a time: {threads}")),
        ("Data", data.clone().unwrap_or_else(|| "embedded and generated only (no --data)".into())),
        ("Times of runs", format!("{clock}, evaluation excluded")),
        ("Wall time of all", wall),
    ];
    let facts = facts.map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value))).concat();
    format!(
        "<header>\n<h1>K-FAC: claims re-measured</h1>\n<p class=\"lead\">{}</p>\n\
         <dl class=\"run\">\n{facts}<dt>Command</dt><dd><code>{}</code></dd>\n</dl>\n</header>\n",
        escape(&sentence(&report.tally())),
        escape(command)
    )
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

fn verdict(verdict: Verdict) -> String {
    let class = match verdict {
        Verdict::Holds => "holds",
        Verdict::HoldsInPart => "holds-in-part",
        Verdict::DoesNotHold => "does-not-hold",
        Verdict::NotMeasured => "not-measured",
    };
    format!("<span class=\"verdict {class}\">{}</span>", verdict.words())
}

fn summary(report: &Report) -> String {
    if report.claims.is_empty() {
        return "<h2>Verdicts</h2>\n<p>No claim was run.</p>\n".into();
    }
    let claims = report.claims.iter().enumerate();
    let lines: String = claims.map(|(index, claim)| summary_lines(index, claim)).collect();
    format!(
        "<h2>Verdicts</h2>\n<div class=\"scroll\"><table class=\"summary\">\n\
         <thead><tr><th>Verdict</th><th>Claim</th><th>Task and target</th>\
         <th class=\"num\">Ratio of updates</th><th class=\"num\">Ratio of time</th><th>Bar</th></tr></thead>\n\
         <tbody>\n{lines}</tbody></table></div>\n\
         <p class=\"soft small\">Ratios are baseline over method: above 1, the method needs less. They are medians \
         over the seeds; in brackets the smallest and the largest over the seeds where both sides arrived. \
         A dash: the median run of a side did not arrive.</p>\n"
    )
}

fn summary_lines(index: usize, claim: &ClaimRecord) -> String {
    let link = format!("<a href=\"#claim-{index}\">{}</a>", escape(&claim.title));
    if claim.rows.is_empty() {
        return format!(
            "<tr><td></td><td>{link}</td><td colspan=\"4\" class=\"soft\">no row was measured</td></tr>\n"
        );
    }
    let lines = claim.rows.iter().map(|row| {
        format!(
            "<tr><td>{}</td><td>{link}</td><td>{}<br><span class=\"soft small\">{}<br>{}</span></td>\
             <td class=\"num\">{}</td><td class=\"num\">{}</td><td>{}</td></tr>\n",
            verdict(row.verdict),
            escape(&row.task),
            escape(&row.target),
            escape(&text::contenders(row)),
            text::ratio(row),
            text::optional(row.time_ratio),
            escape(&row.bar)
        )
    });
    lines.collect()
}

fn section(index: usize, claim: &ClaimRecord) -> String {
    let ClaimRecord { name, title, claim: statement, source, rows, figures, notes } = claim;
    let figures: String = figures.iter().map(figure).collect();
    let rows: String = rows.iter().map(row).collect();
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    // A heading over nothing is left out.
    let unless_empty = |content: String, [before, after]: [&str; 2], otherwise: &str| {
        if content.is_empty() { otherwise.to_owned() } else { format!("{before}{content}{after}") }
    };
    format!(
        "<section id=\"claim-{index}\">\n<h2>{}</h2>\n<blockquote><p>{}</p></blockquote>\n\
         <p class=\"soft small\">Source: {}</p>\n\
         <p class=\"soft small\">Run it alone: <code>cargo xtask reproduce --claim {}</code></p>\n\
         {}{}{}</section>\n",
        escape(title),
        escape(statement),
        escape(source),
        escape(name),
        unless_empty(figures, ["<div class=\"figures\">\n", "</div>\n"], ""),
        unless_empty(rows, ["", ""], "<p>No row was measured.</p>\n"),
        unless_empty(notes, ["<h3>Notes</h3>\n<ul>\n", "</ul>\n"], ""),
    )
}

fn figure(figure: &Figure) -> String {
    let Drawing { svg, legend, left_out } = figures::draw(figure);
    let label = format!("{}: {} over {}", figure.title, figure.y_label, figure.x_label);
    let picture = match svg {
        Some(svg) => {
            format!("<div class=\"picture\" role=\"img\" aria-label=\"{}\">\n{svg}</div>", escape(&label))
        }
        None => "<p class=\"soft\">There is no point to draw.</p>".into(),
    };
    let entries: String = legend.iter().map(legend_entry).collect();
    let target = figure.target.filter(|target| target.is_finite());
    let target = target.map(|y| format!("<li><i class=\"target\"></i>target {}</li>\n", text::number(y)));
    let left_out = left_out.sentence().map(|sentence| format!("<p class=\"soft small\">{sentence}</p>\n"));
    format!(
        "<figure>\n<h3>{}</h3>\n{picture}\n<figcaption>\n<ul class=\"legend\">\n{entries}{}</ul>\n{}\
         </figcaption>\n</figure>\n",
        escape(&figure.title),
        target.unwrap_or_default(),
        left_out.unwrap_or_default()
    )
}

fn legend_entry(entry: &Entry) -> String {
    let Entry { label, colour, dashed, curves } = entry;
    let class = if *dashed { " class=\"dashed\"" } else { "" };
    let runs =
        if *curves == 1 { String::new() } else { format!(" <span class=\"soft\">({curves} runs)</span>") };
    format!("<li><i{class} style=\"border-color:{colour}\"></i>{}{runs}</li>\n", escape(label))
}

/// Columns of one side in the table of a row.
const SIDE_COLUMNS: &str = "<th class=\"num start\">Updates</th><th class=\"num\">Examples</th>\
                            <th class=\"num\">Seconds</th><th class=\"num\">Final value</th>";

fn row(row: &Row) -> String {
    let Row { task, target, method, baseline, search, time_ratio, bar, remark, .. } = row;
    let oracle = &search.per_seed_oracle;
    let n_seeds = method.seeds.len().max(baseline.seeds.len()).max(oracle.len());
    let seeds: String = (0..n_seeds).map(|index| seed_line(row, index)).collect();
    // The column of the oracle is there when it was run.
    let [oracle_head, oracle_gap, width] = match oracle.is_empty() {
        true => ["", "", "8"],
        false => [
            "<th rowspan=\"2\" class=\"num start\">Fewest in<br>the search</th>",
            "<td class=\"start\"></td>",
            "9",
        ],
    };
    let both = |name: &str, cell: fn(&Side) -> String| {
        let cells =
            [method, baseline].map(|side| format!("<td colspan=\"4\" class=\"start\">{}</td>", cell(side)));
        format!("<tr><th>{name}</th>{}{oracle_gap}</tr>\n", cells.concat())
    };
    format!(
        "<article class=\"row\">\n<h3>{}</h3>\n<p class=\"soft small\">Target: {}</p>\n\
         <p>{} Ratio of updates <strong>{}</strong>, of time {}; bar {}. {}</p>\n\
         <div class=\"scroll\"><table>\n<thead>\n<tr><th rowspan=\"2\">Seed</th>{}{oracle_head}</tr>\n\
         <tr>{SIDE_COLUMNS}{SIDE_COLUMNS}</tr>\n</thead>\n<tbody>\n{seeds}{}{}\
         <tr><th>Search</th><td colspan=\"{width}\" class=\"start\">{}</td></tr>\n\
         </tbody></table></div>\n</article>\n",
        escape(task),
        escape(target),
        verdict(row.verdict),
        text::ratio(row),
        text::optional(*time_ratio),
        escape(bar),
        escape(remark),
        [method, baseline]
            .map(|side| format!("<th colspan=\"4\" class=\"side start\">{}</th>", escape(&side.name)))
            .concat(),
        both("Per update", |side| format!("{} ms", text::number(side.milliseconds_per_update))),
        both("Settings", settings),
        searched(search)
    )
}

/// The results of one seed; below them why a run ended, where one ended by an error.
fn seed_line(row: &Row, index: usize) -> String {
    let oracle = &row.search.per_seed_oracle;
    let results = [row.method.seeds.get(index), row.baseline.seeds.get(index)];
    let oracle_cell = if oracle.is_empty() {
        String::new()
    } else {
        format!("<td class=\"num start\">{}</td>", text::oracle(oracle.get(index).copied()))
    };
    let mut lines = format!(
        "<tr><th>{}</th>{}{oracle_cell}</tr>\n",
        text::seeds(results),
        results.map(seed_cells).concat()
    );
    let failures = results.map(|result| result.and_then(|result| result.failure.as_deref()));
    if failures.iter().any(Option::is_some) {
        let cells = failures.map(|failure| {
            let why = failure.map(|failure| format!("stopped: {}", escape(failure))).unwrap_or_default();
            format!("<td colspan=\"4\" class=\"start\">{why}</td>")
        });
        let gap = if oracle.is_empty() { "" } else { "<td class=\"start\"></td>" };
        lines += &format!("<tr class=\"why\"><th></th>{}{gap}</tr>\n", cells.concat());
    }
    lines
}

fn seed_cells(result: Option<&SeedResult>) -> String {
    let Some(result) = result else { return "<td colspan=\"4\" class=\"start soft\">not run</td>".into() };
    let missed = if result.updates.is_none() { " missed" } else { "" };
    format!(
        "<td class=\"num start{missed}\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>\
         <td class=\"num\">{}</td>",
        text::updates(result),
        text::examples(result),
        text::optional(result.seconds),
        text::number(result.final_value)
    )
}

fn settings(side: &Side) -> String {
    if side.settings.is_empty() {
        return "<span class=\"soft\">none</span>".into();
    }
    let pairs = side.settings.iter();
    let pairs: String =
        pairs.map(|(key, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(key), escape(value))).collect();
    format!("<dl class=\"settings\">{pairs}</dl>")
}

fn searched(search: &Search) -> String {
    let leaders = search.leaders.iter();
    let leaders: String = leaders
        .map(|(setting, value)| format!("<li>{}: {}</li>", escape(setting), text::number(*value)))
        .collect();
    let leaders = if leaders.is_empty() {
        leaders
    } else {
        format!(" Best settings, with the value they were ranked by:<ol class=\"leaders\">{leaders}</ol>")
    };
    format!(
        "Baseline over {}: {} runs. Optimum: {}.{leaders}",
        escape(&search.grid),
        text::count(search.runs as u64),
        text::optimum(search.optimum)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;

    #[test]
    fn no_text_of_a_record_becomes_markup() {
        let report = Report { claims: vec![made_up::hostile()], ..made_up::report() };
        let page = render(&report);
        for forbidden in ["<script", "<img", "onerror=\"", "\u{0}"] {
            assert!(!page.contains(forbidden), "{forbidden:?} is in the page");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let page = render(&made_up::report());
        for outside in ["src=", "@import", "url(", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let links = page.matches("http").count();
        assert_eq!(links, page.matches("http://www.w3.org/2000/svg").count(), "only the name space of SVG");
    }

    #[test]
    fn every_field_of_a_record_is_on_the_page() {
        let claim = made_up::claim();
        let report = Report { claims: vec![claim.clone()], ..made_up::report() };
        let page = render(&report);
        let row = &claim.rows[0];
        let mut texts = vec![&claim.name, &claim.title, &claim.claim, &claim.source, &claim.notes[0]];
        texts.extend([&row.task, &row.target, &row.bar, &row.remark, &row.search.grid]);
        for side in [&row.method, &row.baseline] {
            texts.push(&side.name);
            texts.extend(side.settings.iter().flat_map(|(key, value)| [key, value]));
        }
        texts.extend(row.search.leaders.iter().map(|(setting, _)| setting));
        for text in texts {
            assert!(page.contains(&escape(text)), "{text}");
        }
        for result in row.method.seeds.iter().chain(&row.baseline.seeds) {
            assert!(page.contains(&text::updates(result)), "{result:?}");
        }
    }

    #[test]
    fn a_seed_that_did_not_arrive_says_after_how_many_updates_and_why() {
        let mut row = made_up::claim().rows[0].clone();
        let result = &mut row.method.seeds[1];
        (result.updates, result.budget, result.failure) = (None, 20_000, Some("budget <spent>".into()));
        let lines = seed_line(&row, 1);
        assert!(lines.contains("missed\">not reached in 20,000</td>"), "{lines}");
        assert!(lines.contains("stopped: budget &lt;spent&gt;</td>"), "{lines}");
        assert_eq!(seed_line(&row, 0).matches("<tr").count(), 1, "nothing to explain");
    }

    #[test]
    fn nothing_to_show_is_said_in_words() {
        let report = Report { claims: Vec::new(), ..made_up::report() };
        assert!(render(&report).contains("No claim was run."));
        let report = Report { claims: vec![made_up::empty()], ..made_up::report() };
        let page = render(&report);
        assert!(page.contains("No row was measured.") && page.contains("There is no point to draw."));
    }

    #[test]
    fn elements_are_closed_in_the_order_in_which_they_were_opened() {
        let mut report = made_up::report();
        report.claims.extend([made_up::hostile(), made_up::empty()]);
        let page = render(&report);
        let mut open: Vec<&str> = Vec::new();
        let body = page.find("<body>").unwrap();
        for tag in page[body..].split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
            if let Some(closing) = tag.strip_prefix('/') {
                if closing != "html" {
                    assert_eq!(open.pop(), Some(closing), "<{tag}>");
                }
            } else if !tag.ends_with('/') && name != "br" {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
