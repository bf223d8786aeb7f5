//! From a preconditioned gradient to a step: how long it is, and what is left of the one before.

mod clip;
mod momentum;
mod quadratic;

pub use clip::{ClipError, KlClip};
pub use momentum::{decay_weights, heavy_ball};
pub use quadratic::{FisherProducts, ModelError, Proposal, QuadraticModel, Slopes, StepBound};
