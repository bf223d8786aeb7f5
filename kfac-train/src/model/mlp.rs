use super::{Network, NetworkError};
use crate::layer::{Activation, Dense, Layer, Nonlinearity};
use kfac_core::losses::Loss;
use kfac_linalg::{Kernel, Scalar};

/// A dense classifier `widths[0] - ... - widths[last]`, rectified hidden units, logits under [`Loss::Softmax`].
///
/// # Errors
/// [`NetworkError`] where there are no two widths, or one is 0.
pub fn mlp<T: Scalar, K: Kernel<T>>(widths: &[usize], kernel: K) -> Result<Network<T, K>, NetworkError> {
    let mut layers: Vec<Box<dyn Layer<T, K>>> = Vec::new();
    for pair in widths.windows(2) {
        if !layers.is_empty() {
            layers.push(Box::new(Activation::new(Nonlinearity::Relu, pair[0])));
        }
        layers.push(Box::new(Dense::new(pair[0], pair[1])));
    }
    Network::new(layers, Loss::Softmax, widths.last().copied().unwrap_or(0), kernel)
}
