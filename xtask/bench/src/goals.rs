//! What is to be reached: the table of the project's goals.

use crate::numbers::Precision::{self, F32, F64};
use crate::rows::Against::{self, Fastest, Peer};
use crate::rows::Family::{self, *};
use crate::rows::{Bound, Row, Subject, Summary};

/// A line of the table: what the rows of a family must reach against one peer.
///
/// Ratios are those of [`Ratio`](crate::rows::Ratio): all at least as large, or for the step as small, as the goal.
#[derive(Clone, Copy, Debug)]
struct Goal {
    family: Family,
    precisions: &'static [Precision],
    /// From the first to the second size, both included.
    sizes: [usize; 2],
    against: Against,
    /// What every row must reach.
    worst: f64,
    /// What the geometric mean of the rows must reach.
    mean: Option<f64>,
}

const SINGLE: &[Precision] = &[F32];
const DOUBLE: &[Precision] = &[F64];
const BOTH: &[Precision] = &[F32, F64];
const ANY: [usize; 2] = [1, usize::MAX];

const FAER: Against = Peer("faer");
const NALGEBRA: Against = Peer("nalgebra");
const MATRIXMULTIPLY: Against = Peer("matrixmultiply");
const GEMM_CRATE: Against = Peer("gemm");

/// The table. A line whose peer or family cannot be measured yet is printed as such.
#[rustfmt::skip]
const GOALS: &[Goal] = &[
    //                                   n             time of peer / our time    worst
    goal(Gemm,             BOTH,   [128, 1024],  FAER,                     1.05).mean(1.12),
    goal(Gemm,             BOTH,   [128, 1024],  MATRIXMULTIPLY,           1.15).mean(1.30),
    goal(Gemm,             BOTH,   [128, 1024],  GEMM_CRATE,               0.95).mean(1.02),
    goal(Gemm,             SINGLE, [16, 32],     Fastest,                  1.40),
    goal(Gemm,             DOUBLE, [16, 32],     Fastest,                  1.30),
    goal(Gemm,             BOTH,   [48, 96],     Fastest,                  1.10),
    goal(GemmPeak,         BOTH,   [128, 512],   Peer("FMA peak"),         0.88),
    goal(GemmReproducible, SINGLE, [64, 1024],   Peer("Fast"),             0.50),
    goal(GemmReproducible, SINGLE, [64, 1024],   Peer("plain arrays"),     2.50),
    goal(Gemv,             SINGLE, [1024, 1024], FAER,                     0.95),
    goal(Gemv,             SINGLE, [1024, 1024], MATRIXMULTIPLY,           3.00),
    goal(GemvInOrder,      SINGLE, [1024, 1024], MATRIXMULTIPLY,           3.00),
    goal(Syrk,             SINGLE, [16, 1024],   FAER,                     1.05).mean(1.20),
    goal(Syrk,             SINGLE, [16, 1024],   MATRIXMULTIPLY,           1.00),
    goal(Inverse,          SINGLE, [16, 1024],   FAER,                     1.50).mean(1.90),
    goal(Inverse,          DOUBLE, [16, 1024],   FAER,                     1.45),
    goal(Inverse,          SINGLE, [128, 128],   NALGEBRA,                10.00),
    goal(Inverse,          SINGLE, [256, 256],   NALGEBRA,                10.00),
    goal(Cholesky,         SINGLE, [64, 1024],   FAER,                     0.95),
    goal(Eigh,             SINGLE, [16, 32],     NALGEBRA,                 1.05),
    goal(Eigh,             SINGLE, [16, 32],     FAER,                     1.90),
    goal(Eigh,             SINGLE, [48, 256],    FAER,                     1.80),
    goal(Eigh,             SINGLE, [400, 512],   FAER,                     1.45),
    goal(Eigh,             SINGLE, [785, 1024],  FAER,                     1.20),
    goal(Eigh,             DOUBLE, [16, 256],    FAER,                     1.40),
    goal(Eigh,             DOUBLE, [400, 512],   FAER,                     1.15),
    goal(Eigh,             DOUBLE, [785, 1024],  FAER,                     0.95),
    goal(EighReproducible, SINGLE, [64, 512],    Peer("Fast"),             0.50),
    goal(JacobiWarm,       SINGLE, [16, 32],     FAER,                     1.00),
    goal(BasisRefresh,     SINGLE, [64, 256],    FAER,                     8.00),
    goal(BasisRefresh,     SINGLE, [512, 512],   FAER,                     4.50),
    goal(BasisRefresh,     SINGLE, [1024, 1024], FAER,                     3.00),
    goal(DampedRefresh,    SINGLE, [64, 256],    FAER,                     8.00),
    goal(DampedRefresh,    SINGLE, [512, 512],   FAER,                     4.50),
    goal(DampedRefresh,    SINGLE, [1024, 1024], FAER,                     2.80),
    //                                           error of peer / our error
    goal(Accuracy,         SINGLE, [512, 512],   FAER,                     5.00),
    //                                           our time / time of peer / flops
    goal(Step,             SINGLE, ANY,          Peer("SGD"),              1.10),
];

