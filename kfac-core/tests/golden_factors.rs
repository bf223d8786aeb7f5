//! Golden vectors of the statistics: `A` and `G` of dense nets, shared weights, convolutions and sequences, exact,
//! empirical and sampled, fed in whole batches, in parts, and case by case.

mod common;

use common::convolution::ConvolutionNet;
use common::dense::Matrix;
use common::golden::{Body, Case, list, on_every_kernel};
use common::net::{DenseNet, Loss, LossTerms, Model, Sharing, layers};
use common::{Room, factor};
use kfac_core::evidence::{OutputGradients, Sequence};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Scalar};
use kfac_core::map::Factored;
use kfac_core::shape::Side;
use kfac_core::{LayerGradient, LayerShape};

#[test]
fn golden_factors_of_dense_linear_nets() {
    on_every_kernel("dense_linear_nets", &DenseFactors);
}

#[test]
fn golden_factors_of_dense_mlps() {
    on_every_kernel("dense_mlp", &DenseFactors);
}

#[test]
fn golden_factors_of_weights_shared_over_positions() {
    on_every_kernel("weight_sharing", &SharedFactors);
}

#[test]
fn golden_factors_of_convolutions_1() {
    on_every_kernel("conv_kfc_1", &ConvolutionFactors);
}

#[test]
fn golden_factors_of_convolutions_2() {
    on_every_kernel("conv_kfc_2", &ConvolutionFactors);
}

#[test]
fn golden_factors_of_convolutions_3() {
    on_every_kernel("conv_kfc_3", &ConvolutionFactors);
}

#[test]
fn golden_factors_of_sequences_of_variable_length() {
    on_every_kernel("recurrent_chains", &SequenceFactors);
}

/// `[A, G]` of every layer, for each kind of Fisher matrix that the case has targets for. The kinds are named as in
/// the names of the expected factors.
fn factors<T: Scalar, K: Kernel<T>>(
    kernel: K,
    case: &Case,
    model: &impl Model<T>,
    (loss, sharing): (Loss<T>, Sharing),
) -> Vec<(&'static str, Vec<[Matrix; 2]>)> {
    let (exact, weight) = model.type_2(loss);
    let mut kinds = vec![("exact", exact, weight)];
    if let Some(targets) = case.optional_input("targets_empirical") {
        kinds.push(("empirical", vec![model.loss_gradients(loss, &targets.data)], T::ONE));
    }
    if let Some(targets) = case.optional_input::<T>("targets_sampled") {
        let sets = (0..targets.shape[0]).map(|set| model.loss_gradients(loss, targets.piece(set)));
        kinds.push(("sampled", sets.collect(), T::ONE));
    }
    let observed = |(kind, sets, weight): (&'static str, Vec<Vec<Vec<T>>>, T)| {
        let shapes = model.shapes();
        let mut room = Room::<T>::new::<Factored, K>(&shapes);
        let (mut kfac, scratch) = room.precondition(&shapes, Factored, kernel);
        let mut observation = kfac.observe(sets.len() * model.cases());
        for set in &sets {
            model.observe(&mut observation, set, (weight, sharing), scratch);
        }
        let factors = (0..shapes.len()).map(|layer| Side::BOTH.map(|side| factor(&kfac, layer, side)));
        (kind, factors.collect())
    };
    kinds.into_iter().map(observed).collect()
}

fn compare_outputs<T: Scalar>(case: &Case, model: &impl Model<T>) {
    let outputs: Vec<T> = (0..model.cases()).flat_map(|case| model.outputs(case).to_vec()).collect();
    case.expect("outputs", &outputs);
}

/// `dense_linear_nets`, `dense_mlp`: cases one by one.
struct DenseFactors;

impl Body for DenseFactors {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "dense_factors" {
            case.unknown_family();
        }
        let loss = Loss::<T>::of(case);
        let net = DenseNet::new(layers(&case.inputs["layers"]), LossTerms::PerPosition, &case.input("x"));
        let targets = case.input("targets_empirical").data;
        compare_outputs(case, &net);
        case.expect("mean_loss", &[net.mean_loss(loss, &targets)]);

        let found = factors(kernel, case, &net, (loss, Sharing::Expand));
        let gradients = net.mean_gradients(&net.loss_gradients(loss, &targets));
        for (layer, want) in list(&case.expected["layers"]).iter().enumerate() {
            for (kind, factors) in &found {
                let (g, [input, output]) = (format!("g_{kind}"), &factors[layer]);
                case.compare_matrix("a", &want["a"], input);
                case.compare_matrix(&g, &want[&g], output);
            }
            case.compare("gradient", &want["gradient"], &gradients[layer]);
            let block = "ggn_block_column_stacked";
            case.compare_matrix(block, &want[block], &net.gauss_newton_block(loss, layer));
        }
        case.assert_compared::<T>();
    }
}

/// `weight_sharing`: any number of position axes. Where a file has no `reduce_g_exact`, the loss has a term per position,
/// whose roots are no root of the reduced one.
struct SharedFactors;

impl Body for SharedFactors {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "weight_sharing" {
            case.unknown_family();
        }
        let terms = match case.inputs["setting"].as_str() {
            Some("expand") => LossTerms::PerPosition,
            Some("reduce") => LossTerms::OfMean,
            other => panic!("{}: no setting {other:?}", case.label),
        };
        let loss = Loss::<T>::of(case);
        let net = DenseNet::new(layers(&case.inputs["layers"]), terms, &case.input("x"));
        compare_outputs(case, &net);

