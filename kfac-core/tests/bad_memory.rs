//! Storage and scratch that do not suffice are refused before anything is touched, and no shape is too large to say so.

mod common;

use common::bad::{Body, for_every_map};
use common::run::{self, CASES, Evidence, NET};
use common::{Room, bits, saved};
use kfac_core::evidence::Moments;
use kfac_core::linalg::{MatRef, Reproducible, Scalar, ScratchError};
use kfac_core::map::{
    ChainLimit, ChainSymmetric, Cubic, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Map,
    Shifted,
};
use kfac_core::memory::{Buffer, LayerSlot, Storage, StorageError, scratch_len, state_len};
use kfac_core::saved::saved_len;
use kfac_core::schedule::Schedule;
use kfac_core::shape::Window;
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};

#[test]
fn scratch_that_is_too_short_is_refused_before_anything_is_touched() {
    struct ShortScratch;
    impl Body for ShortScratch {
        fn run<T: Scalar, M: FactorMap<T>>(&self, map: M) {
            let mut room = Room::new::<M, Reproducible>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
            run::step(&mut kfac, 0, scratch);
            let before = saved(&kfac);
            let v = run::gradients::<T>(1);
            let mut u = v.clone();
            let found = scratch.len() - 1;
            let short = |result: Result<(), LayerError>| {
                let Err(LayerError { kind: LayerErrorKind::Scratch(error), .. }) = result else {
                    panic!("{}: {result:?}", M::NAME)
                };
                assert!(error.found < error.needed && error.needed <= found + 1, "{}: {error}", M::NAME);
            };
            // The longest need is that of refresh or of precondition; a short one is too short for every verb.
            short(kfac.refresh(&mut []).map(|_| ()));
            short(kfac.refresh_all(&mut []).map(|_| ()));
            short(kfac.precondition_flat(&mut u, &mut []).map(|_| ()));
            short(Evidence::at(1, 0).add(&mut kfac.observe(CASES), 0, &mut []));
            assert_eq!(
                kfac.refresh(&mut scratch[..found]),
                Err(LayerError {
                    layer: 0,
                    kind: LayerErrorKind::Scratch(ScratchError { needed: found + 1, found })
                })
            );
            assert_eq!((saved(&kfac), bits(&u)), (before, bits(&v)), "{}", M::NAME);
        }
    }
    for_every_map(&ShortScratch);

    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, _) = room.precondition(&NET, Factored, Reproducible);
    let [a, g] = [(&[1.0; 25][..], 5), (&[1.0; 9], 3)].map(|(x, n)| MatRef::row_major(x, n, n).unwrap());
    let refused = kfac.observe(1).add_moments(0, Moments { a, g, positions: 1.0 }, &mut []);
    assert!(matches!(refused.unwrap_err().kind, LayerErrorKind::Scratch(_)));
}

#[test]
fn storage_that_does_not_fit_is_refused() {
    let needed = state_len(&NET, <Factored as Map<f64>>::LAYOUT);
    let new = |net: &[LayerShape], numbers: usize, slots: usize| {
        let (mut numbers, mut slots) = (vec![0.0; numbers], vec![LayerSlot::EMPTY; slots]);
        let storage =
            Storage { numbers: Buffer::Borrowed(&mut numbers), slots: Buffer::Borrowed(&mut slots) };
        Preconditioner::new(net, Factored, Reproducible, storage).map(|_| ())
    };
    assert_eq!(new(&NET, needed, 3), Ok(()));
    assert_eq!(new(&NET, needed + 1, 4), Ok(()));
    let found = needed - 1;
    assert_eq!(new(&NET, found, 3), Err(StorageError::Numbers { needed, found }));
    assert_eq!(new(&NET, needed, 2), Err(StorageError::Slots { needed: 3, found: 2 }));
    for empty in [LayerShape::dense(3, 0), LayerShape::dense(0, 2).without_bias()] {
        assert_eq!(new(&[NET[0], empty], 100, 2), Err(StorageError::EmptyLayer { layer: 1 }));
    }
}

/// Lengths of impossible shapes saturate, and what no storage can hold is refused.
#[test]
fn shapes_beyond_all_memory_are_refused_and_never_wrap_around() {
    let max = usize::MAX;
    for shape in [
        LayerShape::dense(max, 1),
        LayerShape::dense(1, max),
        LayerShape::dense(max, max).without_bias(),
        LayerShape::recurrent(max, max),
        LayerShape::recurrent(max / 2, 3),
        LayerShape::dense(1 << (usize::BITS / 2 + 1), 1 << (usize::BITS / 2 + 1)),
        LayerShape::convolution(Window::new(max, [3, 3], [3, 3]), 2),
    ] {
        fn refused<M: Map<f32>>(shape: LayerShape, map: M) {
            let net = [NET[0], shape, shape];
            let needed = state_len(&net, M::LAYOUT);
            assert_eq!(needed, usize::MAX, "{shape:?}");
            assert_eq!(scratch_len::<f32, Reproducible, M>(&net), usize::MAX, "{shape:?}");
            assert_eq!(saved_len::<f32>(&net, M::LAYOUT), usize::MAX, "{shape:?}");
            let (mut numbers, mut slots) = (vec![0.0; 100], vec![LayerSlot::EMPTY; 3]);
            let storage =
                Storage { numbers: Buffer::Borrowed(&mut numbers), slots: Buffer::Borrowed(&mut slots) };
            let error = Preconditioner::new(&net, map, Reproducible, storage).err();
            assert_eq!(error, Some(StorageError::Numbers { needed, found: 100 }), "{shape:?}");
            #[cfg(feature = "alloc")]
            {
                let refused = Some(StorageError::Numbers { needed, found: 0 });
                let error = Preconditioner::on_heap(&net, map, Reproducible).err();
                assert_eq!(error, refused, "{shape:?}");
                assert_eq!(Storage::<f32>::on_heap(&net, M::LAYOUT).err(), refused, "{shape:?}");
            }
            let free = map.cost().cubic == Cubic::Both(0);
            assert_eq!(Schedule::EVERY_STEP.worst_step_flops(&net, map.cost()) == 0, free);
        }
        refused(shape, Factored);
        refused(shape, Eigenbasis::full());
        refused(shape, Shifted::full());
        refused(shape, Ekfac::full());
        refused(shape, Embedding::full());
        refused(shape, Diagonal);
        refused(shape, ChainSymmetric::full());
        refused(shape, ChainLimit::full());
    }
}
