//! `Tridiagonal` against the dense matrix that it inverts, and its statistics against plain loops.

mod common;

use common::chain_net::{Batch, Moments, Room};
use common::dense::{Matrix, assert_close, dot, relative_difference};
use common::{bits, random, widened};
use kfac_core::evidence::OutputGradients;
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::map::Factored;
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::tridiagonal::{LayerRows, MomentPair, NetworkMoments, refresh_flops};
use kfac_core::{LayerGradient, LayerShape, Tridiagonal};

/// Tall, wide, without a bias, a single output, a single input; no two sizes of neighbours are equal.
const NET: [LayerShape; 5] = [
    LayerShape::dense(4, 3),
    LayerShape::dense(3, 5).without_bias(),
    LayerShape::dense(5, 1),
    LayerShape::dense(1, 4).without_bias(),
    LayerShape::dense(4, 2),
];
const WEIGHTS: usize = 15 + 15 + 6 + 4 + 10;
const CASES: usize = 7;
const LAMBDA: f64 = 0.05;

trait Promise {
    fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K);
}

fn on_every_kernel(promise: &impl Promise) {
    promise.check::<f64, _>(Reproducible);
    promise.check::<f64, _>(Fast::detect());
    promise.check::<f32, _>(Reproducible);
    promise.check::<f32, _>(Fast::detect());
}

/// 1e-11 in `f64`. Conditions here are below 1e4.
fn tolerance<T: Scalar>() -> f64 {
    4.5e4 * T::EPSILON.to_f64()
}

/// Observed once at damping `LAMBDA`, and refreshed.
fn when_ready<T: Scalar, K: Kernel<T>>(
    kernel: K,
    net: &[LayerShape],
    body: impl FnOnce(&mut Tridiagonal<'_, T, K>, &Batch<T>, &mut [T]),
) {
    let mut room = Room::new::<K>(net);
    let (mut kfac, scratch) = room.precondition(net, kernel);
    let batch = Batch::new(net, CASES, 1);
    batch.observe(&mut kfac, &[CASES], scratch).unwrap();
    kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
    kfac.refresh(scratch).unwrap();
    body(&mut kfac, &batch, scratch);
}

/// `sum / weight`, of a layer or of it and the next.
fn factors<T: Scalar, K: Kernel<T>>(kfac: &Tridiagonal<'_, T, K>) -> Moments {
    let layers = kfac.net().len();
    let own = |layer| {
        Side::BOTH.map(|side| {
            let (sum, weight) = kfac.factor(layer, side).unwrap();
            Matrix::from_fn(sum.n(), sum.n(), |i, j| sum.at(i, j).to_f64() / weight)
        })
    };
    let next = |layer| {
        Side::BOTH.map(|side| {
            let (sum, weight) = kfac.next_factor(layer, side).unwrap();
            Matrix::from_fn(sum.rows(), sum.cols(), |i, j| sum.at(i, j).to_f64() / weight)
        })
    };
    Moments { own: (0..layers).map(own).collect(), next: (1..layers).map(|j| next(j - 1)).collect() }
}

fn assert_same(what: &str, found: &Moments, want: &Moments, tolerance: f64) {
    for (layer, (found, want)) in found.own.iter().zip(&want.own).enumerate() {
        for side in [0, 1] {
            let what = format!("{what}, layer {layer}, side {side}");
            assert_close(&what, &found[side].data, &want[side].data, tolerance);
        }
    }
    for (layer, (found, want)) in found.next.iter().zip(&want.next).enumerate() {
        for side in [0, 1] {
            let what = format!("{what}, between {layer} and the next, side {side}");
            assert_close(&what, &found[side].data, &want[side].data, tolerance);
        }
    }
}

/// `U` of `Factored` from moments, at damping `LAMBDA`.
fn factored<T: Scalar, K: Kernel<T>>(kernel: K, net: &[LayerShape], moments: &Moments, v: &[T]) -> Vec<T> {
    factored_at(LAMBDA, kernel, net, moments, v)
}

fn factored_at<T: Scalar, K: Kernel<T>>(
    lambda: f64,
    kernel: K,
    net: &[LayerShape],
    moments: &Moments,
    v: &[T],
) -> Vec<T> {
    let mut room = common::Room::<T>::new::<Factored, K>(net);
    let (mut kfac, scratch) = room.precondition(net, Factored, kernel);
    let mut observation = kfac.observe(1);
    for (layer, own) in moments.own.iter().enumerate() {
        let numbers = own.each_ref().map(narrowed::<T>);
        let [a, g] = [0, 1].map(|side| view(&numbers[side], &own[side]));
        let moments = kfac_core::evidence::Moments { a, g, positions: T::ONE };
        observation.add_moments(layer, moments, scratch).unwrap();
    }
    kfac.set_damping(T::from_f64(lambda)).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = v.to_vec();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    u
}

fn narrowed<T: Scalar>(matrix: &Matrix) -> Vec<T> {
    matrix.data.iter().map(|&x| T::from_f64(x)).collect()
}

fn view<'a, T: Scalar>(numbers: &'a [T], shape: &Matrix) -> MatRef<'a, T> {
    MatRef::row_major(numbers, shape.rows, shape.cols).unwrap()
}

