//! The tuning protocol: a lattice of settings, searched until every neighbour of the best is worse.
//!
//! Neighbours include diagonal moves (a higher rate with a tighter clip): searches along the axes alone have taken
//! baselines for tuned that were half as fast as they could be.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One setting's possible values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Name of the setting.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of an [`Axis`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// `base factor^i` for every integer `i`: no end, so no edge.
    Geometric {
        /// The value at index 0.
        base: f64,
        /// The quotient of neighbours.
        factor: f64,
    },
    /// A list. Its ends are edges unless they are natural ones.
    List {
        /// The values in order.
        values: Vec<f64>,
        /// Does nothing lie below the first? (E.g. no momentum.)
        first_is_natural: bool,
        /// Does nothing lie above the last? (E.g. no clip at all.)
        last_is_natural: bool,
    },
}

impl Axis {
    /// The value at `index`, where there is one.
    fn value(&self, index: i32) -> Option<f64> {
        match &self.values {
            Values::Geometric { base, factor } => Some(base * factor.powi(index)),
            Values::List { values, .. } => values.get(usize::try_from(index).ok()?).copied(),
        }
    }

    /// The index of `value`, or of the nearest one.
    fn index(&self, value: f64) -> i32 {
        match &self.values {
            Values::Geometric { base, factor } => ((value / base).ln() / factor.ln()).round() as i32,
            Values::List { values, .. } => {
                let distance = |&index: &usize| {
                    if values[index] == value { 0.0 } else { (values[index] - value).abs() }
                };
                let nearest = (0..values.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
                nearest.unwrap_or(0) as i32
            }
        }
    }

    /// Would a search want to go beyond `index` but cannot?
    fn is_edge(&self, index: i32) -> bool {
        match &self.values {
            Values::Geometric { .. } => false,
            Values::List { values, first_is_natural, last_is_natural } => {
                (index == 0 && !first_is_natural) || (index as usize + 1 == values.len() && !last_is_natural)
            }
        }
    }

    /// The axis in words.
    pub fn describe(&self) -> String {
        match &self.values {
            Values::Geometric { base, factor } => format!("{} {base} x {factor}^i, any i", self.name),
            Values::List { values, .. } => {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| if value.is_finite() { value.to_string() } else { "none".to_owned() })
                    .collect();
                format!("{} {{{}}}", self.name, values.join(", "))
            }
        }
    }
}

/// A setting that was tried, and what became of it.
#[derive(Clone, Debug)]
pub struct Tried<R> {
    /// Its values, one per axis.
    pub setting: Vec<f64>,
    /// Low is good; infinite where nothing came of it.
    pub score: f64,
    /// What was kept of its runs.
    pub runs: R,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found<R> {
    /// Everything that was tried: the best, then the others by their scores, and by their place in the lattice where
    /// these are equal.
    pub tried: Vec<Tried<R>>,
    /// Where the best lies.
    pub optimum: Optimum,
}

/// Where the best setting of a search lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimum {
    /// Every neighbour, diagonal ones included, was tried, and none is better.
    Interior,
    /// The same, but it lies at the end of a list: a better one may lie beyond.
    Edge,
    /// The rounds were used up while the search still found better settings.
    Unfinished,
    /// No setting has a finite score.
    NoScore,
}

impl<R> Found<R> {
    /// The best setting, which is the one that [`optimum`](Self::optimum) speaks of; `None` where nothing was tried.
    pub fn best(&self) -> Option<&Tried<R>> {
        self.tried.first()
    }
}

/// Tries a setting out: its score, and what is to be kept of it. Also receives the best so far, to give up early on what
/// cannot beat it: a run cut short must return a higher score than that.
pub type TryOut<'a, R> = dyn Fn(&[f64], Option<&Tried<R>>) -> (f64, R) + Sync + 'a;

