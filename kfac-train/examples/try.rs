use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_core::recipe::AdaptiveStep;
use kfac_core::schedule::Schedule;
use kfac_core::step::StepBound;
use kfac_linalg::Fast;
use kfac_train::data::adding::Adding;
use kfac_train::data::*;
use kfac_train::layer::Nonlinearity;
use kfac_train::model::*;
use kfac_train::optimizer::*;
use kfac_train::trainer::*;

fn mean(network: &mut Network<f32, Fast>, w: &[f32], b: &Batch<f32>) -> f64 {
    network.forward(w, b).unwrap();
    network.mean_loss(&b.targets).unwrap() as f64
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let what = args[1].as_str();
    let num = |i: usize, d: f64| args.get(i).map_or(d, |s| s.parse().unwrap());
    let kernel = Fast::detect();
    match what {
        "adding-kfac" | "adding-sgd" => {
            let valid = Adding::fixed(30, 1000, 99).unwrap().whole::<f32>();
            for seed in 0..3 {
                let mut net = rnn::<f32, _>(2, 32, 30, kernel).unwrap();
                let mut w = net.initial_weights(seed, |b| {
                    if b == 0 { Init::OrthogonalRecurrent { inputs: 2 } } else { Init::ScaledNormal }
                });
                let mut src = Adding::new(30, seed).unwrap();
                let map = if num(3, 0.) == 0. { MapChoice::Factored } else { MapChoice::Eigenbasis };
                let every = num(2, 1.) as u32;
                let mut opt: Box<dyn Optimizer<f32, Fast>> = if what == "adding-kfac" {
                    let lm = LevenbergMarquardt::new(0.1, AdaptationRule::recurrent()).unwrap();
                    let step = AdaptiveStep::new(lm).with_bound(StepBound::recurrent());
                    Box::new(
                        Kfac::new(
                            &net,
                            KfacSettings {
                                map,
                                schedule: Schedule { statistics_every: every, refresh_every: every },
                                decay: 0.95,
                                l2: 0.0,
                                rule: StepRule::Adaptive(step),
                                seed,
                            },
                        )
                        .unwrap(),
                    )
                } else {
                    Box::new(Sgd::new(SgdSettings {
                        rate: num(2, 0.02),
                        momentum: num(3, 0.98),
                        clip: num(4, 1.0),
                    }))
                };
                let every = if what == "adding-kfac" { 5 } else { 25 };
                let plan = Plan {
                    batch: 128,
                    updates: if what == "adding-kfac" { 300 } else { 2000 },
                    evaluate_every: every,
                    averaging: None,
                };
                let t = std::time::Instant::now();
                let h = Run { network: &mut net, weights: &mut w, source: &mut src, optimizer: &mut *opt }
                    .train(plan, &mut |n, w| mean(n, w, &valid), &mut |p| {
                        if p.value <= 0.002 { Continue::No } else { Continue::Yes }
                    });
                println!(
                    "seed {seed}: .01 {:?} .002 {:?} end {:.4e} {:.3} ms/update wall {:?} {:?}",
                    h.reached(0.01).map(|p| p.updates),
                    h.reached(0.002).map(|p| p.updates),
                    h.final_value(),
                    h.milliseconds_per_update(),
                    t.elapsed(),
                    h.failure
                );
            }
        }
        "digits-kfac" | "digits-sgd" => {
            let data = digits::load().autoencoding();
            let whole = data.whole::<f32>();
            let nl = if num(2, 0.) == 0. { Nonlinearity::Sigmoid } else { Nonlinearity::Tanh };
            for seed in 0..3 {
                let mut net = autoencoder::<f32, _>(&[64, 40, 20, 8], nl, kernel).unwrap();
                let mut w = net.initial_weights(seed, |_| {
                    if nl == Nonlinearity::Sigmoid { Init::Sparse } else { Init::ScaledNormal }
                });
                let mut src = Sampled::new(&data, seed).unwrap();
                let every = num(3, 1.) as u32;
                let avg = num(6, 0.);
                let map = if num(4, 0.) == 0. { MapChoice::Factored } else { MapChoice::Eigenbasis };
                let mut opt: Box<dyn Optimizer<f32, Fast>> = if what == "digits-kfac" {
                    let lm = LevenbergMarquardt::new(0.1, AdaptationRule::feed_forward()).unwrap();
                    let step = AdaptiveStep::new(lm);
                    Box::new(
                        Kfac::new(
                            &net,
                            KfacSettings {
                                map,
                                schedule: Schedule { statistics_every: every, refresh_every: every },
                                decay: 0.95,
                                l2: num(5, 0.) as f32,
                                rule: StepRule::Adaptive(step),
                                seed,
                            },
                        )
                        .unwrap(),
                    )
                } else {
                    Box::new(Sgd::new(SgdSettings {
                        rate: num(3, 0.128),
                        momentum: num(4, 0.98),
                        clip: num(5, 1.0),
                    }))
                };
                let kf = what == "digits-kfac";
                let plan = Plan {
                    batch: 500,
                    updates: if kf { 300 } else { 2000 },
                    evaluate_every: if kf { 10 } else { 100 },
                    averaging: (avg > 0.).then_some(avg),
                };
                let h = Run { network: &mut net, weights: &mut w, source: &mut src, optimizer: &mut *opt }
                    .train(
                        plan,
                        &mut |n, w| {
                            n.forward(w, &whole).unwrap();
                            let out = n.outputs();
                            let Targets::Values(t) = &whole.targets else { panic!() };
                            let mut e = 0.0;
                            for (i, t) in t.iter().enumerate() {
                                let y = kfac_linalg::Scalar::sigmoid(out.data()[i]);
                                e += ((y - t) * (y - t)) as f64;
                            }
                            e / whole.cases as f64
                        },
                        &mut |_| Continue::Yes,
                    );
                println!(
                    "seed {seed}: .778 {:?} end {:.4} {:.3} ms/update {:?}",
                    h.reached(0.778).map(|p| p.updates),
                    h.final_value(),
                    h.milliseconds_per_update(),
                    h.failure
                );
                if args.last().unwrap() == "v" {
                    for p in &h.points {
                        print!("{}:{:.3} ", p.updates, p.value);
                    }
                    println!();
                }
            }
        }
        _ => panic!(),
    }
}
