//! Damping: how `λ` is split between the factors, and how it follows the quality of the model.

pub mod adapt;
pub mod split;
