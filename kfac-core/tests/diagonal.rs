//! `Diagonal`: the exact diagonal of the Fisher block, from the gradients of single cases.

mod common;

use common::convolution::ConvolutionNet;
use common::dense::{Matrix, assert_close, relative_difference};
use common::golden::{Body, Case, list, on_every_kernel};
use common::layer::{CaseRows, OneLayer, case_gradient, fisher_block, over_diagonal};
use common::net::{DenseNet, Loss, LossTerms, Model, Sharing, layers};
use common::{Room, random, widened};
use kfac_core::evidence::{OutputGradients, Patches, Reduced, Rows, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored};
use kfac_core::shape::Window;
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};

const LAMBDA: f64 = 0.03;
const SHAPE: LayerShape = LayerShape::dense(4, 3);

#[test]
fn golden_diagonals_of_dense_linear_nets() {
    on_every_kernel("dense_linear_nets", &Diagonals);
}

#[test]
fn golden_diagonals_of_dense_mlps() {
    on_every_kernel("dense_mlp", &Diagonals);
}

#[test]
fn golden_diagonals_of_weights_shared_over_positions() {
    on_every_kernel("weight_sharing", &Diagonals);
}

#[test]
fn golden_diagonals_of_convolutions() {
    on_every_kernel("conv_kfc_1", &Diagonals);
}

/// The diagonal of the golden files' exact Gauss-Newton block, from the columns of a type-2 Fisher.
struct Diagonals;

impl Body for Diagonals {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        let blocks = |key: &str| -> Vec<Matrix> {
            let block = |layer: &serde_json::Value| {
                common::golden::Array::<f64>::read(&layer["ggn_block_column_stacked"]).unwrap().matrix()
            };
            list(&case.expected[key]).iter().map(block).collect()
        };
        match case.family.as_str() {
            "conv_factors" => compare(kernel, case, &ConvolutionNet::<T>::of(case), &blocks("conv")),
            "dense_factors" | "weight_sharing" => {
                let terms = match case.inputs["setting"].as_str() {
                    Some("reduce") => LossTerms::OfMean,
                    Some("expand") | None => LossTerms::PerPosition,
                    other => panic!("{}: no setting {other:?}", case.label),
                };
                let net = DenseNet::<T>::new(layers(&case.inputs["layers"]), terms, &case.input("x"));
                compare(kernel, case, &net, &blocks("layers"));
            }
            _ => case.unknown_family(),
        }
        case.assert_compared::<T>();
    }
}

/// What is compared is `1 / (s + λ)`, with `λ` the mean of the file's diagonal: its entries may be 0.
fn compare<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case, net: &impl Model<T>, blocks: &[Matrix]) {
    let (sets, weight) = net.type_2(Loss::of(case));
    let shapes = net.shapes();
    let mut room = Room::<T>::new::<Diagonal, K>(&shapes);
    let (mut kfac, scratch) = room.precondition(&shapes, Diagonal, kernel);
    let mut observation = kfac.observe(sets.len() * net.cases());
    for set in &sets {
        net.observe(&mut observation, set, (weight, Sharing::Expand), scratch);
    }
    kfac.refresh(scratch).unwrap();
    for (layer, block) in blocks.iter().enumerate() {
        let lambda = T::from_f64(block.trace() / block.rows as f64);
        kfac.set_damping(lambda).unwrap();
        let mut u: Vec<Vec<T>> = shapes.iter().map(|shape| vec![T::ONE; shape.weights()]).collect();
        let views = u.iter_mut().zip(&shapes).enumerate().map(|(layer, (u, shape))| {
            let weight = kfac_core::linalg::MatMut::row_major(u, shape.outputs(), shape.inputs()).unwrap();
            kfac_core::LayerGradient::joint(layer, weight)
        });
        kfac.precondition(&mut views.collect::<Vec<_>>(), scratch).unwrap();
        let (m, n) = (shapes[layer].outputs(), shapes[layer].inputs());
        let diagonal = |at: usize| {
            let stacked = at % n * m + at / n;
            T::from_f64(1.0) / (T::from_f64(block.at(stacked, stacked)) + lambda)
        };
        let want: Vec<f64> = (0..m * n).map(|at| diagonal(at).to_f64()).collect();
        let want = serde_json::json!({ "shape": [m, n], "data": want });
        case.compare("ggn_block_column_stacked", &want, &u[layer]);
    }
}

/// Sequences of up to four steps, padded with numbers that must not count.
struct Batch<T> {
    lengths: Vec<usize>,
    inputs: Vec<T>,
    gradients: Vec<T>,
}

const STEPS: usize = 4;

