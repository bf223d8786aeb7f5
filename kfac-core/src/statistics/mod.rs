//! Running second moments: `A` from layer inputs, `G` from output gradients.
//!
//! One scale for every kind of weight sharing: `A` is the mean over cases and valid positions of `ā āᵀ`, `G` the
//! mean over cases of the sum over positions of `g gᵀ`. Both are kept as a weighted sum `S` and its weight `w`
//! (`factor = S / w`), so that cases may arrive one by one.

pub mod average;
pub(crate) mod factor;
