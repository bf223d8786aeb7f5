//! Bad numbers, and every map to hand them to.

use kfac_core::LayerErrorKind;
use kfac_core::error::Quantity;
use kfac_core::linalg::{Scalar, ShapeError};
use kfac_core::map::{
    ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Shifted,
};

/// Runs a body for every map and number type.
pub trait Body {
    fn run<T: Scalar, M: FactorMap<T>>(&self, map: M);
}

pub fn for_every_map(body: &impl Body) {
    body.run::<f64, _>(Factored);
    body.run::<f32, _>(Factored);
    body.run::<f64, _>(Eigenbasis::full());
    body.run::<f32, _>(Eigenbasis::full());
    body.run::<f64, _>(Eigenbasis::jacobi());
    body.run::<f64, _>(Shifted::full());
    body.run::<f32, _>(Shifted::full());
    body.run::<f64, _>(Ekfac::full());
    body.run::<f32, _>(Ekfac::full());
    body.run::<f64, _>(Embedding::full());
    body.run::<f32, _>(Embedding::full());
    body.run::<f64, _>(Diagonal);
    body.run::<f32, _>(Diagonal);
    body.run::<f64, _>(ChainSymmetric::full());
    body.run::<f32, _>(ChainSymmetric::full());
    body.run::<f64, _>(ChainLimit::full());
    body.run::<f32, _>(ChainLimit::full());
}

/// A number whose square overflows, though it does not.
pub fn huge<T: Scalar>() -> T {
    T::from_f64(if T::BYTES == 4 { 1e30 } else { 1e200 })
}

pub fn nan<T: Scalar>() -> T {
    T::from_f64(f64::NAN)
}

pub fn infinity<T: Scalar>() -> T {
    T::from_f64(f64::INFINITY)
}

pub fn shape_error(quantity: Quantity, expected: [usize; 2], found: [usize; 2]) -> LayerErrorKind {
    LayerErrorKind::Shape { quantity, error: ShapeError::new(expected, found) }
}