impl<T: Scalar> Batch<T> {
    fn new(lengths: &[usize], seed: u64) -> Self {
        let rows = lengths.len() * STEPS;
        let mut batch = Self {
            lengths: lengths.to_vec(),
            inputs: random(4 * rows, seed),
            gradients: random(3 * rows, seed + 1),
        };
        for (case, &length) in lengths.iter().enumerate() {
            for row in (length..STEPS).map(|step| case * STEPS + step) {
                batch.inputs[4 * row..][..4].fill(T::from_f64(f64::NAN));
                batch.gradients[3 * row..][..3].fill(T::from_f64(f64::NAN));
            }
        }
        batch
    }

    fn cases(&self) -> Vec<CaseRows> {
        let row = |row: usize| {
            let a = widened(&self.inputs[4 * row..][..4]).into_iter().chain([1.0]).collect();
            (a, widened(&self.gradients[3 * row..][..3]))
        };
        let case = |(case, &length): (usize, &usize)| (0..length).map(|t| row(case * STEPS + t)).collect();
        self.lengths.iter().enumerate().map(case).collect()
    }

    /// The exact block, row-stacked.
    fn block(&self) -> Matrix {
        let gradients: Vec<_> = self.cases().iter().map(|case| case_gradient(SHAPE, case)).collect();
        fisher_block(&gradients)
    }

    fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        parts: &[usize],
        scratch: &mut [T],
    ) {
        let mut observation = kfac.observe(self.lengths.len());
        let mut first = 0;
        for &part in parts {
            let rows = part * STEPS;
            let [a, g] = [(&self.inputs, 4), (&self.gradients, 3)].map(|(x, width)| {
                MatRef::row_major(&x[first * STEPS * width..][..rows * width], rows, width).unwrap()
            });
            let a = Sequence::with_lengths(a, STEPS, &self.lengths[first..][..part]).unwrap();
            observation.add(0, &a, OutputGradients::per_case(g), scratch).unwrap();
            first += part;
        }
    }
}

fn mix(keep: f64, old: &Matrix, new: &Matrix) -> Matrix {
    Matrix::from_fn(old.rows, old.cols, |i, j| keep * old.at(i, j) + (1.0 - keep) * new.at(i, j))
}

/// Seven cases of unequal length, whole, in two parts and one by one; and more steps than a panel has rows.
fn averages<T: Scalar, K: Kernel<T>>(kernel: K) {
    let parts: [&[usize]; 3] = [&[7], &[2, 5], &[1; 7]];
    for parts in parts {
        let net = [SHAPE];
        let mut room = Room::new::<Diagonal, K>(&net);
        let (kfac, scratch) = room.precondition(&net, Diagonal, kernel);
        let mut kfac = kfac.with_decay(T::from_f64(0.6)).unwrap();
        kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
        let v = random::<T>(15, 90);
        let mut expected: Option<Matrix> = None;
        for (update, keep) in [0.0, 0.5, 0.6].into_iter().enumerate() {
            let batch = Batch::<T>::new(&[3, 1, 4, 2, 4, 1, 3], 10 * (update as u64 + 1));
            batch.observe(&mut kfac, parts, scratch);
            if update == 0 {
                kfac.refresh(scratch).unwrap();
            }
            let block = batch.block();
            let s = expected.as_ref().map_or(block.clone(), |old| mix(keep, old, &block));
            let mut u = v.clone();
            kfac.precondition_flat(&mut u, scratch).unwrap();
            let want = over_diagonal(&s, LAMBDA, &widened(&v));
            let what = format!("update {update} in {} parts, {}", parts.len(), std::any::type_name::<T>());
            assert_close(&what, &widened(&u), &want, 100.0 * T::EPSILON.to_f64());
            expected = Some(s);
        }
    }
}

#[test]
fn second_moments_are_means_over_the_cases_of_squared_sums_over_their_positions() {
    averages::<f64, _>(Reproducible);
    averages::<f64, _>(Fast::detect());
    averages::<f32, _>(Reproducible);
    averages::<f32, _>(Fast::detect());
}

/// One position a case and more, fewer rows than a panel has and more.
#[test]
fn no_case_is_lost_whatever_their_number_and_length() {
    fn check<K: Kernel<f64>>(kernel: K) {
        for (cases, positions) in [(1, 1), (3, 1), (300, 1), (2, 300), (150, 2)] {
            let rows = cases * positions;
            let (a, g, v) = (random(4 * rows, 1), random(3 * rows, 2), random(15, 3));
            let inputs = Sequence::new(MatRef::row_major(&a, rows, 4).unwrap(), positions).unwrap();
            let gradients = OutputGradients::per_case(MatRef::row_major(&g, rows, 3).unwrap());
            let layer = OneLayer { shape: SHAPE, inputs: &inputs, gradients, lambda: LAMBDA };
            let u = layer.precondition(kernel, Diagonal, &v);
            let row = |row: usize| ([&a[4 * row..][..4], &[1.0]].concat(), g[3 * row..][..3].to_vec());
            let case = |case: usize| -> Vec<f64> {
                case_gradient(SHAPE, &(0..positions).map(|at| row(case * positions + at)).collect())
            };
            let block = fisher_block(&(0..cases).map(case).collect::<Vec<_>>());
            let what = format!("{cases} cases of {positions}");
            assert_close(&what, &u, &over_diagonal(&block, LAMBDA, &v), 1e-12);
        }
    }
    check(Reproducible);
    check(Fast::detect());
}

