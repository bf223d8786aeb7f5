//! Golden vectors of the maps: from nets and from raw factors to `U`, `π` and its corner cases, the KL clip.

mod common;

use common::convolution::ConvolutionNet;
use common::dense::{Matrix, dot};
use common::golden::{Array, Body, Case, list, number, on_every_kernel};
use common::net::{DenseNet, Loss, LossTerms, Model, Sharing, layers};
use common::{Room, factor, widened};
use kfac_core::damping::split::{Split, Trace, split_damping};
use kfac_core::evidence::{Moments, OutputGradients, Sequence};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Scalar};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Factored, MomentMap, Shifted};
use kfac_core::report::Preconditioned;
use kfac_core::shape::Side;
use kfac_core::step::{ClipError, KlClip};
use kfac_core::{LayerGradient, LayerShape, Preconditioner};

#[test]
fn golden_preconditioning_of_networks() {
    on_every_kernel("precondition_networks", &Networks);
}

#[test]
fn golden_preconditioning_of_raw_factors_and_the_kl_clip() {
    on_every_kernel("precondition_raw", &Raw);
}

/// From the layers' inputs and output gradients to `U`.
struct Networks;

impl Body for Networks {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "preconditioned" {
            case.unknown_family();
        }
        if case.inputs["conv"].is_null() {
            let layers = layers(&case.inputs["layers"]);
            let net = DenseNet::new(layers, LossTerms::PerPosition, &case.input("x"));
            precondition_network(kernel, case, &net, 1.0);
        } else {
            let net = ConvolutionNet::of(case);
            precondition_network(kernel, case, &net, net.window().locations() as f64);
        }
        case.assert_compared::<T>();
    }
}

/// `locations`: of the first layer, whose factors the files hold in KFC's scales, `A_file = |T| A`,
/// `G_file = G / |T|`.
fn precondition_network<T: Scalar, K: Kernel<T>>(
    kernel: K,
    case: &Case,
    net: &impl Model<T>,
    locations: f64,
) {
    let outputs: Vec<T> = (0..net.cases()).flat_map(|case| net.outputs(case).to_vec()).collect();
    case.expect("outputs", &outputs);
    let (loss, targets) = (Loss::of(case), case.input("targets").data);
    let at_targets = net.loss_gradients(loss, &targets);
    let (sets, weight) = match case.inputs["fisher"].as_str() {
        Some("empirical") => (vec![at_targets.clone()], T::ONE),
        Some("exact") => net.type_2(loss),
        other => panic!("{}: no Fisher kind {other:?}", case.label),
    };
    let fisher = Fisher { net, sets: &sets, weight };
    let gradients = net.mean_gradients(&at_targets);
    let factors = fisher.factors(kernel);
    for (layer, want) in list(&case.expected["layers"]).iter().enumerate() {
        let locations = if layer == 0 { locations } else { 1.0 };
        let [a, g] = &factors[layer];
        case.compare("gradient", &want["gradient"], &gradients[layer]);
        case.compare_matrix("a", &want["a"], &a.scaled(locations));
        case.compare_matrix("g", &want["g"], &g.scaled(1.0 / locations));
        for damped in list(&want["damped"]) {
            let lambda = T::from_f64(number(&damped["lambda"]).unwrap());
            let factored = fisher.precondition(kernel, Factored, lambda, &gradients);
            let exact = fisher.precondition(kernel, Eigenbasis::full(), lambda, &gradients);
            let shifted = fisher.precondition(kernel, Shifted::full(), lambda, &gradients);
            case.compare("u_factored", &damped["u_factored"], &factored[layer]);
            case.compare("u_exact", &damped["u_exact"], &exact[layer]);
            case.compare("u_exact", &damped["u_exact"], &shifted[layer]);
            let ekfac = fisher.precondition_in_its_basis(kernel, Ekfac::full(), lambda, &gradients);
            case.compare("u_ekfac", &damped["u_ekfac"], &ekfac[layer]);
        }
    }
}

/// The evidence of a network on a batch.
struct Fisher<'a, T, N> {
    net: &'a N,
    /// `dl/df` of every case, for every add.
    sets: &'a [Vec<Vec<T>>],
    /// Of the loss that they are gradients of.
    weight: T,
}

