//! The peers: a function per peer and operation, each on one thread.
//!
//! A peer gets what it likes best: memory of its own kind where it brings one, workspace allocated beforehand where
//! it takes any. Copying the input is timed, as it is for us, where an operation works in place.

pub mod faer;
pub mod gemm;
pub mod matrixmultiply;
pub mod nalgebra;
pub mod peak;

/// Their packages, and the front through which one of them is called.
pub const PACKAGES: [&str; 6] = ["faer", "gemm", "nalgebra", "matrixmultiply", "ndarray", "pulp"];