#[test]
fn of_convolutions_the_gradient_of_a_case_is_the_sum_over_its_locations() {
    let window = Window::new(2, [4, 3], [2, 2]).with_stride([2, 1]).with_padding([[1, 0], [0, 1]]);
    let (shape, locations) = (LayerShape::convolution(window, 3), window.locations());
    let (cases, [height, width]) = (5, window.output());
    let images = random::<f64>(cases * window.image_len(), 1);
    let (g, v) = (random::<f64>(cases * locations * 3, 2), random::<f64>(shape.weights(), 3));
    // From the definition of a convolution: `s[o][y][x] = Σ w[o][c][i][j] image[c][2 y + i - 1][x + j]`.
    let patch = |image: &[f64], y: usize, x: usize| -> Vec<f64> {
        let mut patch = vec![];
        for (channel, i, j) in (0..2).flat_map(|c| (0..4).map(move |at| (c, at / 2, at % 2))) {
            let inside = (1..5).contains(&(2 * y + i)) && x + j < 3;
            patch.push(if inside { image[(channel * 4 + 2 * y + i - 1) * 3 + x + j] } else { 0.0 });
        }
        patch.push(1.0);
        patch
    };
    let case = |case: usize| -> Vec<f64> {
        let image = &images[case * window.image_len()..][..window.image_len()];
        let row = |at: usize| {
            (patch(image, at / width, at % width), g[3 * (case * locations + at)..][..3].to_vec())
        };
        case_gradient(shape, &(0..height * width).map(row).collect())
    };
    let block = fisher_block(&(0..cases).map(case).collect::<Vec<_>>());
    let inputs = Patches::new(&images, window).unwrap();
    let gradients = OutputGradients::per_case(MatRef::row_major(&g, cases * locations, 3).unwrap());
    let layer = OneLayer { shape, inputs: &inputs, gradients, lambda: LAMBDA };
    let want = over_diagonal(&block, LAMBDA, &v);
    assert_close("convolution", &layer.precondition(Reproducible, Diagonal, &v), &want, 1e-12);
    assert_close("convolution", &layer.precondition(Fast::detect(), Diagonal, &v), &want, 1e-12);
}

