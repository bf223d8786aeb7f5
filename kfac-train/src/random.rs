//! The one generator behind data, initial weights and sampled targets, and raw integers turned into draws.
//!
//! The key of ChaCha8 is the seed (little-endian, then zeros), the stream tells the uses of one seed apart.
//! Draws are made from raw integers by the few lines below, not by `rand`'s distributions, whose values may
//! change with its version: trajectories that are compared to the bit rest on these.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a seed is used for. The number is the stream of ChaCha8 and is frozen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Sampled = 0,
    Adding = 1,
    AddingFixed = 2,
    Windows = 3,
    WindowsFixed = 4,
    Curves = 5,
    InitialWeights = 6,
    SampledTargets = 7,
}

/// The generator of `seed` for one use.
pub(crate) fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(stream as u64);
    generator
}

/// Uniform on the multiples of 2^-24 in `[0, 1)`: exact in `f32`, so that every scalar gets the same number.
pub(crate) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    const STEP: f64 = 1.0 / (1 << 24) as f64;
    f64::from(generator.next_u32() >> 8) * STEP
}

/// Uniform on `0..n`, without bias. `n` must not be zero.
///
/// The upper half of the 128-bit product of `n` and a random word; words whose lower half falls below 2^64
/// mod n are drawn again.
///
/// # Source
/// Lemire 2019, "Fast random integer generation in an interval", arXiv:1805.10941.
pub(crate) fn below(generator: &mut ChaCha8Rng, n: usize) -> usize {
    debug_assert!(n > 0, "nothing to draw from");
    let n = n as u64;
    let rejected = n.wrapping_neg() % n;
    loop {
        let product = u128::from(generator.next_u64()) * u128::from(n);
        if product as u64 >= rejected {
            // Less than n, which came from a usize.
            return (product >> 64) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_seeds_are_told_apart_and_repeat() {
        let first = |seed, stream| generator(seed, stream).next_u64();
        assert_eq!(first(7, Stream::Adding), first(7, Stream::Adding));
        assert_ne!(first(7, Stream::Adding), first(7, Stream::AddingFixed));
        assert_ne!(first(7, Stream::Adding), first(8, Stream::Adding));
    }

    #[test]
    fn the_first_words_of_seed_0_are_those_of_the_chacha8_test_vector() {
        // Key and nonce of zeros, 8 rounds: 3e00ef2f 895f40d6 (bytes in order), as published for ChaCha8.
        let mut generator = generator(0, Stream::Sampled);
        let bytes = [generator.next_u32().to_le_bytes(), generator.next_u32().to_le_bytes()].concat();
        assert_eq!(bytes, [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
    }

    #[test]
    fn below_reaches_every_number_about_equally_often() {
        let mut generator = generator(1, Stream::Sampled);
        let mut counts = [0_u32; 7];
        for _ in 0..7000 {
            counts[below(&mut generator, 7)] += 1;
        }
        // Standard deviation of one count: sqrt(7000 (1/7) (6/7)) = 29.3; four of them.
        assert!(counts.iter().all(|count| count.abs_diff(1000) <= 117), "{counts:?}");
        assert_eq!(below(&mut generator, 1), 0);
    }

    #[test]
    fn unit_lies_in_the_half_open_interval_and_survives_f32() {
        let mut generator = generator(2, Stream::Sampled);
        for _ in 0..10_000 {
            let u = unit(&mut generator);
            assert!((0.0..1.0).contains(&u), "{u:e}");
            assert_eq!(f64::from(u as f32), u);
        }
    }
}
