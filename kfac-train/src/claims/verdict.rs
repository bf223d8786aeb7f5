//! From two sides of a row to its ratios and verdict.

use super::{Optimum, Row, Search, Side, Verdict};
use crate::trainer::Clock;

/// What a row is held against. Each claim says in a note why its bar lies where it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    /// The claim holds where the median ratio reaches this.
    pub(super) holds: f64,
    /// It holds in part where the ratio reaches this.
    pub(super) in_part: f64,
}

/// What a row asks.
pub(super) struct Question {
    pub(super) task: String,
    /// What has to be reached, in words.
    pub(super) target: String,
    pub(super) bar: Bar,
    /// Seeds on which there is something to reach: a target that the baseline sets is missing where it failed, or
    /// never got below its start.
    pub(super) seeds_with_target: usize,
}

/// The finished row.
pub(super) fn judged(question: Question, method: Side, baseline: Side, search: Search) -> Row {
    let Question { task, target, bar, seeds_with_target } = question;
    let ratio = quotient(&baseline, &method, |seed| seed.updates.map(|updates| updates as f64));
    let time_ratio = ratio.and_then(|_| quotient(&baseline, &method, |seed| seed.seconds));
    let pairs = method.seeds.iter().zip(&baseline.seeds);
    let ratios = pairs.filter_map(|(ours, theirs)| Some(theirs.updates? as f64 / ours.updates? as f64));
    let ratio_range = ratios.fold(None, |range: Option<[f64; 2]>, ratio| {
        Some(range.map_or([ratio; 2], |[low, high]| [low.min(ratio), high.max(ratio)]))
    });
    let (verdict, mut remark) = match nothing_to_compare_with(&baseline, seeds_with_target) {
        Some(sentence) => (Verdict::NotMeasured, sentence.to_owned()),
        None => verdict(bar, [ratio, time_ratio], &method, &baseline, &search),
    };
    if method.seeds.len() == 1 && verdict != Verdict::NotMeasured {
        remark += " One seed: no spread.";
    }
    let bar = format!(">= {}, in part >= {}", bar.holds, bar.in_part);
    Row { task, target, method, baseline, search, ratio, ratio_range, time_ratio, bar, verdict, remark }
}

/// Why the row measures nothing, where it does not.
fn nothing_to_compare_with(baseline: &Side, seeds_with_target: usize) -> Option<&'static str> {
    let finished = baseline.seeds.iter().filter(|seed| seed.failure.is_none()).count();
    let is_minority = |count: usize| 2 * count <= baseline.seeds.len();
    if is_minority(finished) {
        Some("SGD failed on most seeds: there is nothing to compare with.")
    } else if is_minority(seeds_with_target) {
        Some("SGD failed or never got below its start on most seeds: there is nothing to compare with.")
    } else {
        None
    }
}

fn verdict(
    bar: Bar,
    [ratio, time_ratio]: [Option<f64>; 2],
    method: &Side,
    baseline: &Side,
    search: &Search,
) -> (Verdict, String) {
    let ours = median_of(method, |seed| seed.updates.map(|updates| updates as f64));
    if ours.is_infinite() {
        return (Verdict::DoesNotHold, "K-FAC did not reach the target on most seeds.".to_owned());
    }
    // Where the baseline does not arrive, its budget is a lower bound of what it needs.
    let budget = baseline.seeds.first().map_or(0.0, |seed| seed.budget as f64);
    let at_least = ratio.unwrap_or(budget / ours);
    let verdict = match at_least {
        ratio if ratio >= bar.holds => Verdict::Holds,
        ratio if ratio >= bar.in_part => Verdict::HoldsInPart,
        _ => Verdict::DoesNotHold,
    };
    let mut remark = match ratio {
        Some(ratio) if ratio >= 1.0 => format!("{ratio:.1} times fewer updates"),
        Some(ratio) => format!("{:.1} times more updates", 1.0 / ratio),
        None => format!("more than {at_least:.1} times fewer updates: SGD did not arrive on most seeds"),
    };
    let time = Clock::HERE.words();
    remark += &match time_ratio {
        Some(ratio) if ratio >= 1.0 => format!(", {ratio:.1} times less {time}."),
        Some(ratio) => format!(", {:.1} times more {time}.", 1.0 / ratio),
        None => ".".to_owned(),
    };
    remark += match search.optimum {
        Optimum::Interior => "",
        Optimum::Edge => " Edge: the baseline's best setting ends a list, it may be better than printed.",
        Optimum::Unfinished => {
            " Unfinished: the baseline's search ran out of rounds, it may be better than printed."
        }
        Optimum::NoScore => " No setting of the baseline came through its search.",
    };
    (verdict, remark)
}

/// Median of the baseline over median of the method, where both are finite.
fn quotient(
    baseline: &Side,
    method: &Side,
    value: impl Fn(&super::SeedResult) -> Option<f64>,
) -> Option<f64> {
    let quotient = median_of(baseline, &value) / median_of(method, &value);
    (quotient.is_finite() && quotient > 0.0).then_some(quotient)
}

/// Median over the seeds; a seed without a value counts as infinite.
fn median_of(side: &Side, value: impl Fn(&super::SeedResult) -> Option<f64>) -> f64 {
    median(side.seeds.iter().map(|seed| value(seed).unwrap_or(f64::INFINITY)).collect())
}

