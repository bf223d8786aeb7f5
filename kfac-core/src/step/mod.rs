//! From a preconditioned gradient to a step: how long it is, and what is left of the one before.

mod clip;
mod decay;
mod momentum;
mod quadratic;

pub use clip::{ClipError, KlClip};
pub use decay::decay_weights;
pub use momentum::heavy_ball;
pub use quadratic::{FisherProducts, ModelError, Proposal, QuadraticModel, Slopes, StepBound};
