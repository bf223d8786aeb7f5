//! Golden vectors of the block-tridiagonal inverse: from moments of layers and of neighbours to `Ψ` and `U`.

mod common;

use common::chain_net::Room;
use common::dense::Matrix;
use common::golden::{Array, Body, Case, list, on_every_kernel};
use kfac_core::LayerShape;
use kfac_core::damping::split::{Split, Trace, split_damping};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::shape::Side;
use kfac_core::tridiagonal::{MomentPair, NetworkMoments};

#[test]
fn golden_preconditioning_by_the_block_tridiagonal_inverse() {
    on_every_kernel("tridiagonal", &BlockTridiagonal);
}

struct BlockTridiagonal;

impl Body for BlockTridiagonal {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "tridiagonal" {
            case.unknown_family();
        }
        let arrays = |key: &str| -> Vec<Array<T>> {
            list(&case.inputs[key]).iter().map(|array| Array::read(array).unwrap()).collect()
        };
        let [a, g] = [arrays("a_diagonal"), arrays("g_diagonal")];
        let [a_next, g_next, v] = [arrays("a_next"), arrays("g_next"), arrays("v")];
        // No damping is the smallest one, which no factor feels.
        let lambda = T::from_f64(case.number("lambda")).maximum(T::MIN_POSITIVE);

        let shape = |(a, g): (&Array<T>, &Array<T>)| LayerShape::dense(a.shape[0], g.shape[0]).without_bias();
        let net: Vec<LayerShape> = a.iter().zip(&g).map(shape).collect();
        let mut room = Room::new::<K>(&net);
        let (mut kfac, scratch) = room.precondition(&net, kernel);
        kfac.set_damping(lambda).unwrap();
        let (own, next) = (pairs(&a, &g), pairs(&a_next, &g_next));
        let moments = NetworkMoments { own: &own, next: &next };
        kfac.observe(1).add_moments(moments, scratch).unwrap();
        let report = kfac.refresh(scratch).unwrap();
        assert_eq!((report.units, report.failures), (1, 0), "{}", case.label);

        for layer in 0..net.len() {
            for (side, name) in [(Side::Input, "damped_a"), (Side::Output, "damped_g")] {
                let want = &list(&case.expected[name])[layer];
                case.compare_matrix(name, want, &damped(&a[layer], &g[layer], lambda, side));
            }
            for (side, name) in [(Side::Input, "psi_a"), (Side::Output, "psi_g")] {
                if let Some(psi) = kfac.psi(layer, side) {
                    case.compare(name, &list(&case.expected[name])[layer], psi.data());
                }
            }
        }
        let mut u: Vec<T> = v.iter().flat_map(|v| v.data.clone()).collect();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        let mut rest = &u[..];
        for (layer, shape) in net.iter().enumerate() {
            let (u, tail) = rest.split_at(shape.weights());
            case.compare("u", &list(&case.expected["u"])[layer], u);
            rest = tail;
        }
        case.assert_compared::<T>();
    }
}

fn pairs<'a, T: Scalar>(a: &'a [Array<T>], g: &'a [Array<T>]) -> Vec<MomentPair<'a, T>> {
    let view = |x: &'a Array<T>| MatRef::row_major(&x.data, x.shape[0], x.shape[1]).unwrap();
    a.iter().zip(g).map(|(a, g)| MomentPair { a: view(a), g: view(g) }).collect()
}

fn damped<T: Scalar>(a: &Array<T>, g: &Array<T>, lambda: T, side: Side) -> Matrix {
    let trace =
        |factor: &Array<T>| Trace { trace: T::from_f64(factor.matrix().trace()), size: factor.shape[0] };
    let factor = [a, g][side.index()];
    match split_damping(trace(a), trace(g), lambda).unwrap() {
        Split::Shift { input, output } => factor.matrix().shifted([input, output][side.index()].to_f64()),
        Split::Replace { gamma } => Matrix::zeros(factor.shape[0], factor.shape[0]).shifted(gamma.to_f64()),
    }
}
