//! Small networks that use every layer in every place, with inputs, targets and weights to match.

use super::{Numbers, random};
use kfac_train::Engine;
use kfac_train::data::{Batch, Targets};
use kfac_train::kfac_core::LayerShape;
use kfac_train::kfac_core::losses::Loss;
use kfac_train::kfac_core::shape::Window;
use kfac_train::kfac_linalg::{Kernel, Reproducible};
use kfac_train::layer::{Activation, Convolution, Dense, Layer, Moving, Nonlinearity, Readout, Recurrent};
use kfac_train::model::Network;
use kfac_train::tape::{Evidence, LayerTape};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Layers<K> = Vec<Box<dyn Layer<f64, K>>>;

/// A network but for its loss, and how many cases to run it on.
pub struct Net<K> {
    pub name: &'static str,
    pub layers: fn() -> Layers<K>,
    /// Numbers in a row of the loss.
    pub outputs: usize,
    pub cases: usize,
}

impl<K: Kernel<f64>> Net<K> {
    pub fn build(&self, loss: Loss, kernel: K) -> Network<f64, K> {
        Network::new((self.layers)(), loss, self.outputs, kernel).unwrap()
    }
}

/// Every layer: first, in the middle (so that a gradient leaves it at the input), last; with one position and
/// several; with more rows than one panel of products holds.
pub fn table<K: Kernel<f64>>() -> Vec<Net<K>> {
    vec![
        Net { name: "one dense layer", layers: || vec![Box::new(Dense::new(3, 2))], outputs: 2, cases: 1 },
        Net {
            name: "dense, tanh, dense",
            layers: || vec![Box::new(Dense::new(3, 4)), tanh(4), Box::new(Dense::new(4, 2))],
            outputs: 2,
            cases: 5,
        },
        Net {
            name: "dense, relu, dense",
            layers: || {
                let relu = Activation::new(Nonlinearity::Relu, 5);
                vec![Box::new(Dense::new(3, 5)), Box::new(relu), Box::new(Dense::new(5, 3))]
            },
            outputs: 3,
            cases: 4,
        },
        Net {
            name: "sigmoid, dense, sigmoid",
            layers: || {
                let sigmoid = |len| Box::new(Activation::new(Nonlinearity::Sigmoid, len));
                vec![sigmoid(2), Box::new(Dense::new(2, 3)), sigmoid(3)]
            },
            outputs: 3,
            cases: 4,
        },
        Net {
            name: "dense at 3 positions, twice",
            layers: || {
                let dense = |n, m| Box::new(Dense::new(n, m).at_positions(3));
                vec![dense(2, 4), tanh(12), dense(4, 2)]
            },
            outputs: 2,
            cases: 3,
        },
        Net {
            name: "convolutions with padding, stride and dilation, dense",
            layers: || {
                let first = Window::new(1, [5, 4], [2, 2]).with_padding([[1, 0], [0, 1]]);
                let second = Window::new(2, [5, 4], [3, 2])
                    .with_stride([2, 1])
                    .with_padding([[1, 0], [0, 2]])
                    .with_dilation([1, 2]);
                vec![
                    Box::new(Convolution::new(first, 2)),
                    tanh(40),
                    Box::new(Convolution::new(second, 2)),
                    tanh(16),
                    Box::new(Dense::new(16, 2)),
                ]
            },
            outputs: 2,
            cases: 3,
        },
        Net {
            name: "convolutions with 300 and 192 rows, rows of the loss by channel",
            layers: || {
                let (first, second) = (Window::new(1, [11, 11], [2, 2]), Window::new(1, [10, 10], [3, 3]));
                let convolution = |window, channels| Box::new(Convolution::new(window, channels));
                vec![convolution(first, 1), tanh(100), convolution(second, 2)]
            },
            outputs: 64,
            cases: 3,
        },
        Net {
            name: "dense at 4 positions, recurrent to the last state, dense",
            layers: || {
                let front = Dense::new(3, 2).at_positions(4);
                let recurrent = Recurrent::new(2, 3, 4, Readout::Last);
                vec![Box::new(front), Box::new(recurrent), Box::new(Dense::new(3, 2))]
            },
            outputs: 2,
            cases: 3,
        },
        Net {
            name: "recurrent to all states, twice, dense at 4 positions",
            layers: || {
                let recurrent = |n, m| Box::new(Recurrent::new(n, m, 4, Readout::All));
                vec![recurrent(2, 3), recurrent(3, 2), Box::new(Dense::new(2, 3).at_positions(4))]
            },
            outputs: 3,
            cases: 2,
        },
    ]
}

