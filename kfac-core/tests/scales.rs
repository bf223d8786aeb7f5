//! Every scale of the statistics, on numbers that are all unequal: 7 cases, 5 positions, `m = 3`, `n = 5`.
//!
//! A wrong `1/N`, `1/T` or `1/C` is the commonest bug of K-FAC implementations and still trains. The oracle is the
//! definition, two loops long: `A` is the mean over cases and valid positions of `ā āᵀ`, `G` the mean over cases of
//! the sum over positions of `g gᵀ`.

mod common;

use common::dense::{Matrix, assert_close};
use common::{Numbers, Room, factor, random};
use kfac_core::evidence::{Inputs, Moments, OutputGradients, Patches, Reduced, Rows, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible};
use kfac_core::losses::{Loss, Target};
use kfac_core::map::Factored;
use kfac_core::shape::{Side, Window};
use kfac_core::{LayerError, LayerErrorKind, LayerShape};

const CASES: usize = 7;
const POSITIONS: usize = 5;
const FEATURES: usize = 4;
const OUTPUTS: usize = 3;
const LAYER: LayerShape = LayerShape::dense(FEATURES, OUTPUTS);
/// No two neighbours alike, one case full, one of a single position; the mean is not a whole number.
const LENGTHS: [usize; CASES] = [3, 1, 5, 2, 4, 5, 2];

/// Sums of at most 500 rounded products.
const TOLERANCE: f64 = 500.0 * f64::EPSILON;

/// One update over `cases` cases.
struct Update<'f> {
    cases: usize,
    feed: &'f Feed<'f>,
}

/// Adds evidence to the one layer.
type Add<'a> = dyn FnMut(&dyn Inputs<f64>, OutputGradients<'_, f64>) + 'a;
/// Everything that one update adds.
type Feed<'f> = dyn Fn(&mut Add<'_>) + 'f;

/// `[A, G]` after some updates, the same on both kernels.
fn factors_after(shape: LayerShape, decay: f64, updates: &[Update<'_>]) -> [Matrix; 2] {
    let found = factors_on(Reproducible, shape, decay, updates);
    let fast = factors_on(Fast::detect(), shape, decay, updates);
    for (name, (fast, found)) in ["A", "G"].iter().zip(fast.iter().zip(&found)) {
        assert_close(&format!("{name} on the fast kernel"), &fast.data, &found.data, TOLERANCE);
    }
    found
}

fn factors_on<K: Kernel<f64>>(
    kernel: K,
    shape: LayerShape,
    decay: f64,
    updates: &[Update<'_>],
) -> [Matrix; 2] {
    let net = [shape];
    let mut room = Room::new::<Factored, K>(&net);
    let (kfac, scratch) = room.precondition(&net, Factored, kernel);
    let mut kfac = kfac.with_decay(decay).unwrap();
    for update in updates {
        let mut observation = kfac.observe(update.cases);
        (update.feed)(&mut |inputs, g| observation.add(0, &AnyInputs(inputs), g, scratch).unwrap());
    }
    Side::BOTH.map(|side| factor(&kfac, 0, side))
}

/// `[A, G]` after one update.
fn factors(shape: LayerShape, cases: usize, feed: &Feed<'_>) -> [Matrix; 2] {
    factors_after(shape, 0.95, &[Update { cases, feed }])
}

struct AnyInputs<'i>(&'i dyn Inputs<f64>);

impl Inputs<f64> for AnyInputs<'_> {
    fn cases(&self) -> usize {
        self.0.cases()
    }

    fn positions(&self) -> usize {
        self.0.positions()
    }

    fn features(&self) -> usize {
        self.0.features()
    }

    fn is_valid(&self, case: usize, position: usize) -> bool {
        self.0.is_valid(case, position)
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [f64]) {
        self.0.write_row(case, position, out);
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [f64]) {
        self.0.add_row(case, position, out);
    }

    fn gradient_rows(&self) -> usize {
        self.0.gradient_rows()
    }

    fn write_gradient(&self, gradients: &OutputGradients<'_, f64>, place: (usize, usize), out: &mut [f64]) {
        self.0.write_gradient(gradients, place, out);
    }
}

