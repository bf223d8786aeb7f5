//! K-FAC: natural gradient by Kronecker factors, `no_std` and free of allocation.
//!
//! A layer `s = W ā` with weights `W` (`m x n`, row-major, `ā = [a; 1]`, the bias is the last column) has the Fisher
//! block `F = A (x) G` under column stacking, `F vec(V) = vec(G V A)`:
//!
//! - `V = dh/dW`, `m x n`, `h` the mean loss over cases (plus l2).
//! - `g = dl/ds`, the gradient of one case's summed loss, not divided by the batch.
//! - `A`, the mean over cases and valid positions of `ā āᵀ`, `n x n`.
//! - `G`, the mean over cases of the sum over positions of `g gᵀ`, `m x m`.
//! - `λ`, the damping, in units of an eigenvalue of `A (x) G`; `η`, the l2 weight decay, is added to it.
//!
//! The true Fisher needs `g` at targets drawn from the model ([`losses::Loss::sampled_gradient`]); at training
//! targets it is the empirical Fisher.
//!
//! | you hold | you call |
//! |---|---|
//! | `g` of each case's own loss | [`OutputGradients::per_case`](evidence::OutputGradients::per_case) |
//! | `g` of the mean loss over a batch, as frameworks give it | [`OutputGradients::of_mean_loss`](evidence::OutputGradients::of_mean_loss) |
//! | `g` of a weighted log-likelihood at sampled targets | [`OutputGradients::of_weighted_nll`](evidence::OutputGradients::of_weighted_nll) |
//! | a gradient stored as inputs x outputs | [`LayerGradient`] on [`MatMut::transposed`](linalg::MatMut::transposed) |
//! | weight and bias gradients apart | [`LayerGradient::with_bias`] |
//! | all gradients in one slice | [`Preconditioner::precondition_flat`] |
//! | the rows of a small batch and no gradient yet | [`Preconditioner::precondition_rows`] |
//! | a layer used at every step of a sequence | [`Sequence`](evidence::Sequence), best with [`ChainSymmetric`](map::ChainSymmetric) |
//! | token ids | [`Tokens`](evidence::Tokens), best with [`Embedding`](map::Embedding) |
//! | scale and shift of a normalisation | [`Normalised`](evidence::Normalised), best with [`Diagonal`](map::Diagonal) |
//!
//! A wrong scale still trains, only worse, and nothing can detect it: the constructors are where it is said.
//!
//! [`Preconditioner`] is the algorithm: observe, refresh, precondition. [`recipe`] has the two ways to make a step of
//! its result. [`tridiagonal`] is another algorithm, for chains of dense layers, [`tensor`] what there is for gradients
//! without layers: Shampoo and SOAP. [`memory`] says how much storage a network takes, as constants and as a
//! [printed plan](memory::Plan); [`doctor`] looks at a layer when training diverges; [`posterior`] is what the factors are good for
//! beside training. Nothing here allocates but
//! what two features bring: `alloc` the storage of `Preconditioner::on_heap`, `matrixmultiply` a packing buffer in every
//! product of [`Fast`](linalg::Fast) where kfac-linalg has no vector instructions of its own.
//!
//! # Features
//!
//! - `std` (default): links the standard library, which `alloc` comes with; kernels detect vector instructions at run
//!   time.
//! - `alloc`: `Preconditioner::on_heap`, storage for networks whose shape is known at run time.
//! - `matrixmultiply`: products of [`Fast`](linalg::Fast) from that crate where kfac-linalg has no vector instructions
//!   of its own (aarch64, wasm).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod damping;
pub mod doctor;
pub mod error;
pub mod evidence;
mod gradient;
pub mod losses;
pub mod map;
pub mod memory;
mod observation;
pub mod posterior;
mod preconditioner;
pub mod recipe;
pub mod report;
mod rows;
pub mod sampling;
pub mod saved;
pub mod schedule;
pub mod shape;
pub mod statistics;
pub mod step;
pub mod tensor;
pub mod tridiagonal;

pub use error::{LayerError, LayerErrorKind};
pub use gradient::LayerGradient;
pub use kfac_linalg as linalg;
pub use observation::Observation;
pub use preconditioner::Preconditioner;
pub use shape::LayerShape;
pub use tridiagonal::Tridiagonal;
