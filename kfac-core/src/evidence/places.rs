use kfac_linalg::ShapeError;

/// Which positions the cases of rows `(case, position)` have.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    cases: usize,
    positions: usize,
    lengths: Option<&'a [usize]>,
}

impl<'a> Places<'a> {
    /// All `positions` of every case; `[rows, columns]` is what there is.
    pub(super) fn all([rows, columns]: [usize; 2], positions: usize) -> Result<Self, ShapeError> {
        if positions == 0 || !rows.is_multiple_of(positions) {
            return Err(ShapeError::new([positions, columns], [rows, columns]));
        }
        Ok(Self { cases: rows / positions, positions, lengths: None })
    }

    /// The first `lengths[i]` of the `positions` of case `i`.
    pub(super) fn with_lengths(
        [rows, columns]: [usize; 2],
        positions: usize,
        lengths: &'a [usize],
    ) -> Result<Self, ShapeError> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest > positions {
            return Err(ShapeError::new([positions, columns], [longest, columns]));
        }
        if positions == 0 || lengths.len().checked_mul(positions) != Some(rows) {
            let expected = [lengths.len().saturating_mul(positions), columns];
            return Err(ShapeError::new(expected, [rows, columns]));
        }
        Ok(Self { cases: lengths.len(), positions, lengths: Some(lengths) })
    }

    pub(super) fn cases(&self) -> usize {
        self.cases
    }

    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    pub(super) fn is_valid(&self, case: usize, position: usize) -> bool {
        self.lengths.is_none_or(|lengths| position < lengths[case])
    }

    /// The row of a place.
    pub(super) fn row(&self, case: usize, position: usize) -> usize {
        case * self.positions + position
    }

    /// The rows of all valid places, in order.
    pub(super) fn rows(self) -> impl Iterator<Item = usize> + use<'a> {
        let positions = move |case| (0..self.positions).map(move |position| (case, position));
        let valid = move |&(case, position): &(usize, usize)| self.is_valid(case, position);
        let row = move |(case, position)| self.row(case, position);
        (0..self.cases).flat_map(positions).filter(valid).map(row)
    }
}