/// Searches the lattice of `axes` for the lowest score, from the best of `starts`.
///
/// In each round all untried neighbours of the best setting are tried (in parallel on `threads`); the search ends
/// when none is better, or after `most_rounds`. Of equals the one that was found first stays the best, and within a round
/// that with the smallest place in the lattice.
///
/// What a setting has to beat is the best of the rounds before its own, never a result of its own round, so that nothing
/// depends on which of two threads is faster.
pub fn search<R: Send + Sync>(
    axes: &[Axis],
    starts: &[Vec<f64>],
    most_rounds: usize,
    threads: usize,
    run: &TryOut<'_, R>,
) -> Found<R> {
    let place = |values: &Vec<f64>| -> Vec<i32> {
        axes.iter().zip(values).map(|(axis, &value)| axis.index(value)).collect()
    };
    let values = |place: &[i32]| -> Option<Vec<f64>> {
        axes.iter().zip(place).map(|(axis, &index)| axis.value(index)).collect()
    };
    let mut tried: BTreeMap<Vec<i32>, Tried<R>> = BTreeMap::new();
    let mut best: Option<Vec<i32>> = None;
    let mut candidates: BTreeSet<Vec<i32>> = starts.iter().map(place).collect();
    let mut is_closed = false;
    for _ in 0..most_rounds {
        let new = candidates.iter().filter(|place| !tried.contains_key(*place));
        let round: Vec<(&Vec<i32>, Vec<f64>)> =
            new.filter_map(|place| Some((place, values(place)?))).collect();
        let to_beat = best.as_ref().map(|place| &tried[place]);
        let results = in_parallel(threads, &round, |(_, setting)| run(setting, to_beat));
        let mut is_better = false;
        for ((place, setting), (score, runs)) in round.into_iter().zip(results) {
            // A score that is no number is as bad as none.
            let score = if score.is_nan() { f64::INFINITY } else { score };
            if best.as_ref().is_none_or(|best| score < tried[best].score) {
                best = Some(place.clone());
                is_better = true;
            }
            tried.insert(place.clone(), Tried { setting, score, runs });
        }
        if !is_better {
            is_closed = true;
            break;
        }
        candidates = best.as_deref().map(neighbours).unwrap_or_default();
    }
    let at_edge = |place: &Vec<i32>| axes.iter().zip(place).any(|(axis, &index)| axis.is_edge(index));
    let optimum = match &best {
        Some(place) if tried[place].score.is_infinite() => Optimum::NoScore,
        None => Optimum::NoScore,
        Some(_) if !is_closed => Optimum::Unfinished,
        Some(place) if at_edge(place) => Optimum::Edge,
        Some(_) => Optimum::Interior,
    };
    let best = best.and_then(|place| tried.remove(&place));
    let mut others: Vec<Tried<R>> = tried.into_values().collect();
    others.sort_by(|a, b| a.score.total_cmp(&b.score));
    Found { tried: best.into_iter().chain(others).collect(), optimum }
}

/// All places that differ by at most one along every axis.
fn neighbours(place: &[i32]) -> BTreeSet<Vec<i32>> {
    let mut all = vec![Vec::new()];
    for &index in place {
        all = all
            .into_iter()
            .flat_map(|head| {
                [index - 1, index, index + 1].map(|step| head.iter().copied().chain([step]).collect())
            })
            .collect();
    }
    all.into_iter().filter(|candidate| candidate != place).collect()
}

