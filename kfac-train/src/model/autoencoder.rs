use super::{Network, NetworkError};
use crate::layer::{Activation, Dense, Layer, Nonlinearity};
use kfac_core::losses::Loss;
use kfac_linalg::{Kernel, Scalar};

/// A dense autoencoder `widths[0] - ... - code - ... - widths[0]`: the decoder mirrors the encoder, the code units are
/// linear, all other hidden units are `nonlinearity`. The outputs are logits under [`Loss::Bernoulli`].
///
/// # Errors
/// [`NetworkError`] where there are no two widths, or one is 0.
///
/// # Source
/// Hinton and Salakhutdinov 2006.
pub fn autoencoder<T: Scalar, K: Kernel<T>>(
    widths: &[usize],
    nonlinearity: Nonlinearity,
    kernel: K,
) -> Result<Network<T, K>, NetworkError> {
    let code = widths.len().saturating_sub(1);
    let mirrored: Vec<usize> = widths.iter().chain(widths.iter().rev().skip(1)).copied().collect();
    let mut layers: Vec<Box<dyn Layer<T, K>>> = Vec::new();
    for (index, pair) in mirrored.windows(2).enumerate() {
        layers.push(Box::new(Dense::new(pair[0], pair[1])));
        let is_linear = index + 1 == code || index + 2 == mirrored.len();
        if !is_linear {
            layers.push(Box::new(Activation::new(nonlinearity, pair[1])));
        }
    }
    Network::new(layers, Loss::Bernoulli, widths.first().copied().unwrap_or(0), kernel)
}
