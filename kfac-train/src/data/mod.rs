//! Data: embedded, generated, or read from files.
//!
//! | module | what | where from |
//! |---|---|---|
//! | [`digits`] | 1,797 digits 8x8 | embedded |
//! | [`mnist`] | MNIST and Fashion-MNIST, 28x28 | [`idx`] files of the user |
//! | [`text`] | characters for next-symbol prediction | a text file of the user |
//! | [`adding`] | adding problem | generated |
//! | [`curves`] | CURVES-like images | generated |
//!
//! A [`Dataset`] is finite and kept in `f32`; a [`Source`] deals out [`Batch`]es of it (or fresh cases) in
//! the scalar of the network. Everything random comes from a named generator with a seed and a stream number,
//! listed in [`batch`], and is the same on every host: two contenders with one seed see the same cases in the
//! same order.
//!
//! Whatever is wrong with a file is a [`DataError`] that names the file and the number.

pub mod adding;
pub mod batch;
pub mod curves;
mod dataset;
pub mod digits;
mod error;
mod file;
pub mod idx;
pub mod mnist;

pub mod text;

pub use batch::{Batch, Sampled, Source};
pub use dataset::{Dataset, Targets};
pub use error::DataError;