/// `function` of every item, in order, computed by `threads` threads.
pub fn in_parallel<I: Sync, O: Send>(
    threads: usize,
    items: &[I],
    function: impl Fn(&I) -> O + Sync,
) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<O>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(index) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < items.len())
                {
                    let result = function(&items[index]);
                    *results[index].lock().expect("a thread that panics ends the scope") = Some(result);
                }
            });
        }
    });
    results
        .into_iter()
        .map(|slot| slot.into_inner().ok().flatten().expect("every item was computed"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Vec<Axis> {
        let clip = Values::List {
            values: vec![0.03, 0.1, 0.3, 1.0, f64::INFINITY],
            first_is_natural: false,
            last_is_natural: true,
        };
        vec![
            Axis { name: "rate", values: Values::Geometric { base: 0.01, factor: 2.0 } },
            Axis { name: "clip", values: clip },
        ]
    }

    /// A search by a score alone.
    fn found(
        starts: &[Vec<f64>],
        most_rounds: usize,
        threads: usize,
        score: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Found<()> {
        search(&axes(), starts, most_rounds, threads, &|setting, _| (score(setting), ()))
    }

    #[test]
    fn the_search_walks_to_an_interior_optimum_along_the_diagonal() {
        // A valley: rate times clip stays near 0.04, and the best lies at rate 0.16.
        let score = |settings: &[f64]| {
            let clip = settings[1].min(10.0);
            0.5 * (settings[0] * clip / 0.04).ln().abs() + (settings[0] / 0.16).ln().abs()
        };
        let found = found(&[vec![0.02, 1.0]], 50, 2, score);
        assert_eq!(found.optimum, Optimum::Interior);
        assert_eq!(found.best().unwrap().setting, [0.16, 0.3]);
    }

    #[test]
    fn an_optimum_at_the_end_of_a_list_is_an_edge_unless_nothing_lies_beyond() {
        let lowest_clip = |settings: &[f64]| settings[0].ln().abs() + settings[1].min(10.0);
        assert_eq!(found(&[vec![0.02, 1.0]], 50, 1, lowest_clip).optimum, Optimum::Edge);
        let no_clip = |settings: &[f64]| settings[0].ln().abs() - settings[1].min(10.0);
        let found = found(&[vec![0.02, 0.3]], 50, 1, no_clip);
        assert_eq!(found.optimum, Optimum::Interior);
        assert!(found.best().unwrap().setting[1].is_infinite());
    }

    #[test]
    fn a_search_without_a_score_and_one_that_ran_out_of_rounds_are_called_what_they_are() {
        for none in [f64::NAN, f64::INFINITY] {
            assert_eq!(found(&[vec![0.02, 0.3]], 50, 1, |_| none).optimum, Optimum::NoScore);
        }
        // Downhill for ever; along the edge of the other axis, which is not what ended it.
        let slope = |settings: &[f64]| settings[0] * settings[1].min(10.0);
        assert_eq!(found(&[vec![0.02, 0.03]], 3, 1, slope).optimum, Optimum::Unfinished);
        assert_eq!(found(&[], 3, 1, slope).optimum, Optimum::NoScore);
    }

    /// Two settings are equally good. The second, found a round later, lies earlier in the lattice, and at an edge.
    #[test]
    fn the_best_is_the_setting_of_which_it_is_said_that_it_is_interior() {
        let score = |settings: &[f64]| match settings {
            [0.01, 0.03 | 0.1] => 1.0,
            _ => 2.0,
        };
        let found = found(&[vec![0.02, 0.3]], 50, 1, score);
        assert_eq!(found.best().unwrap().setting, [0.01, 0.1]);
        assert_eq!((&*found.tried[1].setting, found.optimum), (&[0.01, 0.03][..], Optimum::Interior));
    }

    /// What a candidate is told to beat is what stood at the start of its round, however the threads run.
    #[test]
    fn no_candidate_sees_the_results_of_its_own_round() {
        let slope =
            |settings: &[f64]| (settings[0] / 0.16).ln().abs() + (settings[1].min(10.0) / 0.3).ln().abs();
        for threads in [1, 4] {
            let run = |settings: &[f64], to_beat: Option<&Tried<Option<f64>>>| {
                (slope(settings), to_beat.map(|tried| tried.score))
            };
            let found = search(&axes(), &[vec![0.01, 1.0]], 50, threads, &run);
            let told: BTreeSet<String> =
                found.tried.iter().map(|tried| format!("{:?}", tried.runs)).collect();
            // One start, then the best of every round: the way is four steps of the rate long.
            assert_eq!(told.len(), 6, "{told:?}");
        }
    }

    #[test]
    fn a_recorded_setting_is_found_again_on_its_axis() {
        for axis in axes() {
            for index in 0..5 {
                assert_eq!(axis.index(axis.value(index).unwrap()), index, "{}", axis.name);
            }
        }
    }
}
