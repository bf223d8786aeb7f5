//! A finite set of cases, kept in `f32` whatever the scalar of the network.

use kfac_linalg::Scalar;

use super::batch::Batch;

/// What a network is to produce.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets<T> {
    /// `cases x width` numbers, case-major.
    Values(Vec<T>),
    /// Class numbers from 0, one per case, or one per position of a case (`cases x positions`, case-major).
    Classes(Vec<u32>),
}

/// A finite set of cases.
///
/// # Shapes
/// `inputs`: `cases x input_len`, case-major. The targets hold the same number of cases.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Name, for reports.
    pub name: String,
    /// Numbers of one input.
    pub input_len: usize,
    /// All inputs, case-major.
    pub inputs: Vec<f32>,
    /// All targets, case-major.
    pub targets: Targets<f32>,
    /// Width of a target for [`Targets::Values`], number of classes for [`Targets::Classes`].
    pub target_len: usize,
}

impl Dataset {
    /// Number of cases.
    pub fn cases(&self) -> usize {
        self.inputs.len().checked_div(self.input_len).unwrap_or(0)
    }

    /// The first `cases` cases and the rest, in order. More than there are leaves the rest empty.
    pub fn split_at(&self, cases: usize) -> (Dataset, Dataset) {
        let (all, cases) = (self.cases(), cases.min(self.cases()));
        (self.range(0, cases), self.range(cases, all))
    }

    /// The first `cases` cases, or all when there are fewer.
    pub fn first(&self, cases: usize) -> Dataset {
        self.range(0, cases.min(self.cases()))
    }

    /// The same inputs, to be reproduced: targets are the inputs.
    pub fn autoencoding(self) -> Dataset {
        let targets = Targets::Values(self.inputs.clone());
        Dataset { target_len: self.input_len, targets, ..self }
    }

    /// Square images averaged over blocks of `factor x factor` pixels, which do not overlap.
    ///
    /// Targets stay as they are: pool first, then [`autoencoding`](Dataset::autoencoding).
    ///
    /// # Shapes
    /// Inputs `side x side` become `side/factor x side/factor`, row by row.
    /// # Scale
    /// The mean of the block, so that `[0, 1]` stays `[0, 1]`.
    /// # Errors
    /// [`NotPoolable`](super::DataError::NotPoolable) when the inputs are not square or `factor` does not
    /// divide the side.
    pub fn pooled(&self, factor: usize) -> Result<Dataset, super::DataError> {
        let side = self.input_len.isqrt();
        if side == 0 || side * side != self.input_len || factor == 0 || !side.is_multiple_of(factor) {
            return Err(super::DataError::NotPoolable {
                name: self.name.clone(),
                input_len: self.input_len,
                factor,
            });
        }
        let small = side / factor;
        let weight = 1.0 / (factor * factor) as f32;
        let mut inputs = Vec::with_capacity(self.cases() * small * small);
        for image in self.inputs.chunks_exact(self.input_len) {
            for (row, column) in (0..small).flat_map(|row| (0..small).map(move |column| (row, column))) {
                let corner = row * factor * side + column * factor;
                let block = (0..factor).flat_map(|i| &image[corner + i * side..][..factor]);
                inputs.push(block.sum::<f32>() * weight);
            }
        }
        Ok(Dataset {
            name: format!("{} pooled {factor}x{factor}", self.name),
            input_len: small * small,
            inputs,
            targets: self.targets.clone(),
            target_len: self.target_len,
        })
    }

    /// Fills `batch` with the cases `indices`, in that order; its buffers are reused.
    ///
    /// # Panics
    /// When an index is not below [`cases`](Dataset::cases).
    pub fn gather<T: Scalar>(&self, indices: &[usize], batch: &mut Batch<T>) {
        self.begin(batch);
        for &case in indices {
            self.append(case, batch);
        }
    }

    /// All cases as one batch.
    pub fn whole<T: Scalar>(&self) -> Batch<T> {
        let mut batch = Batch::empty_like(self);
        for case in 0..self.cases() {
            self.append(case, &mut batch);
        }
        batch
    }

    /// Empties `batch` and gives its targets the kind of this set.
    pub(super) fn begin<T: Scalar>(&self, batch: &mut Batch<T>) {
        match self.targets {
            Targets::Values(_) => {
                batch.begin_values();
            }
            Targets::Classes(_) => {
                batch.begin_classes();
            }
        }
    }

    /// Adds one case to a batch that [`begin`](Dataset::begin) has prepared.
    pub(super) fn append<T: Scalar>(&self, case: usize, batch: &mut Batch<T>) {
        let convert = |&x: &f32| T::from_f64(f64::from(x));
        batch.cases += 1;
        batch.inputs.extend(self.inputs[case * self.input_len..][..self.input_len].iter().map(convert));
        match (&self.targets, &mut batch.targets) {
            (Targets::Values(all), Targets::Values(some)) => {
                some.extend(all[case * self.target_len..][..self.target_len].iter().map(convert));
            }
            (Targets::Classes(all), Targets::Classes(some)) => {
                let positions = self.positions();
                some.extend_from_slice(&all[case * positions..][..positions]);
            }
            (Targets::Values(_), Targets::Classes(_)) | (Targets::Classes(_), Targets::Values(_)) => {
                unreachable!("`begin` gave the batch our kind of targets")
            }
        }
    }

    /// Class numbers per case.
    fn positions(&self) -> usize {
        match &self.targets {
            Targets::Values(_) => 0,
            Targets::Classes(classes) => classes.len().checked_div(self.cases()).unwrap_or(0),
        }
    }

    fn range(&self, start: usize, end: usize) -> Dataset {
        let cut = |width: usize| start * width..end * width;
        let targets = match &self.targets {
            Targets::Values(values) => Targets::Values(values[cut(self.target_len)].to_vec()),
            Targets::Classes(classes) => Targets::Classes(classes[cut(self.positions())].to_vec()),
        };
        Dataset {
            name: self.name.clone(),
            input_len: self.input_len,
            inputs: self.inputs[cut(self.input_len)].to_vec(),
            targets,
            target_len: self.target_len,
        }
    }
}
