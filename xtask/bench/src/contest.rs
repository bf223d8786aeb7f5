//! Contenders measured in turns, and handed to criterion.
//!
//! Criterion measures one benchmark after another, minutes apart, on a machine whose speed wanders by more than the
//! differences that matter. So the measuring is done here: in every round each contender has one turn, of as
//! many calls as fill it, and the one that begins moves on from round to round. Criterion is then given the rounds as
//! its samples, one benchmark per contender, and keeps the statistics.

use crate::clock::{self, Placement};
use crate::rows::{Conditions, Ratio, Report, Row, Subject, folder};
use crate::{goals, peers};
use criterion::{Criterion, SamplingMode};
use kfac_linalg::Fast;
use std::io;
use std::time::Duration;

/// Environment variable: ids that do not begin with it are passed over.
pub const PREFIX_VARIABLE: &str = "KFAC_BENCH_PREFIX";

/// Environment variable: when set, fewer and shorter turns.
pub const QUICK_VARIABLE: &str = "KFAC_BENCH_QUICK";

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Turns of each contender.
    pub rounds: usize,
    /// Length of a turn; one call where that takes longer.
    pub turn: Duration,
}

impl Effort {
    /// For numbers to be published.
    pub const FULL: Self = Self { rounds: 21, turn: Duration::from_millis(3) };
    /// For a look. Criterion takes no fewer samples than ten, and the median of an odd number is one of them.
    pub const QUICK: Self = Self { rounds: 11, turn: Duration::from_micros(500) };
    /// To see that everything runs and agrees: `cargo test` of a benchmark.
    pub const SMOKE: Self = Self { rounds: 1, turn: Duration::ZERO };

    /// What the caller asks for. Cargo says `--bench` when it is to be measured.
    pub fn asked() -> Self {
        if !std::env::args().any(|argument| argument == "--bench") {
            Self::SMOKE
        } else if std::env::var_os(QUICK_VARIABLE).is_some() {
            Self::QUICK
        } else {
            Self::FULL
        }
    }
}

/// Somebody who does the work that is timed, with all that it needs at hand.
pub struct Contender<'a> {
    name: &'static str,
    work: Box<dyn Work + 'a>,
}

trait Work {
    fn run(&mut self);
    fn result(&self) -> Option<Vec<f64>>;
}

struct Task<S, R, F> {
    state: S,
    run: R,
    result: Option<F>,
}

impl<S, R: FnMut(&mut S), F: Fn(&S) -> Vec<f64>> Work for Task<S, R, F> {
    fn run(&mut self) {
        (self.run)(&mut self.state);
    }

    fn result(&self) -> Option<Vec<f64>> {
        self.result.as_ref().map(|result| result(&self.state))
    }
}

impl<'a> Contender<'a> {
    /// `run` is timed; `result` says what it has computed, in an order and with signs that all contenders share.
    pub fn new<S: 'a>(
        name: &'static str,
        state: S,
        run: impl FnMut(&mut S) + 'a,
        result: impl Fn(&S) -> Vec<f64> + 'a,
    ) -> Self {
        Self { name, work: Box::new(Task { state, run, result: Some(result) }) }
    }

    /// One whose result is not comparable with that of the others.
    pub fn without_result<S: 'a>(name: &'static str, state: S, run: impl FnMut(&mut S) + 'a) -> Self {
        let result: Option<fn(&S) -> Vec<f64>> = None;
        Self { name, work: Box::new(Task { state, run, result }) }
    }

    /// The same under another name.
    #[must_use]
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Its name and, once it has done its work, what came out.
    pub fn compute(&mut self) -> (&'static str, Option<Vec<f64>>) {
        self.work.run();
        (self.name, self.work.result())
    }

    fn time(&mut self, calls: u32) -> Duration {
        let start = clock::now();
        for _ in 0..calls {
            self.work.run();
        }
        clock::now() - start
    }

    /// Calls that fill a turn; warms up on the way.
    fn calls(&mut self, turn: Duration) -> u32 {
        let mut calls = 1;
        loop {
            let time = self.time(calls);
            if 2 * time >= turn {
                let fit = f64::from(calls) * turn.as_secs_f64() / time.as_secs_f64();
                return (fit.round() as u32).max(1);
            }
            calls *= 2;
        }
    }
}

