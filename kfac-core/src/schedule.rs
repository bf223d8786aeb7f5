//! When statistics are taken and inverses renewed, and how the scalars of a run change.

mod course;

pub use course::Course;

use crate::error::SettingError;
use crate::map::{Cost, RefreshUnit, cube};
use crate::memory::LayerSlot;
use crate::shape::{LayerShape, Side};
use crate::tensor::{MAX_ORDER, TensorShape, TensorSlot};

/// Periods of the two expensive parts of a step.
///
/// Refresh units (a layer, or one side of a layer, as the map says) are dealt over the steps of a refresh period,
/// the largest first and back and forth, so that no step has to renew the whole network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `T_cov`: steps from one statistics update to the next.
    pub statistics_every: u32,
    /// `T_inv`: steps in which every unit is renewed once.
    pub refresh_every: u32,
}

impl Schedule {
    /// Statistics and all inverses at every step.
    pub const EVERY_STEP: Self = Self { statistics_every: 1, refresh_every: 1 };

    /// Flops of the most expensive step's refreshes, leading order. A `refresh_every` of 0, which
    /// [`with_schedule`](crate::Preconditioner::with_schedule) refuses, has no step: 0.
    ///
    /// ```
    /// use kfac_core::{LayerShape, map::Eigenbasis, schedule::Schedule};
    /// const NET: &[LayerShape] = &[LayerShape::dense(12, 24), LayerShape::dense(24, 2)];
    /// const SCHEDULE: Schedule = Schedule { statistics_every: 1, refresh_every: 4 };
    /// // One side a step: the largest has 25 inputs; two sweeps take 26 n³ flops.
    /// const WORST: u64 = SCHEDULE.worst_step_flops(NET, Eigenbasis::bounded(2).refresh_cost());
    /// assert_eq!(WORST, 26 * 25 * 25 * 25);
    /// ```
    pub const fn worst_step_flops(self, net: &[LayerShape], cost: Cost) -> u64 {
        self.worst_step(Units::Layers(net, cost))
    }

    /// The same for tensors, one axis being one unit, at so many flops times the cube of its side: those of
    /// [`GradientMap::refresh_flops`](crate::tensor::GradientMap::refresh_flops).
    pub const fn worst_axis_step_flops(self, net: &[TensorShape], per_cube: u64) -> u64 {
        self.worst_step(Units::Axes(net, per_cube))
    }

    const fn worst_step(self, units: Units<'_>) -> u64 {
        let count = units.count();
        let mut worst = 0;
        let mut step = 0;
        while step < self.refresh_every && (step as usize) < count {
            let mut total = 0;
            let mut unit = 0;
            while unit < count {
                if due(units.rank(unit), self.refresh_every) == step {
                    total = units.flops(unit).saturating_add(total);
                }
                unit += 1;
            }
            if total > worst {
                worst = total;
            }
            step += 1;
        }
        worst
    }

    /// Writes into each slot at which step of the period its sides are due.
    pub(crate) fn deal(self, net: &[LayerShape], cost: Cost, slots: &mut [LayerSlot]) {
        let units = Units::Layers(net, cost);
        for unit in 0..units.count() {
            let (layer, side) = layer_and_side(cost, unit);
            slots[layer].due[side.index()] = due(units.rank(unit), self.refresh_every);
        }
    }

    /// The same for the axes of tensors.
    pub(crate) fn deal_axes(self, net: &[TensorShape], per_cube: u64, slots: &mut [TensorSlot]) {
        let units = Units::Axes(net, per_cube);
        for unit in 0..units.count() {
            slots[unit / MAX_ORDER].due[unit % MAX_ORDER] = due(units.rank(unit), self.refresh_every);
        }
    }

    /// Refuses a period of 0.
    pub(crate) fn check(self) -> Result<(), SettingError> {
        let periods = [("statistics_every", self.statistics_every), ("refresh_every", self.refresh_every)];
        periods
            .into_iter()
            .try_for_each(|(setting, period)| SettingError::unless(period > 0, setting, f64::from(period)))
    }
}

