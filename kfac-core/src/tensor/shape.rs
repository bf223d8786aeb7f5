//! Shapes of tensors, as plain numbers that a `const` can hold.

use kfac_linalg::ShapeError;

/// Most axes of a tensor.
pub const MAX_ORDER: usize = 8;

/// The sides of a tensor, row-major, and which of its axes are preconditioned.
///
/// Without sides it is a scalar, which is not preconditioned. An axis of side 1 is one like any other: it counts in the
/// order of the roots, and [`merged`](Self::merged) drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Beyond the order they are 1.
    sides: [usize; MAX_ORDER],
    order: usize,
    largest_side: usize,
}

impl TensorShape {
    /// A tensor with these sides, at most [`MAX_ORDER`] of them (more do not compile), all of them preconditioned.
    pub const fn new<const ORDER: usize>(sides: [usize; ORDER]) -> Self {
        const { assert!(ORDER <= MAX_ORDER, "a tensor has at most MAX_ORDER axes") };
        Self::of(&sides)
    }

    /// [`new`](Self::new) for sides that are known at run time.
    ///
    /// # Errors
    /// [`ShapeError`] where there are more than [`MAX_ORDER`].
    pub const fn from_sides(sides: &[usize]) -> Result<Self, ShapeError> {
        if sides.len() > MAX_ORDER {
            return Err(ShapeError::new([MAX_ORDER, 1], [sides.len(), 1]));
        }
        Ok(Self::of(sides))
    }

    /// Of the first sides, where there are too many.
    const fn of(sides: &[usize]) -> Self {
        let mut shape = Self { sides: [1; MAX_ORDER], order: 0, largest_side: usize::MAX };
        while shape.order < sides.len() && shape.order < MAX_ORDER {
            shape.sides[shape.order] = sides[shape.order];
            shape.order += 1;
        }
        shape
    }

    /// The same numbers with fewer axes: from the first one on, neighbours are merged as long as the product of their sides
    /// is at most `limit`, and sides of 1 are dropped. Row-major, the numbers stay where they are.
    ///
    /// # Source
    /// Anil, Gupta, Koren, Regan and Singer 2020, arXiv:2002.09018.
    pub const fn merged(self, limit: usize) -> Self {
        let mut merged = Self { sides: [1; MAX_ORDER], order: 0, largest_side: self.largest_side };
        let mut axis = 0;
        while axis < self.order {
            let side = self.sides[axis];
            axis += 1;
            if side == 1 {
                continue;
            }
            let product =
                if merged.order > 0 { merged.sides[merged.order - 1].checked_mul(side) } else { None };
            match product {
                Some(product) if product <= limit => merged.sides[merged.order - 1] = product,
                _ => {
                    merged.sides[merged.order] = side;
                    merged.order += 1;
                }
            }
        }
        merged
    }

    /// Leaves axes whose side is larger than this alone: nothing is kept for them, they are multiplied by the identity, and
    /// do not count in the order of the roots. 0 leaves all of them alone.
    pub const fn limited(self, largest_side: usize) -> Self {
        Self { largest_side, ..self }
    }

    /// Number of axes.
    pub const fn order(self) -> usize {
        self.order
    }

    /// All sides.
    pub const fn sides(&self) -> &[usize] {
        self.sides.split_at(self.order).0
    }

    /// The side of an axis; 1 where there is no such axis.
    pub const fn side(self, axis: usize) -> usize {
        if axis < MAX_ORDER { self.sides[axis] } else { 1 }
    }

    /// Numbers in the tensor. Saturates where no memory holds them.
    pub const fn entries(self) -> usize {
        self.product(0, self.order)
    }

    /// Is there such an axis, and is it preconditioned?
    pub const fn is_preconditioned(self, axis: usize) -> bool {
        axis < self.order && self.sides[axis] <= self.largest_side
    }

    /// `k` of the roots: how many axes are preconditioned.
    pub const fn preconditioned_axes(self) -> usize {
        let (mut count, mut axis) = (0, 0);
        while axis < self.order {
            count += self.is_preconditioned(axis) as usize;
            axis += 1;
        }
        count
    }

    /// The axes that are preconditioned.
    pub(crate) fn axes(self) -> impl Iterator<Item = usize> {
        (0..self.order).filter(move |&axis| self.is_preconditioned(axis))
    }

    /// Row-major, a tensor is `before` blocks of `side x after` numbers.
    pub(super) const fn blocks(self, axis: usize) -> [usize; 3] {
        [self.product(0, axis), self.side(axis), self.product(axis + 1, self.order)]
    }

    /// Larger sides are left alone.
    pub(super) const fn largest_side(self) -> usize {
        self.largest_side
    }

    const fn product(self, from: usize, to: usize) -> usize {
        let (mut product, mut axis) = (1_usize, from);
        while axis < to && axis < MAX_ORDER {
            product = product.saturating_mul(self.sides[axis]);
            axis += 1;
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_up_to_the_limit_and_ones_are_dropped() {
        const SHAPE: TensorShape = TensorShape::new([2, 1, 3, 4, 5]).merged(6);
        assert_eq!(SHAPE.sides(), [6, 4, 5]);
        for (sides, limit, merged) in [
            (&[64, 3, 3, 3][..], 27, &[64, 27][..]),
            (&[64, 3, 3, 3], 26, &[64, 9, 3]),
            (&[2, 3, 4], 24, &[24]),
            (&[2, 3, 4], 0, &[2, 3, 4]),
            (&[1, 1], 10, &[]),
            (&[], 10, &[]),
            (&[usize::MAX, 2], usize::MAX, &[usize::MAX, 2]),
        ] {
            let shape = TensorShape::from_sides(sides).unwrap();
            assert_eq!(shape.merged(limit).sides(), merged, "{sides:?} {limit}");
            assert_eq!(shape.merged(limit).entries(), shape.entries());
        }
    }

    #[test]
    fn axes_beyond_the_limit_do_not_count() {
        let shape = TensorShape::new([7, 2, 9]).limited(7);
        assert!(shape.axes().eq([0, 1]));
        assert_eq!((shape.preconditioned_axes(), shape.order(), shape.entries()), (2, 3, 126));
        assert_eq!(shape.limited(0).preconditioned_axes(), 0);
        assert_eq!([0, 1, 2].map(|axis| shape.blocks(axis)), [[1, 7, 18], [7, 2, 9], [14, 9, 1]]);
        assert!(!TensorShape::new([]).is_preconditioned(0));
    }

    #[test]
    fn too_many_sides_are_refused() {
        let error = ShapeError::new([8, 1], [9, 1]);
        assert_eq!(TensorShape::from_sides(&[1; 9]), Err(error));
        assert_eq!(TensorShape::from_sides(&[2; 8]).unwrap().entries(), 256);
    }
}
