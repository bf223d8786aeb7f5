//! One row of the report: tune the baseline, run both sides over the seeds, give the verdict.

use super::contender::{Budget, Contender, sgd_axes};
use super::task::Task;
use super::{
    AxisScale, Curve, Figure, Optimum, Profile, Progress, Row, Search, SeedResult, Settings, Side, Verdict,
};
use crate::trainer::{Continue, History, Point};
use crate::tuning::{Found, in_parallel, search};
use std::sync::Mutex;

/// Two contenders on a task.
pub(super) struct Contest<'a> {
    pub(super) task: &'a dyn Task,
    pub(super) kfac: Contender,
    pub(super) kfac_budget: Budget,
    /// Averaging of the baseline's iterates.
    pub(super) sgd_averaging: Option<f64>,
    pub(super) sgd_budget: Budget,
    /// Learning rate, momentum and clip at which the quick profile starts its search.
    pub(super) recorded: [f64; 3],
    pub(super) goal: Goal,
}

/// What both sides are timed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Given values of the metric, the hardest last. The baseline is tuned for the hardest.
    Targets(&'static [f64]),
    /// The value that the tuned baseline reaches at the end of its budget, seed by seed.
    BaselineEnd,
}

/// What a row of a contest is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    /// The claim holds where the median ratio reaches this.
    pub(super) holds: f64,
    /// It holds in part where the ratio reaches this.
    pub(super) in_part: f64,
}

/// Settings that are run on all seeds after the search.
const LEADERS: usize = 4;

