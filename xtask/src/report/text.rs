//! Numbers in words and figures, the same in every format of the report.

use kfac_train::claims::{Optimum, Row, SeedResult};

/// A number to four significant digits, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "not finite".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    // Rounded first: 9.99996 has two digits before the point at this precision, not one.
    let scientific = format!("{value:.3e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("format {:e} prints an exponent");
    let exponent: i32 = exponent.parse().expect("format {:e} prints a number after the e");
    if (-3..5).contains(&exponent) {
        let fixed = format!("{value:.*}", usize::try_from(3 - exponent).unwrap_or(0));
        trimmed(&fixed).into()
    } else {
        format!("{}e{exponent}", trimmed(mantissa))
    }
}

fn trimmed(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

/// `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A dash where there is no finite number.
pub(crate) fn optional(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "–".into(), number)
}

/// The ratio of a row with its range over the seeds.
pub(crate) fn ratio(row: &Row) -> String {
    match row.ratio_range {
        // One seed has no spread.
        Some([low, high]) if row.method.seeds.len() > 1 => {
            format!("{} ({} to {})", optional(row.ratio), number(low), number(high))
        }
        _ => optional(row.ratio),
    }
}

/// Who is compared with whom.
pub(crate) fn contenders(row: &Row) -> String {
    format!("{} against {}", row.method.name, row.baseline.name)
}

/// The seed of a line with the results of both sides: one number, unless they differ.
pub(crate) fn seeds(results: [Option<&SeedResult>; 2]) -> String {
    let mut seeds: Vec<String> = results.iter().flatten().map(|result| result.seed.to_string()).collect();
    seeds.dedup();
    if seeds.is_empty() { "–".into() } else { seeds.join(" / ") }
}

/// Updates of one seed, or that they were not enough.
pub(crate) fn updates(result: &SeedResult) -> String {
    match result.updates {
        Some(updates) => count(updates),
        None => format!("not reached in {}", count(result.budget)),
    }
}

/// Examples of one seed, or a dash.
pub(crate) fn examples(result: &SeedResult) -> String {
    result.examples.map_or_else(|| "–".into(), count)
}

/// Updates with the best setting of one seed; `None` when the seed has none.
pub(crate) fn oracle(updates: Option<Option<u64>>) -> String {
    match updates {
        None => "not run".into(),
        Some(None) => "not reached".into(),
        Some(Some(updates)) => count(updates),
    }
}

/// What the place of the optimum means for the reader.
pub(crate) fn optimum(optimum: Optimum) -> &'static str {
    match optimum {
        Optimum::Interior => "interior: every neighbour was run, none is better",
        Optimum::Edge => "edge of the grid: the baseline may be better than printed",
        Optimum::Unfinished => {
            "unfinished: the rounds were used up while settings still got better, the baseline may be better than printed"
        }
        Optimum::NoScore => "none: no setting came through",
    }
}

/// `1 h 02 min`, `3 min 20 s`, `4.2 s`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".into();
    }
    let whole = seconds.round();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if whole < 3600.0 {
        format!("{} min {:02} s", (whole / 60.0).floor(), whole % 60.0)
    } else {
        format!("{} h {:02} min", (whole / 3600.0).floor(), (whole % 3600.0 / 60.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (12.3456, "12.35"),
            (9.99996, "10"),
            (0.01, "0.01"),
            (-0.0012345, "-0.001234"),
            (0.00012, "1.2e-4"),
            (12_345.6, "12346"),
            (99_999.4, "1e5"),
            (1e5, "1e5"),
            (1.5e300, "1.5e300"),
            (5e-324, "4.941e-324"),
            (f64::NAN, "not finite"),
            (f64::INFINITY, "not finite"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text, "{value:e}");
        }
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1000, 1_234_567, u64::MAX].map(count);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn durations_read_like_a_clock() {
        let texts = [4.21, 59.97, 200.4, 3599.7, 3720.0, f64::NAN].map(duration);
        assert_eq!(texts, ["4.2 s", "60.0 s", "3 min 20 s", "1 h 00 min", "1 h 02 min", "unknown"]);
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        assert_eq!([None, Some(f64::NAN), Some(2.5)].map(optional), ["–", "–", "2.5"]);
    }
}
