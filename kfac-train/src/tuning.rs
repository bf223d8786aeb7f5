//! The tuning protocol: a lattice of settings, searched until every neighbour of the best is worse.
//!
//! Neighbours include diagonal moves (a higher rate with a tighter clip): searches along the axes alone have taken
//! baselines for tuned that were half as fast as they could be.

use std::collections::BTreeMap;
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

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Everything that was tried, best first: settings and score.
    pub tried: Vec<(Vec<f64>, f64)>,
    /// Was every neighbour of the best tried and none better, with no edge in the way?
    pub is_interior: bool,
}

/// Searches the lattice of `axes` for the lowest score, from the best of `starts`.
///
/// In each round all untried neighbours of the best setting are scored (in parallel on `threads`); the search ends
/// when none is better, or after `most_rounds`. `score` also receives the best score so far, to give up early on
/// what cannot beat it: a run cut short must return a higher score than that.
pub fn search(
    axes: &[Axis],
    starts: &[Vec<f64>],
    most_rounds: usize,
    threads: usize,
    score: &(dyn Fn(&[f64], Option<f64>) -> f64 + Sync),
) -> Found {
    let place = |values: &Vec<f64>| -> Vec<i32> {
        axes.iter().zip(values).map(|(axis, &value)| axis.index(value)).collect()
    };
    let values = |place: &[i32]| -> Option<Vec<f64>> {
        axes.iter().zip(place).map(|(axis, &index)| axis.value(index)).collect()
    };
    let mut scores: BTreeMap<Vec<i32>, f64> = BTreeMap::new();
    let mut best: Option<(Vec<i32>, f64)> = None;
    let mut candidates: Vec<Vec<i32>> = starts.iter().map(place).collect();
    let mut is_closed = false;
    for _ in 0..most_rounds {
        candidates.retain(|candidate| !scores.contains_key(candidate) && values(candidate).is_some());
        candidates.sort();
        candidates.dedup();
        if candidates.is_empty() {
            is_closed = true;
            break;
        }
        let to_beat = best.as_ref().map(|(_, score)| *score);
        let results = in_parallel(threads, &candidates, |candidate| {
            values(candidate).map_or(f64::INFINITY, |settings| score(&settings, to_beat))
        });
        let before = best.clone();
        for (candidate, result) in candidates.drain(..).zip(results) {
            // A score that is no number is as bad as none.
            let result = if result.is_nan() { f64::INFINITY } else { result };
            if best.as_ref().is_none_or(|(_, score)| result < *score) {
                best = Some((candidate.clone(), result));
            }
            scores.insert(candidate, result);
        }
        if best == before {
            is_closed = true;
            break;
        }
        candidates = best.as_ref().map(|(place, _)| neighbours(place)).unwrap_or_default();
    }
    let at_edge = best.as_ref().is_none_or(|(place, score)| {
        score.is_infinite() || axes.iter().zip(place).any(|(axis, &index)| axis.is_edge(index))
    });
    let mut tried: Vec<(Vec<f64>, f64)> =
        scores.iter().filter_map(|(place, &score)| Some((values(place)?, score))).collect();
    tried.sort_by(|a, b| a.1.total_cmp(&b.1));
    Found { tried, is_interior: is_closed && !at_edge }
}

/// All places that differ by at most one along every axis.
fn neighbours(place: &[i32]) -> Vec<Vec<i32>> {
    let mut all = vec![Vec::new()];
    for &index in place {
        all = all
            .into_iter()
            .flat_map(|head| {
                [index - 1, index, index + 1].map(|step| head.iter().copied().chain([step]).collect())
            })
            .collect();
    }
    all.retain(|candidate| candidate != place);
    all
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

    #[test]
    fn the_search_walks_to_an_interior_optimum_along_the_diagonal() {
        // A valley: rate times clip stays near 0.04, and the best lies at rate 0.16.
        let score = |settings: &[f64], _: Option<f64>| {
            let clip = settings[1].min(10.0);
            0.5 * (settings[0] * clip / 0.04).ln().abs() + (settings[0] / 0.16).ln().abs()
        };
        let found = search(&axes(), &[vec![0.02, 1.0]], 50, 2, &score);
        assert!(found.is_interior);
        assert_eq!(found.tried[0].0, [0.16, 0.3]);
    }

    #[test]
    fn an_optimum_at_the_end_of_a_list_is_an_edge_unless_nothing_lies_beyond() {
        let lowest_clip = |settings: &[f64], _: Option<f64>| settings[0].ln().abs() + settings[1].min(10.0);
        assert!(!search(&axes(), &[vec![0.02, 1.0]], 50, 1, &lowest_clip).is_interior);
        let no_clip = |settings: &[f64], _: Option<f64>| settings[0].ln().abs() - settings[1].min(10.0);
        let found = search(&axes(), &[vec![0.02, 0.3]], 50, 1, &no_clip);
        assert!(found.is_interior && found.tried[0].0[1].is_infinite());
    }

    #[test]
    fn scores_that_are_no_numbers_lose_and_an_unfinished_search_is_not_interior() {
        let all_fail = |_: &[f64], _: Option<f64>| f64::NAN;
        assert!(!search(&axes(), &[vec![0.02, 0.3]], 50, 1, &all_fail).is_interior);
        let slope = |settings: &[f64], _: Option<f64>| settings[0];
        assert!(!search(&axes(), &[vec![0.02, 0.3]], 3, 1, &slope).is_interior);
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
