use kfac_linalg::MatRef;

/// Finished moments of a layer, which stand for all cases of an update: from another process, a recursion, or a
/// file. Only the lower triangles are read.
#[derive(Clone, Copy)]
pub struct Moments<'a, T> {
    /// The mean over cases and positions of `ā āᵀ`, `n x n`.
    pub a: MatRef<'a, T>,
    /// The mean over cases of the sum over positions of `g gᵀ`, `m x m`.
    pub g: MatRef<'a, T>,
    /// Valid positions of a case, on average: 1 for a dense layer. What `a` weighs against the positions that other
    /// updates have added.
    pub positions: T,
}