impl Contest<'_> {
    /// Runs the contest: one row per target, and the learning curves.
    pub(super) fn run(&self, bar: Bar, settings: &Settings, progress: &dyn Progress) -> (Vec<Row>, Figure) {
        let seeds: Vec<u64> = (0..settings.seeds as u64).collect();
        let title = self.task.description();

        progress.stage(&format!("{title}: tuning the baseline"), 0);
        let found = self.tune(settings, progress);
        let leaders: Vec<&Vec<f64>> =
            found.tried.iter().filter(|(_, score)| score.is_finite()).take(LEADERS).map(|(s, _)| s).collect();

        let jobs: Vec<(Contender, Budget, u64)> = std::iter::once((self.kfac, self.kfac_budget))
            .chain(leaders.iter().map(|leader| (Contender::sgd(leader, self.sgd_averaging), self.sgd_budget)))
            .flat_map(|(contender, budget)| seeds.iter().map(move |&seed| (contender, budget, seed)))
            .collect();
        progress.stage(&format!("{title}: all seeds"), jobs.len());
        let histories = in_parallel(settings.threads, &jobs, |(contender, budget, seed)| {
            let history = contender.run(self.task, *seed, *budget, &mut |point| self.go_on(point));
            progress.run_done(&format!("{}, seed {seed}: {:.4}", contender.name(), history.final_value()));
            history
        });
        let mut by_setting = histories.chunks(seeds.len().max(1));
        let kfac = by_setting.next().unwrap_or_default();
        let leader_runs: Vec<&[History]> = by_setting.collect();

        let targets: Vec<Option<f64>> = match self.goal {
            Goal::Targets(targets) => targets.iter().map(|&target| Some(target)).collect(),
            Goal::BaselineEnd => vec![None],
        };
        let mut rows = Vec::new();
        let mut shown = 0;
        for target in targets {
            let ranked = self.rank(target, &leader_runs);
            let &(best, ref oracle) = &ranked;
            shown = best;
            let Some(&baseline) = leader_runs.get(best) else { continue };
            let goal: Vec<f64> = match target {
                Some(target) => vec![target; seeds.len()],
                None => baseline.iter().map(History::final_value).collect(),
            };
            let sgd = Contender::sgd(leaders[best], self.sgd_averaging);
            let row = Row {
                task: title.clone(),
                target: match target {
                    Some(target) => format!("{} <= {target}", self.task.metric_name()),
                    None => format!(
                        "{} of the baseline after {} updates",
                        self.task.metric_name(),
                        self.sgd_budget.updates
                    ),
                },
                method: self.side(&self.kfac, self.kfac_budget, (&seeds, kfac, &goal)),
                baseline: self.side(&sgd, self.sgd_budget, (&seeds, baseline, &goal)),
                search: self.describe_search(&found, oracle.clone()),
                ratio: None,
                ratio_range: None,
                time_ratio: None,
                bar: format!(">= {}", bar.holds),
                verdict: Verdict::NotMeasured,
                remark: String::new(),
            };
            rows.push(judged(row, bar));
        }
        (rows, self.figure(kfac, leader_runs.get(shown).copied().unwrap_or_default()))
    }

    /// Has a run still something to reach?
    fn go_on(&self, point: Point) -> Continue {
        match self.goal {
            Goal::Targets(targets) if targets.iter().all(|&target| point.value <= target) => Continue::No,
            _ => Continue::Yes,
        }
    }

    /// Searches the baseline's lattice on seed 0.
    fn tune(&self, settings: &Settings, progress: &dyn Progress) -> Found {
        let reference: Mutex<Option<History>> = Mutex::new(None);
        let score = |setting: &[f64], to_beat: Option<f64>| -> f64 {
            let mut budget = self.sgd_budget;
            if let (Goal::Targets(_), Some(best)) = (self.goal, to_beat) {
                // What has not arrived by then cannot win.
                budget.updates = budget.updates.min(best.ceil() as u64);
            }
            let best_so_far = reference.lock().ok().and_then(|history| history.clone());
            let mut is_cut = false;
            let contender = Contender::sgd(setting, self.sgd_averaging);
            let history = contender.run(self.task, 0, budget, &mut |point| {
                if best_so_far.as_ref().is_some_and(|best| self.is_hopeless(point, best)) {
                    is_cut = true;
                    return Continue::No;
                }
                self.go_on(point)
            });
            let score = self.score(&history, is_cut);
            progress.run_done(&format!("SGD {setting:?}: {score:.4}"));
            if !is_cut && to_beat.is_none_or(|best| score < best) {
                if let Ok(mut slot) = reference.lock() {
                    let is_better = slot.as_ref().is_none_or(|old| score < self.score(old, false));
                    if is_better {
                        *slot = Some(history);
                    }
                }
            }
            score
        };
        let starts: Vec<Vec<f64>> = match settings.profile {
            Profile::Quick => vec![self.recorded.to_vec()],
            Profile::Full => coarse_starts(&self.recorded),
        };
        let rounds = match settings.profile {
            Profile::Quick => 4,
            Profile::Full => 20,
        };
        search(&sgd_axes(), &starts, rounds, settings.threads, &score)
    }

    /// Lower is better: updates to the hardest target, or (beyond the budget) how far from it; or the final value.
    fn score(&self, history: &History, is_cut: bool) -> f64 {
        let last = history.final_value();
        if is_cut || history.failure.is_some() || !last.is_finite() {
            return f64::INFINITY;
        }
        match self.goal {
            Goal::BaselineEnd => last,
            Goal::Targets(targets) => {
                let hardest = targets.iter().copied().fold(f64::INFINITY, f64::min);
                history.reached(hardest).map_or_else(
                    || self.sgd_budget.updates as f64 * (1.0 + (last / hardest).ln().max(0.0)),
                    |point| point.updates as f64,
                )
            }
        }
    }

    /// Clearly behind the best curve at the same update: by 2 after 15 % of the budget, 1.35 after 35 %, 1.12 after 60 %.
    fn is_hopeless(&self, point: Point, best: &History) -> bool {
        let done = point.updates as f64 / self.sgd_budget.updates as f64;
        let allowed = match done {
            done if done >= 0.6 => 1.12,
            done if done >= 0.35 => 1.35,
            done if done >= 0.15 => 2.0,
            _ => return false,
        };
        let same = best.points.iter().find(|other| other.updates == point.updates);
        same.is_some_and(|other| point.value > allowed * other.value)
    }

    /// The leader with the best median, and for each seed the best of all leaders.
    fn rank(&self, target: Option<f64>, leaders: &[&[History]]) -> (usize, Vec<Option<u64>>) {
        let score = |history: &History| match target {
            Some(target) => history.reached(target).map_or(f64::INFINITY, |point| point.updates as f64),
            None => history.final_value(),
        };
        let median_of = |runs: &[History]| median(runs.iter().map(score).collect());
        let best = (0..leaders.len())
            .min_by(|&a, &b| median_of(leaders[a]).total_cmp(&median_of(leaders[b])))
            .unwrap_or(0);
        let seeds = leaders.first().map_or(0, |runs| runs.len());
        let oracle = (0..seeds).map(|seed| {
            let reached = |runs: &&[History]| runs[seed].reached(target?).map(|point| point.updates);
            leaders.iter().filter_map(reached).min()
        });
        (best, oracle.collect())
    }

    fn side(
        &self,
        contender: &Contender,
        budget: Budget,
        (seeds, histories, targets): (&[u64], &[History], &[f64]),
    ) -> Side {
        let results = seeds.iter().zip(histories).zip(targets).map(|((&seed, history), &target)| {
            let reached = history.reached(target);
            SeedResult {
                seed,
                updates: reached.map(|point| point.updates),
                examples: reached.map(|point| point.updates * self.task.batch() as u64),
                seconds: reached.map(|point| point.seconds),
                budget: budget.updates,
                final_value: history.final_value(),
                failure: history.failure.clone(),
            }
        });
        let costs = histories.iter().map(History::milliseconds_per_update).collect();
        Side {
            name: contender.name(),
            settings: contender.settings(),
            seeds: results.collect(),
            milliseconds_per_update: median(costs),
        }
    }

    fn describe_search(&self, found: &Found, per_seed_oracle: Vec<Option<u64>>) -> Search {
        let axes = sgd_axes();
        let words: Vec<String> = axes.iter().map(crate::tuning::Axis::describe).collect();
        let leaders = found.tried.iter().take(LEADERS).map(|(setting, score)| {
            let parts: Vec<String> =
                axes.iter().zip(setting).map(|(axis, value)| format!("{} {value}", axis.name)).collect();
            (parts.join(", "), *score)
        });
        Search {
            grid: words.join(" x "),
            runs: found.tried.len(),
            optimum: if found.is_interior { Optimum::Interior } else { Optimum::Edge },
            leaders: leaders.collect(),
            per_seed_oracle,
        }
    }

    fn figure(&self, kfac: &[History], sgd: &[History]) -> Figure {
        let curves = |label: &str, histories: &[History]| -> Vec<Curve> {
            let points = |history: &History| {
                history.points.iter().map(|point| (point.updates as f64, point.value)).collect()
            };
            let label = label.to_owned();
            histories.iter().map(|history| Curve { label: label.clone(), points: points(history) }).collect()
        };
        let mut all = curves("K-FAC", kfac);
        all.extend(curves("SGD", sgd));
        Figure {
            title: self.task.description(),
            x_label: "updates".to_owned(),
            y_label: self.task.metric_name(),
            y_scale: AxisScale::Logarithmic,
            target: match self.goal {
                Goal::Targets(targets) => targets.last().copied(),
                Goal::BaselineEnd => None,
            },
            curves: all,
        }
    }
}