fn add_moments<T: Scalar, K: Kernel<T>>(
    kfac: &mut Tridiagonal<'_, T, K>,
    moments: &Moments,
    scratch: &mut [T],
) {
    let numbers = |list: &[[Matrix; 2]]| -> Vec<[Vec<T>; 2]> {
        list.iter().map(|pair| pair.each_ref().map(narrowed)).collect()
    };
    let (own_numbers, next_numbers) = (numbers(&moments.own), numbers(&moments.next));
    fn pairs<'a, T: Scalar>(numbers: &'a [[Vec<T>; 2]], list: &[[Matrix; 2]]) -> Vec<MomentPair<'a, T>> {
        let pair = |(numbers, shape): (&'a [Vec<T>; 2], &[Matrix; 2])| MomentPair {
            a: view(&numbers[0], &shape[0]),
            g: view(&numbers[1], &shape[1]),
        };
        numbers.iter().zip(list).map(pair).collect()
    }
    let (own, next) = (pairs(&own_numbers, &moments.own), pairs(&next_numbers, &moments.next));
    kfac.observe(1).add_moments(NetworkMoments { own: &own, next: &next }, scratch).unwrap();
}

#[test]
fn u_solves_the_dense_system_whose_inverse_is_block_tridiagonal() {
    struct Solves;
    impl Promise for Solves {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            for layers in 1..=NET.len() {
                when_ready::<T, K>(kernel, &NET[..layers], |kfac, batch, scratch| {
                    let len = NET[..layers].iter().map(|shape| shape.weights()).sum();
                    let v: Vec<T> = random(len, 3);
                    let mut u = v.clone();
                    let report = kfac.precondition_flat(&mut u, scratch).unwrap();
                    let want = batch.moments().solve(LAMBDA, &widened(&v));
                    assert_close(&format!("{layers} layers"), &widened(&u), &want, tolerance::<T>());
                    let products = [report.inner, report.gradient_squares.unwrap()].map(T::to_f64);
                    let (u, v) = (widened(&u), widened(&v));
                    assert_close("products", &products, &[dot(&u, &v), dot(&v, &v)], tolerance::<T>());
                });
            }
        }
    }
    on_every_kernel(&Solves);
}

#[test]
fn the_inverse_is_symmetric_and_positive_definite() {
    struct Symmetric;
    impl Promise for Symmetric {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            when_ready::<T, K>(kernel, &NET, |kfac, _, scratch| {
                for seed in [10, 20, 30] {
                    let (v, w): (Vec<T>, Vec<T>) = (random(WEIGHTS, seed), random(WEIGHTS, seed + 5));
                    let [of_v, of_w] = [&v, &w].map(|v| {
                        let mut u = v.clone();
                        kfac.precondition_flat(&mut u, scratch).unwrap();
                        widened(&u)
                    });
                    let (v, w) = (widened(&v), widened(&w));
                    let size = (dot(&of_v, &of_v) * dot(&w, &w)).sqrt();
                    let (left, right) = (dot(&of_v, &w), dot(&v, &of_w));
                    assert!((left - right).abs() <= tolerance::<T>() * size, "{left:e} {right:e}");
                    assert!(dot(&of_v, &v) > 0.0);
                }
            });
        }
    }
    on_every_kernel(&Symmetric);
}

