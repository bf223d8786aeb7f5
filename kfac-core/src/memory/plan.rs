//! The memory of a network before there is any: bytes by layer and purpose.

use super::{LayerSlot, Layout, SideLayout, scratch_len, state_len};
use crate::map::Map;
use crate::saved::saved_len;
use crate::shape::{LayerShape, Side};
use core::fmt;
use kfac_linalg::{Kernel, Scalar};

/// What a [`Preconditioner`](crate::Preconditioner) takes for a network, under a map, a kernel and a number type: printed as
/// a table, or read as numbers, in constants too.
///
/// ```
/// use kfac_core::linalg::Reproducible;
/// use kfac_core::map::Factored;
/// use kfac_core::memory::Plan;
/// use kfac_core::LayerShape;
///
/// const NET: [LayerShape; 2] = [LayerShape::dense(12, 24), LayerShape::dense(24, 2)];
/// const PLAN: Plan<'_> = Plan::new::<f32, Reproducible, Factored>(&NET);
/// const _: () = assert!(PLAN.total() <= 32 * 1024, "K-FAC does not fit");
/// println!("{PLAN}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Plan<'n> {
    map: &'static str,
    layout: Layout,
    number: usize,
    net: &'n [LayerShape],
    scratch: usize,
    saved: usize,
}

/// Bytes of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerPlan {
    /// The running second moments, `A` and `G`.
    pub moments: [usize; 2],
    /// What is kept beside them at each side: inverses, eigenvectors, eigenvalues, moments of neighbours.
    pub beside: [usize; 2],
    /// Matrices of the shape of the weights.
    pub per_weight: usize,
    /// Numbers that do not depend on the shape.
    pub per_layer: usize,
}

impl LayerPlan {
    /// All of it.
    pub const fn total(self) -> usize {
        let [a, g] = self.moments;
        let [beside_a, beside_g] = self.beside;
        let sides = a.saturating_add(g).saturating_add(beside_a).saturating_add(beside_g);
        sides.saturating_add(self.per_weight).saturating_add(self.per_layer)
    }
}

impl<'n> Plan<'n> {
    /// The plan for `net`.
    pub const fn new<T: Scalar, K: Kernel<T>, M: Map<T>>(net: &'n [LayerShape]) -> Self {
        Self {
            map: M::NAME,
            layout: M::LAYOUT,
            number: T::BYTES,
            net,
            scratch: scratch_len::<T, K, M>(net).saturating_mul(T::BYTES),
            saved: saved_len::<T>(net, M::LAYOUT),
        }
    }

    /// The network's shapes.
    pub const fn net(&self) -> &'n [LayerShape] {
        self.net
    }

    /// Bytes of a layer of this shape.
    pub const fn layer(&self, shape: LayerShape) -> LayerPlan {
        let Layout { input, output, per_weight, per_layer } = self.layout;
        LayerPlan {
            moments: [self.moment(input, shape.inputs()), self.moment(output, shape.outputs())],
            beside: [self.beside(input, shape.inputs()), self.beside(output, shape.outputs())],
            per_weight: per_weight.saturating_mul(shape.weights()).saturating_mul(self.number),
            per_layer: per_layer.saturating_mul(self.number),
        }
    }

    const fn moment(&self, side: SideLayout, size: usize) -> usize {
        side.moment.len(size).saturating_mul(self.number)
    }

    const fn beside(&self, side: SideLayout, size: usize) -> usize {
        side.len(size).saturating_mul(self.number).saturating_sub(self.moment(side, size))
    }

    /// Bytes of the numbers of all layers: [`state_len`] of them.
    pub const fn state(&self) -> usize {
        state_len(self.net, self.layout).saturating_mul(self.number)
    }

    /// Bytes of the records of all layers, one [`LayerSlot`] each.
    pub const fn slots(&self) -> usize {
        self.net.len().saturating_mul(size_of::<LayerSlot>())
    }

    /// Bytes of the scratch, which holds nothing between calls and may be shared with the activations.
    pub const fn scratch(&self) -> usize {
        self.scratch
    }

    /// Bytes of the state, the records and the scratch.
    pub const fn total(&self) -> usize {
        self.state().saturating_add(self.slots()).saturating_add(self.scratch)
    }

    /// Bytes that a saved state takes elsewhere.
    pub const fn saved(&self) -> usize {
        self.saved
    }

    /// The kinds of layers, each with the index of the first such layer and how many there are.
    fn kinds(&self) -> impl Iterator<Item = (usize, LayerShape, usize)> {
        self.net.iter().enumerate().filter_map(|(first, &shape)| {
            let is_new = !self.net[..first].contains(&shape);
            is_new.then(|| (first, shape, self.net[first..].iter().filter(|&&other| other == shape).count()))
        })
    }
}

/// One line for each kind of layer.
impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Unit::of(self.total());
        writeln!(f, "{}, numbers of {} bytes, in {}", self.map, self.number, unit.name)?;
        writeln!(
            f,
            "{:>6} {:>6} {:>15} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "first", "alike", "m x n", "A", "G", "beside A", "beside G", "m n", "a layer", "all"
        )?;
        for (first, shape, alike) in self.kinds() {
            let layer = self.layer(shape);
            let size = Size(shape.side(Side::Output), shape.side(Side::Input));
            write!(f, "{first:>6} {alike:>6} {size:>15}")?;
            let columns = layer.moments.into_iter().chain(layer.beside);
            let total = layer.total();
            let last = [layer.per_weight.saturating_add(layer.per_layer), total, total.saturating_mul(alike)];
            for bytes in columns.chain(last) {
                write!(f, " {:>10}", unit.write(bytes))?;
            }
            writeln!(f)?;
        }
        for (name, bytes) in [
            ("state", self.state()),
            ("records of the layers", self.slots()),
            ("scratch", self.scratch),
            ("together", self.total()),
            ("a saved state", self.saved),
        ] {
            writeln!(f, "{name:>95} {:>10}", unit.write(bytes))?;
        }
        Ok(())
    }
}

struct Size(usize, usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |number: usize| number.checked_ilog10().map_or(1, |log| log as usize + 1);
        let len = digits(self.0) + 3 + digits(self.1);
        let padding = f.width().unwrap_or(0).saturating_sub(len);
        write!(f, "{:padding$}{} x {}", "", self.0, self.1)
    }
}

/// What a table of bytes is printed in.
#[derive(Clone, Copy)]
struct Unit {
    name: &'static str,
    bytes: usize,
}

impl Unit {
    fn of(total: usize) -> Self {
        let [bytes, kib, mib, gib] =
            [0, 10, 20, 30].map(|log| 1_usize.checked_shl(log).unwrap_or(usize::MAX));
        let fits = |unit: usize| total / unit < 100_000;
        match () {
            () if fits(bytes) => Self { name: "bytes", bytes },
            () if fits(kib) => Self { name: "KiB", bytes: kib },
            () if fits(mib) => Self { name: "MiB", bytes: mib },
            () => Self { name: "GiB", bytes: gib },
        }
    }

    fn write(self, bytes: usize) -> Amount {
        Amount { bytes, unit: self.bytes }
    }
}

struct Amount {
    bytes: usize,
    unit: usize,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = f.width().unwrap_or(0);
        if self.unit == 1 {
            return write!(f, "{:>width$}", self.bytes);
        }
        write!(f, "{:>width$.1}", self.bytes as f64 / self.unit as f64)
    }
}
