//! What the benchmarks run, and what their times are compared with.
#![forbid(unsafe_code)]

pub mod rows;
pub mod step;