impl<T: Scalar, N: Model<T>> Fisher<'_, T, N> {
    fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        scratch: &mut [T],
    ) {
        let mut observation = kfac.observe(self.sets.len() * self.net.cases());
        for set in self.sets {
            self.net.observe(&mut observation, set, (self.weight, Sharing::Expand), scratch);
        }
    }

    fn factors<K: Kernel<T>>(&self, kernel: K) -> Vec<[Matrix; 2]> {
        let shapes = self.net.shapes();
        let mut room = Room::new::<Factored, K>(&shapes);
        let (mut kfac, scratch) = room.precondition(&shapes, Factored, kernel);
        self.observe(&mut kfac, scratch);
        (0..shapes.len()).map(|layer| Side::BOTH.map(|side| factor(&kfac, layer, side))).collect()
    }

    /// `V` to `U`, all layers in one call.
    fn precondition<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kernel: K,
        map: M,
        lambda: T,
        gradients: &[Vec<T>],
    ) -> Vec<Vec<T>> {
        let shapes = self.net.shapes();
        let mut room = Room::new::<M, K>(&shapes);
        let (mut kfac, scratch) = room.precondition(&shapes, map, kernel);
        self.observe(&mut kfac, scratch);
        kfac.set_damping(lambda).unwrap();
        kfac.refresh(scratch).unwrap();
        apply(&mut kfac, gradients, scratch)
    }

    /// The same, with the evidence once more in the basis that it gave, and nothing kept of the first time.
    fn precondition_in_its_basis<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kernel: K,
        map: M,
        lambda: T,
        gradients: &[Vec<T>],
    ) -> Vec<Vec<T>> {
        let shapes = self.net.shapes();
        let mut room = Room::new::<M, K>(&shapes);
        let (kfac, scratch) = room.precondition(&shapes, map, kernel);
        let mut kfac = kfac.with_decay(T::ZERO).unwrap();
        self.observe(&mut kfac, scratch);
        kfac.set_damping(lambda).unwrap();
        kfac.refresh(scratch).unwrap();
        self.observe(&mut kfac, scratch);
        apply(&mut kfac, gradients, scratch)
    }
}

fn apply<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    gradients: &[Vec<T>],
    scratch: &mut [T],
) -> Vec<Vec<T>> {
    let shapes = kfac.net().to_vec();
    let mut u = gradients.to_vec();
    let mut views: Vec<_> = u.iter_mut().zip(&shapes).enumerate().map(joint).collect();
    kfac.precondition(&mut views, scratch).unwrap();
    drop(views);
    u
}

fn joint<'u, T: Scalar>((layer, (u, shape)): (usize, (&'u mut Vec<T>, &LayerShape))) -> LayerGradient<'u, T> {
    LayerGradient::joint(layer, MatMut::row_major(u, shape.outputs(), shape.inputs()).unwrap())
}

/// From factors handed in as finished moments.
struct Raw;

impl Body for Raw {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        match case.family.as_str() {
            "precondition_raw" => precondition_raw(kernel, case),
            "kl_clip" => kl_clip::<T>(case),
            "ekfac_raw" => ekfac_raw(kernel, case),
            _ => case.unknown_family(),
        }
        case.assert_compared::<T>();
    }
}

fn precondition_raw<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case) {
    let [a, g, v] = ["a", "g", "v"].map(|key| case.input::<T>(key));
    let lambda = T::from_f64(case.number("lambda"));
    case.expect("u_factored", &precondition_moments(kernel, Factored, [&a, &g, &v], lambda));
    case.expect("u_exact", &precondition_moments(kernel, Eigenbasis::full(), [&a, &g, &v], lambda));
    case.expect("u_exact", &precondition_moments(kernel, Eigenbasis::jacobi(), [&a, &g, &v], lambda));
    case.expect("u_exact", &precondition_moments(kernel, Shifted::full(), [&a, &g, &v], lambda));

    // `u_per_factor_lambda` is what a peer computes.
    let split = split(&a, &g, lambda);
    if let Split::Shift { input, .. } = split {
        case.expect("pi", &[input / lambda.sqrt()]);
    }
    let [damped_a, damped_g] = damped_factors(&a, &g, split);
    let product = damped_a.kron(&damped_g);
    let key = "damped_factor_product_a_kron_g";
    case.compare_matrix(key, &case.expected[key], &product);
    case.compare_matrix("damped_a", &case.expected["damped_a"], &damped_a);
    case.compare_matrix("damped_g", &case.expected["damped_g"], &damped_g);
}

