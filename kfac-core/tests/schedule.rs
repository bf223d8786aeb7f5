//! The schedule over a run: statistics in their period, every unit renewed once a period, no step dearer than the
//! worst one that a constant knows.

mod common;

use common::run::{self, NET};
use common::{Room, saved};
use kfac_core::linalg::{Reproducible, Scalar};
use kfac_core::map::{Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Map, Shifted};
use kfac_core::report::RefreshReport;
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;

const SCHEDULE: Schedule = Schedule { statistics_every: 3, refresh_every: 4 };
const SWEEPS: u8 = 2;
const WORST: u64 = SCHEDULE.worst_step_flops(&NET, Eigenbasis::bounded(SWEEPS).refresh_cost());

// Firmware states its bound where it builds. A is 5, 3 and 6 wide, G 3, 5 and 2; over four steps the widest has one
// to itself, and two sweeps from the old basis take 26 n³ flops.
const _: () = assert!(WORST == 26 * 6 * 6 * 6);

/// The refresh reports and ages of `steps` steps.
fn reports<T: Scalar, M: FactorMap<T>>(map: M, schedule: Schedule, steps: usize) -> Vec<RefreshReport> {
    let mut room = Room::<T>::new::<M, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
    let mut kfac = kfac.with_schedule(schedule).unwrap();
    let mut reports = vec![];
    for step in 0..steps {
        run::observe(&mut kfac, step, 0..NET.len(), scratch);
        reports.push(kfac.refresh(scratch).unwrap());
        let period = u64::from(schedule.refresh_every);
        for layer in 0..NET.len() {
            let age = kfac.layer_report(layer).unwrap().age;
            // An inverse is at most a period old; a first period is enough to have one.
            let fresh = age.is_some_and(|age| age < period);
            assert!(fresh || step + 1 < period as usize, "{} at step {step}: {age:?}", M::NAME);
        }
    }
    reports
}

#[test]
fn every_unit_is_renewed_once_a_period() {
    fn check<M: FactorMap<f64>>(map: M) {
        let units = NET.len() * M::UNIT.sides().len();
        for refresh_every in 1..=8 {
            let schedule = Schedule { statistics_every: 1, refresh_every };
            let reports = reports::<f64, M>(map, schedule, 24);
            for period in reports.chunks_exact(refresh_every as usize) {
                let renewed: u32 = period.iter().map(|report| report.units).sum();
                assert_eq!(renewed as usize, units, "{} every {refresh_every}", M::NAME);
            }
        }
    }
    check(Factored);
    check(Eigenbasis::bounded(SWEEPS));
}

#[test]
fn no_step_takes_more_flops_than_the_worst_one() {
    fn check<M: FactorMap<f64>>(map: M) {
        for refresh_every in 1..=8 {
            let schedule = Schedule { statistics_every: 1, refresh_every };
            let worst = schedule.worst_step_flops(&NET, Map::<f64>::cost(&map));
            let reports = reports::<f64, M>(map, schedule, 24);
            let most = reports.iter().map(|report| report.flops).max().unwrap();
            assert!(most <= worst, "{} every {refresh_every}: {most} > {worst}", M::NAME);
            assert!(most > 0, "{}", M::NAME);
        }
    }
    check(Factored);
    check(Eigenbasis::bounded(SWEEPS));
    check(Eigenbasis::full());
    check(Shifted::full());
    check(Ekfac::full());
    check(Embedding::full());
}

/// Sweeps are bounded too, and a constant factor is never worth one twice.
#[test]
fn no_refresh_takes_more_sweeps_than_its_budget() {
    for sweeps in [1, 2, 5] {
        let reports = reports::<f64, _>(Eigenbasis::bounded(sweeps), SCHEDULE, 24);
        assert!(reports.iter().all(|report| report.sweeps <= sweeps.into()), "{sweeps}: {reports:?}");
        assert!(reports.iter().any(|report| report.sweeps > 0));
    }
}

#[test]
fn statistics_are_wanted_once_a_period_beginning_with_the_first_step() {
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    let mut kfac = kfac.with_schedule(SCHEDULE).unwrap();
    let wanted: Vec<bool> = (0..9)
        .map(|step| {
            let wanted = kfac.wants_statistics();
            run::observe(&mut kfac, step, 0..NET.len(), scratch);
            kfac.refresh(scratch).unwrap();
            wanted
        })
        .collect();
    assert_eq!(wanted, [true, false, false, true, false, false, true, false, false]);
    assert_eq!(kfac.layer_report(0).unwrap().updates, 3);
}

/// The cold start: `refresh_all` renews at once what the period would have dealt out, with the same result.
#[test]
fn the_explicit_cold_start_renews_everything_in_one_step() {
    fn check<M: FactorMap<f64>>(map: M) {
        let mut dealt = Room::<f64>::new::<M, Reproducible>(&NET);
        let (kfac, scratch) = dealt.precondition(&NET, map, Reproducible);
        let mut kfac = kfac.with_schedule(SCHEDULE).unwrap();
        run::observe(&mut kfac, 0, 0..NET.len(), scratch);
        let report = kfac.refresh_all(scratch).unwrap();
        assert_eq!(report.units as usize, NET.len() * M::UNIT.sides().len(), "{}", M::NAME);
        assert!(kfac.is_ready());

        let mut at_once = Room::<f64>::new::<M, Reproducible>(&NET);
        let (mut every_step, scratch) = at_once.precondition(&NET, map, Reproducible);
        run::observe(&mut every_step, 0, 0..NET.len(), scratch);
        every_step.refresh(scratch).unwrap();
        assert_eq!(saved(&kfac), saved(&every_step), "{}", M::NAME);
    }
    check(Factored);
    check(Eigenbasis::full());
    check(Shifted::full());
    check(Ekfac::full());
    check(Embedding::full());
}

/// A layer that is not used yet costs nothing and is not an error.
#[test]
fn units_of_layers_without_statistics_are_left_alone_and_counted() {
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
    run::observe(&mut kfac, 0, 1..2, scratch);
    let report = kfac.refresh(scratch).unwrap();
    assert_eq!((report.units, report.without_statistics, report.failures), (2, 4, 0));
    assert!(kfac.factor(0, Side::Input).is_none() && kfac.factor(1, Side::Input).is_some());
    assert_eq!([0, 1].map(|layer| kfac.layer_report(layer).unwrap().age), [None, Some(0)]);
}
