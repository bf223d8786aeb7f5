//! Running second moments: `A` from layer inputs, `G` from output gradients.
//!
//! One scale for every kind of weight sharing: `A` is the mean over cases and valid positions of `ā āᵀ`, `G` the
//! mean over cases of the sum over positions of `g gᵀ`. Both are kept as a weighted sum `S` and its weight `w`
//! (`factor = S / w`), so that cases may arrive one by one.
//!
//! `w` of the input side counts positions, since `A` is a mean over them: with lengths that vary, two halves of a batch
//! then give the same factor as the whole. Across updates, a batch of longer sequences weighs more in `A` by the
//! number of its positions; with one length throughout, the average is the papers' ramp exactly.

pub mod average;
pub(crate) mod factor;