/// A contest to be held.
pub struct Contest {
    /// What it is about.
    pub subject: Subject,
    /// How the times are compared.
    pub ratio: Ratio,
    /// Relative Frobenius distance at which a result still counts as equal to ours.
    pub tolerance: f64,
}

impl Contest {
    /// By speed, between contenders whose results agree within `tolerance`.
    pub fn of_speed(subject: Subject, tolerance: f64) -> Self {
        Self { subject, ratio: Ratio::Speed, tolerance }
    }

    /// # Panics
    /// Where a result differs from ours: its time would mean nothing.
    fn check(&self, contenders: &mut [Contender<'_>]) {
        let results: Vec<_> = contenders.iter_mut().map(Contender::compute).collect();
        let Some(((ours, Some(expected)), peers)) = results.split_first() else { return };
        for (peer, result) in peers {
            let Some(result) = result else { continue };
            let (distance, tolerance) = (distance(result, expected), self.tolerance);
            assert!(
                distance <= tolerance,
                "{}: {} differs from {} by {distance:e}, more than {tolerance:e}",
                self.subject,
                peer,
                ours,
            );
        }
    }
}

/// `||x - y|| / ||y||`; NaN where numbers are missing or not finite.
pub fn distance(x: &[f64], y: &[f64]) -> f64 {
    if x.len() != y.len() {
        return f64::NAN;
    }
    let squares = |terms: &mut dyn Iterator<Item = f64>| terms.map(|x| x * x).sum::<f64>();
    (squares(&mut x.iter().zip(y).map(|(x, y)| x - y)) / squares(&mut y.iter().copied())).sqrt()
}

/// Nanoseconds per call: for each contender, of each round.
fn rounds(effort: Effort, contenders: &mut [Contender<'_>]) -> Vec<Vec<f64>> {
    let calls: Vec<u32> = contenders.iter_mut().map(|contender| contender.calls(effort.turn)).collect();
    let mut times = vec![Vec::with_capacity(effort.rounds); contenders.len()];
    for round in 0..effort.rounds {
        for turn in 0..contenders.len() {
            let who = (round + turn) % contenders.len();
            let time = contenders[who].time(calls[who]);
            times[who].push(time.as_secs_f64() * 1e9 / f64::from(calls[who]));
        }
    }
    times
}

/// Where contests are held, one after another.
pub struct Stage {
    criterion: Criterion,
    effort: Effort,
    prefix: String,
    held: Vec<(Subject, Row)>,
}

impl Stage {
    /// Takes its orders from the command line and the environment.
    pub fn asked() -> Self {
        let effort = Effort::asked();
        // The rounds exist before criterion asks for them: it needs to warm nothing up, and no time to measure.
        let criterion = Criterion::default()
            .sample_size(effort.rounds.max(10))
            .warm_up_time(Duration::from_nanos(1))
            .measurement_time(Duration::from_millis(1))
            .nresamples(2_000)
            .without_plots()
            .configure_from_args();
        let prefix = std::env::var(PREFIX_VARIABLE).unwrap_or_default();
        Self { criterion, effort, prefix, held: Vec::new() }
    }

    /// Is this contest to be held? Ask before inputs are made.
    pub fn wants(&self, subject: &Subject) -> bool {
        subject.id().starts_with(&self.prefix)
    }

    /// Holds a contest. The first contender is ours.
    ///
    /// # Panics
    /// Where results differ: a wrong one's time would mean nothing.
    pub fn hold(&mut self, contest: Contest, mut contenders: Vec<Contender<'_>>) {
        contest.check(&mut contenders);
        let times = rounds(self.effort, &mut contenders);
        let subject = &contest.subject;
        let mut group = self.criterion.benchmark_group(subject.family.name());
        group.sampling_mode(SamplingMode::Flat);
        let mut folders = Vec::new();
        for (contender, times) in contenders.iter().zip(times) {
            let function = format!("{}/{}", subject.within_family(), contender.name);
            folders.push((contender.name.to_owned(), folder(subject.family.name(), &function)));
            let mut times = times.iter().cycle();
            group.bench_function(function, |bencher| {
                let time = times.next().expect("there is at least one round");
                bencher.iter_custom(|calls| Duration::from_secs_f64(time * 1e-9 * calls as f64));
            });
        }
        group.finish();
        let mut folders = folders.into_iter();
        let Some((_, ours)) = folders.next() else { return };
        let (peers, ratio) = (folders.collect(), contest.ratio);
        let mut row = Row { id: subject.id(), ours, peers, ratio, goals: Vec::new() };
        goals::set(subject, &mut row);
        self.held.push((contest.subject, row));
    }

    /// Tells criterion that all is over, and `cargo xtask bench` what there was. A part of the contests says nothing
    /// of goals that concern others.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(self, placement: Placement) -> io::Result<()> {
        self.criterion.final_summary();
        let mut summaries = goals::summaries(&self.held);
        if !self.prefix.is_empty() {
            summaries.retain(|summary| !summary.rows.is_empty());
        }
        let conditions = Conditions {
            rounds: self.effort.rounds,
            clock: format!("CPU time of one thread, {placement}"),
            instructions: Fast::detect().instructions().to_string(),
            packages: peers::PACKAGES.to_vec(),
        };
        Report { conditions, rows: self.held.into_iter().map(|(_, row)| row).collect(), summaries }.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::Precision;
    use crate::rows::Family;
    use std::cell::RefCell;

    fn contest() -> Contest {
        let subject =
            Subject { family: Family::Gemm, precision: Precision::F32, size: 1, case: "test".into() };
        Contest::of_speed(subject, 1e-3)
    }

    fn says<'a>(name: &'static str, numbers: &'a [f64]) -> Contender<'a> {
        Contender::new(name, numbers, |_| (), |numbers| numbers.to_vec())
    }

    #[test]
    fn contenders_take_turns_and_the_first_turn_goes_round() {
        let turns = RefCell::new(String::new());
        let contender =
            |name: &'static str| Contender::without_result(name, (), |()| *turns.borrow_mut() += name);
        let effort = Effort { rounds: 3, turn: Duration::ZERO };
        let times = rounds(effort, &mut [contender("a"), contender("b"), contender("c")]);
        assert_eq!(times.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
        // One call each to find out how many fill a turn.
        assert_eq!(turns.into_inner(), "abc".to_owned() + "abc" + "bca" + "cab");
    }

    #[test]
    fn a_short_call_is_repeated_until_it_fills_its_turn() {
        let mut contender = says("a", &[]);
        assert!(contender.calls(Duration::from_micros(100)) > 100);
    }

    #[test]
    fn equal_results_and_results_that_cannot_be_compared_pass() {
        let idle = Contender::without_result("peak", (), |()| ());
        contest().check(&mut [says("ours", &[1.0, 2.0]), says("a", &[1.0, 2.001]), idle]);
    }

    #[test]
    #[should_panic(expected = "gemm/f32/test: b differs from ours")]
    fn a_wrong_result_is_not_timed() {
        contest().check(&mut [says("ours", &[1.0, 2.0]), says("a", &[1.0, 2.0]), says("b", &[1.0, 2.1])]);
    }

    #[test]
    fn missing_numbers_and_nan_are_no_distance() {
        assert!(distance(&[1.0], &[1.0, 2.0]).is_nan());
        assert!(distance(&[f64::NAN], &[1.0]).is_nan());
        assert_eq!(distance(&[3.0, 4.0], &[0.0, 4.0]), 0.75);
    }
}