/// The definition. `rows[case][position]` is `(ā, g)`.
fn explicit(rows: &[Vec<(Vec<f64>, Vec<f64>)>]) -> [Matrix; 2] {
    let (a, g) = &rows[0][0];
    let (mut a_sum, mut g_sum) = (Matrix::zeros(a.len(), a.len()), Matrix::zeros(g.len(), g.len()));
    let positions: usize = rows.iter().map(Vec::len).sum();
    for case in rows {
        for (a, g) in case {
            a_sum.add_outer(1.0 / positions as f64, a, a);
            g_sum.add_outer(1.0 / rows.len() as f64, g, g);
        }
    }
    [a_sum, g_sum]
}

#[track_caller]
fn assert_factors(found: &[Matrix; 2], want: &[Matrix; 2]) {
    for (name, (found, want)) in ["A", "G"].iter().zip(found.iter().zip(want)) {
        assert_close(name, &found.data, &want.data, TOLERANCE);
    }
}

/// A batch of `CASES` cases with `positions` positions.
struct Batch {
    positions: usize,
    inputs: Vec<f64>,
    gradients: Vec<f64>,
}

impl Batch {
    fn new(positions: usize) -> Self {
        let rows = CASES * positions;
        Self { positions, inputs: random(rows * FEATURES, 1), gradients: random(rows * OUTPUTS, 2) }
    }

    fn inputs(&self) -> MatRef<'_, f64> {
        MatRef::row_major(&self.inputs, CASES * self.positions, FEATURES).unwrap()
    }

    fn gradients(&self) -> MatRef<'_, f64> {
        MatRef::row_major(&self.gradients, CASES * self.positions, OUTPUTS).unwrap()
    }

    /// `ā` and `g` of one row.
    fn row(&self, row: usize) -> (Vec<f64>, Vec<f64>) {
        let mut a = self.inputs[row * FEATURES..][..FEATURES].to_vec();
        a.push(1.0);
        (a, self.gradients[row * OUTPUTS..][..OUTPUTS].to_vec())
    }

    /// Of every case the first `length` positions.
    fn rows(&self, lengths: &[usize]) -> Vec<Vec<(Vec<f64>, Vec<f64>)>> {
        let of_case = |(case, &length)| (0..length).map(|t| self.row(case * self.positions + t)).collect();
        lengths.iter().enumerate().map(of_case).collect()
    }
}

#[test]
fn of_dense_rows_both_factors_are_means_over_the_cases() {
    let batch = Batch::new(1);
    let found = factors(LAYER, CASES, &|add| {
        add(&Rows(batch.inputs()), OutputGradients::per_case(batch.gradients()));
    });
    assert_factors(&found, &explicit(&batch.rows(&[1; CASES])));
}

#[test]
fn of_sequences_a_is_the_mean_over_all_positions_and_g_the_mean_over_cases_of_their_sum() {
    let batch = Batch::new(POSITIONS);
    let found = factors(LAYER, CASES, &|add| {
        let sequence = Sequence::new(batch.inputs(), POSITIONS).unwrap();
        add(&sequence, OutputGradients::per_case(batch.gradients()));
    });
    assert_factors(&found, &explicit(&batch.rows(&[POSITIONS; CASES])));
}

#[test]
fn of_sequences_of_unequal_length_only_the_valid_positions_count_whatever_lies_in_the_padding() {
    let mut batch = Batch::new(POSITIONS);
    let want = explicit(&batch.rows(&LENGTHS));
    for (case, length) in LENGTHS.into_iter().enumerate() {
        let padding = case * POSITIONS + length..(case + 1) * POSITIONS;
        batch.inputs[padding.start * FEATURES..padding.end * FEATURES].fill(f64::NAN);
        batch.gradients[padding.start * OUTPUTS..padding.end * OUTPUTS].fill(f64::INFINITY);
    }
    let found = factors(LAYER, CASES, &|add| {
        let sequence = Sequence::with_lengths(batch.inputs(), POSITIONS, &LENGTHS).unwrap();
        add(&sequence, OutputGradients::per_case(batch.gradients()));
    });
    assert_factors(&found, &want);
}