/// The scales that the constructors of output gradients name: of a mean loss, of a weighted one; and reduced inputs.
#[test]
fn the_scale_of_the_gradients_enters_squared() {
    let batch = Batch::<f64>::new(&[4; 7], 10);
    let a = Sequence::new(MatRef::row_major(&batch.inputs, 28, 4).unwrap(), STEPS).unwrap();
    let (g, v) = (MatRef::row_major(&batch.gradients, 28, 3).unwrap(), random::<f64>(15, 90));
    for (gradients, factor) in [
        (OutputGradients::per_case(g), 1.0),
        (OutputGradients::of_mean_loss(g, 7), 49.0),
        (OutputGradients::of_weighted_nll(g, 3.0), 1.0 / 3.0),
        (OutputGradients::of_hessian_column(g, 5), 5.0),
    ] {
        let layer = OneLayer { shape: SHAPE, inputs: &a, gradients, lambda: LAMBDA };
        let u = layer.precondition(Reproducible, Diagonal, &v);
        let want = over_diagonal(&batch.block().scaled(factor), LAMBDA, &v);
        assert_close(&format!("{factor}"), &u, &want, 1e-12);
    }
    let gradients = OutputGradients::per_case(g);
    let layer = OneLayer { shape: SHAPE, inputs: &Reduced(&a), gradients, lambda: LAMBDA };
    let reduced = |rows: &CaseRows| -> CaseRows {
        let mut sums = (vec![0.0; 5], vec![0.0; 3]);
        for (a, g) in rows {
            sums.0.iter_mut().zip(a).for_each(|(sum, a)| *sum += a / 4.0);
            sums.1.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
        vec![sums]
    };
    let gradients: Vec<_> = batch.cases().iter().map(|rows| case_gradient(SHAPE, &reduced(rows))).collect();
    let want = over_diagonal(&fisher_block(&gradients), LAMBDA, &v);
    assert_close("reduced", &layer.precondition(Reproducible, Diagonal, &v), &want, 1e-12);
}

#[test]
fn it_is_another_map_than_every_other() {
    let batch = Batch::<f64>::new(&[4, 2, 3, 1, 4, 2, 4], 10);
    let a = MatRef::row_major(&batch.inputs, 28, 4).unwrap();
    let a = Sequence::with_lengths(a, STEPS, &batch.lengths).unwrap();
    let gradients = OutputGradients::per_case(MatRef::row_major(&batch.gradients, 28, 3).unwrap());
    let layer = OneLayer { shape: SHAPE, inputs: &a, gradients, lambda: LAMBDA };
    let v = random::<f64>(15, 90);
    let diagonal = layer.precondition(Reproducible, Diagonal, &v);
    for other in [
        layer.precondition(Reproducible, Factored, &v),
        layer.precondition(Reproducible, Eigenbasis::full(), &v),
        layer.precondition(Reproducible, Ekfac::full(), &v),
        layer.precondition(Reproducible, Embedding::full(), &v),
    ] {
        assert!(relative_difference(&diagonal, &other) > 0.01);
    }
}

/// No moments: the state is one number a weight, and a refresh does nothing but say that the layer is ready.
#[test]
fn it_keeps_one_number_a_weight_and_a_refresh_is_free() {
    let net = [SHAPE, LayerShape::dense(2, 5)];
    let mut room = Room::<f64>::new::<Diagonal, Reproducible>(&net);
    assert_eq!(room.numbers.len(), 15 + 15);
    let (mut kfac, scratch) = room.precondition(&net, Diagonal, Reproducible);
    Batch::new(&[3, 1], 10).observe(&mut kfac, &[2], scratch);
    let report = kfac.refresh(scratch).unwrap();
    assert_eq!((report.units, report.flops, report.without_statistics, report.zero_traces), (1, 0, 1, 0));
}

/// Squares that leave the range of the numbers are refused before they are added, though inputs and gradients fit; also
/// where only the case's share of them would fit.
#[test]
fn squares_that_would_overflow_are_refused_and_the_layer_is_left_as_it_was() {
    let net = [LayerShape::dense(2, 2).without_bias()];
    let mut room = Room::<f32>::new::<Diagonal, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Diagonal, Reproducible);
    let before = common::saved(&kfac);
    for (size, announced) in [(1e11_f32, 2), (5e9, 100)] {
        let large = [size, 0.0, 1.0, -size];
        let rows = MatRef::row_major(&large, 2, 2).unwrap();
        let refused = kfac.observe(announced).add(0, &Rows(rows), OutputGradients::per_case(rows), scratch);
        let LayerError { layer: 0, kind: LayerErrorKind::Overflow { largest, .. } } = refused.unwrap_err()
        else {
            panic!("{size} is refused by another name")
        };
        assert_eq!(largest, f64::from(size));
        assert_eq!(common::saved(&kfac), before);
    }
}

/// One layer on both halves of the input, the outputs side by side, with a bias in the first use alone: a column of 1 and 0.
/// One case, at every column of the output's Hessian. Both the diagonal and the factors are exact there.
#[test]
fn a_tied_weight_with_a_bias_in_one_of_its_uses_is_exact() {
    let shape = LayerShape::dense(5, 4).without_bias();
    let (mut inputs, v) = (random::<f64>(10, 1), random::<f64>(20, 2));
    (inputs[4], inputs[9]) = (1.0, 0.0);
    let rows = Sequence::new(MatRef::row_major(&inputs, 2, 5).unwrap(), 2).unwrap();
    // Output `4 use + i` has the derivative `inputs[use]` in row `i` of the weights.
    let mut block = Matrix::zeros(20, 20);
    for output in 0..8 {
        let mut derivative = vec![0.0; 20];
        derivative[output % 4 * 5..][..5].copy_from_slice(&inputs[output / 4 * 5..][..5]);
        block.add_outer(1.0, &derivative, &derivative);
    }
    let net = [shape];
    fn u<M: FactorMap<f64>>(map: M, net: &[LayerShape], rows: &Sequence<'_, f64>, v: &[f64]) -> Vec<f64> {
        let mut room = Room::new::<M, Reproducible>(net);
        let (mut kfac, scratch) = room.precondition(net, map, Reproducible);
        kfac.set_damping(LAMBDA).unwrap();
        let mut observation = kfac.observe(8);
        for output in 0..8 {
            let mut column = [0.0; 8];
            column[output] = 1.0;
            let gradients = MatRef::row_major(&column, 2, 4).unwrap();
            let gradients = OutputGradients::of_hessian_column(gradients, 8);
            observation.add(0, rows, gradients, scratch).unwrap();
        }
        kfac.refresh(scratch).unwrap();
        let mut u = v.to_vec();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        u
    }
    assert_close("diagonal", &u(Diagonal, &net, &rows, &v), &over_diagonal(&block, LAMBDA, &v), 1e-12);
    let full = block.shifted(LAMBDA).solve(&v);
    assert_close("factors", &u(Eigenbasis::full(), &net, &rows, &v), &full, 1e-12);
}
