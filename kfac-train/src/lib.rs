//! Reference models, baselines and data that re-measure the claims made for K-FAC.
#![forbid(unsafe_code)]

pub mod claims;
pub mod data;
mod engine;
pub mod layer;
pub mod model;
pub mod optimizer;
mod random;
mod stopwatch;
pub mod tape;
pub mod trainer;
pub mod tuning;

pub use engine::Engine;
pub use kfac_core;
pub use kfac_linalg;

/// The loop of the README, compiled and run. Cargo packages that of the workspace with the crate, and knows where it lies in
/// either place.
#[cfg(doctest)]
#[doc = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", env!("CARGO_PKG_README")))]
struct Readme;