/// Seven cases whole, as 2 + 5, and one by one, at several places of the ramp.
#[test]
fn factors_of_layers_and_of_neighbours_are_decayed_means_over_the_cases() {
    struct Means;
    impl Promise for Means {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            for parts in [&[7][..], &[2, 5], &[1; 7]] {
                let mut room = Room::new::<K>(&NET);
                let (kfac, scratch) = room.precondition(&NET, kernel);
                let mut kfac = kfac.with_decay(T::from_f64(0.6)).unwrap();
                let mut want: Option<Moments> = None;
                for update in 1..=5_usize {
                    let batch = Batch::<T>::new(&NET, CASES, 100 * update as u64);
                    batch.observe(&mut kfac, parts, scratch).unwrap();
                    let epsilon = (1.0 - 1.0 / update as f64).min(0.6);
                    let new = batch.moments();
                    let average = |old: &Vec<[Matrix; 2]>, new: &Vec<[Matrix; 2]>| -> Vec<[Matrix; 2]> {
                        let mix = |old: &Matrix, new: &Matrix| {
                            let at = |i, j| epsilon * old.at(i, j) + (1.0 - epsilon) * new.at(i, j);
                            Matrix::from_fn(old.rows, old.cols, at)
                        };
                        old.iter().zip(new).map(|(o, n)| [mix(&o[0], &n[0]), mix(&o[1], &n[1])]).collect()
                    };
                    let now = match &want {
                        None => new,
                        Some(old) => {
                            Moments { own: average(&old.own, &new.own), next: average(&old.next, &new.next) }
                        }
                    };
                    assert_same(
                        &format!("update {update} in {parts:?}"),
                        &factors(&kfac),
                        &now,
                        40.0 * T::EPSILON.to_f64(),
                    );
                    assert_eq!(kfac.report().updates, update as u32);
                    want = Some(now);
                }
            }
        }
    }
    on_every_kernel(&Means);
}

/// Batches longer than a panel of rows.
#[test]
fn factors_of_a_large_batch_are_means_too() {
    let batch = Batch::<f64>::new(&NET[..2], 150, 8);
    let mut room = Room::new::<Reproducible>(&NET[..2]);
    let (mut kfac, scratch) = room.precondition(&NET[..2], Reproducible);
    batch.observe(&mut kfac, &[33, 117], scratch).unwrap();
    assert_same("150 cases", &factors(&kfac), &batch.moments(), 1e-13);
}

/// The scale of each layer's gradients counts once in its own factor, and with that of the neighbour between them.
#[test]
fn the_scales_of_the_output_gradients_meet_in_the_factors_between_layers() {
    let net = &NET[..2];
    let batch = Batch::<f64>::new(net, CASES, 8);
    let mut room = Room::new::<Reproducible>(net);
    let (mut kfac, scratch) = room.precondition(net, Reproducible);
    let rows = batch.layers(0..CASES);
    let mean_loss = OutputGradients::of_mean_loss(rows[0].gradients.rows(), 3);
    let weighted = OutputGradients::of_weighted_nll(rows[1].gradients.rows(), 0.25);
    let layers =
        [LayerRows { gradients: mean_loss, ..rows[0] }, LayerRows { gradients: weighted, ..rows[1] }];
    kfac.observe(CASES).add(&layers, scratch).unwrap();
    let mut want = batch.moments();
    for (layer, scale) in [(0, 9.0), (1, 4.0)] {
        want.own[layer][1] = want.own[layer][1].scaled(scale);
    }
    want.next[0][1] = want.next[0][1].scaled(3.0 * 2.0);
    assert_same("scaled", &factors(&kfac), &want, 1e-14);
}

