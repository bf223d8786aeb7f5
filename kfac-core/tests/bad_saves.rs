//! Saved bytes that do not fit, or that no run has left behind, are refused whole.

mod common;

use common::run::{self, LAST, NET};
use common::{Room, saved};
use kfac_core::linalg::Reproducible;
use kfac_core::map::{ChainSymmetric, Eigenbasis, Factored, MapError};
use kfac_core::saved::StateError;
use kfac_core::statistics::lengths;
use kfac_core::{LayerError, LayerErrorKind, LayerShape, Preconditioner};
use proptest::prelude::*;

/// A state to restore, of a net with layers that differ, and its bytes.
fn with_saved_state(check: impl FnOnce(&mut Preconditioner<'_, f32, Factored, Reproducible>, Vec<u8>)) {
    let mut room = Room::<f32>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Factored, Reproducible);
    (0..3).for_each(|step| drop(run::step(&mut kfac, step, scratch)));
    let bytes = saved(&kfac);
    check(&mut kfac, bytes);
}

#[test]
fn saved_bytes_that_are_cut_short_or_too_long_are_refused() {
    with_saved_state(|kfac, bytes| {
        assert_eq!(bytes.len(), kfac.saved_len());
        for len in 0..bytes.len() {
            let error = kfac.verify(&bytes[..len]).err();
            let named = matches!(error, Some(StateError::Magic | StateError::Length { .. }));
            assert!(named, "cut to {len}: {error:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        let (needed, found) = (bytes.len(), longer.len());
        assert_eq!(kfac.verify(&longer).err(), Some(StateError::Length { needed, found }));
        assert_eq!(saved(kfac), bytes);
    });
}

#[test]
fn saved_bytes_with_any_one_byte_changed_are_refused() {
    with_saved_state(|kfac, bytes| {
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                damaged[at] ^= flip;
                assert!(kfac.verify(&damaged).is_err(), "byte {at} of {} flipped by {flip:#x}", bytes.len());
                damaged[at] ^= flip;
            }
        }
        assert_eq!(saved(kfac), bytes);
    });
}

#[test]
fn saved_bytes_of_another_program_map_network_or_number_type_are_refused_by_name() {
    with_saved_state(|kfac, bytes| {
        let with = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            changed
        };
        assert_eq!(kfac.verify(&with(0, b'X')).err(), Some(StateError::Magic));
        assert_eq!(kfac.verify(&with(4, 2)).err(), Some(StateError::Version { found: 2 }));
        assert_eq!(kfac.verify(&with(6, 8)).err(), Some(StateError::NumberType { bytes: 8 }));

        let mut room = Room::<f32>::new::<Eigenbasis, Reproducible>(&NET);
        let (other, _) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
        assert_eq!(kfac.verify(&saved(&other)).err(), Some(StateError::Map { expected: "factored" }));
        let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
        let (other, _) = room.precondition(&NET, Factored, Reproducible);
        assert_eq!(kfac.verify(&saved(&other)).err(), Some(StateError::NumberType { bytes: 8 }));

        let [first, second, third] = NET;
        for (net, error) in [
            (vec![first, second], StateError::Layers { expected: 3, found: 2 }),
            (
                vec![first, LayerShape::dense(4, 5).without_bias(), third],
                StateError::Shape {
                    layer: 1,
                    expected: second,
                    found: LayerShape::dense(4, 5).without_bias(),
                },
            ),
            // The same sizes, with the last input a bias.
            (
                vec![first, LayerShape::dense(2, 5), third],
                StateError::Shape { layer: 1, expected: second, found: LayerShape::dense(2, 5) },
            ),
        ] {
            let mut room = Room::<f32>::new::<Factored, Reproducible>(&net);
            let (other, _) = room.precondition(&net, Factored, Reproducible);
            assert_eq!(kfac.verify(&saved(&other)).err(), Some(error));
        }
        assert_eq!(saved(kfac), bytes);
    });
}

/// FNV-1a over all but the last 8 bytes, which it replaces: damage that the checksum does not see.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 8;
    let hash = bytes[..content].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bytes[content..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// Written by a broken program, say: the checksum is right, the numbers are not.
#[test]
fn saved_numbers_that_no_run_leaves_behind_are_refused_with_their_layer() {
    with_saved_state(|kfac, bytes| {
        assert_eq!(with_checksum(bytes.clone()), bytes);
        let step = 19 + 9 * NET.len();
        let slot = |layer: usize| step + 8 + 4 + 55 * layer;
        let numbers = slot(NET.len());
        let (nan, infinity) = (f64::NAN.to_le_bytes(), f64::INFINITY.to_le_bytes());
        for (what, at, value, layer) in [
            ("the step", step, &u64::MAX.to_le_bytes()[..], None),
            ("a damping of 0", step + 8, &0.0_f32.to_le_bytes(), None),
            ("a damping that is not finite", step + 8, &f32::INFINITY.to_le_bytes(), None),
            ("updates without a weight", slot(1) + 4, &0.0_f64.to_le_bytes(), Some(1)),
            ("a negative weight", slot(2) + 12, &(-1.0_f64).to_le_bytes(), Some(2)),
            ("a weight that is not finite", slot(0) + 4, &nan, Some(0)),
            ("a refresh to come", slot(1) + 28, &1000_u64.to_le_bytes(), Some(1)),
            ("sides renewed before they were", slot(1) + 36, &1000_u64.to_le_bytes(), Some(1)),
            ("an infinite damping in force", slot(2) + 44, &infinity, Some(2)),
            ("the first number", numbers, &f32::NAN.to_le_bytes(), Some(0)),
            ("the last number", bytes.len() - 12, &f32::NEG_INFINITY.to_le_bytes(), Some(LAST)),
        ] {
            let mut changed = bytes.clone();
            changed[at..at + value.len()].copy_from_slice(value);
            let error = kfac.verify(&with_checksum(changed)).err();
            assert_eq!(error, Some(StateError::Value { layer }), "{what}");
        }
        assert_eq!(saved(kfac), bytes);
    });
    let shapes = [LayerShape::dense(2, 5).without_bias(), LayerShape::dense(1, 5)];
    let [expected, found] = shapes;
    assert_eq!(
        StateError::Shape { layer: 1, expected, found }.to_string(),
        "saved layer 1 is 5 x 2 with bias, the network's is 5 x 2 without bias"
    );
}

/// No evidence leaves sequences without positions; a file may.
#[test]
fn a_restored_chain_without_lengths_fails_its_refresh_by_name() {
    let mut room = Room::<f32>::new::<ChainSymmetric, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, ChainSymmetric::full(), Reproducible);
    let mut bytes = run::step(&mut kfac, 0, scratch).state;
    let end = bytes.len() - 8;
    bytes[end - 4 * lengths::BINS..end].fill(0);
    kfac.verify(&with_checksum(bytes)).unwrap().restore();
    let error = (0..3).find_map(|_| kfac.refresh(scratch).err()).unwrap();
    let kind = LayerErrorKind::ThirdFailure(MapError::Lengths { positions: 0.0 });
    assert_eq!(error, LayerError { layer: LAST, kind });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Bytes from anywhere: refused, never a panic, and the state is left alone.
    #[test]
    fn random_bytes_are_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..3_000),
        kept in 0_usize..200,
    ) {
        with_saved_state(|kfac, good| {
            // A true beginning leads further into the reader.
            let kept = kept.min(bytes.len());
            bytes[..kept].copy_from_slice(&good[..kept]);
            assert!(kfac.verify(&bytes).is_err());
            assert_eq!(saved(kfac), good);
        });
    }
}