/// A sequence of length 0 is no case: it must not thin out `G`.
/// `A` from the mean over the valid positions of a case, `G` from their sum, whatever lies in the padding; and with one
/// position the same bits as without.
#[test]
fn reduced_sequences_are_cases_of_mean_inputs_and_summed_gradients() {
    let (batch, lengths) = (Batch::new(POSITIONS), [5, 2, 0, 3, 1, 4, 5]);
    let reduce = |case: &Vec<(Vec<f64>, Vec<f64>)>| {
        let share = 1.0 / case.len() as f64;
        let (mut a, mut g) = (vec![0.0; FEATURES + 1], vec![0.0; OUTPUTS]);
        for (input, gradient) in case {
            a.iter_mut().zip(input).for_each(|(a, x)| *a += share * x);
            g.iter_mut().zip(gradient).for_each(|(g, x)| *g += x);
        }
        vec![(a, g)]
    };
    let rows: Vec<_> = batch.rows(&lengths).iter().filter(|case| !case.is_empty()).map(reduce).collect();
    let found = factors(LAYER, CASES, &|add| {
        let inputs = Sequence::with_lengths(batch.inputs(), POSITIONS, &lengths).unwrap();
        add(&Reduced(&inputs), OutputGradients::per_case(batch.gradients()));
    });
    assert_factors(&found, &explicit(&rows));

    let single = Batch::new(1);
    let [plain, reduced] = [false, true].map(|reduced| {
        factors(LAYER, CASES, &|add| {
            let (inputs, g) = (Rows(single.inputs()), OutputGradients::per_case(single.gradients()));
            if reduced { add(&Reduced(&inputs), g) } else { add(&inputs, g) }
        })
    });
    for (plain, reduced) in plain.iter().zip(&reduced) {
        assert_eq!(plain.data, reduced.data);
    }
}

#[test]
fn cases_without_a_valid_position_count_nowhere() {
    let batch = Batch::new(POSITIONS);
    let lengths = [0, 3, 0, 2, 5, 1, 0];
    let mut rows = batch.rows(&lengths);
    rows.retain(|case| !case.is_empty());
    let found = factors(LAYER, CASES, &|add| {
        let sequence = Sequence::with_lengths(batch.inputs(), POSITIONS, &lengths).unwrap();
        add(&sequence, OutputGradients::per_case(batch.gradients()));
    });
    assert_factors(&found, &explicit(&rows));
}

#[test]
fn two_cases_and_five_are_seven_and_so_are_seven_times_one() {
    let batch = Batch::new(POSITIONS);
    let want = explicit(&batch.rows(&LENGTHS));
    for parts in [vec![2, 5], vec![5, 2], vec![1; CASES]] {
        let found = factors(LAYER, CASES, &|add| {
            let mut first = 0;
            for &cases in &parts {
                let rows = first * POSITIONS..(first + cases) * POSITIONS;
                let inputs = batch.inputs().block(rows.clone(), 0..FEATURES).unwrap();
                let gradients = batch.gradients().block(rows, 0..OUTPUTS).unwrap();
                let lengths = &LENGTHS[first..first + cases];
                let sequence = Sequence::with_lengths(inputs, POSITIONS, lengths).unwrap();
                add(&sequence, OutputGradients::per_case(gradients));
                first += cases;
            }
        });
        assert_factors(&found, &want);
    }
}

#[test]
fn fewer_cases_than_announced_still_make_means() {
    let batch = Batch::new(1);
    for announced in [CASES, CASES + 1, 100] {
        let found = factors(LAYER, announced, &|add| {
            add(&Rows(batch.inputs()), OutputGradients::per_case(batch.gradients()));
        });
        assert_factors(&found, &explicit(&batch.rows(&[1; CASES])));
    }
}

#[test]
fn gradients_of_a_mean_loss_are_multiplied_by_its_batch() {
    let batch = Batch::new(1);
    let of_mean: Vec<f64> = batch.gradients.iter().map(|g| g / CASES as f64).collect();
    let found = factors(LAYER, CASES, &|add| {
        let rows = MatRef::row_major(&of_mean, CASES, OUTPUTS).unwrap();
        add(&Rows(batch.inputs()), OutputGradients::of_mean_loss(rows, CASES));
    });
    assert_factors(&found, &explicit(&batch.rows(&[1; CASES])));
}

