use super::{Layer, Moving};
use crate::engine::Engine;
use crate::tape::{Evidence, LayerTape, resize};
use kfac_core::LayerShape;
use kfac_linalg::{Kernel, Scalar};

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// `tanh s`.
    Tanh,
    /// `1 / (1 + e^-s)`.
    Sigmoid,
    /// `max(s, 0)`.
    Relu,
}

impl Nonlinearity {
    /// `f'(s)` from `y = f(s)`.
    pub fn slope<T: Scalar>(self, y: T) -> T {
        match self {
            Self::Tanh => (T::ONE - y) * (T::ONE + y),
            Self::Sigmoid => y * (T::ONE - y),
            Self::Relu => {
                if y > T::ZERO {
                    T::ONE
                } else {
                    T::ZERO
                }
            }
        }
    }
}

/// Applies a [`Nonlinearity`] to every number of a case.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    function: Nonlinearity,
    len: usize,
}

impl Activation {
    /// `function` on `len` numbers per case.
    pub fn new(function: Nonlinearity, len: usize) -> Self {
        Self { function, len }
    }
}

impl<T: Scalar, K: Kernel<T>> Layer<T, K> for Activation {
    fn input_len(&self) -> usize {
        self.len
    }

    fn output_len(&self) -> usize {
        self.len
    }

    fn blocks(&self) -> &[LayerShape] {
        &[]
    }

    fn forward(&self, _weights: &[T], input: &[T], tape: &mut LayerTape<T>, _engine: &mut Engine<T, K>) {
        resize(&mut tape.output, input.len());
        // One loop per function, so that each compiles to vector code.
        match self.function {
            Nonlinearity::Tanh => apply(&mut tape.output, input, T::tanh),
            Nonlinearity::Sigmoid => apply(&mut tape.output, input, T::sigmoid),
            Nonlinearity::Relu => apply(&mut tape.output, input, |s| s.maximum(T::ZERO)),
        }
    }

    fn backward(
        &self,
        _weights: &[T],
        tape: &mut LayerTape<T>,
        input_gradient: &mut [T],
        _engine: &mut Engine<T, K>,
    ) {
        let pairs = tape.output_gradient.iter().zip(&tape.output);
        for (out, (&gradient, &y)) in input_gradient.iter_mut().zip(pairs) {
            *out = gradient * self.function.slope(y);
        }
    }

    fn tangent(
        &self,
        _weights: Moving<'_, T>,
        input_tangent: &[T],
        tape: &mut LayerTape<T>,
        _engine: &mut Engine<T, K>,
    ) {
        resize(&mut tape.output_tangent, tape.output.len());
        tape.output_tangent.fill(T::ZERO);
        let pairs = input_tangent.iter().zip(&tape.output);
        for (out, (&tangent, &y)) in tape.output_tangent.iter_mut().zip(pairs) {
            *out = tangent * self.function.slope(y);
        }
    }

    fn evidence<'t>(&self, block: usize, _tape: &'t LayerTape<T>) -> Evidence<'t, T> {
        unreachable!("an activation has no weight block {block}")
    }
}

fn apply<T: Scalar>(out: &mut [T], input: &[T], function: impl Fn(T) -> T) {
    for (y, &s) in out.iter_mut().zip(input) {
        *y = function(s);
    }
}