        for (name, sharing) in [("expand", Sharing::Expand), ("reduce", Sharing::Reduce)] {
            let found = factors(kernel, case, &net, (loss, sharing));
            let (a, layers) = (format!("{name}_a"), list(&case.expected["layers"]));
            for ((layer, want), (kind, factors)) in
                layers.iter().enumerate().flat_map(|layer| found.iter().map(move |kind| (layer, kind)))
            {
                let (g, [input, output]) = (format!("{name}_g_{kind}"), &factors[layer]);
                case.compare_matrix(&a, &want[&a], input);
                if !want[&g].is_null() {
                    case.compare_matrix(&g, &want[&g], output);
                }
            }
        }
        for (layer, want) in list(&case.expected["layers"]).iter().enumerate() {
            let block = "ggn_block_column_stacked";
            case.compare_matrix(block, &want[block], &net.gauss_newton_block(loss, layer));
        }
        case.assert_compared::<T>();
    }
}

/// `conv_kfc_*`: whole batches as patches. The files hold KFC's scales: with `|T|` locations `A_file = |T| A` and
/// `G_file = G / |T|`.
struct ConvolutionFactors;

impl Body for ConvolutionFactors {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "conv_factors" {
            case.unknown_family();
        }
        let loss = Loss::<T>::of(case);
        let net = ConvolutionNet::of(case);
        let targets = case.input("targets_empirical").data;
        case.expect("output_height_width", &net.window().output().map(T::from_usize));
        compare_outputs(case, &net);
        case.expect("mean_loss", &[net.mean_loss(loss, &targets)]);

        let locations = net.window().locations() as f64;
        let found = factors(kernel, case, &net, (loss, Sharing::Expand));
        let gradients = net.mean_gradients(&net.loss_gradients(loss, &targets));
        let groups = list(&case.expected["conv"]);
        for (kind, factors) in &found {
            let g = format!("kfc_g_{kind}");
            for (want, [input, output]) in groups.iter().zip(factors) {
                case.compare_matrix("kfc_a", &want["kfc_a"], &input.scaled(locations));
                case.compare_matrix(&g, &want[&g], &output.scaled(1.0 / locations));
            }
            // The dense layer behind the convolution, where there is one.
            let g = format!("g_{kind}");
            for [_, output] in &factors[groups.len()..] {
                case.compare_matrix(&g, &case.expected["linear"][&g], output);
            }
        }
        for (kind, factors) in factors(kernel, case, &net, (loss, Sharing::Reduce)) {
            let g = format!("reduce_g_{kind}");
            for (want, [input, output]) in groups.iter().zip(&factors) {
                for (name, found) in [("reduce_a", input), (&g, output)] {
                    if !want[name].is_null() {
                        case.compare_matrix(name, &want[name], found);
                    }
                }
            }
        }
        for (group, want) in groups.iter().enumerate() {
            case.compare("gradient", &want["gradient"], &gradients[group]);
            let block = "ggn_block_column_stacked";
            case.compare_matrix(block, &want[block], &net.gauss_newton_block(loss, group));
        }
        case.assert_compared::<T>();
    }
}

/// `recurrent_chains`: the zero-padded sequences, and the map that takes times as independent. The file divides both
/// sums by the number of (case, time) pairs; our `G` is the sum over times of a case.
struct SequenceFactors;

impl Body for SequenceFactors {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        match case.family.as_str() {
            "chain_sequences" => {}
            // The two chain maps, which read lag statistics, are not part of the crate yet.
            "chain" | "chain_weight" => return,
            _ => case.unknown_family(),
        }
        let (a, g) = (case.input::<T>("a_sequences"), case.input::<T>("g_sequences"));
        let ([cases, steps, n], m) = (a.shape[..].try_into().unwrap(), g.shape[2]);
        let lengths: Vec<usize> =
            list(&case.inputs["sequence_lengths"]).iter().map(|x| x.as_u64().unwrap() as usize).collect();
        let mean_length = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;

        let net = [LayerShape::dense(n, m).without_bias()];
        let mut room = Room::<T>::new::<Factored, K>(&net);
        let (mut kfac, scratch) = room.precondition(&net, Factored, kernel);
        let rows = MatRef::row_major(&a.data, cases * steps, n).unwrap();
        let sequence = Sequence::with_lengths(rows, steps, &lengths).unwrap();
        let rows = MatRef::row_major(&g.data, cases * steps, m).unwrap();
        kfac.observe(cases).add(0, &sequence, OutputGradients::per_case(rows), scratch).unwrap();
        case.compare_matrix("statistics_a0", &case.expected["statistics_a0"], &factor(&kfac, 0, Side::Input));
        let g0 = factor(&kfac, 0, Side::Output).scaled(1.0 / mean_length);
        case.compare_matrix("statistics_g0", &case.expected["statistics_g0"], &g0);

        kfac.set_damping(T::from_f64(case.number("lambda"))).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut u = common::golden::Array::<T>::read(&case.expected["statistics_v"]).unwrap().data;
        let gradient = LayerGradient::joint(0, MatMut::row_major(&mut u, m, n).unwrap());
        kfac.precondition(&mut [gradient], scratch).unwrap();
        case.expect("u_independent", &u);
        case.assert_compared::<T>();
    }
}