/// Per-case rows, in one or more places of a case, without a bias.
fn ekfac_raw<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case) {
    let [a, g, v] = ["a_per_case", "g_per_case", "v"].map(|key| case.input::<T>(key));
    let (cases, positions) = (a.shape[0], if a.shape.len() == 3 { a.shape[1] } else { 1 });
    let [n, m] = [&a, &g].map(|rows| *rows.shape.last().unwrap());
    let net = [LayerShape::dense(n, m).without_bias()];
    let mut room = Room::new::<Ekfac, K>(&net);
    let (kfac, scratch) = room.precondition(&net, Ekfac::full(), kernel);
    let mut kfac = kfac.with_decay(T::ZERO).unwrap();
    kfac.set_damping(T::from_f64(case.number("lambda"))).unwrap();
    let rows =
        [(&a, n), (&g, m)].map(|(x, width)| MatRef::row_major(&x.data, cases * positions, width).unwrap());
    let observe = |kfac: &mut Preconditioner<'_, T, Ekfac, K>, scratch: &mut [T]| {
        let inputs = Sequence::new(rows[0], positions).unwrap();
        kfac.observe(cases).add(0, &inputs, OutputGradients::per_case(rows[1]), scratch).unwrap();
    };
    let precondition = |kfac: &mut Preconditioner<'_, T, Ekfac, K>, scratch: &mut [T]| {
        let mut u = v.data.clone();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        u
    };
    observe(&mut kfac, scratch);
    // The file sums `A` over places and averages `G`.
    let places = positions as f64;
    case.compare_matrix("a", &case.expected["a"], &factor(&kfac, 0, Side::Input).scaled(places));
    case.compare_matrix("g", &case.expected["g"], &factor(&kfac, 0, Side::Output).scaled(1.0 / places));
    kfac.refresh(scratch).unwrap();
    observe(&mut kfac, scratch);
    case.expect("u_ekfac", &precondition(&mut kfac, scratch));
    kfac.refresh(scratch).unwrap();
    case.expect("u_after_reset", &precondition(&mut kfac, scratch));
}

fn precondition_moments<T: Scalar, M: MomentMap<T>, K: Kernel<T>>(
    kernel: K,
    map: M,
    [a, g, v]: [&Array<T>; 3],
    lambda: T,
) -> Vec<T> {
    let (m, n) = (g.shape[0], a.shape[0]);
    let net = [LayerShape::dense(n, m).without_bias()];
    let mut room = Room::new::<M, K>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, kernel);
    let square = |array| MatRef::row_major(array, n, n).unwrap();
    let moment_g = MatRef::row_major(&g.data, m, m).unwrap();
    kfac.observe(1)
        .add_moments(0, Moments { a: square(&a.data), g: moment_g, positions: T::ONE }, scratch)
        .unwrap();
    kfac.set_damping(lambda).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = v.data.clone();
    let gradient = LayerGradient::joint(0, MatMut::row_major(&mut u, m, n).unwrap());
    kfac.precondition(&mut [gradient], scratch).unwrap();
    u
}

fn split<T: Scalar>(a: &Array<T>, g: &Array<T>, lambda: T) -> Split<T> {
    let trace =
        |factor: &Array<T>| Trace { trace: T::from_f64(factor.matrix().trace()), size: factor.shape[0] };
    split_damping(trace(a), trace(g), lambda).unwrap()
}

/// `Â` and `Ĝ`.
fn damped_factors<T: Scalar>(a: &Array<T>, g: &Array<T>, split: Split<T>) -> [Matrix; 2] {
    match split {
        Split::Shift { input, output } => {
            [a.matrix().shifted(input.to_f64()), g.matrix().shifted(output.to_f64())]
        }
        Split::Replace { gamma } => [a, g].map(|factor| {
            let size = factor.shape[0];
            Matrix::zeros(size, size).shifted(gamma.to_f64())
        }),
    }
}

fn kl_clip<T: Scalar>(case: &Case) {
    let flat = |key: &str| -> Vec<f64> {
        let layers = list(&case.inputs[key]).iter().map(|layer| Array::<T>::read(layer).unwrap());
        layers.flat_map(|layer| widened(&layer.data)).collect()
    };
    let (u, v) = (flat("u"), flat("v"));
    let products = Preconditioned {
        inner: T::from_f64(dot(&u, &v)),
        gradient_squares: Some(T::from_f64(dot(&v, &v))),
        stale_layers: 0,
    };
    let clip = KlClip::new(T::from_f64(case.number("kappa"))).unwrap();
    let nu = clip.factor(T::from_f64(case.number("lr")), &products);
    match case.expected["status"].as_str() {
        None | Some("ok") => case.expect("nu", &[nu.unwrap()]),
        Some("negative_product") => {
            let error = nu.expect_err(&case.label);
            let product = products.inner.to_f64();
            assert_eq!(error, ClipError::NotPositive { product }, "{}", case.label);
            case.count_comparison();
        }
        Some(other) => panic!("{}: no status {other}", case.label),
    }
}
