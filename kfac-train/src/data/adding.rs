//! The adding problem: remember two marked numbers over a whole sequence.
//!
//! At each of T steps the network sees (u, mark). Two steps are marked, one in each half; the target, read
//! after the last step, is the sum of the two marked u, less 1.
//!
//! - u is uniform in `[0, 1)`, on multiples of 2^-24: inputs and targets are exact in `f32`, so a run in
//!   `f64` solves the same task.
//! - mark is 1 at the two marked steps and 0 elsewhere; the first lies among steps `0..T/2` (rounded down),
//!   the second among the others, each equally likely.
//! - The best constant is 0, with half mean squared error 1/12: the sum of two uniform numbers has variance
//!   1/6.
//!
//! # Shapes
//! Input `T x 2`, time-major: u of step 0, mark of step 0, u of step 1, ...; one target per case.
//!
//! # Source
//! Hochreiter and Schmidhuber 1997, "Long short-term memory", experiment 4. It departs from them in the range
//! of u (theirs is `[-1, 1]`), in the fixed length, in the place of the marks (theirs lie early), and in the
//! target (theirs is scaled to `[0, 1]`): this is the setting in which the claim about recurrent K-FAC was
//! measured.

use kfac_linalg::Scalar;
use rand_chacha::ChaCha8Rng;

use super::{Batch, DataError, Dataset, Source};
use crate::random::{Stream, below, generator, unit};

/// Fresh cases without end: stream 1 of the seed.
#[derive(Clone, Debug)]
pub struct Adding {
    steps: usize,
    generator: ChaCha8Rng,
}

impl Adding {
    /// Sequences of `steps` steps.
    ///
    /// # Errors
    /// [`DataError::TooFewSteps`] below 2 steps: each half must have one to mark.
    pub fn new(steps: usize, seed: u64) -> Result<Self, DataError> {
        Self::on_stream(steps, seed, Stream::Adding)
    }

    /// A fixed set, for validation: stream 2 of the seed, so none of the cases that [`new`](Adding::new)
    /// deals out with the same seed, except by chance.
    ///
    /// # Errors
    /// As for [`new`](Adding::new).
    ///
    /// # Example
    /// ```
    /// let validation = kfac_train::data::adding::Adding::fixed(30, 1000, 0)?;
    /// assert_eq!((validation.cases(), validation.input_len, validation.target_len), (1000, 60, 1));
    /// # Ok::<(), kfac_train::data::DataError>(())
    /// ```
    pub fn fixed(steps: usize, cases: usize, seed: u64) -> Result<Dataset, DataError> {
        let mut batch = Batch::<f32>::default();
        Self::on_stream(steps, seed, Stream::AddingFixed)?.next_batch(cases, &mut batch);
        Ok(Dataset {
            name: format!("adding problem, {steps} steps"),
            input_len: 2 * steps,
            inputs: batch.inputs,
            targets: batch.targets,
            target_len: 1,
        })
    }

    fn on_stream(steps: usize, seed: u64, stream: Stream) -> Result<Self, DataError> {
        if steps < 2 {
            return Err(DataError::TooFewSteps { name: "the adding problem".into(), steps, least: 2 });
        }
        Ok(Adding { steps, generator: generator(seed, stream) })
    }

    /// Appends one case.
    fn append<T: Scalar>(&mut self, inputs: &mut Vec<T>, targets: &mut Vec<T>) {
        let half = self.steps / 2;
        let marked = [below(&mut self.generator, half), half + below(&mut self.generator, self.steps - half)];
        let mut sum = 0.0;
        for step in 0..self.steps {
            let u = unit(&mut self.generator);
            inputs.push(T::from_f64(u));
            if marked.contains(&step) {
                inputs.push(T::ONE);
                sum += u;
            } else {
                inputs.push(T::ZERO);
            }
        }
        // A multiple of 2^-24 in [-1, 1): exact.
        targets.push(T::from_f64(sum - 1.0));
    }
}

impl<T: Scalar> Source<T> for Adding {
    fn input_len(&self) -> usize {
        2 * self.steps
    }

    fn next_batch(&mut self, cases: usize, batch: &mut Batch<T>) {
        let (inputs, targets) = batch.begin_values();
        for _ in 0..cases {
            self.append(inputs, targets);
        }
        batch.cases = cases;
    }
}