/// Networks of 30 weights.
pub fn of_30_weights<K: Kernel<f64>>() -> Vec<Net<K>> {
    vec![
        Net {
            name: "three dense layers",
            layers: || {
                vec![
                    Box::new(Dense::new(1, 3)),
                    tanh(3),
                    Box::new(Dense::new(3, 3)),
                    Box::new(Activation::new(Nonlinearity::Sigmoid, 3)),
                    Box::new(Dense::new(3, 3)),
                ]
            },
            outputs: 3,
            cases: 5,
        },
        Net {
            name: "convolution, dense",
            layers: || {
                let window = Window::new(1, [2, 3], [2, 2]);
                vec![Box::new(Convolution::new(window, 2)), tanh(4), Box::new(Dense::new(4, 4))]
            },
            outputs: 4,
            cases: 4,
        },
        Net {
            name: "recurrent, dense at 3 positions",
            layers: || {
                let recurrent = Recurrent::new(2, 3, 3, Readout::All);
                vec![Box::new(recurrent), Box::new(Dense::new(3, 3).at_positions(3))]
            },
            outputs: 3,
            cases: 4,
        },
    ]
}

fn tanh<K: Kernel<f64>>(len: usize) -> Box<dyn Layer<f64, K>> {
    Box::new(Activation::new(Nonlinearity::Tanh, len))
}

/// Weights that keep units away from saturation.
pub fn weights<K: Kernel<f64>>(network: &Network<f64, K>, seed: u64) -> Vec<f64> {
    random(network.weight_count(), seed)
}

/// A random batch for `network`, whose loss takes `rows` rows of `outputs` numbers per case.
pub fn batch<K: Kernel<f64>>(network: &Network<f64, K>, net: &Net<K>, cases: usize, seed: u64) -> Batch<f64> {
    let mut numbers = Numbers(seed);
    let inputs = (0..cases * network.input_len()).map(|_| numbers.next()).collect();
    let numbers_out = (net.layers)().last().unwrap().output_len() * cases;
    let targets = match network.loss_function() {
        Loss::Square => Targets::Values((0..numbers_out).map(|_| numbers.next()).collect()),
        Loss::Bernoulli => Targets::Values((0..numbers_out).map(|_| 0.5 + 0.5 * numbers.next()).collect()),
        Loss::Softmax => {
            let class = |_| (numbers.bits() % net.outputs as u64) as u32;
            Targets::Classes((0..numbers_out / net.outputs).map(class).collect())
        }
    };
    Batch { cases, inputs, targets }
}

/// Two weight blocks each, small enough for dense matrices, at more positions than one.
pub fn of_two_blocks() -> Vec<Net<Reproducible>> {
    vec![
        Net {
            name: "dense at 2 positions, twice",
            layers: || {
                let dense = |n, m| Box::new(Dense::new(n, m).at_positions(2));
                vec![dense(3, 3), tanh(6), dense(3, 2)]
            },
            outputs: 2,
            cases: 5,
        },
        Net {
            name: "convolution, dense",
            layers: || {
                let window =
                    Window::new(1, [3, 3], [2, 2]).with_stride([1, 2]).with_padding([[0, 0], [0, 1]]);
                vec![Box::new(Convolution::new(window, 2)), tanh(8), Box::new(Dense::new(8, 3))]
            },
            outputs: 3,
            cases: 6,
        },
        Net {
            name: "recurrent, dense",
            layers: || {
                let recurrent = Recurrent::new(2, 3, 3, Readout::Last);
                vec![Box::new(recurrent), Box::new(Dense::new(3, 2))]
            },
            outputs: 2,
            cases: 4,
        },
    ]
}

/// Where `|x|` exceeds `height` the output is NaN; otherwise the identity. Counts its forward passes.
pub struct Cliff {
    pub len: usize,
    pub height: f64,
    pub forward_passes: Arc<AtomicUsize>,
}

impl<K: Kernel<f64>> Layer<f64, K> for Cliff {
    fn input_len(&self) -> usize {
        self.len
    }

    fn output_len(&self) -> usize {
        self.len
    }

    fn blocks(&self) -> &[LayerShape] {
        &[]
    }

    fn forward(&self, _: &[f64], input: &[f64], tape: &mut LayerTape<f64>, _: &mut Engine<f64, K>) {
        self.forward_passes.fetch_add(1, Ordering::Relaxed);
        tape.output.clear();
        tape.output.extend(input.iter().map(|&x| if x.abs() > self.height { f64::NAN } else { x }));
    }

    fn backward(
        &self,
        _: &[f64],
        tape: &mut LayerTape<f64>,
        input_gradient: &mut [f64],
        _: &mut Engine<f64, K>,
    ) {
        input_gradient.copy_from_slice(&tape.output_gradient);
    }

    fn tangent(
        &self,
        _: Moving<'_, f64>,
        input_tangent: &[f64],
        tape: &mut LayerTape<f64>,
        _: &mut Engine<f64, K>,
    ) {
        tape.output_tangent.clear();
        tape.output_tangent.extend_from_slice(input_tangent);
    }

    fn evidence<'t>(&self, block: usize, _: &'t LayerTape<f64>) -> Evidence<'t, f64> {
        unreachable!("a cliff has no weight block {block}")
    }
}
