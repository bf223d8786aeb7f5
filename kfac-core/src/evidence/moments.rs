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

/// Finished moments of a layer that is used at every step of sequences, with those of neighbouring steps; as [`Moments`] they
/// stand for all cases of an update. Of `a` and `g` only the lower triangles are read, of the others everything.
#[derive(Clone, Copy)]
pub struct ChainMoments<'a, T> {
    /// The mean over cases and positions of `ā_t ā_tᵀ`, `n x n`.
    pub a: MatRef<'a, T>,
    /// The sum over neighbouring positions of `ā_t ā_{t-1}ᵀ`, the later one on the left, over the count of *positions* that
    /// divides `a`, `n x n`.
    pub a_lag: MatRef<'a, T>,
    /// The mean over cases of the sum over positions of `g_t g_tᵀ`, `m x m`.
    pub g: MatRef<'a, T>,
    /// The mean over cases of the sum over neighbouring positions of `g_t g_{t-1}ᵀ`, the later one on the left, `m x m`.
    pub g_lag: MatRef<'a, T>,
    /// Numbers of positions, each with the share of the cases that have so many; the shares need not add up to 1. A case without a
    /// position is no case.
    pub lengths: &'a [(usize, T)],
}
