//! Resume is exact: save after a step, restore into fresh memory, continue, and every later bit is that of the run
//! that was never interrupted.

mod common;

use common::run::{self, NET};
use common::{Room, saved};
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_core::error::SettingError;
use kfac_core::linalg::eigh::Jacobi;
use kfac_core::linalg::eigh::jacobi::Budget;
use kfac_core::linalg::{Fast, Kernel, Reproducible, Scalar};
use kfac_core::map::{
    ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Shifted,
};
use kfac_core::memory::state_len;
use kfac_core::recipe::{AdaptiveProgress, AdaptiveStep, ResumeError};
use kfac_core::saved::saved_len;
use kfac_core::schedule::Schedule;
use kfac_core::step::{FisherProducts, Slopes, StepBound};
use kfac_core::{LayerErrorKind, Preconditioner};

/// Statistics every 2 steps, units dealt over 3: a checkpoint falls into the middle of both periods.
const SCHEDULE: Schedule = Schedule { statistics_every: 2, refresh_every: 3 };
const STEPS: usize = 10;

fn settings<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: Preconditioner<'_, T, M, K>,
) -> Preconditioner<'_, T, M, K> {
    let kfac = kfac.with_schedule(SCHEDULE).unwrap().with_decay(T::from_f64(0.8)).unwrap();
    kfac.with_l2(T::from_f64(1e-3)).unwrap()
}

/// The marks of steps `from..to`, going on from saved bytes where there are any.
fn marks<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    map: M,
    kernel: K,
    from: usize,
    to: usize,
    state: Option<&[u8]>,
) -> Vec<run::Mark> {
    let mut room = Room::new::<M, K>(&NET);
    // Fresh memory need not be clean.
    room.numbers.fill(T::from_f64(f64::INFINITY));
    let (kfac, scratch) = room.precondition(&NET, map, kernel);
    let mut kfac = settings(kfac);
    if let Some(state) = state {
        kfac.verify(state).unwrap().restore();
        assert_eq!(saved(&kfac), state, "{}: the bytes change on a round trip", M::NAME);
    }
    (from..to).map(|step| run::step(&mut kfac, step, scratch)).collect()
}

fn resumes_exactly<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(map: M, kernel: K) {
    let whole = marks::<T, M, K>(map, kernel, 0, STEPS, None);
    for after in 0..STEPS {
        let resumed = marks::<T, M, K>(map, kernel, after + 1, STEPS, Some(&whole[after].state));
        let name = (M::NAME, std::any::type_name::<T>(), std::any::type_name::<K>());
        assert_eq!(resumed, whole[after + 1..], "saved after step {after} of {name:?}");
    }
}

#[test]
fn a_run_that_was_interrupted_after_any_step_continues_to_the_bit() {
    fn with_map<M: FactorMap<f32> + FactorMap<f64>>(map: M) {
        resumes_exactly::<f64, M, _>(map, Reproducible);
        resumes_exactly::<f32, M, _>(map, Reproducible);
        resumes_exactly::<f64, M, _>(map, Fast::detect());
        resumes_exactly::<f32, M, _>(map, Fast::detect());
    }
    with_map(Factored);
    with_map(Eigenbasis::full());
    with_map(Shifted::full());
    with_map(Ekfac::full());
    with_map(Embedding::full());
    with_map(Diagonal);
    with_map(ChainSymmetric::full());
    with_map(ChainLimit::full());
    // Bases that are not converged, each going on from the last.
    with_map(Eigenbasis::bounded(1));
}

#[test]
fn a_state_that_was_verified_is_not_restored_until_it_is_told_to() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let early = run::step(&mut kfac, 0, scratch).state;
    let late = run::step(&mut kfac, 1, scratch).state;
    drop(kfac.verify(&early).unwrap());
    assert_eq!(saved(&kfac), late);
    kfac.verify(&early).unwrap().restore();
    assert_eq!(saved(&kfac), early);
}