/// Fewer cases than announced weigh less against the past.
#[test]
fn fewer_cases_than_announced_are_still_means() {
    let net = &NET[..2];
    let (first, second) = (Batch::<f64>::new(net, CASES, 1), Batch::<f64>::new(net, 4, 2));
    let mut room = Room::new::<Reproducible>(net);
    let (kfac, scratch) = room.precondition(net, Reproducible);
    let mut kfac = kfac.with_decay(0.4).unwrap();
    first.observe(&mut kfac, &[CASES], scratch).unwrap();
    kfac.observe(CASES).add(&second.layers(0..4), scratch).unwrap();
    let (keep, add) = (0.4, 0.6 * 4.0 / 7.0);
    let (old, new, found) = (first.moments(), second.moments(), factors(&kfac));
    for side in [0, 1] {
        let (old, new) = (&old.next[0][side], &new.next[0][side]);
        let mean = |i, j| (keep * old.at(i, j) + add * new.at(i, j)) / (keep + add);
        let want = Matrix::from_fn(old.rows, old.cols, mean);
        assert_close("next", &found.next[0][side].data, &want.data, 1e-14);
    }
    // The sums of all factors, those between layers too, are divided by what they weigh.
    kfac.set_damping(LAMBDA).unwrap();
    kfac.refresh(scratch).unwrap();
    let v: Vec<f64> = random(30, 3);
    let mut u = v.clone();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    assert_close("U", &u, &found.solve(LAMBDA, &v), 1e-11);
}

#[test]
fn finished_moments_are_the_statistics_of_their_rows() {
    struct Same;
    impl Promise for Same {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            when_ready::<T, K>(kernel, &NET, |kfac, batch, scratch| {
                let mut u: Vec<T> = random(WEIGHTS, 3);
                let mut of_moments = u.clone();
                kfac.precondition_flat(&mut u, scratch).unwrap();
                let mut room = Room::new::<K>(&NET);
                let (mut other, scratch) = room.precondition(&NET, kernel);
                add_moments(&mut other, &batch.moments(), scratch);
                assert_same("moments", &factors(&other), &batch.moments(), 2.0 * T::EPSILON.to_f64());
                other.set_damping(T::from_f64(LAMBDA)).unwrap();
                other.refresh(scratch).unwrap();
                other.precondition_flat(&mut of_moments, scratch).unwrap();
                assert_close("U", &widened(&of_moments), &widened(&u), tolerance::<T>());
            });
        }
    }
    on_every_kernel(&Same);
}

#[test]
fn a_network_of_one_layer_is_the_factored_map_to_the_bit() {
    struct Same;
    impl Promise for Same {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            for shape in NET {
                let net = [shape];
                when_ready::<T, K>(kernel, &net, |kfac, batch, scratch| {
                    let mut room = common::Room::<T>::new::<Factored, K>(&net);
                    let (mut other, other_scratch) = room.precondition(&net, Factored, kernel);
                    let LayerRows { inputs, gradients } = batch.layers(0..CASES)[0];
                    other.observe(CASES).add(0, &inputs, gradients, other_scratch).unwrap();
                    other.set_damping(T::from_f64(LAMBDA)).unwrap();
                    let refreshed = other.refresh(other_scratch).unwrap();
                    let v: Vec<T> = random(shape.weights(), 3);
                    let (mut u, mut want) = (v.clone(), v);
                    let report = kfac.precondition_flat(&mut u, scratch).unwrap();
                    assert_eq!(report, other.precondition_flat(&mut want, other_scratch).unwrap());
                    assert_eq!(bits(&u), bits(&want), "{shape:?}");
                    assert_eq!(kfac.refresh(scratch).unwrap(), refreshed, "{shape:?}");
                });
            }
        }
    }
    on_every_kernel(&Same);
}

#[test]
fn without_factors_between_layers_it_is_the_factored_map_and_with_them_it_is_not() {
    struct Compared;
    impl Promise for Compared {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            when_ready::<T, K>(kernel, &NET, |kfac, batch, scratch| {
                let v: Vec<T> = random(WEIGHTS, 3);
                let want = widened(&factored(kernel, &NET, &batch.moments(), &v));
                let mut u = v.clone();
                kfac.precondition_flat(&mut u, scratch).unwrap();
                let apart = relative_difference(&widened(&u), &want);
                assert!(apart > 0.01, "{apart:e}");

                let mut moments = batch.moments();
                moments.next.iter_mut().flatten().for_each(|next| next.data.fill(0.0));
                let mut room = Room::new::<K>(&NET);
                let (mut alone, scratch) = room.precondition(&NET, kernel);
                add_moments(&mut alone, &moments, scratch);
                alone.set_damping(T::from_f64(LAMBDA)).unwrap();
                alone.refresh(scratch).unwrap();
                let mut u = v;
                alone.precondition_flat(&mut u, scratch).unwrap();
                assert_close("without", &widened(&u), &want, tolerance::<T>());
            });
        }
    }
    on_every_kernel(&Compared);
}