/// Sampled targets: with `L = w l`, `(1/√w) dL/ds = √w dl/ds`, so `G` grows by `w` and not by `w²`.
#[test]
fn gradients_of_a_weighted_loss_make_a_fisher_of_that_weight() {
    let batch = Batch::new(POSITIONS);
    let [a, g] = explicit(&batch.rows(&[POSITIONS; CASES]));
    for weight in [1.0, 1.0 / POSITIONS as f64, 3.0] {
        let weighted: Vec<f64> = batch.gradients.iter().map(|g| weight * g).collect();
        let found = factors(LAYER, CASES, &|add| {
            let sequence = Sequence::new(batch.inputs(), POSITIONS).unwrap();
            let rows = MatRef::row_major(&weighted, CASES * POSITIONS, OUTPUTS).unwrap();
            add(&sequence, OutputGradients::of_weighted_nll(rows, weight));
        });
        assert_factors(&found, &[a.clone(), g.scaled(weight)]);
    }
}

/// The reason for `√w`: the expectation over targets drawn from the model, class by class with its probability, is
/// the loss Hessian `w (diag(p) - p pᵀ)` for every weight.
#[test]
fn sampled_and_exact_fisher_agree_for_every_weight() {
    let outputs: Vec<f64> = random(CASES * OUTPUTS, 3);
    let inputs: Vec<f64> = random(CASES * FEATURES, 4);
    let inputs_row = |case: usize| &inputs[case * FEATURES..][..FEATURES];
    let probabilities = |f: &[f64]| -> Vec<f64> {
        let total: f64 = f.iter().map(|f| f.exp()).sum();
        f.iter().map(|f| f.exp() / total).collect()
    };
    for weight in [1.0, 0.2, 3.0] {
        let mut exact = Matrix::zeros(OUTPUTS, OUTPUTS);
        for f in outputs.chunks(OUTPUTS) {
            let p = probabilities(f);
            let share = weight / CASES as f64;
            let hessian = |i: usize, j: usize| if i == j { p[i] - p[i] * p[i] } else { -p[i] * p[j] };
            exact = Matrix::from_fn(OUTPUTS, OUTPUTS, |i, j| exact.at(i, j) + share * hessian(i, j));
        }
        let [_, sampled] = factors(LAYER, CASES, &|add| {
            for (case, f) in outputs.chunks(OUTPUTS).enumerate() {
                // One position per class; the root of its probability turns the sum into the expectation.
                let (mut a, mut rows) = (vec![], vec![]);
                for (class, p) in probabilities(f).into_iter().enumerate() {
                    let mut g = [0.0; OUTPUTS];
                    Loss::Softmax.gradient(f, Target::Class(class), &mut g).unwrap();
                    rows.extend(g.map(|g| p.sqrt() * weight * g));
                    a.extend_from_slice(inputs_row(case));
                }
                let rows = MatRef::row_major(&rows, OUTPUTS, OUTPUTS).unwrap();
                let a = MatRef::row_major(&a, OUTPUTS, FEATURES).unwrap();
                let sequence = Sequence::new(a, OUTPUTS).unwrap();
                add(&sequence, OutputGradients::of_weighted_nll(rows, weight));
            }
        });
        assert_close(&format!("weight {weight}"), &sampled.data, &exact.data, TOLERANCE);
    }
}

/// Type 2: the columns of the loss Hessian's root add up, for one input, as the positions of a case do.
#[test]
fn columns_of_a_type_2_fisher_add_up() {
    let batch = Batch::new(POSITIONS);
    let [_, g] = explicit(&batch.rows(&[POSITIONS; CASES]));
    let inputs: Vec<f64> = random(CASES * FEATURES, 5);
    let inputs = MatRef::row_major(&inputs, CASES, FEATURES).unwrap();
    let [_, found] = factors(LAYER, POSITIONS * CASES, &|add| {
        for column in 0..POSITIONS {
            // Every POSITIONS-th row, beginning with `column`.
            let rows = MatRef::with_strides(
                &batch.gradients[column * OUTPUTS..],
                [CASES, OUTPUTS],
                [POSITIONS * OUTPUTS, 1],
            );
            add(&Rows(inputs), OutputGradients::of_hessian_column(rows.unwrap(), POSITIONS));
        }
    });
    assert_close("G", &found.data, &g.data, TOLERANCE);
}

