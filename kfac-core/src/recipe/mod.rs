//! From a preconditioned gradient to an update of the weights, in the two ways that work.
//!
//! | recipe | per step | use it for |
//! |---|---|---|
//! | [`ClippedStep`] | no extra pass | convolutional nets, long runs, devices: a fixed rate, shortened by the KL clip |
//! | [`AdaptiveStep`] | two forward-mode derivatives, one forward pass | autoencoders, recurrent nets: step size, momentum and damping from the exact Fisher; this is what takes 10 times fewer updates |
//!
//! Neither owns weights or calls the model: numbers in, numbers out.

mod adaptive;
mod clipped;

pub use adaptive::{AdaptiveProgress, AdaptiveStep, PredictedChange, ResumeError};
pub use clipped::ClippedStep;