/// The middle value, the mean of the two middle ones for an even count; NaN for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::SeedResult;
    use super::*;

    fn side<const SEEDS: usize>(updates: [Option<u64>; SEEDS]) -> Side {
        let seeds = (0..).zip(updates).map(|(seed, updates)| SeedResult {
            seed,
            updates,
            examples: None,
            seconds: updates.map(|updates| updates as f64),
            budget: 1_000,
            final_value: 0.0,
            failure: None,
        });
        Side {
            name: String::new(),
            settings: Vec::new(),
            seeds: seeds.collect(),
            milliseconds_per_update: 1.0,
        }
    }

    #[test]
    fn a_baseline_that_fails_on_most_seeds_measures_nothing() {
        let mut failed = side([None; 3]);
        failed.seeds.iter_mut().for_each(|seed| seed.failure = Some("diverged".to_owned()));
        let row = judged(question(0), side([Some(40); 3]), failed, search(Optimum::Interior));
        assert_eq!((row.ratio, row.verdict), (None, Verdict::NotMeasured));
        assert!(row.remark.starts_with("SGD failed on most seeds"), "{}", row.remark);
    }

    /// A baseline that sets the target by its own lowest value, which is that of its start on two seeds of three.
    #[test]
    fn a_row_without_a_target_measures_nothing() {
        let (method, baseline) = (side([Some(40), None, None]), side([Some(400), None, None]));
        let row = judged(question(1), method, baseline, search(Optimum::Interior));
        assert_eq!((row.ratio, row.verdict), (None, Verdict::NotMeasured));
        assert!(row.remark.contains("never got below its start"), "{}", row.remark);
        assert!(row.remark.ends_with("there is nothing to compare with."), "{}", row.remark);
    }

    #[test]
    fn one_seed_has_no_spread_and_the_remark_says_so() {
        let row = |ours| judged(question(1), side([ours]), side([Some(400)]), search(Optimum::Interior));
        for (ours, verdict) in [(Some(40), Verdict::Holds), (None, Verdict::DoesNotHold)] {
            let row = row(ours);
            assert_eq!(row.verdict, verdict);
            assert!(row.remark.ends_with(" One seed: no spread."), "{}", row.remark);
        }
        let three = self::row([Some(40); 3], [Some(400); 3], Optimum::Interior);
        assert!(!three.remark.contains("One seed"), "{}", three.remark);
    }

    fn question(seeds_with_target: usize) -> Question {
        let bar = Bar { holds: 10.0, in_part: 4.0 };
        Question { task: String::new(), target: String::new(), bar, seeds_with_target }
    }

    fn search(optimum: Optimum) -> Search {
        Search { grid: String::new(), runs: 0, optimum, leaders: Vec::new(), per_seed_oracle: Vec::new() }
    }

    fn row(method: [Option<u64>; 3], baseline: [Option<u64>; 3], optimum: Optimum) -> Row {
        judged(question(3), side(method), side(baseline), search(optimum))
    }

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![1.0, f64::INFINITY, f64::INFINITY]), f64::INFINITY);
    }

    #[test]
    fn a_ratio_is_that_of_the_medians_with_its_range_over_the_seeds() {
        let row = row([Some(40), Some(50), Some(30)], [Some(600), None, Some(450)], Optimum::Interior);
        assert_eq!(row.ratio, Some(15.0));
        assert_eq!(row.ratio_range, Some([15.0, 15.0]));
        assert_eq!(row.verdict, Verdict::Holds);
    }

    #[test]
    fn a_baseline_that_never_arrives_counts_with_its_budget() {
        let row = row([Some(40); 3], [None; 3], Optimum::Interior);
        assert_eq!((row.ratio, row.verdict), (None, Verdict::Holds));
        assert!(row.remark.contains("more than 25.0"), "{}", row.remark);
        assert_eq!(row.bar, ">= 10, in part >= 4");
    }

    #[test]
    fn the_remark_says_how_the_search_of_the_baseline_ended() {
        for (optimum, word) in [
            (Optimum::Edge, " Edge: "),
            (Optimum::Unfinished, " Unfinished: "),
            (Optimum::NoScore, " No setting"),
        ] {
            let row = row([Some(40); 3], [Some(400); 3], optimum);
            assert!(row.remark.contains(word), "{}", row.remark);
        }
    }

    #[test]
    fn a_method_that_never_arrives_does_not_hold() {
        let row = row([None, Some(30), None], [Some(300); 3], Optimum::Interior);
        assert_eq!((row.ratio, row.verdict), (None, Verdict::DoesNotHold));
    }

    #[test]
    fn ratios_between_the_bars_hold_in_part_and_below_one_are_said_as_such() {
        let verdict = |theirs| row([Some(50); 3], [Some(theirs); 3], Optimum::Interior).verdict;
        assert_eq!(
            [verdict(500), verdict(250), verdict(100)],
            [Verdict::Holds, Verdict::HoldsInPart, Verdict::DoesNotHold]
        );
        let slower = row([Some(50); 3], [Some(25); 3], Optimum::Interior);
        assert!(slower.remark.starts_with("2.0 times more updates"), "{}", slower.remark);
    }
}
