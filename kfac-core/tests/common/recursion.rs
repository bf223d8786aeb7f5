//! The KFRA recursion through a dense network, by the core's routines, fed to a preconditioner.

use super::dense::Matrix;
use super::net::{DenseNet, Loss, Model, Sharing};
use super::{Room, factor};
use kfac_core::evidence::Rows;
use kfac_core::linalg::{Kernel, MatMut, MatRef, Scalar};
use kfac_core::map::Factored;
use kfac_core::shape::Side;
use kfac_core::statistics::kfra;

/// `[A, G]` of every layer.
pub type Factors = Vec<[Matrix; 2]>;

/// `Ḡ` at the sums of every layer, in scratch of exactly the promised lengths, which begins as NaN.
pub fn output_moments<T: Scalar, K: Kernel<T>>(kernel: K, net: &DenseNet<T>, loss: Loss<T>) -> Vec<Vec<T>> {
    let cases = net.cases();
    let scratch = |len: usize| vec![T::from_f64(f64::NAN); len];
    let outputs: Vec<T> = (0..cases).flat_map(|case| net.outputs(case).to_vec()).collect();
    let mut size = net.term_len();
    let mut g_bar = vec![T::from_f64(f64::NAN); size * size];
    kfra::mean_loss_hessian(
        loss.kind,
        loss.factor,
        MatRef::row_major(&outputs, cases, size).unwrap(),
        MatMut::row_major(&mut g_bar, size, size).unwrap(),
        &mut scratch(kfra::mean_loss_hessian_scratch_len(size)),
    )
    .unwrap();
    let mut moments = vec![];
    for (index, layer) in net.layers().iter().enumerate().rev() {
        let (m, features) = (layer.shape.outputs(), layer.shape.features());
        assert_eq!(size, m);
        let derivatives = net.derivatives(index);
        let derivatives = MatRef::row_major(&derivatives, cases, m).unwrap();
        let moment = MatMut::row_major(&mut g_bar, m, m).unwrap();
        let len = kfra::through_activation_scratch_len::<T>(cases, m);
        kfra::through_activation(kernel, derivatives, moment, &mut scratch(len)).unwrap();
        moments.push(g_bar.clone());

        let w = MatRef::row_major(&layer.w, m, layer.shape.inputs()).unwrap();
        let w = w.block(0..m, 0..features).unwrap();
        let mut below = vec![T::from_f64(f64::NAN); features * features];
        let into = MatMut::row_major(&mut below, features, features).unwrap();
        let len = kfra::through_linear_scratch_len::<T>(m, features);
        let from = MatRef::row_major(&g_bar, m, m).unwrap();
        kfra::through_linear(kernel, w, from, into, &mut scratch(len)).unwrap();
        (g_bar, size) = (below, features);
    }
    moments.reverse();
    moments
}

/// Factors from the inputs and [`output_moments`].
pub fn kfra_factors<T: Scalar, K: Kernel<T>>(kernel: K, net: &DenseNet<T>, loss: Loss<T>) -> Factors {
    let (shapes, moments) = (net.shapes(), output_moments(kernel, net, loss));
    let mut room = Room::<T>::new::<Factored, K>(&shapes);
    let (mut kfac, scratch) = room.precondition(&shapes, Factored, kernel);
    let mut observation = kfac.observe(net.cases());
    for (layer, shape) in shapes.iter().enumerate() {
        let (a, m) = (net.inputs(layer), shape.outputs());
        let a = Rows(MatRef::row_major(&a, net.cases(), shape.features()).unwrap());
        let g = MatRef::row_major(&moments[layer], m, m).unwrap();
        observation.add_with_output_moment(layer, &a, g, scratch).unwrap();
    }
    (0..shapes.len()).map(|layer| Side::BOTH.map(|side| factor(&kfac, layer, side))).collect()
}

/// Factors from columns of the root of every case's loss Hessian: KFLR, the exact Fisher's.
pub fn kflr_factors<T: Scalar, K: Kernel<T>>(kernel: K, net: &DenseNet<T>, loss: Loss<T>) -> Factors {
    let (shapes, (sets, weight)) = (net.shapes(), net.type_2(loss));
    let mut room = Room::<T>::new::<Factored, K>(&shapes);
    let (mut kfac, scratch) = room.precondition(&shapes, Factored, kernel);
    let mut observation = kfac.observe(sets.len() * net.cases());
    for set in &sets {
        net.observe(&mut observation, set, (weight, Sharing::Expand), scratch);
    }
    (0..shapes.len()).map(|layer| Side::BOTH.map(|side| factor(&kfac, layer, side))).collect()
}

/// `‖x - y‖ / ‖y‖` in the norm of Frobenius.
pub fn distance(x: &Matrix, y: &Matrix) -> f64 {
    let norm = |data: &[f64]| data.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference: Vec<f64> = x.data.iter().zip(&y.data).map(|(x, y)| x - y).collect();
    norm(&difference) / norm(&y.data)
}
