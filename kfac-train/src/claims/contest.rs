//! A contest: tune the baseline on a task, run K-FAC over the same seeds, one row per K-FAC variant and target.

use super::contender::{Budget, Contender, sgd_axes};
use super::task::Task;
use super::verdict::{Bar, judged, median};
use super::{AxisScale, Curve, Figure, Optimum, Profile, Progress, Row, Search, SeedResult, Settings, Side};
use crate::trainer::{Continue, History, Point};
use crate::tuning::{self, Axis, in_parallel};
use std::sync::Mutex;

/// K-FAC, in one or more variants, against SGD on a task.
pub(super) struct Contest<'a> {
    pub(super) task: &'a dyn Task,
    pub(super) kfac: Vec<Contender>,
    pub(super) kfac_budget: Budget,
    /// Averaging of the baseline's iterates.
    pub(super) sgd_averaging: Option<f64>,
    pub(super) sgd_budget: Budget,
    /// Learning rate, momentum and clip at which the quick profile starts its search.
    pub(super) recorded: [f64; 3],
    pub(super) goal: Goal,
    pub(super) bar: Bar,
}

/// What both sides are timed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Given values of the metric, the hardest last. The baseline is tuned for the hardest.
    Targets(&'static [f64]),
    /// The value that the tuned baseline reaches at the end of its budget, seed by seed.
    BaselineEnd,
}

/// A point of the baseline's lattice with its runs, one per seed; runs that could not win were stopped.
#[derive(Clone, Debug)]
struct Candidate {
    setting: Vec<f64>,
    /// Median over the seeds; infinite where it could not win.
    score: f64,
    histories: Vec<History>,
}

/// Best settings that a report lists, of those that were not stopped.
const LEADERS: usize = 4;

