//! Where the numbers of a network lie: the statistics of all layers, then what a refresh computes from them.
//!
//! Of layer `i`, with the layer `i + 1` behind it, at each side of size `k` (`n` or `m`) with `k'` there:
//!
//! - statistics: the sums of `A` and `G`, packed, then those of `A_next` (`n x n'`) and `G_next` (`m x m'`);
//! - computed, input side first: `K` (`k x k`), `s` (`k`), `Ψ` (`k x k'`);
//! - of the last layer instead: the damped inverse, packed.

use crate::memory::{Layout, SideLayout, max, panel_len};
use crate::shape::{LayerShape, Side};
use core::ops::Range;
use kfac_linalg::product::{gemm_scratch_len, syrk_scratch_len, trsm_scratch_len};
use kfac_linalg::{Kernel, Scalar, cholesky, eigh, packed_len};

/// `A` and `G` of a layer.
pub(super) const OWN: Layout = Layout::of_both_sides(SideLayout::MOMENT);

/// Numbers that [`Tridiagonal`](super::Tridiagonal) keeps for a network.
pub const fn state_len(net: &[LayerShape]) -> usize {
    statistics_len(net).saturating_add(computed_len(net))
}

/// Numbers of all statistics.
pub(super) const fn statistics_len(net: &[LayerShape]) -> usize {
    statistics_before(net, net.len())
}

/// Numbers of all that a refresh computes.
pub(super) const fn computed_len(net: &[LayerShape]) -> usize {
    computed_before(net, net.len())
}

/// Weights of all layers.
pub(super) const fn weights_len(net: &[LayerShape]) -> usize {
    let (mut total, mut layer) = (0_usize, 0);
    while layer < net.len() {
        total = total.saturating_add(net[layer].weights());
        layer += 1;
    }
    total
}

/// Where the sums of `A` and `G` of a layer lie.
pub(super) fn own_range(net: &[LayerShape], layer: usize) -> Range<usize> {
    let start = statistics_before(net, layer);
    start..start + OWN.layer_len(net[layer])
}

/// Where the sum of `A_next` or `G_next` of a layer lies, which is not the last.
pub(super) fn next_range(net: &[LayerShape], layer: usize, side: Side) -> Range<usize> {
    let input = pair_len(net, layer, Side::Input);
    let start = own_range(net, layer).end + if matches!(side, Side::Output) { input } else { 0 };
    start..start + pair_len(net, layer, side)
}

/// Where lies, among what is computed, that of one side of a layer.
pub(super) fn computed_range(net: &[LayerShape], layer: usize, side: Side) -> Range<usize> {
    let input = computed_side_len(net, layer, Side::Input);
    let start = computed_before(net, layer) + if matches!(side, Side::Output) { input } else { 0 };
    start..start + computed_side_len(net, layer, side)
}

/// Numbers of the statistics of a layer.
pub(super) const fn statistics_of(net: &[LayerShape], layer: usize) -> usize {
    let own = OWN.layer_len(net[layer]);
    let next = pair_len(net, layer, Side::Input).saturating_add(pair_len(net, layer, Side::Output));
    own.saturating_add(next)
}

/// Numbers computed for a layer.
pub(super) const fn computed_of(net: &[LayerShape], layer: usize) -> usize {
    let output = computed_side_len(net, layer, Side::Output);
    computed_side_len(net, layer, Side::Input).saturating_add(output)
}

const fn statistics_before(net: &[LayerShape], end: usize) -> usize {
    let (mut total, mut layer) = (0_usize, 0);
    while layer < end {
        total = total.saturating_add(statistics_of(net, layer));
        layer += 1;
    }
    total
}

const fn computed_before(net: &[LayerShape], end: usize) -> usize {
    let (mut total, mut layer) = (0_usize, 0);
    while layer < end {
        total = total.saturating_add(computed_of(net, layer));
        layer += 1;
    }
    total
}

/// `k k'`; 0 for the last layer.
const fn pair_len(net: &[LayerShape], layer: usize, side: Side) -> usize {
    if layer + 1 < net.len() { net[layer].side(side).saturating_mul(net[layer + 1].side(side)) } else { 0 }
}

const fn computed_side_len(net: &[LayerShape], layer: usize, side: Side) -> usize {
    let size = net[layer].side(side);
    if layer + 1 == net.len() {
        return packed_len(size);
    }
    size.saturating_mul(size.saturating_add(1)).saturating_add(pair_len(net, layer, side))
}

/// The largest side of all layers.
pub(super) const fn widest(net: &[LayerShape]) -> usize {
    let (mut widest, mut layer) = (0, 0);
    while layer < net.len() {
        widest = max(widest, net[layer].largest_side());
        layer += 1;
    }
    widest
}

/// The largest product of two of the three matrices that a layer's `V` is multiplied by.
pub(super) const fn half_len(net: &[LayerShape]) -> usize {
    let (mut most, mut layer) = (0, 0);
    while layer < net.len() {
        most = max(most, net[layer].weights());
        if layer + 1 < net.len() {
            most = max(most, net[layer].outputs().saturating_mul(net[layer + 1].inputs()));
        }
        layer += 1;
    }
    most
}

