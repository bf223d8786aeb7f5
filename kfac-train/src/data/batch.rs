//! Batches, and where they come from.
//!
//! # Seeds
//! Whatever is drawn comes from `rand_chacha::ChaCha8Rng` with the seed as its key (eight bytes,
//! little-endian, then zeros). The stream tells the uses of one seed apart, so one seed may serve all of
//! them:
//!
//! | stream | use |
//! |---|---|
//! | 0 | [`Sampled`]: which cases of a [`Dataset`] |
//! | 1 | [`Adding`](super::adding::Adding): fresh cases |
//! | 2 | [`Adding::fixed`](super::adding::Adding::fixed) |
//! | 3 | [`Windows`](super::text::Windows): where windows begin |
//! | 4 | [`Windows::fixed`](super::text::Windows::fixed) |
//! | 5 | [`curves::generate`](super::curves::generate) |

use kfac_linalg::Scalar;
use rand_chacha::ChaCha8Rng;

use super::{DataError, Dataset, Targets};
use crate::random::{Stream, below, generator};

/// Some cases, in the scalar of the network. Its buffers are meant to be filled again and again.
///
/// # Shapes
/// `inputs`: `cases x input_len`, case-major; `targets` as in [`Targets`].
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<T> {
    /// Number of cases.
    pub cases: usize,
    /// The inputs, case-major.
    pub inputs: Vec<T>,
    /// The targets, case-major.
    pub targets: Targets<T>,
}

impl<T: Scalar> Batch<T> {
    /// A batch of no cases whose targets have the kind of `dataset`.
    pub fn empty_like(dataset: &Dataset) -> Self {
        let targets = match dataset.targets {
            Targets::Values(_) => Targets::Values(Vec::new()),
            Targets::Classes(_) => Targets::Classes(Vec::new()),
        };
        Batch { cases: 0, inputs: Vec::new(), targets }
    }

    /// Empties the batch, keeps its buffers, and hands out inputs and targets to be filled with values.
    pub(super) fn begin_values(&mut self) -> (&mut Vec<T>, &mut Vec<T>) {
        self.cases = 0;
        self.inputs.clear();
        if let Targets::Classes(_) = self.targets {
            self.targets = Targets::Values(Vec::new());
        }
        match &mut self.targets {
            Targets::Values(values) => {
                values.clear();
                (&mut self.inputs, values)
            }
            Targets::Classes(_) => unreachable!("replaced above"),
        }
    }

    /// Empties the batch, keeps its buffers, and hands out inputs and targets to be filled with classes.
    pub(super) fn begin_classes(&mut self) -> (&mut Vec<T>, &mut Vec<u32>) {
        self.cases = 0;
        self.inputs.clear();
        if let Targets::Values(_) = self.targets {
            self.targets = Targets::Classes(Vec::new());
        }
        match &mut self.targets {
            Targets::Classes(classes) => {
                classes.clear();
                (&mut self.inputs, classes)
            }
            Targets::Values(_) => unreachable!("replaced above"),
        }
    }
}

impl<T: Scalar> Default for Batch<T> {
    /// A batch of no cases; a [`Source`] gives its targets the right kind.
    fn default() -> Self {
        Batch { cases: 0, inputs: Vec::new(), targets: Targets::Values(Vec::new()) }
    }
}

/// An endless supply of batches, the same for the same construction.
pub trait Source<T: Scalar> {
    /// Numbers of one input.
    fn input_len(&self) -> usize;

    /// Replaces the content of `batch` by the next `cases` cases.
    ///
    /// Allocates nothing once the buffers of `batch` have held as many cases of this source.
    fn next_batch(&mut self, cases: usize, batch: &mut Batch<T>);
}

/// Cases of a [`Dataset`] drawn with replacement, each equally likely.
///
/// Stream 0 of the seed: two contenders with one seed see the same cases in the same order, also when their
/// batches differ in size.
#[derive(Clone, Debug)]
pub struct Sampled<'d> {
    dataset: &'d Dataset,
    generator: ChaCha8Rng,
}

impl<'d> Sampled<'d> {
    /// Draws from `dataset` by `seed`.
    ///
    /// # Errors
    /// [`DataError::NoCases`] when there is nothing to draw from.
    ///
    /// # Example
    /// ```
    /// use kfac_train::data::{Batch, Sampled, Source, digits};
    /// let digits = digits::load().autoencoding();
    /// let mut batch = Batch::<f32>::default();
    /// Sampled::new(&digits, 0)?.next_batch(500, &mut batch);
    /// assert_eq!((batch.cases, batch.inputs.len()), (500, 500 * 64));
    /// # Ok::<(), kfac_train::data::DataError>(())
    /// ```
    pub fn new(dataset: &'d Dataset, seed: u64) -> Result<Self, DataError> {
        if dataset.cases() == 0 {
            return Err(DataError::NoCases { name: dataset.name.clone() });
        }
        Ok(Sampled { dataset, generator: generator(seed, Stream::Sampled) })
    }
}

impl<T: Scalar> Source<T> for Sampled<'_> {
    fn input_len(&self) -> usize {
        self.dataset.input_len
    }

    fn next_batch(&mut self, cases: usize, batch: &mut Batch<T>) {
        let all = self.dataset.cases();
        self.dataset.begin(batch);
        for _ in 0..cases {
            self.dataset.append(below(&mut self.generator, all), batch);
        }
    }
}