/// Two failures, a checkpoint, and the next one is the third.
#[test]
fn failures_are_counted_across_an_interruption() {
    // No sweep suffices, and nothing but convergence is accepted.
    let map = Eigenbasis { solver: Jacobi { budget: Budget { sweeps: 0, tolerance: 0.5, accept: 0.0 } } };
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
    run::observe(&mut kfac, 0, 0..NET.len(), scratch);
    kfac.refresh(scratch).unwrap();
    kfac.refresh(scratch).unwrap();
    let state = saved(&kfac);

    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&NET);
    let (mut resumed, scratch) = room.precondition(&NET, map, Reproducible);
    resumed.verify(&state).unwrap().restore();
    assert_eq!(resumed.layer_report(0), kfac.layer_report(0));
    assert_eq!(resumed.layer_report(0).unwrap().failures, 2);
    let error = resumed.refresh(scratch).unwrap_err();
    assert!(matches!(error.kind, LayerErrorKind::ThirdFailure(_)), "{error}");
}

/// 19 bytes of head, then step, damping, checksum; 9 of shape and 55 of bookkeeping a layer; the numbers.
#[test]
fn a_saved_state_is_as_long_as_promised_and_little_else_than_the_numbers() {
    fn check<T: Scalar, M: FactorMap<T>>(map: M) {
        let mut room = Room::<T>::new::<M, Reproducible>(&NET);
        let (kfac, _) = room.precondition(&NET, map, Reproducible);
        let len = saved(&kfac).len();
        assert_eq!([len, len], [kfac.saved_len(), saved_len::<T>(&NET, M::LAYOUT)], "{}", M::NAME);
        let numbers = state_len(&NET, M::LAYOUT) * T::BYTES;
        assert_eq!(len - numbers, 19 + 8 + T::BYTES + 8 + NET.len() * (9 + 55), "{}", M::NAME);
    }
    check::<f32, _>(Factored);
    check::<f64, _>(Eigenbasis::full());
    check::<f64, _>(Shifted::full());
    check::<f32, _>(ChainSymmetric::full());
}

#[test]
fn an_error_of_the_writer_is_handed_back_and_ends_the_saving() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (kfac, _) = room.precondition(&NET, Factored, Reproducible);
    let mut left = 5;
    let write = |_: &[u8]| {
        left -= 1;
        if left == 0 { Err("disk full") } else { Ok(()) }
    };
    assert_eq!(kfac.save(write), Err("disk full"));
    assert_eq!(left, 0);
}

/// The damping's counters are a value beside the state.
#[test]
fn levenberg_marquardt_resumes_in_the_middle_of_its_period() {
    let rule = AdaptationRule { every: 3, omega: 0.9, floor: 1e-8, cap: 1e6 };
    // Rejected, good, too small to judge by, bad, good ...
    let losses = [f64::NAN, 0.1, 1.0, 1.2, 0.3, 0.2, 0.9, 0.95, 0.1];
    let predicted = [-0.5, -0.5, -1e-9, -0.5, -0.5, -0.5, -0.5, -1e-9, -0.5];
    let steps: Vec<(f64, f64)> = predicted.into_iter().zip(losses).collect();
    let judge = |lm: &mut LevenbergMarquardt<f64>, &(predicted, after): &(f64, f64)| {
        let verdict = lm.judge(predicted, 1.0, after);
        (verdict, *lm)
    };
    let mut whole = LevenbergMarquardt::new(1.0, rule).unwrap();
    let history: Vec<_> = steps.iter().map(|step| judge(&mut whole, step)).collect();
    for after in 0..steps.len() {
        let (_, at_checkpoint) = history[after];
        let mut resumed = LevenbergMarquardt::new(7.0, rule).unwrap();
        resumed.resume(at_checkpoint.lambda(), at_checkpoint.progress()).unwrap();
        let rest: Vec<_> = steps[after + 1..].iter().map(|step| judge(&mut resumed, step)).collect();
        assert_eq!(rest, history[after + 1..], "after step {after}");
    }
    let mut bound = StepBound::<f64>::recurrent();
    bound.adapt(0.9);
    let mut resumed = StepBound::recurrent();
    resumed.resume(bound.kappa()).unwrap();
    assert_eq!(resumed, bound);
    assert!(resumed.resume(1.0).is_err());
}