impl Contest<'_> {
    /// Runs the contest: the rows, and the learning curves.
    pub(super) fn run(&self, settings: &Settings, progress: &dyn Progress) -> (Vec<Row>, Figure) {
        let seeds: Vec<u64> = (0..settings.seeds as u64).collect();
        let title = self.title();
        progress.stage(&format!("{title}: tuning SGD"), 0);
        let (candidates, is_interior) = self.tune(&seeds, settings, progress);

        let jobs: Vec<(Contender, u64)> =
            self.kfac.iter().flat_map(|&kfac| seeds.iter().map(move |&seed| (kfac, seed))).collect();
        progress.stage(&format!("{title}: K-FAC"), jobs.len());
        let histories = in_parallel(settings.threads, &jobs, |(kfac, seed)| {
            let history = kfac.run(self.task, *seed, self.kfac_budget, &mut |point| self.go_on(point));
            progress.run_done(&format!("seed {seed}: {:.4}", history.final_value()));
            history
        });

        let targets: Vec<Option<f64>> = match self.goal {
            Goal::Targets(targets) => targets.iter().copied().map(Some).collect(),
            Goal::BaselineEnd => vec![None],
        };
        let mut rows = Vec::new();
        let mut shown = &candidates[0];
        for &target in &targets {
            shown = self.best_for(target, &candidates);
            for (kfac, runs) in self.kfac.iter().zip(histories.chunks(seeds.len())) {
                let goal: Vec<f64> = match target {
                    Some(target) => vec![target; seeds.len()],
                    None => shown.histories.iter().map(History::final_value).collect(),
                };
                let sgd = Contender::sgd(&shown.setting, self.sgd_averaging);
                let method = self.side(kfac, self.kfac_budget, &seeds, runs, &goal);
                let baseline = self.side(&sgd, self.sgd_budget, &seeds, &shown.histories, &goal);
                let search = self.describe_search(&candidates, is_interior, target);
                rows.push(judged(
                    self.bar,
                    title.clone(),
                    self.target_in_words(target),
                    method,
                    baseline,
                    search,
                ));
            }
        }
        (rows, self.figure(&histories, &shown.histories))
    }

    /// The task, and what of it is judged.
    fn title(&self) -> String {
        let judged = self.sgd_averaging.map_or("", |_| "; averaged iterates on both sides");
        format!("{}{judged}", self.task.description())
    }

    fn target_in_words(&self, target: Option<f64>) -> String {
        let (metric, updates) = (self.task.metric_name(), self.sgd_budget.updates);
        match target {
            Some(target) => format!("{metric} <= {target}"),
            None => format!("{metric} that SGD has after {updates} updates"),
        }
    }

    /// Has a run still something to reach?
    fn go_on(&self, point: Point) -> Continue {
        match self.goal {
            Goal::Targets(targets) if targets.iter().all(|&target| point.value <= target) => Continue::No,
            _ => Continue::Yes,
        }
    }

    /// Searches the baseline's lattice for the best median over the seeds; best first.
    fn tune(&self, seeds: &[u64], settings: &Settings, progress: &dyn Progress) -> (Vec<Candidate>, bool) {
        let tried: Mutex<Vec<Candidate>> = Mutex::new(Vec::new());
        let score = |setting: &[f64], to_beat: Option<f64>| -> f64 {
            let best = to_beat.and_then(|_| {
                let tried = tried.lock().expect("no run panics");
                tried.iter().min_by(|a, b| a.score.total_cmp(&b.score)).cloned()
            });
            let candidate = self.try_setting(setting, seeds, best.as_ref());
            let score = candidate.score;
            progress.run_done(&format!("SGD {setting:?}: {score:.4}"));
            tried.lock().expect("no run panics").push(candidate);
            score
        };
        let (starts, rounds) = match settings.profile {
            Profile::Quick => (vec![self.recorded.to_vec()], 4),
            Profile::Full => (coarse_starts(&self.recorded), 20),
        };
        let found = tuning::search(&sgd_axes(), &starts, rounds, settings.threads, &score);
        let mut candidates = tried.into_inner().expect("no run panics");
        candidates.sort_by(|a, b| a.score.total_cmp(&b.score));
        (candidates, found.is_interior)
    }

    /// Runs one setting over the seeds, until it is clear that its median cannot beat that of `best`.
    fn try_setting(&self, setting: &[f64], seeds: &[u64], best: Option<&Candidate>) -> Candidate {
        let contender = Contender::sgd(setting, self.sgd_averaging);
        let mut budget = self.sgd_budget;
        if let (Goal::Targets(_), Some(best)) = (self.goal, best) {
            // A run that has not arrived by then is worse than the best median.
            budget.updates = budget.updates.min(best.score.ceil() as u64);
        }
        let (mut histories, mut scores) = (Vec::new(), Vec::new());
        for (index, &seed) in seeds.iter().enumerate() {
            let beaten = scores.iter().filter(|score: &&f64| score.is_infinite()).count();
            if 2 * beaten > seeds.len() {
                break;
            }
            let reference = best.and_then(|best| best.histories.get(index));
            let mut is_cut = false;
            let history = contender.run(self.task, seed, budget, &mut |point| {
                is_cut = reference.is_some_and(|reference| self.is_hopeless(point, reference));
                if is_cut { Continue::No } else { self.go_on(point) }
            });
            scores.push(if is_cut { f64::INFINITY } else { self.score(&history, best.is_some()) });
            histories.push(history);
        }
        scores.resize(seeds.len(), f64::INFINITY);
        histories.resize(seeds.len(), History::default());
        Candidate { setting: setting.to_vec(), score: median(scores), histories }
    }

    /// Lower is better: the final value, or the updates to the hardest target. Where that was not reached, the distance
    /// on top of the budget; or, if there is a best to beat, nothing is good enough.
    fn score(&self, history: &History, has_rival: bool) -> f64 {
        let last = history.final_value();
        if history.failure.is_some() || !last.is_finite() {
            return f64::INFINITY;
        }
        let Goal::Targets(targets) = self.goal else { return last };
        let hardest = targets.iter().copied().fold(f64::INFINITY, f64::min);
        match history.reached(hardest) {
            Some(point) => point.updates as f64,
            None if has_rival => f64::INFINITY,
            None => self.sgd_budget.updates as f64 * (1.0 + (last / hardest).ln()),
        }
    }

    /// Clearly behind the best setting's curve of the same seed: by 2 after 15 % of the budget, 1.35 after 35 %, 1.12
    /// after 60 %. Only where the final value counts: on tasks with a plateau a late start says little.
    fn is_hopeless(&self, point: Point, reference: &History) -> bool {
        let done = point.updates as f64 / self.sgd_budget.updates as f64;
        let allowed = match done {
            _ if self.goal != Goal::BaselineEnd => return false,
            done if done >= 0.6 => 1.12,
            done if done >= 0.35 => 1.35,
            done if done >= 0.15 => 2.0,
            _ => return false,
        };
        let same = reference.points.iter().find(|other| other.updates == point.updates);
        same.is_some_and(|other| point.value > allowed * other.value)
    }

    /// The candidate with the best median for a target; the seeds on which a run was stopped count as not reached.
    fn best_for<'c>(&self, target: Option<f64>, candidates: &'c [Candidate]) -> &'c Candidate {
        let score = |candidate: &Candidate| match target {
            None => candidate.score,
            Some(target) => {
                let updates = |history: &History| {
                    history.reached(target).map_or(f64::INFINITY, |point| point.updates as f64)
                };
                median(candidate.histories.iter().map(updates).collect())
            }
        };
        let best = candidates.iter().min_by(|a, b| score(a).total_cmp(&score(b)));
        best.expect("the search has tried its start")
    }

    fn side(
        &self,
        contender: &Contender,
        budget: Budget,
        seeds: &[u64],
        histories: &[History],
        targets: &[f64],
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
        let mut settings = contender.settings();
        settings.push(("evaluated".to_owned(), format!("every {} updates", budget.evaluate_every)));
        let costs = histories.iter().map(History::milliseconds_per_update).filter(|cost| cost.is_finite());
        Side {
            name: contender.name(),
            settings,
            seeds: results.collect(),
            milliseconds_per_update: median(costs.collect()),
        }
    }

    fn describe_search(&self, candidates: &[Candidate], is_interior: bool, target: Option<f64>) -> Search {
        let axes = sgd_axes();
        let grid: Vec<String> = axes.iter().map(Axis::describe).collect();
        let finished = candidates.iter().filter(|candidate| candidate.score.is_finite());
        let leaders = finished.take(LEADERS).map(|candidate| {
            let pairs = axes.iter().zip(&candidate.setting);
            let words: Vec<String> = pairs.map(|(axis, value)| format!("{} {value}", axis.name)).collect();
            (words.join(", "), candidate.score)
        });
        let seeds = candidates.first().map_or(0, |candidate| candidate.histories.len());
        let oracle = |seed: usize| {
            let reached = |candidate: &Candidate| candidate.histories[seed].reached(target?);
            candidates.iter().filter_map(reached).map(|point| point.updates).min()
        };
        Search {
            grid: grid.join(" x "),
            runs: candidates.len(),
            optimum: if is_interior { Optimum::Interior } else { Optimum::Edge },
            leaders: leaders.collect(),
            per_seed_oracle: if target.is_some() { (0..seeds).map(oracle).collect() } else { Vec::new() },
        }
    }

    fn figure(&self, kfac: &[History], sgd: &[History]) -> Figure {
        let seeds = sgd.len().max(1);
        let labelled = kfac.chunks(seeds).zip(&self.kfac).map(|(runs, contender)| (contender.name(), runs));
        let curves = labelled.chain([("SGD".to_owned(), sgd)]).flat_map(|(label, histories)| {
            histories.iter().map(move |history| {
                // A logarithmic axis has no place for the point before the first update.
                let trained = history.points.iter().filter(|point| point.updates > 0);
                let points = trained.map(|point| (point.updates as f64, point.value)).collect();
                Curve { label: label.clone(), points }
            })
        });
        Figure {
            title: self.title(),
            x_label: "updates".to_owned(),
            y_label: self.task.metric_name(),
            x_scale: AxisScale::Logarithmic,
            y_scale: AxisScale::Logarithmic,
            target: match self.goal {
                Goal::Targets(targets) => targets.last().copied(),
                Goal::BaselineEnd => None,
            },
            curves: curves.collect(),
        }
    }
}

/// Where the full profile starts: around the recorded optimum, far enough to find another valley.
fn coarse_starts(&[rate, momentum, clip]: &[f64; 3]) -> Vec<Vec<f64>> {
    let mut starts = vec![vec![rate, momentum, clip]];
    for factor in [0.125, 0.5, 2.0, 8.0] {
        for momentum in [0.9, 0.98] {
            for clip in [0.1, 1.0, f64::INFINITY] {
                starts.push(vec![rate * factor, momentum, clip]);
            }
        }
    }
    starts
}
