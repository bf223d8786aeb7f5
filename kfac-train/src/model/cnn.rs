use super::{Network, NetworkError};
use crate::layer::{Activation, Convolution, Dense, Layer, Nonlinearity};
use kfac_core::losses::Loss;
use kfac_core::shape::Window;
use kfac_linalg::{Kernel, Scalar};

/// One convolution of a [`cnn`]: a 3 x 3 kernel, padded by one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvolutionStage {
    /// Output channels.
    pub channels: usize,
    /// Step of the window, down and across.
    pub stride: usize,
}

/// A convolutional classifier without normalisation: rectified 3 x 3 convolutions over a square image of one channel,
/// then one dense layer to `classes` logits under [`Loss::Softmax`].
///
/// # Errors
/// [`NetworkError::EmptyLayer`] where a size is 0.
pub fn cnn<T: Scalar, K: Kernel<T>>(
    side: usize,
    stages: &[ConvolutionStage],
    classes: usize,
    kernel: K,
) -> Result<Network<T, K>, NetworkError> {
    let (mut channels, mut image) = (1, [side, side]);
    let mut layers: Vec<Box<dyn Layer<T, K>>> = Vec::new();
    for stage in stages {
        let window = Window::new(channels, image, [3, 3])
            .with_stride([stage.stride; 2])
            .with_padding([[1, 1], [1, 1]]);
        let convolution = Convolution::new(window, stage.channels);
        let len = stage.channels * window.locations();
        layers.push(Box::new(convolution));
        layers.push(Box::new(Activation::new(Nonlinearity::Relu, len)));
        (channels, image) = (stage.channels, window.output());
    }
    layers.push(Box::new(Dense::new(channels * image[0] * image[1], classes)));
    Network::new(layers, Loss::Softmax, classes, kernel)
}
