use super::{Network, NetworkError};
use crate::layer::{Dense, Layer, Readout, Recurrent};
use kfac_core::losses::Loss;
use kfac_linalg::{Kernel, Scalar};

/// A tanh recurrent net with a dense read-out after the last step: `inputs` numbers a step, `hidden` units, `steps`
/// steps, one output under [`Loss::Square`].
///
/// # Errors
/// [`NetworkError::EmptyLayer`] where a size is 0.
pub fn rnn<T: Scalar, K: Kernel<T>>(
    inputs: usize,
    hidden: usize,
    steps: usize,
    kernel: K,
) -> Result<Network<T, K>, NetworkError> {
    let layers: Vec<Box<dyn Layer<T, K>>> =
        vec![Box::new(Recurrent::new(inputs, hidden, steps, Readout::Last)), Box::new(Dense::new(hidden, 1))];
    Network::new(layers, Loss::Square, 1, kernel)
}