/// At the second update each counts half.
#[test]
fn finished_moments_are_averaged_as_the_ramp_says() {
    let mut room = Room::<f64>::new::<Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Reproducible);
    let [first, second] = [1, 2].map(|seed| Batch::<f64>::new(&NET, CASES, seed).moments());
    add_moments(&mut kfac, &first, scratch);
    add_moments(&mut kfac, &second, scratch);
    let half = |x: &[[Matrix; 2]], y: &[[Matrix; 2]]| -> Vec<[Matrix; 2]> {
        let mean =
            |x: &Matrix, y: &Matrix| Matrix::from_fn(x.rows, x.cols, |i, j| 0.5 * (x.at(i, j) + y.at(i, j)));
        x.iter().zip(y).map(|(x, y)| [mean(&x[0], &y[0]), mean(&x[1], &y[1])]).collect()
    };
    let want = Moments { own: half(&first.own, &second.own), next: half(&first.next, &second.next) };
    assert_same("two updates", &factors(&kfac), &want, 1e-15);
}

/// `π` takes the scale from one side to the other in the factors of layers; what is between them follows.
#[test]
fn how_the_scale_is_shared_between_the_sides_of_a_layer_does_not_matter() {
    when_ready::<f64, _>(Reproducible, &NET, |kfac, batch, scratch| {
        let v: Vec<f64> = random(WEIGHTS, 3);
        let mut want = v.clone();
        kfac.precondition_flat(&mut want, scratch).unwrap();
        let mut moments = batch.moments();
        let scales = [3.0, 0.01, 1.0, 200.0, 0.5];
        for (layer, c) in scales.iter().enumerate() {
            let [a, g] = &moments.own[layer];
            moments.own[layer] = [a.scaled(c * c), g.scaled(1.0 / (c * c))];
        }
        for (layer, pair) in scales.windows(2).enumerate() {
            let (c, [a, g]) = (pair[0] * pair[1], &moments.next[layer]);
            moments.next[layer] = [a.scaled(c), g.scaled(1.0 / c)];
        }
        let mut room = Room::new::<Reproducible>(&NET);
        let (mut scaled, scratch) = room.precondition(&NET, Reproducible);
        add_moments(&mut scaled, &moments, scratch);
        scaled.set_damping(LAMBDA).unwrap();
        scaled.refresh(scratch).unwrap();
        let mut u = v;
        scaled.precondition_flat(&mut u, scratch).unwrap();
        assert_close("scaled", &u, &want, 1e-11);
    });
}

/// A layer that sees nothing, or whose gradients are all zero: `V / λ` there, and its neighbours as if it were not.
#[test]
fn a_layer_one_of_whose_factors_vanishes_is_coupled_with_nothing() {
    struct Uncoupled;
    impl Promise for Uncoupled {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            let net =
                [LayerShape::dense(4, 3), LayerShape::dense(3, 5).without_bias(), LayerShape::dense(5, 2)];
            for (layer, side) in [(0, 1), (1, 0), (1, 1), (2, 1)] {
                let mut batch = Batch::<T>::new(&net, CASES, 1);
                batch.rows[layer][side].fill(T::ZERO);
                let mut room = Room::new::<K>(&net);
                let (mut kfac, scratch) = room.precondition(&net, kernel);
                batch.observe(&mut kfac, &[CASES], scratch).unwrap();
                kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
                assert_eq!(kfac.refresh(scratch).unwrap().zero_traces, 1);
                let v: Vec<T> = random(15 + 15 + 12, 3);
                let mut u = v.clone();
                kfac.precondition_flat(&mut u, scratch).unwrap();

                let of_layer = |x: &[T], layer: usize| {
                    let start = net[..layer].iter().map(|shape| shape.weights()).sum::<usize>();
                    widened(&x[start..][..net[layer].weights()])
                };
                let what = format!("layer {layer}, side {side}");
                let want: Vec<f64> = of_layer(&v, layer).iter().map(|v| v / LAMBDA).collect();
                assert_close(&what, &of_layer(&u, layer), &want, tolerance::<T>());
                if layer == 1 {
                    // What is left of the others is the map of each alone.
                    let want = factored(kernel, &net, &batch.moments(), &v);
                    for other in [0, 2] {
                        assert_close(&what, &of_layer(&u, other), &of_layer(&want, other), tolerance::<T>());
                    }
                }
            }
        }
    }
    on_every_kernel(&Uncoupled);
}