/// Rows are gathered before they are added, 16 at a time on one kernel and 128 on the other.
#[test]
fn no_row_is_lost_or_counted_twice_whatever_their_number() {
    for cases in [1, 2, 15, 16, 17, 33, 127, 128, 129, 257] {
        let (inputs, gradients): (Vec<f64>, Vec<f64>) =
            (random(cases * FEATURES, 9), random(cases * OUTPUTS, 10));
        let of_case = |case: usize| {
            let mut a = inputs[case * FEATURES..][..FEATURES].to_vec();
            a.push(1.0);
            vec![(a, gradients[case * OUTPUTS..][..OUTPUTS].to_vec())]
        };
        let found = factors(LAYER, cases, &|add| {
            let a = MatRef::row_major(&inputs, cases, FEATURES).unwrap();
            let g = MatRef::row_major(&gradients, cases, OUTPUTS).unwrap();
            add(&Rows(a), OutputGradients::per_case(g));
        });
        assert_factors(&found, &explicit(&(0..cases).map(of_case).collect::<Vec<_>>()));
    }
}

/// A layer that is nothing but a bias has `A = [1]`.
#[test]
fn a_layer_may_have_no_input_but_the_bias() {
    let gradients: Vec<f64> = random(CASES * OUTPUTS, 11);
    let found = factors(LayerShape::dense(0, OUTPUTS), CASES, &|add| {
        let g = MatRef::row_major(&gradients, CASES, OUTPUTS).unwrap();
        add(&Rows(MatRef::row_major(&[], CASES, 0).unwrap()), OutputGradients::per_case(g));
    });
    let row = |g: &[f64]| vec![(vec![1.0], g.to_vec())];
    assert_factors(&found, &explicit(&gradients.chunks(OUTPUTS).map(row).collect::<Vec<_>>()));
}

/// The patches come from the definition of a convolution: element `(channel, i, j)` of the patch at `(y, x)` is the
/// pixel `(y stride - top + i dilation, x stride - left + j dilation)`, or zero outside.
#[test]
fn of_convolutions_a_is_the_mean_over_locations_and_g_their_sum() {
    let window = Window::new(2, [6, 5], [2, 3])
        .with_stride([2, 1])
        .with_dilation([3, 1])
        .with_padding([[2, 1], [0, 2]]);
    let [height, width] = window.output();
    assert_eq!([height, width], [3, 5]);
    let shape = LayerShape::convolution(window, OUTPUTS);
    // 7 images of 15 locations, and twice that: more rows than either kernel gathers at once.
    for cases in [CASES, 2 * CASES] {
        let images: Vec<f64> = random(cases * 2 * 6 * 5, 6);
        let gradients: Vec<f64> = random(cases * height * width * OUTPUTS, 7);
        let pixel = |image: &[f64], channel: usize, y: isize, x: isize| {
            let inside = (0..6).contains(&y) && (0..5).contains(&x);
            if inside { image[channel * 30 + y as usize * 5 + x as usize] } else { 0.0 }
        };
        let patch = |image: &[f64], y: usize, x: usize| -> Vec<f64> {
            let mut patch = vec![];
            for channel in 0..2 {
                for i in 0..2 {
                    for j in 0..3 {
                        patch.push(pixel(image, channel, (2 * y + 3 * i) as isize - 2, (x + j) as isize));
                    }
                }
            }
            patch.push(1.0);
            patch
        };
        let of_case = |case: usize| -> Vec<(Vec<f64>, Vec<f64>)> {
            let location = |at: usize| {
                let g = &gradients[(case * height * width + at) * OUTPUTS..][..OUTPUTS];
                (patch(&images[case * 60..][..60], at / width, at % width), g.to_vec())
            };
            (0..height * width).map(location).collect()
        };
        let found = factors(shape, cases, &|add| {
            let rows = MatRef::row_major(&gradients, cases * height * width, OUTPUTS).unwrap();
            add(&Patches::new(&images, window).unwrap(), OutputGradients::per_case(rows));
        });
        assert_factors(&found, &explicit(&(0..cases).map(of_case).collect::<Vec<_>>()));
    }
}

