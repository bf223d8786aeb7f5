use super::places::Places;
use super::{EvidenceError, Inputs};
use kfac_linalg::Scalar;

/// Inputs of an embedding: token ids, each of which stands for the unit vector of its place in the vocabulary.
///
/// `A` is then the diagonal matrix of the tokens' frequencies. A map that keeps no more of it than its diagonal, as
/// [`Embedding`](crate::map::Embedding), takes one addition a token and never sees a row as long as the vocabulary. The
/// layer is [`LayerShape::embedding`](crate::LayerShape::embedding); output gradients are rows `(case, position)`.
///
/// # Source
/// Eschenhagen, Immer, Turner, Schneider and Hennig 2023, arXiv:2311.00636, for the positions, which share the weights.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    ids: &'a [u32],
    vocabulary: usize,
    places: Places<'a>,
}

impl<'a> Tokens<'a> {
    /// Cases that all have `positions` tokens; `ids`: `cases positions`, case-major, each below `vocabulary`.
    ///
    /// # Errors
    /// [`EvidenceError::Shape`] when the ids are no multiple of `positions`, [`EvidenceError::UnknownToken`].
    pub fn new(ids: &'a [u32], vocabulary: usize, positions: usize) -> Result<Self, EvidenceError> {
        Self { ids, vocabulary, places: Places::all([ids.len(), 1], positions)? }.checked()
    }

    /// Cases padded to `positions` tokens, of which case `i` has the first `lengths[i]`; the padding is masked, and
    /// its ids may be any.
    ///
    /// # Errors
    /// [`EvidenceError::Shape`] when the ids are not `lengths.len() positions`, or a length is longer than
    /// `positions`; [`EvidenceError::UnknownToken`].
    pub fn with_lengths(
        ids: &'a [u32],
        vocabulary: usize,
        positions: usize,
        lengths: &'a [usize],
    ) -> Result<Self, EvidenceError> {
        Self { ids, vocabulary, places: Places::with_lengths([ids.len(), 1], positions, lengths)? }.checked()
    }

    fn checked(self) -> Result<Self, EvidenceError> {
        let known = |&row: &usize| self.id(row).is_some_and(|id| id < self.vocabulary);
        match self.places.rows().find(|row| !known(row)) {
            None => Ok(self),
            Some(row) => {
                let (token, vocabulary) = (self.ids[row], self.vocabulary);
                Err(EvidenceError::UnknownToken { row, token, vocabulary })
            }
        }
    }

    fn id(&self, row: usize) -> Option<usize> {
        usize::try_from(self.ids[row]).ok()
    }
}

impl<T: Scalar> Inputs<T> for Tokens<'_> {
    fn cases(&self) -> usize {
        self.places.cases()
    }

    fn positions(&self) -> usize {
        self.places.positions()
    }

    fn features(&self) -> usize {
        self.vocabulary
    }

    fn is_valid(&self, case: usize, position: usize) -> bool {
        self.places.is_valid(case, position)
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        out.fill(T::ZERO);
        self.add_row(case, position, out);
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [T]) {
        let id = self.id(self.places.row(case, position));
        if let Some(value) = id.and_then(|id| out.get_mut(id)) {
            *value += T::ONE;
        }
    }

    fn token(&self, case: usize, position: usize) -> Option<usize> {
        self.id(self.places.row(case, position))
    }
}