/// A gradient whose square is next to nothing, under a damping of that size: what is left of the factors between the layers
/// would be divided by it.
#[test]
fn a_layer_that_has_all_but_vanished_is_coupled_with_nothing() {
    fn check<K: Kernel<f32>>(kernel: K) {
        const TINY: f64 = 1e-38;
        let net = [LayerShape::dense(4, 3), LayerShape::dense(3, 1), LayerShape::dense(1, 2)];
        let mut batch = Batch::<f32>::new(&net, CASES, 1);
        batch.rows[1][1].iter_mut().for_each(|g| *g *= 1e-20);
        let mut room = Room::new::<K>(&net);
        let (mut kfac, scratch) = room.precondition(&net, kernel);
        batch.observe(&mut kfac, &[CASES], scratch).unwrap();
        kfac.set_damping(TINY as f32).unwrap();
        assert_eq!(kfac.refresh(scratch).unwrap().zero_traces, 1);
        let scale = |at: usize| [1e-4, 1e-22, 1e-2][usize::from(at >= 15) + usize::from(at >= 19)];
        let v: Vec<f32> =
            random::<f32>(15 + 4 + 4, 3).iter().enumerate().map(|(at, x)| x * scale(at)).collect();
        let want = factored_at(TINY, kernel, &net, &batch.moments(), &v);
        let mut u = v;
        kfac.precondition_flat(&mut u, scratch).unwrap();
        for layer in [0..15, 15..19, 19..23] {
            let (u, want) = (widened(&u[layer.clone()]), widened(&want[layer.clone()]));
            assert_close(&format!("weights {layer:?}"), &u, &want, tolerance::<f32>());
        }
    }
    check(Reproducible);
    check(Fast::detect());
}

/// Two single weights that see the same: `1 - s_G s_A = 1 - 1/(1 + λ)²` is lost in rounding, and counts as `√ε`.
#[test]
fn what_the_next_layer_explains_whole_keeps_the_root_of_a_rounding() {
    struct Bounded;
    impl Promise for Bounded {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            let net = [LayerShape::dense(1, 1).without_bias(); 2];
            let (mut room, one) = (Room::new::<K>(&net), [T::ONE]);
            let (mut kfac, scratch) = room.precondition(&net, kernel);
            let view = MatRef::row_major(&one, 1, 1).unwrap();
            let pair = MomentPair { a: view, g: view };
            kfac.observe(1).add_moments(NetworkMoments { own: &[pair; 2], next: &[pair] }, scratch).unwrap();
            kfac.set_damping(T::from_f64(1e-30)).unwrap();
            kfac.refresh(scratch).unwrap();
            let mut u = [3.0, 1.0].map(T::from_f64);
            kfac.precondition_flat(&mut u, scratch).unwrap();
            let large = 2.0 / T::EPSILON.to_f64().sqrt();
            assert_close("U", &widened(&u), &[large, 1.0 - large], 4.0 * T::EPSILON.to_f64());
        }
    }
    on_every_kernel(&Bounded);
}