/// Where the full profile starts: around the recorded optimum, far enough to find another valley.
fn coarse_starts(recorded: &[f64; 3]) -> Vec<Vec<f64>> {
    let [rate, _, _] = *recorded;
    let mut starts = vec![recorded.to_vec()];
    for factor in [0.125, 0.5, 2.0, 8.0] {
        for momentum in [0.9, 0.98] {
            for clip in [0.1, 1.0, f64::INFINITY] {
                starts.push(vec![rate * factor, momentum, clip]);
            }
        }
    }
    starts
}

/// Fills in ratios and verdict.
fn judged(mut row: Row, bar: Bar) -> Row {
    let updates = |side: &Side| median(side.seeds.iter().map(|s| infinite_if_none(s.updates)).collect());
    let seconds =
        |side: &Side| median(side.seeds.iter().map(|s| s.seconds.unwrap_or(f64::INFINITY)).collect());
    let (ours, theirs) = (updates(&row.method), updates(&row.baseline));
    let budget = row.baseline.seeds.first().map_or(0, |seed| seed.budget) as f64;
    let pairs = row.method.seeds.iter().zip(&row.baseline.seeds);
    let ratios: Vec<f64> =
        pairs.filter_map(|(ours, theirs)| Some(theirs.updates? as f64 / ours.updates? as f64)).collect();
    row.ratio_range = ratios.iter().fold(None, |range: Option<[f64; 2]>, &ratio| {
        Some(range.map_or([ratio; 2], |[low, high]| [low.min(ratio), high.max(ratio)]))
    });
    row.ratio = (ours.is_finite() && theirs.is_finite()).then(|| theirs / ours);
    row.time_ratio = row.ratio.map(|_| seconds(&row.baseline) / seconds(&row.method));
    // Where the baseline never arrives, its budget is a lower bound of what it needs.
    let at_least = row.ratio.or_else(|| ours.is_finite().then(|| budget / ours));
    (row.verdict, row.remark) = match at_least {
        None => (Verdict::DoesNotHold, "K-FAC did not reach the target on most seeds".to_owned()),
        Some(ratio) => {
            let verdict = match ratio {
                ratio if ratio >= bar.holds => Verdict::Holds,
                ratio if ratio >= bar.in_part => Verdict::HoldsInPart,
                _ => Verdict::DoesNotHold,
            };
            let relation = if row.ratio.is_some() { "" } else { "more than " };
            let time = row.time_ratio.map_or(String::new(), |ratio| format!(", {ratio:.1}x less CPU time"));
            let edge = match row.search.optimum {
                Optimum::Interior => "",
                Optimum::Edge => " The baseline's optimum is at an edge: it may be better than printed.",
            };
            (verdict, format!("{relation}{ratio:.1}x fewer updates{time}.{edge}"))
        }
    };
    row
}

fn infinite_if_none(updates: Option<u64>) -> f64 {
    updates.map_or(f64::INFINITY, |updates| updates as f64)
}

/// The middle value, the mean of the two middle ones for an even count; NaN for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![1.0, f64::INFINITY, f64::INFINITY]), f64::INFINITY);
    }
}
