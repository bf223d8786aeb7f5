//! The maps and number types that the probe runs, each with the name of its line in `expected.txt`.

/// Calls a macro with every name, number type, type of the map and map.
macro_rules! for_each_case {
    ($run:ident) => {
        $run!("factored-f32", f32, Factored, Factored);
        $run!("factored-f64", f64, Factored, Factored);
        $run!("eigenbasis-jacobi-f32", f32, Eigenbasis<Jacobi>, Eigenbasis::bounded(3));
        $run!("eigenbasis-jacobi-f64", f64, Eigenbasis<Jacobi>, Eigenbasis::bounded(3));
        $run!("eigenbasis-qr-f32", f32, Eigenbasis<Qr>, Eigenbasis::full());
        $run!("eigenbasis-qr-f64", f64, Eigenbasis<Qr>, Eigenbasis::full());
        $run!("shifted-f32", f32, Shifted<Qr>, Shifted::full());
        $run!("shifted-f64", f64, Shifted<Qr>, Shifted::full());
        $run!("ekfac-f32", f32, Ekfac<Qr>, Ekfac::full());
        $run!("ekfac-f64", f64, Ekfac<Qr>, Ekfac::full());
        $run!("embedding-f32", f32, Embedding<Qr>, Embedding::full());
        $run!("embedding-f64", f64, Embedding<Qr>, Embedding::full());
        $run!("diagonal-f32", f32, Diagonal, Diagonal);
        $run!("diagonal-f64", f64, Diagonal, Diagonal);
        $run!("chain-symmetric-f32", f32, ChainSymmetric<Qr>, ChainSymmetric::full());
        $run!("chain-symmetric-f64", f64, ChainSymmetric<Qr>, ChainSymmetric::full());
        $run!("chain-limit-f32", f32, ChainLimit<Qr>, ChainLimit::full());
        $run!("chain-limit-f64", f64, ChainLimit<Qr>, ChainLimit::full());
    };
}
pub(crate) use for_each_case;

/// The same for the maps that are fed gradients alone.
macro_rules! for_each_tensor_case {
    ($run:ident) => {
        $run!("shampoo-f32", f32, Shampoo<f32>, tensors::shampoo([0.5, 1e-3]));
        $run!("shampoo-f64", f64, Shampoo<f64>, tensors::shampoo([0.5, 1e-3]));
        $run!("soap-f32", f32, Soap<f32>, tensors::soap([0.5, 1e-3], BasisRefresh::SubspaceStep));
        $run!("soap-f64", f64, Soap<f64>, tensors::soap([0.5, 1e-3], BasisRefresh::SubspaceStep));
        $run!("soap-eigh-f32", f32, Soap<f32>, tensors::soap([0.5, 1e-3], BasisRefresh::Decomposition));
    };
}
pub(crate) use for_each_tensor_case;