/// What is dealt over the steps of a period.
#[derive(Clone, Copy)]
enum Units<'a> {
    /// Layers, or their sides.
    Layers(&'a [LayerShape], Cost),
    /// [`MAX_ORDER`] axes a tensor, at so many flops times the cube of the side; those that are not there come last.
    Axes(&'a [TensorShape], u64),
}

impl Units<'_> {
    const fn count(self) -> usize {
        match self {
            Self::Layers(net, cost) => net.len() * cost.unit.sides().len(),
            Self::Axes(net, _) => net.len() * MAX_ORDER,
        }
    }

    const fn flops(self, unit: usize) -> u64 {
        match self {
            Self::Layers(net, cost) => {
                let (layer, side) = layer_and_side(cost, unit);
                cost.flops(net[layer], side)
            }
            Self::Axes(net, per_cube) => {
                let (shape, axis) = (net[unit / MAX_ORDER], unit % MAX_ORDER);
                if shape.is_preconditioned(axis) {
                    cube(shape.side(axis)).saturating_mul(per_cube)
                } else {
                    0
                }
            }
        }
    }

    /// Place of a unit when all are sorted by cost, the largest first; equals keep their order.
    const fn rank(self, unit: usize) -> usize {
        let mine = self.flops(unit);
        let mut rank = 0;
        let mut other = 0;
        while other < self.count() {
            let theirs = self.flops(other);
            if theirs > mine || (theirs == mine && other < unit) {
                rank += 1;
            }
            other += 1;
        }
        rank
    }
}

const fn layer_and_side(cost: Cost, unit: usize) -> (usize, Side) {
    match cost.unit {
        RefreshUnit::Layer => (unit, Side::Input),
        RefreshUnit::Side => (unit / 2, Side::BOTH[unit % 2]),
    }
}

/// Deals back and forth: with three steps the ranks go to 0 1 2 2 1 0 0 1 2 ...
const fn due(rank: usize, period: u32) -> u32 {
    let period = period as usize;
    let (round, place) = (rank / period, rank % period);
    (if round.is_multiple_of(2) { place } else { period - 1 - place }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Cubic;

    const NET: [LayerShape; 3] = [LayerShape::dense(9, 4), LayerShape::dense(4, 7), LayerShape::dense(7, 2)];

    fn slots(schedule: Schedule, cost: Cost) -> [LayerSlot; 3] {
        let mut slots = [LayerSlot::EMPTY; 3];
        schedule.deal(&NET, cost, &mut slots);
        slots
    }

    #[test]
    fn units_are_dealt_largest_first_and_back_and_forth() {
        let schedule = Schedule { statistics_every: 1, refresh_every: 4 };
        let cost = Cost { unit: RefreshUnit::Side, cubic: Cubic::Both(1) };
        // Sizes: A 10, 5, 8; G 4, 7, 2. Sorted: A0, A2, G1, A1, then back: G0, G2.
        let due: [[u32; 2]; 3] = slots(schedule, cost).map(|slot| slot.due);
        assert_eq!(due, [[0, 3], [3, 2], [1, 2]]);
        assert_eq!(schedule.worst_step_flops(&NET, cost), 1000);
    }

    #[test]
    fn a_whole_layer_is_one_unit_where_the_map_says_so() {
        let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
        let cost = Cost { unit: RefreshUnit::Layer, cubic: Cubic::Both(2) };
        let due = slots(schedule, cost).map(|slot| slot.due[0]);
        assert_eq!(due, [0, 1, 1]);
        let flops = |a: u64, g: u64| 2 * (a.pow(3) + g.pow(3));
        assert_eq!(schedule.worst_step_flops(&NET, cost), flops(10, 4).max(flops(5, 7) + flops(8, 2)));
        assert_eq!(
            Schedule::EVERY_STEP.worst_step_flops(&NET, cost),
            flops(10, 4) + flops(5, 7) + flops(8, 2)
        );
    }

    #[test]
    fn axes_of_tensors_are_dealt_like_sides_and_those_left_alone_cost_nothing() {
        const TENSORS: [TensorShape; 3] =
            [TensorShape::new([9, 4]), TensorShape::new([7, 40, 3]).limited(20), TensorShape::new([])];
        const SCHEDULE: Schedule = Schedule { statistics_every: 1, refresh_every: 3 };
        const WORST: u64 = SCHEDULE.worst_axis_step_flops(&TENSORS, 2);
        let mut slots = [TensorSlot::EMPTY; 3];
        SCHEDULE.deal_axes(&TENSORS, 2, &mut slots);
        // Sorted: 9, 7, 4, and back: 3.
        assert_eq!(slots[0].due[..2], [0, 2]);
        assert_eq!([slots[1].due[0], slots[1].due[2]], [1, 2]);
        assert_eq!(WORST, 2 * 729);
        let at_once = Schedule::EVERY_STEP.worst_axis_step_flops(&TENSORS, 2);
        assert_eq!(at_once, 2 * (729 + 343 + 64 + 27));
    }
}
