//! A contest: tune the baseline on a task, run K-FAC over the same seeds, one row per K-FAC variant and target.

use super::contender::{Budget, Contender, sgd_axes};
use super::task::Task;
use super::verdict::{Bar, Question, judged, median};
use super::{AxisScale, Curve, Figure, Profile, Progress, Row, Search, SeedResult, Settings, Side};
use crate::trainer::{Continue, History, Point};
use crate::tuning::{self, Axis, Found, Tried, in_parallel};

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
    /// A given value of the metric.
    Target(f64),
    /// The lowest value that the tuned baseline reaches within its budget, seed by seed.
    BaselineBest,
}

/// A point of the baseline's lattice with its runs, in the order of the seeds; its score is the median over them, and
/// infinite where it could not win. Once that is clear, no further seed is run.
type Candidate = Tried<Vec<CandidateRun>>;

#[derive(Clone, Debug)]
struct CandidateRun {
    history: History,
    /// Was it stopped because it could no longer win?
    is_cut: bool,
}

/// Best settings that a report lists, of those that were not stopped.
const LEADERS: usize = 4;

impl Contest<'_> {
    /// Runs the contest: one row per K-FAC variant, and the learning curves.
    pub(super) fn run(&self, settings: &Settings, progress: &dyn Progress) -> (Vec<Row>, Figure) {
        let seeds: Vec<u64> = (0..settings.seeds as u64).collect();
        let title = self.title();
        progress.stage(&format!("{title}: tuning SGD"), 0);
        let found = self.tune(&seeds, settings, progress);
        let best = found.best().expect("the search has a start");
        let sgd_runs = self.finish(best, &seeds, settings);

        let jobs: Vec<(Contender, u64)> =
            self.kfac.iter().flat_map(|&kfac| seeds.iter().map(move |&seed| (kfac, seed))).collect();
        progress.stage(&format!("{title}: K-FAC"), jobs.len());
        let kfac_runs = in_parallel(settings.threads, &jobs, |(kfac, seed)| {
            let history = kfac.run(self.task, *seed, self.kfac_budget, &mut |point| self.go_on(point));
            progress.run_done(&format!("{}, seed {seed}: {:.4}", kfac.name(), history.final_value()));
            history
        });

        let targets: Vec<Option<f64>> = sgd_runs.iter().map(|run| self.target_from(run)).collect();
        let sgd = Contender::sgd(&best.setting, self.sgd_averaging);
        let rows = self.kfac.iter().zip(kfac_runs.chunks(seeds.len())).map(|(kfac, runs)| {
            let method = self.side(kfac, self.kfac_budget, &seeds, runs, &targets);
            let baseline = self.side(&sgd, self.sgd_budget, &seeds, &sgd_runs, &targets);
            let search = self.describe_search(&found, seeds.len());
            let question = Question {
                task: title.clone(),
                target: self.goal_in_words(),
                bar: self.bar,
                seeds_with_target: targets.iter().flatten().count(),
            };
            judged(question, method, baseline, search)
        });
        (rows.collect(), self.figure(&kfac_runs, &sgd_runs))
    }

    /// The task, and what of it is judged.
    fn title(&self) -> String {
        let judged = self.sgd_averaging.map_or("", |_| "; averaged iterates on both sides");
        format!("{}{judged}", self.task.description())
    }

    fn goal_in_words(&self) -> String {
        let (metric, updates) = (self.task.metric_name(), self.sgd_budget.updates);
        match self.goal {
            Goal::Target(target) => format!("{metric} <= {target}"),
            Goal::BaselineBest => format!("lowest {metric} that SGD reaches in {updates} updates"),
        }
    }

    /// What has to be reached on the seed of a finished run of the baseline; `None` where that run failed, or never got
    /// below its start, so that there is nothing to compare with.
    fn target_from(&self, baseline: &History) -> Option<f64> {
        match self.goal {
            Goal::Target(target) => Some(target),
            Goal::BaselineBest => {
                let start = baseline.points.first()?.value;
                baseline.lowest().filter(|lowest| baseline.failure.is_none() && *lowest < start)
            }
        }
    }

    /// Has a run still something to reach?
    fn go_on(&self, point: Point) -> Continue {
        match self.goal {
            Goal::Target(target) if point.value <= target => Continue::No,
            _ => Continue::Yes,
        }
    }

    /// Searches the baseline's lattice for the best median over the seeds.
    fn tune(&self, seeds: &[u64], settings: &Settings, progress: &dyn Progress) -> Found<Vec<CandidateRun>> {
        let run = |setting: &[f64], to_beat: Option<&Candidate>| {
            let (score, runs) = self.try_setting(setting, seeds, to_beat);
            let outcome = match score.is_finite() {
                true => format!("{score:.4}"),
                false => "stopped, cannot win".to_owned(),
            };
            progress.run_done(&format!("{}: {outcome}", in_words(setting)));
            (score, runs)
        };
        let (starts, rounds) = match settings.profile {
            Profile::Quick => (vec![self.recorded.to_vec()], 6),
            Profile::Full => (coarse_starts(&self.recorded), 30),
        };
        tuning::search(&sgd_axes(), &starts, rounds, settings.threads, &run)
    }

    /// Runs one setting over the seeds, until it is clear that its median cannot beat that of `best`.
    fn try_setting(
        &self,
        setting: &[f64],
        seeds: &[u64],
        best: Option<&Candidate>,
    ) -> (f64, Vec<CandidateRun>) {
        let contender = Contender::sgd(setting, self.sgd_averaging);
        let full = self.sgd_budget.updates;
        // A best that has itself not arrived is judged by its distance, and so is whatever may beat it.
        let arrived = best.filter(|best| best.score <= full as f64);
        let mut budget = self.sgd_budget;
        if let (Goal::Target(_), Some(best)) = (self.goal, arrived) {
            // A run that has not arrived by then is above the best median; with an even count of seeds the median
            // is a mean of two, and the other one may make up for as much again.
            let slack = if seeds.len().is_multiple_of(2) { 2.0 } else { 1.0 };
            budget.updates = full.min((slack * best.score).ceil() as u64);
        }
        let (mut runs, mut scores) = (Vec::new(), Vec::new());
        for (index, &seed) in seeds.iter().enumerate() {
            let beaten = scores.iter().filter(|score: &&f64| score.is_infinite()).count();
            if 2 * beaten > seeds.len() {
                break;
            }
            let reference = best.and_then(|best| best.runs.get(index));
            let mut is_cut = false;
            let history = contender.run(self.task, seed, budget, &mut |point| {
                is_cut = reference.is_some_and(|reference| self.is_hopeless(point, &reference.history));
                if is_cut { Continue::No } else { self.go_on(point) }
            });
            let score = match arrived {
                _ if is_cut => f64::INFINITY,
                Some(_) => self.score_beside_arrived(&history),
                None => self.score(&history),
            };
            is_cut |= score.is_infinite() && history.failure.is_none();
            scores.push(score);
            runs.push(CandidateRun { history, is_cut });
        }
        scores.resize(seeds.len(), f64::INFINITY);
        (median(scores), runs)
    }

    /// The runs of the best setting, those that were stopped early run again to the end.
    fn finish(&self, best: &Candidate, seeds: &[u64], settings: &Settings) -> Vec<History> {
        let contender = Contender::sgd(&best.setting, self.sgd_averaging);
        let indices: Vec<usize> = (0..seeds.len()).collect();
        in_parallel(settings.threads, &indices, |&index| match best.runs.get(index) {
            Some(run) if !run.is_cut => run.history.clone(),
            _ => contender.run(self.task, seeds[index], self.sgd_budget, &mut |point| self.go_on(point)),
        })
    }

    /// Lower is better: the lowest value, or the updates to the target and, where that was not reached, the distance on
    /// top of the budget.
    fn score(&self, history: &History) -> f64 {
        let Some(lowest) = history.lowest().filter(|_| history.failure.is_none()) else {
            return f64::INFINITY;
        };
        let Goal::Target(target) = self.goal else { return lowest };
        match history.reached(target) {
            Some(point) => point.updates as f64,
            None => self.sgd_budget.updates as f64 * (1.0 + (lowest / target).ln()),
        }
    }

    /// The same where there is an arrived best to beat: what has not arrived is not good enough.
    fn score_beside_arrived(&self, history: &History) -> f64 {
        match self.goal {
            Goal::Target(target) if history.reached(target).is_none() => f64::INFINITY,
            _ => self.score(history),
        }
    }

    /// Clearly behind the best setting's curve of the same seed: by 2 after 15 % of the budget, 1.35 after 35 %, 1.12
    /// after 60 %. Only where the value counts: on tasks with a plateau a late start says little.
    fn is_hopeless(&self, point: Point, reference: &History) -> bool {
        let done = point.updates as f64 / self.sgd_budget.updates as f64;
        let allowed = match done {
            _ if self.goal != Goal::BaselineBest => return false,
            done if done >= 0.6 => 1.12,
            done if done >= 0.35 => 1.35,
            done if done >= 0.15 => 2.0,
            _ => return false,
        };
        let same = reference.points.iter().find(|other| other.updates == point.updates);
        same.is_some_and(|other| point.value > allowed * other.value)
    }

    fn side(
        &self,
        contender: &Contender,
        budget: Budget,
        seeds: &[u64],
        histories: &[History],
        targets: &[Option<f64>],
    ) -> Side {
        let results = seeds.iter().zip(histories).zip(targets).map(|((&seed, history), &target)| {
            let reached = target.and_then(|target| history.reached(target));
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

    fn describe_search(&self, found: &Found<Vec<CandidateRun>>, seeds: usize) -> Search {
        let grid: Vec<String> = sgd_axes().iter().map(Axis::describe).collect();
        let finished = found.tried.iter().filter(|candidate| candidate.score.is_finite());
        let leaders = finished.take(LEADERS).map(|best| (in_words(&best.setting), best.score));
        let oracle = |target: f64, seed: usize| {
            let reached = |candidate: &Candidate| candidate.runs.get(seed)?.history.reached(target);
            found.tried.iter().filter_map(reached).map(|point| point.updates).min()
        };
        Search {
            grid: grid.join(" x "),
            runs: found.tried.iter().map(|candidate| candidate.runs.len()).sum(),
            optimum: found.optimum,
            leaders: leaders.collect(),
            per_seed_oracle: match self.goal {
                Goal::Target(target) => (0..seeds).map(|seed| oracle(target, seed)).collect(),
                Goal::BaselineBest => Vec::new(),
            },
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
                Goal::Target(target) => Some(target),
                Goal::BaselineBest => None,
            },
            curves: curves.collect(),
        }
    }
}

/// A point of the lattice as `name value, ...`.
fn in_words(setting: &[f64]) -> String {
    let pairs = sgd_axes().into_iter().zip(setting);
    let words: Vec<String> = pairs
        .map(|(axis, value)| match value.is_finite() {
            true => format!("{} {value}", axis.name),
            false => format!("no {}", axis.name),
        })
        .collect();
    words.join(", ")
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

#[cfg(test)]
mod tests {
    use super::super::Silent;
    use super::super::contender::{Family, KfacDefaults, Method};
    use super::super::task::Net;
    use super::*;
    use crate::data::{Batch, Dataset, Sampled, Source, Targets};
    use crate::layer::Dense;
    use crate::model::{Init, Network};
    use crate::optimizer::MapChoice;
    use kfac_core::losses::Loss;
    use kfac_linalg::Fast;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A line through noisy points: a run takes next to no time.
    struct Line {
        data: Dataset,
        whole: Batch<f32>,
        /// Runs so far.
        runs: AtomicUsize,
    }

    impl Line {
        fn new() -> Self {
            let inputs: Vec<f32> = (0..64_u32).map(|i| (i * 37 % 64) as f32 / 32.0 - 1.0).collect();
            let noise = (0..64_u32).map(|i| (i * 23 % 64) as f32 / 640.0);
            let targets = inputs.iter().zip(noise).map(|(x, noise)| 2.0 * x + 0.5 + noise).collect();
            let name = "line".to_owned();
            let data =
                Dataset { name, inputs, targets: Targets::Values(targets), input_len: 1, target_len: 1 };
            Self { whole: data.whole(), data, runs: AtomicUsize::new(0) }
        }
    }

    impl Task for Line {
        fn description(&self) -> String {
            "a line".to_owned()
        }

        fn metric_name(&self) -> String {
            "half squared error".to_owned()
        }

        fn network(&self) -> Net {
            Network::new(vec![Box::new(Dense::new(1, 1))], Loss::Square, 1, Fast::detect()).unwrap()
        }

        fn initial_weights(&self, network: &Net, seed: u64) -> Vec<f32> {
            network.initial_weights(seed, |_| Init::ScaledNormal).unwrap()
        }

        fn source(&self, seed: u64) -> Box<dyn Source<f32> + '_> {
            self.runs.fetch_add(1, Ordering::Relaxed);
            Box::new(Sampled::new(&self.data, seed).unwrap())
        }

        fn batch(&self) -> usize {
            4
        }

        fn metric(&self, network: &mut Net, weights: &[f32]) -> f64 {
            network.forward(weights, &self.whole).unwrap();
            network.mean_loss(&self.whole.targets).unwrap().into()
        }
    }

    fn contest(task: &Line, goal: Goal) -> Contest<'_> {
        let defaults =
            KfacDefaults { map: MapChoice::Factored, family: Family::FeedForward, every: [1, 1], l2: 0.0 };
        Contest {
            task,
            kfac: vec![Contender { method: Method::Kfac(defaults), averaging: None }],
            kfac_budget: Budget { updates: 20, evaluate_every: 1 },
            sgd_averaging: None,
            sgd_budget: Budget { updates: 100, evaluate_every: 1 },
            // Far from the best, so that there is a way to go.
            recorded: [0.01 / 32.0, 0.5, 0.1],
            goal,
            bar: Bar { holds: 2.0, in_part: 1.5 },
        }
    }

    /// A row with all that depends on the clock left out.
    fn without_times(mut row: Row) -> String {
        row.time_ratio = None;
        row.remark = row.remark.split(", ").next().unwrap_or_default().to_owned();
        for side in [&mut row.method, &mut row.baseline] {
            side.milliseconds_per_update = 0.0;
            side.seeds.iter_mut().for_each(|seed| seed.seconds = None);
        }
        format!("{row:#?}")
    }

    #[test]
    fn the_search_counts_its_runs_and_not_its_settings() {
        let task = Line::new();
        let settings = Settings { profile: Profile::Quick, data: None, seeds: 3, threads: 2 };
        let contest = contest(&task, Goal::Target(0.01));
        let found = contest.tune(&[0, 1, 2], &settings, &Silent);
        let search = contest.describe_search(&found, 3);
        assert_eq!(search.runs, task.runs.load(Ordering::Relaxed));
        // Three a setting, but two of those that have no chance after two.
        let all = 3 * found.tried.len();
        assert!(search.runs > all * 2 / 3 && search.runs < all, "{} runs of {all}", search.runs);
    }

    #[test]
    fn how_many_runs_go_on_at_the_same_time_changes_no_row() {
        let task = Line::new();
        for (goal, seeds) in [(Goal::Target(0.01), 3), (Goal::Target(0.01), 2), (Goal::BaselineBest, 3)] {
            let rows = [1, 4].map(|threads| {
                let settings = Settings { profile: Profile::Quick, data: None, seeds, threads };
                let (rows, _) = contest(&task, goal).run(&settings, &Silent);
                rows.into_iter().map(without_times).collect::<Vec<_>>()
            });
            assert_eq!(rows[0], rows[1], "{goal:?}");
        }
    }
}