/// Scratch, in elements, that every verb of [`Tridiagonal`](super::Tridiagonal) can do with for this network and kernel.
/// Between calls the scratch holds nothing: overlay it with the activations.
pub const fn scratch_len<T: Scalar, K: Kernel<T>>(net: &[LayerShape]) -> usize {
    let square = widest(net).saturating_mul(widest(net));
    if square > usize::MAX / 4 {
        return usize::MAX; // The routines' own lengths, a few squares, would not fit.
    }
    let (mut observe, mut refresh, mut apply, mut layer) = (0, 0, 0, 0);
    while layer < net.len() {
        let shape = net[layer];
        let (m, n) = (shape.outputs(), shape.inputs());
        observe = max(observe, max(panel_len::<T, K>(n), panel_len::<T, K>(m)));
        apply = max(apply, max(gemm_scratch_len::<T>(m, n, m), gemm_scratch_len::<T>(m, n, n)));
        refresh = max(refresh, max(own_routines_len::<T>(n), own_routines_len::<T>(m)));
        if layer + 1 < net.len() {
            let (next_m, next_n) = (net[layer + 1].outputs(), net[layer + 1].inputs());
            observe = max(observe, max(pair_panel_len::<T, K>(n, next_n), pair_panel_len::<T, K>(m, next_m)));
            refresh = max(refresh, max(pair_routines_len::<T>(n, next_n), pair_routines_len::<T>(m, next_m)));
            // To this layer: `Ψ_G V'`, `Ψ_Aᵀ` behind it. To the next one: `V Ψ_A`, `Ψ_Gᵀ` before it.
            let to = max(gemm_scratch_len::<T>(m, next_n, next_m), gemm_scratch_len::<T>(m, n, next_n));
            let from = max(gemm_scratch_len::<T>(m, next_n, n), gemm_scratch_len::<T>(next_m, next_n, m));
            apply = max(apply, max(to, from));
        }
        layer += 1;
    }
    // Everything that is computed waits there until all of it is known to be good.
    let refresh = computed_len(net).saturating_add(square.saturating_mul(4)).saturating_add(refresh);
    // All gradients, a half of a product, an inverse unpacked.
    let apply = weights_len(net).saturating_add(half_len(net)).saturating_add(square).saturating_add(apply);
    max(observe, max(refresh, apply))
}

/// Two panels of rows, and the product of them.
pub(super) const fn pair_panel_len<T: Scalar, K: Kernel<T>>(size: usize, next: usize) -> usize {
    let rows = K::PANEL_ROWS;
    size.saturating_add(next).saturating_mul(rows).saturating_add(gemm_scratch_len::<T>(size, next, rows))
}

/// Of the routines that a refresh calls for one side of a layer.
const fn own_routines_len<T: Scalar>(size: usize) -> usize {
    let cholesky = max(cholesky::factor_scratch_len::<T>(size), cholesky::inverse_scratch_len::<T>(size));
    max(cholesky, max(eigh::qr::scratch_len::<T>(size), trsm_scratch_len::<T>(size, size)))
}

/// Of those that it calls for one side of a layer and of the next.
const fn pair_routines_len<T: Scalar>(size: usize, next: usize) -> usize {
    let solutions = max(trsm_scratch_len::<T>(next, size), trsm_scratch_len::<T>(size, next));
    max(solutions, syrk_scratch_len::<T>(size, next))
}

/// Flops of one refresh of the whole network, leading order, at the five sweeps per eigenvalue that a plan counts on.
pub const fn refresh_flops(net: &[LayerShape]) -> u64 {
    let (mut total, mut layer) = (0_u64, 0);
    while layer < net.len() {
        let shape = net[layer];
        total = total
            .saturating_add(side_flops(net, layer, Side::Input, planned_sweeps(shape.inputs())))
            .saturating_add(side_flops(net, layer, Side::Output, planned_sweeps(shape.outputs())));
        layer += 1;
    }
    total
}

const fn planned_sweeps(size: usize) -> u32 {
    if size > u32::MAX as usize / 5 { u32::MAX } else { 5 * size as u32 }
}

/// Of one side of a layer: the inverse of the last one; otherwise its triangle, `K`, the decomposition, and four products
/// or solutions with the side of the next layer.
pub(super) const fn side_flops(net: &[LayerShape], layer: usize, side: Side, sweeps: u32) -> u64 {
    let size = net[layer].side(side) as u64;
    let cube = size.saturating_mul(size).saturating_mul(size);
    if layer + 1 == net.len() {
        return cube;
    }
    let next = net[layer + 1].side(side) as u64;
    let pair = size.saturating_mul(next).saturating_mul(size.saturating_add(next)).saturating_mul(2);
    let decomposition = eigh::Method::Qr.flops(size as usize, sweeps);
    cube.saturating_add(cube / 3).saturating_add(pair).saturating_add(decomposition)
}
