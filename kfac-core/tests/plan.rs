//! The printed plan of memory against what a preconditioner really takes.
#![cfg(feature = "alloc")]

mod common;

use common::bad::{Body, for_every_map};
use kfac_core::linalg::{Reproducible, Scalar, packed_len};
use kfac_core::map::{Eigenbasis, FactorMap, Factored};
use kfac_core::memory::{Buffer, LayerPlan, LayerSlot, Plan, Storage};
use kfac_core::{LayerShape, Preconditioner};

const NET: [LayerShape; 4] = [
    LayerShape::dense(6, 3),
    LayerShape::dense(3, 5).without_bias(),
    LayerShape::dense(6, 3),
    LayerShape::dense(300, 2),
];

#[test]
fn the_plan_is_what_is_used() {
    struct IsUsed;
    impl Body for IsUsed {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let plan = Plan::new::<T, Reproducible, M>(&NET);
            let storage = Storage::<T>::on_heap(&NET, M::LAYOUT).unwrap();
            assert_eq!(plan.state(), size_of_val(&*storage.numbers), "{}", M::NAME);
            assert_eq!(plan.slots(), size_of_val(&*storage.slots), "{}", M::NAME);
            let by_layer: usize = NET.iter().map(|&shape| plan.layer(shape).total()).sum();
            assert_eq!(by_layer, plan.state(), "{}", M::NAME);

            // It is enough, and one number less is not.
            let kfac = Preconditioner::new(&NET, map, Reproducible, storage).unwrap();
            assert_eq!(plan.scratch(), kfac.scratch_len() * T::BYTES, "{}", M::NAME);
            assert_eq!(plan.saved(), kfac.saved_len(), "{}", M::NAME);
            let mut saved = 0;
            kfac.save(|piece| {
                saved += piece.len();
                Ok::<(), ()>(())
            })
            .unwrap();
            assert_eq!(plan.saved(), saved, "{}", M::NAME);
            let Storage { mut numbers, slots } = Storage::<T>::on_heap(&NET, M::LAYOUT).unwrap();
            let short = Buffer::Borrowed(&mut numbers[1..]);
            let refused = Preconditioner::new(&NET, map, Reproducible, Storage { numbers: short, slots });
            assert!(refused.is_err(), "{}", M::NAME);
            assert_eq!(plan.total(), plan.state() + plan.slots() + plan.scratch());
        }
    }
    for_every_map(&IsUsed);
}

#[test]
fn a_layer_s_bytes_stand_under_their_purpose() {
    let shape = LayerShape::dense(6, 3);
    let packed = [packed_len(7), packed_len(3)];
    let plan = Plan::new::<f32, Reproducible, Factored>(&NET).layer(shape);
    let bytes = packed.map(|len| 4 * len);
    assert_eq!(plan, LayerPlan { moments: bytes, beside: bytes, ..LayerPlan::default() });
    let plan = Plan::new::<f64, Reproducible, Eigenbasis>(&NET).layer(shape);
    let beside = [7 * 7 + 7, 3 * 3 + 3].map(|len| 8 * len);
    assert_eq!(plan, LayerPlan { moments: packed.map(|len| 8 * len), beside, ..LayerPlan::default() });
}

#[test]
fn the_table_has_a_line_for_each_kind_of_layer() {
    let plan = Plan::new::<f32, Reproducible, Factored>(&NET);
    let table = plan.to_string();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "factored, numbers of 4 bytes, in KiB");
    let line = |index: usize| lines[index].join(" ");
    assert_eq!(line(2), "0 2 3 x 7 0.1 0.0 0.1 0.0 0.0 0.3 0.5");
    assert_eq!(line(3), "1 1 5 x 3 0.0 0.1 0.0 0.1 0.0 0.2 0.2");
    assert_eq!(line(4), "3 1 2 x 301 177.5 0.0 177.5 0.0 0.0 355.1 355.1");
    let total = plan.total() as f64 / 1024.0;
    assert_eq!(line(8), format!("together {total:.1}"));
    assert_eq!(size_of::<LayerSlot>() * 4, plan.slots());
    assert!(Plan::new::<f32, Reproducible, Factored>(&NET[1..2]).to_string().contains("in bytes"));
}