#[test]
fn the_bias_adds_a_last_column_of_ones() {
    let batch = Batch::new(1);
    let feed = |add: &mut Add<'_>| {
        add(&Rows(batch.inputs()), OutputGradients::per_case(batch.gradients()));
    };
    let [with, _] = factors(LAYER, CASES, &feed);
    let [without, _] = factors(LAYER.without_bias(), CASES, &feed);
    for i in 0..FEATURES {
        let mean = (0..CASES).map(|case| batch.inputs[case * FEATURES + i]).sum::<f64>() / CASES as f64;
        assert!((with.at(FEATURES, i) - mean).abs() <= TOLERANCE, "column {i}");
        for j in 0..FEATURES {
            assert!((with.at(i, j) - without.at(i, j)).abs() <= TOLERANCE, "({i}, {j})");
        }
    }
    assert!((with.at(FEATURES, FEATURES) - 1.0).abs() <= TOLERANCE);
}

#[test]
fn three_times_the_inputs_or_gradients_are_nine_times_the_factor() {
    let batch = Batch::new(1);
    let thrice = |numbers: &[f64]| numbers.iter().map(|x| 3.0 * x).collect::<Vec<f64>>();
    let tripled = Batch { positions: 1, inputs: thrice(&batch.inputs), gradients: thrice(&batch.gradients) };
    let of = |inputs: &Batch, gradients: &Batch| {
        factors(LAYER.without_bias(), CASES, &|add| {
            add(&Rows(inputs.inputs()), OutputGradients::per_case(gradients.gradients()));
        })
    };
    let [a, g] = of(&batch, &batch);
    assert_factors(&of(&tripled, &batch), &[a.scaled(9.0), g.clone()]);
    assert_factors(&of(&batch, &tripled), &[a, g.scaled(9.0)]);
}

/// `new = ε old + (1 - ε) batch` with `ε = min(1 - 1/k, decay)`: an update counts by its turn, not by its cases.
#[test]
fn updates_of_7_2_and_5_cases_are_averaged_by_the_ramp() {
    let decay = 0.6;
    let sizes = [CASES, 2, 5];
    let mut numbers = Numbers(8);
    let mut rows =
        |cases: usize, width: usize| -> Vec<f64> { (0..cases * width).map(|_| numbers.next()).collect() };
    let batches: Vec<(usize, Vec<f64>, Vec<f64>)> =
        sizes.map(|cases| (cases, rows(cases, FEATURES), rows(cases, OUTPUTS))).into();
    let of_batch = |(cases, a, g): &(usize, Vec<f64>, Vec<f64>)| {
        let row = |case: usize| {
            let mut a = a[case * FEATURES..][..FEATURES].to_vec();
            a.push(1.0);
            vec![(a, g[case * OUTPUTS..][..OUTPUTS].to_vec())]
        };
        explicit(&(0..*cases).map(row).collect::<Vec<_>>())
    };
    let [first, second, third] = [0, 1, 2].map(|k| of_batch(&batches[k]));
    // ε = 0, 1/2, and 0.6 where 1 - 1/3 is beyond the decay.
    let mix = |side: usize| {
        let [x, y, z] = [&first[side], &second[side], &third[side]];
        Matrix::from_fn(x.rows, x.cols, |i, j| 0.6 * (0.5 * x.at(i, j) + 0.5 * y.at(i, j)) + 0.4 * z.at(i, j))
    };
    let feeds: Vec<_> = batches
        .iter()
        .map(|(cases, a, g)| {
            move |add: &mut Add<'_>| {
                let a = MatRef::row_major(a, *cases, FEATURES).unwrap();
                let g = MatRef::row_major(g, *cases, OUTPUTS).unwrap();
                add(&Rows(a), OutputGradients::per_case(g));
            }
        })
        .collect();
    let updates: Vec<Update<'_>> =
        sizes.iter().zip(&feeds).map(|(&cases, feed)| Update { cases, feed }).collect();
    assert_factors(&factors_after(LAYER, decay, &updates), &[mix(0), mix(1)]);
}

