//! What the benchmarks run, and what their times are compared with.
//!
//! - [`contest`]: contenders measured in turns, handed to criterion; [`clock`] is what they are measured by;
//! - a file per family of operations: [`gemm`], [`gemv`], [`syrk`], [`inverse`], [`cholesky`], [`eigh`], [`accuracy`],
//!   [`step`];
//! - [`ours`] and [`peers`]: the contenders, a function per operation;
//! - [`numbers`] and [`matrices`]: their inputs;
//! - [`goals`]: the table of what is to be reached; [`rows`]: how `cargo xtask bench` is told.
#![deny(unsafe_code)]

pub mod accuracy;
pub mod cholesky;
pub mod clock;
pub mod contest;
pub mod eigh;
pub mod gemm;
pub mod gemv;
pub mod goals;
pub mod inverse;
pub mod matrices;
pub mod numbers;
pub mod ours;
pub mod peers;
pub mod rows;
pub mod step;
pub mod syrk;