/// Sizes around the blocks of the routines, in scratch of exactly the promised length. Without factors between layers the
/// answer is known; with them it is symmetric.
#[test]
fn large_layers_do_with_the_promised_scratch() {
    struct Fits;
    impl Promise for Fits {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            let layers = [
                LayerShape::dense(1, 70),
                LayerShape::dense(70, 3).without_bias(),
                LayerShape::dense(3, 130),
                LayerShape::dense(130, 17),
            ];
            for net in [&layers[..], &[layers[3], layers[1], layers[0]], &[layers[2], layers[2]]] {
                when_ready::<T, K>(kernel, net, |kfac, batch, scratch| {
                    let len = net.iter().map(|shape| shape.weights()).sum();
                    let (v, w): (Vec<T>, Vec<T>) = (random(len, 3), random(len, 4));
                    let [of_v, of_w] = [&v, &w].map(|v| {
                        let mut u = v.clone();
                        kfac.precondition_flat(&mut u, scratch).unwrap();
                        widened(&u)
                    });
                    let size = (dot(&of_v, &of_v) * dot(&widened(&w), &widened(&w))).sqrt();
                    let (left, right) = (dot(&of_v, &widened(&w)), dot(&widened(&v), &of_w));
                    assert!((left - right).abs() <= tolerance::<T>() * size, "{net:?}: {left:e} {right:e}");
                    let mut moments = batch.moments();
                    let want = widened(&factored(kernel, net, &moments, &v));
                    assert!(relative_difference(&of_v, &want) > 1e-3, "{net:?}");
                    moments.next.iter_mut().flatten().for_each(|next| next.data.fill(0.0));
                    let mut room = Room::new::<K>(net);
                    let (mut alone, scratch) = room.precondition(net, kernel);
                    add_moments(&mut alone, &moments, scratch);
                    alone.set_damping(T::from_f64(LAMBDA)).unwrap();
                    alone.refresh(scratch).unwrap();
                    let mut u = v;
                    alone.precondition_flat(&mut u, scratch).unwrap();
                    assert_close(&format!("{net:?}"), &widened(&u), &want, tolerance::<T>());
                });
            }
        }
    }
    on_every_kernel(&Fits);
}

/// Fewer cases than inputs, little damping: what is left of `Σ` is small. Four times what is measured.
#[test]
fn single_precision_is_good_where_the_next_layer_explains_nearly_all() {
    let net = [LayerShape::dense(12, 10), LayerShape::dense(10, 8), LayerShape::dense(8, 3)];
    let len: usize = net.iter().map(|shape| shape.weights()).sum();
    let v: Vec<f64> = random(len, 3);
    let of = |lambda: f64| -> (Vec<f64>, Vec<f64>) {
        let (mut single, mut double) =
            (Room::<f32>::new::<Reproducible>(&net), Room::<f64>::new::<Reproducible>(&net));
        let rows = Batch::<f32>::new(&net, CASES, 1);
        let (mut kfac, scratch) = single.precondition(&net, Reproducible);
        rows.observe(&mut kfac, &[CASES], scratch).unwrap();
        kfac.set_damping(lambda as f32).unwrap();
        assert_eq!(kfac.refresh(scratch).unwrap().units, 1);
        let mut u: Vec<f32> = v.iter().map(|&v| v as f32).collect();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        let (mut kfac, scratch) = double.precondition(&net, Reproducible);
        let rows = Batch {
            net: net.to_vec(),
            cases: CASES,
            rows: rows.rows.iter().map(|pair| pair.each_ref().map(|x| widened(x))).collect(),
        };
        rows.observe(&mut kfac, &[CASES], scratch).unwrap();
        kfac.set_damping(lambda).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut want = v.clone();
        kfac.precondition_flat(&mut want, scratch).unwrap();
        (widened(&u), want)
    };
    for (lambda, tolerance) in [(1e-1, 3e-6), (1e-3, 1.2e-5), (1e-5, 2e-4)] {
        let (u, want) = of(lambda);
        let difference = relative_difference(&u, &want);
        assert!(difference <= tolerance, "lambda {lambda:e}: {difference:e}");
    }
}