/// They stand for all cases of their update, whatever number was announced: the ramp makes the first two updates
/// an even mean.
#[test]
fn finished_moments_are_taken_as_they_are() {
    let batch = Batch::new(1);
    let [a, g] = explicit(&batch.rows(&[1; CASES]));
    let net = [LAYER];
    let mut room = Room::new::<Factored, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);
    for (cases, multiple, mean) in [(CASES, 1.0, 1.0), (3, 5.0, 3.0)] {
        let moments = [a.scaled(multiple), g.scaled(multiple)];
        let [a_view, g_view] = moments
            .each_ref()
            .map(|moment| MatRef::row_major(&moment.data, moment.rows, moment.cols).unwrap());
        kfac.observe(cases)
            .add_moments(0, Moments { a: a_view, g: g_view, positions: 1.0 }, scratch)
            .unwrap();
        let found = Side::BOTH.map(|side| factor(&kfac, 0, side));
        assert_factors(&found, &[a.scaled(mean), g.scaled(mean)]);
    }
}

/// 30 positions of `a = [1, 1]` by `add`, then moments three times as large: an even mean, as the ramp says.
#[test]
fn moments_weigh_as_many_positions_as_they_stand_for() {
    let net = [LayerShape::dense(1, 1)];
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Factored, Reproducible);
    let ones = [1.0; 60];
    let rows = MatRef::row_major(&ones, 60, 1).unwrap();
    let sequence = Sequence::new(rows, 30).unwrap();
    kfac.observe(2).add(0, &sequence, OutputGradients::per_case(rows), scratch).unwrap();
    let (a, g) = ([3.0; 4], [90.0]);
    let [a, g] = [(&a[..], 2), (&g, 1)].map(|(x, size)| MatRef::row_major(x, size, size).unwrap());
    for none in [0.0, -1.0, f64::NAN] {
        let refused = kfac.observe(7).add_moments(0, Moments { a, g, positions: none }, scratch);
        assert_eq!(refused, Err(LayerError { layer: 0, kind: LayerErrorKind::EmptyBatch }), "{none}");
    }
    kfac.observe(7).add_moments(0, Moments { a, g, positions: 30.0 }, scratch).unwrap();
    assert_close("A", &factor(&kfac, 0, Side::Input).data, &[2.0; 4], TOLERANCE);
    assert_close("G", &factor(&kfac, 0, Side::Output).data, &[60.0], TOLERANCE);
}

/// Case by case in `f32`, every share of 1e-5 is rounded against a sum of order 1: a constant input in the same
/// direction each time, one that varies in both. The bound is the one that `statistics` documents.
#[test]
fn small_shares_are_rounded_within_the_documented_bound_which_larger_parts_make_smaller() {
    const MANY: usize = 1000;
    let (decay, net) = (0.99_f32, [LayerShape::dense(1, 1)]);
    for part in [1, 100] {
        let mut room = Room::<f32>::new::<Factored, Reproducible>(&net);
        let (kfac, scratch) = room.precondition(&net, Factored, Reproducible);
        let mut kfac = kfac.with_decay(decay).unwrap();
        for update in 0..300 {
            let mut observation = kfac.observe(MANY);
            let numbers: Vec<f32> = random(MANY, 1000 + update);
            for rows in numbers.chunks(part) {
                let rows = MatRef::row_major(rows, part, 1).unwrap();
                observation.add(0, &Rows(rows), OutputGradients::per_case(rows), scratch).unwrap();
            }
        }
        let a = factor(&kfac, 0, Side::Input);
        // One rounding for each 16 rows or fewer, and one for the decay.
        let roundings = (MANY / part * part.div_ceil(16) + 1) as f64;
        let bound = f64::from(f32::EPSILON) / 2.0 * roundings / 0.01;
        assert!((a.at(1, 1) - 1.0).abs() < bound, "parts of {part}: {} within {bound:e}", a.at(1, 1));
        // Uniform in [-1, 1): a second moment of 1/3, with the noise of 200 000 cases.
        for moment in [a.at(0, 0), factor(&kfac, 0, Side::Output).at(0, 0)] {
            assert!((3.0 * moment - 1.0).abs() < 0.01, "parts of {part}: {moment}");
        }
    }
}