const fn goal(
    family: Family,
    precisions: &'static [Precision],
    sizes: [usize; 2],
    against: Against,
    worst: f64,
) -> Goal {
    Goal { family, precisions, sizes, against, worst, mean: None }
}

impl Goal {
    const fn mean(self, mean: f64) -> Self {
        Self { mean: Some(mean), ..self }
    }

    fn covers(&self, subject: &Subject) -> bool {
        self.family == subject.family
            && self.precisions.contains(&subject.precision)
            && (self.sizes[0]..=self.sizes[1]).contains(&subject.size)
    }

    /// Is there somebody whom it speaks of?
    fn has_opponent(&self, row: &Row) -> bool {
        match self.against {
            Peer(name) => row.peers.contains_key(name),
            Fastest => !row.peers.is_empty(),
        }
    }

    /// One per precision.
    fn summaries(&self, held: &[(Subject, Row)]) -> impl Iterator<Item = Summary> {
        self.precisions.iter().map(|&precision| {
            let rows = held.iter().filter(|(subject, row)| {
                subject.precision == precision && self.covers(subject) && self.has_opponent(row)
            });
            Summary {
                title: self.title(precision),
                rows: rows.map(|(_, row)| row.id.clone()).collect(),
                against: self.against,
                worst: self.worst,
                mean: self.mean,
            }
        })
    }

    fn title(&self, precision: Precision) -> String {
        let name = self.family.name();
        match self.sizes {
            ANY => format!("{name} {precision}"),
            [n, last] if n == last => format!("{name} {precision}, n = {n}"),
            [first, last] => format!("{name} {precision}, n = {first} to {last}"),
        }
    }
}

/// Gives a row the goals that concern it.
pub fn set(subject: &Subject, row: &mut Row) {
    let goals = GOALS.iter().filter(|goal| goal.covers(subject) && goal.has_opponent(row));
    row.goals = goals.map(|goal| Bound { against: goal.against, ratio: goal.worst }).collect();
}

/// A summary for each line of the table; one without rows has not been measured.
pub fn summaries(held: &[(Subject, Row)]) -> Vec<Summary> {
    GOALS.iter().flat_map(|goal| goal.summaries(held)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Ratio;

    fn row(family: Family, precision: Precision, size: usize, peers: &[&str]) -> (Subject, Row) {
        let subject = Subject { family, precision, size, case: size.to_string() };
        let peers = peers.iter().map(|&peer| (peer.to_owned(), format!("folder/{peer}"))).collect();
        let mut row = Row {
            id: subject.id(),
            ours: "folder/ours".into(),
            peers,
            ratio: Ratio::Speed,
            goals: Vec::new(),
        };
        set(&subject, &mut row);
        (subject, row)
    }

    #[test]
    fn a_row_is_under_the_goals_of_its_size_against_peers_that_take_part() {
        let (_, large) = row(Gemm, F32, 128, &["faer", "matrixmultiply"]);
        assert_eq!(large.goals.len(), 2, "{:?}", large.goals);
        let (_, small) = row(Gemm, F64, 32, &["faer"]);
        assert_eq!(small.goals, [Bound { against: Fastest, ratio: 1.3 }]);
        let (_, between) = row(Gemm, F32, 100, &["faer"]);
        assert_eq!(between.goals, []);
    }

    #[test]
    fn each_line_has_a_summary_per_precision_and_rows_only_where_it_was_measured() {
        let held = [row(Gemm, F32, 128, &["faer"]), row(Gemm, F64, 128, &["faer"])];
        let summaries = summaries(&held);
        let lines: usize = GOALS.iter().map(|goal| goal.precisions.len()).sum();
        assert_eq!(summaries.len(), lines);
        let measured: Vec<_> = summaries.iter().filter(|summary| !summary.rows.is_empty()).collect();
        assert_eq!(measured.len(), 2, "{measured:?}");
        assert_eq!(measured[0].title, "gemm f32, n = 128 to 1024");
        assert_eq!((measured[0].rows.as_slice(), measured[0].against), (&["gemm/f32/128".into()][..], FAER));
        assert_eq!((measured[1].worst, measured[1].mean), (1.05, Some(1.12)));
    }

    #[test]
    fn no_two_lines_say_the_same() {
        for (index, goal) in GOALS.iter().enumerate() {
            assert!(goal.sizes[0] <= goal.sizes[1], "{goal:?}");
            for other in &GOALS[..index] {
                let same = goal.family == other.family
                    && goal.against == other.against
                    && goal.precisions.iter().any(|precision| other.precisions.contains(precision))
                    && goal.sizes[0] <= other.sizes[1]
                    && other.sizes[0] <= goal.sizes[1];
                assert!(!same, "{goal:?} and {other:?}");
            }
        }
    }
}
