//! Networks: a chain of layers, its loss, and the passes over both.

mod autoencoder;
mod cnn;
mod init;
mod mlp;
mod network;
pub mod published;
mod rnn;

pub use autoencoder::autoencoder;
pub use cnn::{ConvolutionStage, cnn};
pub use init::{Init, InitError};
pub use mlp::mlp;
pub use network::{Network, NetworkError, Pass};
pub use rnn::rnn;