#[test]
fn gradients_may_come_in_any_order_and_lie_as_they_like() {
    struct AnyLayout;
    impl Promise for AnyLayout {
        fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
            let net = &NET[..3];
            when_ready::<T, K>(kernel, net, |kfac, _, scratch| {
                let v: Vec<T> = random(15 + 15 + 6, 3);
                let mut want = v.clone();
                let report = kfac.precondition_flat(&mut want, scratch).unwrap();

                // The first with its bias apart, the second transposed, the third as it is; the last one first.
                let rows: Vec<&[T]> = v[..15].chunks(5).collect();
                let mut weights: Vec<T> = rows.iter().flat_map(|row| row[..4].to_vec()).collect();
                let mut bias: Vec<T> = rows.iter().map(|row| row[4]).collect();
                let mut columns: Vec<T> = (0..15).map(|at| v[15 + at % 5 * 3 + at / 5]).collect();
                let mut last = v[30..].to_vec();
                let mut gradients = [
                    LayerGradient::joint(2, MatMut::row_major(&mut last, 1, 6).unwrap()),
                    LayerGradient::with_bias(0, MatMut::row_major(&mut weights, 3, 4).unwrap(), &mut bias),
                    LayerGradient::joint(1, MatMut::row_major(&mut columns, 3, 5).unwrap().transposed()),
                ];
                assert_eq!(kfac.precondition(&mut gradients, scratch).unwrap(), report);
                let mut found: Vec<T> = vec![];
                for (row, &bias) in weights.chunks(4).zip(&bias) {
                    found.extend(row);
                    found.push(bias);
                }
                found.extend((0..15).map(|at| columns[at % 3 * 5 + at / 3]));
                found.extend(&last);
                assert_eq!(bits(&found), bits(&want));
            });
        }
    }
    on_every_kernel(&AnyLayout);
}

#[test]
fn the_inverse_is_renewed_once_a_period_at_the_damping_of_then() {
    let schedule = Schedule { statistics_every: 2, refresh_every: 3 };
    let net = &NET[..2];
    let mut room = Room::<f64>::new::<Reproducible>(net);
    let (kfac, scratch) = room.precondition(net, Reproducible);
    let mut kfac = kfac.with_schedule(schedule).unwrap().with_l2(0.5).unwrap();
    assert!(!kfac.is_ready() && kfac.psi(0, Side::Input).is_none() && kfac.factor(0, Side::Input).is_none());
    for step in 0..7 {
        assert_eq!(kfac.wants_statistics(), step % 2 == 0, "step {step}");
        Batch::new(net, CASES, step).observe(&mut kfac, &[CASES], scratch).unwrap();
        kfac.set_damping((step + 1) as f64).unwrap();
        let report = kfac.refresh(scratch).unwrap();
        assert_eq!(
            (report.units, report.flops > 0),
            (u32::from(step % 3 == 0), step % 3 == 0),
            "step {step}"
        );
        assert!(report.flops <= refresh_flops(net) && report.sweeps <= 5 * 5, "{report:?}");
        let report = kfac.report();
        assert_eq!(report.age, Some(step % 3));
        assert_eq!(report.damping_in_force, Some((step / 3 * 3 + 1) as f64 + 0.5));
    }
    assert_eq!(kfac.refresh_all(scratch).unwrap().units, 1);
    assert_eq!((kfac.report().age, kfac.report().updates), (Some(0), 7));
    // `λ + η` is what is split.
    let v: Vec<f64> = random(30, 3);
    let mut u = v.clone();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    assert_close("l2", &u, &factors(&kfac).solve(7.5, &v), 1e-11);
}

#[test]
fn a_planned_refresh_counts_the_inverse_of_the_last_layer_and_what_couples_the_others() {
    let flops = |net: &[LayerShape]| refresh_flops(net);
    assert_eq!(flops(&[LayerShape::dense(3, 2)]), 64 + 8);
    // n 3, m 2, then n' 5, m' 7: 4/3 k³, 18 k³ of the decomposition, 2 k k' (k + k').
    let (first, last) = (LayerShape::dense(2, 2), LayerShape::dense(4, 7));
    let side = |k: u64, next: u64| k.pow(3) + k.pow(3) / 3 + 18 * k.pow(3) + 2 * k * next * (k + next);
    assert_eq!(flops(&[first, last]), side(3, 5) + side(2, 7) + 125 + 343);
}