/// The recipe with its bound: saved after a proposal was judged, before the next batch judges the bound.
#[test]
fn the_adaptive_recipe_resumes_through_the_next_batch() {
    let rule = AdaptationRule { every: 2, omega: 0.9, floor: 1e-8, cap: 1e6 };
    let recipe = |lambda: f64| {
        let bound = StepBound::adaptive(0.01, [1e-3, 0.1]).unwrap();
        AdaptiveStep::new(LevenbergMarquardt::new(lambda, rule).unwrap()).with_bound(bound)
    };
    let fisher = FisherProducts { delta_delta: 2.0, ..FisherProducts::default() };
    let propose = |recipe: &mut AdaptiveStep<f64>, step: usize| {
        let slope = -1.0 - step as f64;
        let slopes = Slopes { gradient_delta: slope, delta_delta: 2.0, ..Slopes::default() };
        let proposal = recipe.propose(slopes, fisher).unwrap();
        let after = [0.9, 0.999, f64::NAN][step % 3];
        (proposal, recipe.judge(1.0, after))
    };
    let next_batch = |recipe: &mut AdaptiveStep<f64>, step: usize| {
        recipe.next_batch(1.0, [0.5, 1.5, f64::NAN, 0.9][step % 4]);
        *recipe
    };
    let mut whole = recipe(1.0);
    let history: Vec<_> = (0..8)
        .map(|step| {
            let judged = propose(&mut whole, step);
            let progress = whole.progress();
            (progress, format!("{judged:?} {:?}", next_batch(&mut whole, step)))
        })
        .collect();
    for after in 0..history.len() {
        let mut resumed = recipe(7.0);
        resumed.resume(history[after].0).unwrap();
        let now = format!("{:?}", next_batch(&mut resumed, after));
        assert!(history[after].1.ends_with(&now), "after step {after}: {now}");
        for (step, (_, marks)) in history.iter().enumerate().skip(after + 1) {
            let judged = propose(&mut resumed, step);
            let found = format!("{judged:?} {:?}", next_batch(&mut resumed, step));
            assert_eq!(found, *marks, "step {step}, saved after {after}");
        }
    }
}

#[test]
fn progress_of_another_recipe_is_refused_by_name_and_changes_nothing() {
    let damping = || LevenbergMarquardt::new(1.0, AdaptationRule::feed_forward()).unwrap();
    let bounded = AdaptiveStep::new(damping()).with_bound(StepBound::adaptive(0.01, [1e-3, 0.1]).unwrap());
    let free = AdaptiveStep::new(damping());
    let (with_kappa, without_kappa) = (bounded.progress(), free.progress());
    let setting = |setting, value| ResumeError::Setting(SettingError { setting, value });
    for (recipe, progress, error) in [
        (bounded, AdaptiveProgress { kappa: Some(1.0), ..with_kappa }, setting("kappa", 1.0)),
        (bounded, AdaptiveProgress { lambda: 1e7, ..with_kappa }, setting("lambda", 1e7)),
        (bounded, without_kappa, ResumeError::NoKappa { bound: 0.01 }),
        (free, with_kappa, ResumeError::NoBound { kappa: 0.01 }),
        (
            free,
            AdaptiveProgress { predicted: f64::INFINITY, ..without_kappa },
            ResumeError::Predicted { predicted: f64::INFINITY },
        ),
    ] {
        let mut refused = recipe;
        assert_eq!(refused.resume(progress), Err(error));
        assert_eq!(refused, recipe, "{error}");
    }
    let mut refused = free;
    let error = refused.resume(AdaptiveProgress { predicted: f64::NAN, ..without_kappa }).unwrap_err();
    assert_eq!((error.to_string().as_str(), refused), ("the saved predicted change is NaN", free));
}
