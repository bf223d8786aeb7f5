//! Running second moments: `A` from layer inputs, `G` from output gradients.
//!
//! One scale for every kind of weight sharing: `A` is the mean over cases and valid positions of `ā āᵀ`, `G` the
//! mean over cases of the sum over positions of `g gᵀ`. Both are kept as a weighted sum `S` and its weight `w`
//! (`factor = S / w`), so that cases may arrive one by one.
//!
//! `w` of the input side counts positions, since `A` is a mean over them: with lengths that vary, two halves of a batch
//! then give the same factor as the whole. Across updates, a batch of longer sequences weighs more in `A` by the
//! number of its positions; with one length throughout, the average is the papers' ramp exactly.
//!
//! A case without a valid position, a sequence of length 0, is no case: it is among those that `observe` was
//! announced, and weighs nothing in either factor.
//!
//! A map of [chains](crate::map::chain) keeps beside each moment that of neighbouring positions, `Σ x_t x_{t-1}ᵀ`, the later
//! one on the left: it decays with the moment and has its weight, so that `T` positions give `T` terms to one and `T - 1`
//! to the other, as if zeros surrounded every case. Only so is `[X₀ X₁; X₁ᵀ X₀]` positive semidefinite, and no correlation
//! above 1. Neighbours are positions of a case that follow each other and are both valid. The lengths are kept as
//! [`lengths`] says.
//!
//! A case that is added alone in an update of `N` is a share of `(1 - decay) / N` in a sum of order 1. In `f32` its
//! rounding can be as large as `EPSILON / 2`: over inputs that vary the roundings cancel, but a constant one, as the
//! bias, can be off by `EPSILON / 2 * N / (1 - decay)` of itself (0.6 % for `N = 1000` and a decay of 0.99, where it is
//! measured as 0.14 %; 17 % are measured at `N / (1 - decay) = 1e7`). Cases that are added together are summed 16 or more
//! at a time before they join the sum, which makes it as many times less (a diagonal alone is summed row by row: the bound
//! counts positions there). `w` stays exact: rounding it like the constant
//! input puts that one right and every other moment wrong, by as much.

pub mod average;
pub(crate) mod factor;
pub mod kfra;
pub(crate) mod lag;
pub mod lengths;
