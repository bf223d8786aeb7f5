use kfac_linalg::Scalar;

/// Decoupled weight decay: `W <- W - rate decay W`, beside a step that knows nothing of it.
///
/// The other kind, l2, is part of the loss: the gradients contain `ηθ`, and `η` joins the damping
/// ([`with_l2`](crate::Preconditioner::with_l2)). For this one leave `η` at 0. `rate` is the learning rate, without the clip's
/// `ν`. Leave out what should not decay: biases, scales and shifts.
///
/// # Source
/// Loshchilov and Hutter 2017, arXiv:1711.05101; for K-FAC Zhang, Wang, Xu and Grosse 2018, arXiv:1810.12281.
pub fn decay_weights<T: Scalar>(weights: &mut [T], rate: T, decay: T) {
    let keep = T::ONE - rate * decay;
    weights.iter_mut().for_each(|weight| *weight *= keep);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_shrink_by_rate_times_decay() {
        let mut weights = [2.0, -4.0];
        decay_weights(&mut weights, 0.5, 0.25);
        assert_eq!(weights, [2.0 * 0.875, -4.0 * 0.875]);
    }
}
