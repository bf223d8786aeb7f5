//! What to look at when training diverges, or when the damping does all the work.

use crate::error::{LayerError, LayerErrorKind};
use crate::map::{Map, MapError, take};
use crate::memory::{Moment, normaliser, write_factor};
use crate::preconditioner::Preconditioner;
use crate::report::LayerReport;
use crate::shape::{LayerShape, Side};
use core::fmt;
use kfac_linalg::eigh::{Eigensolver, Qr, qr};
use kfac_linalg::{Kernel, MatMut, Scalar, packed_len};

/// The state of a layer's factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diagnosis {
    /// The layer.
    pub layer: usize,
    /// Its shape.
    pub shape: LayerShape,
    /// Updates, age of the inverse, failures, damping in force.
    pub report: LayerReport,
    /// Of `A`; `None` where the map does not keep it.
    pub input: Option<Spectrum>,
    /// Of `G`; `None` where the map does not keep it.
    pub output: Option<Spectrum>,
    /// `λ + η`, the current one.
    pub damping: f64,
    /// Share of the eigenvalues of `A (x) G` that are smaller than the damping, from 0 to 1: along these the step is a
    /// gradient step of rate `1/λ`. Near 1, K-FAC does nothing: the damping is too large, or a scale is wrong. Near 0, it
    /// follows the noise of the statistics. `None` where the map does not keep both factors.
    pub below_damping: Option<f64>,
}

/// The eigenvalues of a factor, in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spectrum {
    /// The largest.
    pub largest: f64,
    /// The smallest; rounding may leave it below 0.
    pub smallest: f64,
    /// `(Σ d)² / Σ d²`: how many of them matter, 1 for a factor of rank 1, the size for a multiple of the identity; 0 for a
    /// factor that vanishes.
    pub effective_rank: f64,
}

impl Spectrum {
    /// The largest over the smallest; infinite where the factor is singular.
    pub fn condition(&self) -> f64 {
        if self.smallest > 0.0 { self.largest / self.smallest } else { f64::INFINITY }
    }

    fn of<T: Scalar>(ascending: &[T]) -> Self {
        let numbers = || ascending.iter().map(|d| d.to_f64());
        let [smallest, largest] =
            [ascending.first(), ascending.last()].map(|d| d.map_or(0.0, |d| d.to_f64()));
        // In units of the largest, so that no square leaves the range.
        let (sum, squares) = numbers().map(|d| d / largest).fold((0.0, 0.0), |(s, q), d| (s + d, q + d * d));
        let effective_rank = if largest > 0.0 { sum * sum / squares } else { 0.0 };
        Self { largest, smallest, effective_rank }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, shape, report, damping, .. } = self;
        let LayerReport { updates, age, failures, .. } = report;
        write!(f, "layer {layer}, {} x {}: {updates} updates", shape.outputs(), shape.inputs())?;
        match age {
            Some(age) => write!(f, ", inverse of {age} steps ago")?,
            None => f.write_str(", no inverse")?,
        }
        if *failures > 0 {
            write!(f, ", failed {failures} times in a row")?;
        }
        for (name, size, spectrum) in [("A", shape.inputs(), self.input), ("G", shape.outputs(), self.output)]
        {
            let Some(spectrum) = spectrum else { continue };
            let Spectrum { largest, smallest, effective_rank } = spectrum;
            write!(
                f,
                "; {name} from {smallest:.1e} to {largest:.1e}, condition {:.1e}",
                spectrum.condition()
            )?;
            write!(f, ", effective rank {effective_rank:.1} of {size}")?;
        }
        let Some(below) = self.below_damping else { return Ok(()) };
        write!(f, "; {:.0} % of the eigenvalues below the damping {damping:.1e}", 100.0 * below)
    }
}

/// Scratch, in elements, that [`Preconditioner::diagnose`] needs for a network under a map.
pub const fn diagnose_scratch_len<T: Scalar, M: Map<T>>(net: &[LayerShape]) -> usize {
    let (mut most, mut layer) = (0, 0);
    while layer < net.len() {
        // Only whole factors are decomposed.
        let input = if matches!(M::LAYOUT.input.moment, Moment::Full) { net[layer].inputs() } else { 0 };
        let output = if matches!(M::LAYOUT.output.moment, Moment::Full) { net[layer].outputs() } else { 0 };
        let largest = if input > output { input } else { output };
        let both = net[layer].inputs().saturating_add(net[layer].outputs());
        // A length of packed storage saturates where the square of the size does not fit.
        let square = packed_len(largest).saturating_mul(2);
        let len = square.saturating_mul(2).saturating_add(both).saturating_add(qr::scratch_len::<T>(largest));
        if len > most {
            most = len;
        }
        layer += 1;
    }
    most
}

impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// Decomposes the factors of a layer as they stand, and says how they compare with the damping. Changes nothing; costs
    /// two eigendecompositions, whatever the map, so it is for the moment when something is wrong.
    ///
    /// `scratch`: [`diagnose_scratch_len`].
    ///
    /// # Errors
    /// A [`LayerError`] for a layer that does not exist or was never observed, for scratch, and for a factor that has no
    /// eigenvalues, which none that was gathered here does.
    ///
    #[cfg_attr(feature = "alloc", doc = "```")]
    #[cfg_attr(not(feature = "alloc"), doc = "```ignore")]
    /// use kfac_core::evidence::{OutputGradients, Rows};
    /// use kfac_core::linalg::{Fast, MatRef};
    /// use kfac_core::{LayerShape, Preconditioner, doctor, map::Factored};
    ///
    /// let net = [LayerShape::dense(2, 1)];
    /// let mut kfac = Preconditioner::on_heap(&net, Factored, Fast::detect())?;
    /// let mut scratch = vec![0.0_f64; kfac.scratch_len().max(doctor::diagnose_scratch_len::<f64, Factored>(&net))];
    /// let (x, g) = ([1.0, 2.0, -1.0, 0.5], [0.3, -0.2]);
    /// let g = OutputGradients::per_case(MatRef::row_major(&g, 2, 1)?);
    /// kfac.observe(2).add(0, &Rows(MatRef::row_major(&x, 2, 2)?), g, &mut scratch)?;
    ///
    /// let diagnosis = kfac.diagnose(0, &mut scratch)?;
    /// assert_eq!(diagnosis.below_damping, Some(2.0 / 3.0)); // of the three eigenvalues of A (x) G
    /// println!("{diagnosis}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn diagnose(&self, layer: usize, scratch: &mut [T]) -> Result<Diagnosis, LayerError> {
        self.try_diagnose(layer, scratch).map_err(|kind| kind.at(layer))
    }

    fn try_diagnose(&self, layer: usize, mut scratch: &mut [T]) -> Result<Diagnosis, LayerErrorKind> {
        let net = self.net();
        let (Some(&shape), Some(report)) = (net.get(layer), self.layer_report(layer)) else {
            return Err(LayerErrorKind::NoSuchLayer { layers: net.len() });
        };
        if self.moment(layer, Side::Input).1 <= 0.0 {
            return Err(LayerErrorKind::NoStatistics);
        }
        let needed = diagnose_scratch_len::<T, M>(&net[layer..=layer]);
        self.expect_scratch(layer, needed, scratch).map_err(|error| error.kind)?;
        let input = take(&mut scratch, shape.inputs())?;
        let output = take(&mut scratch, shape.outputs())?;
        let input = self.eigenvalues(layer, Side::Input, input, scratch)?;
        let output = self.eigenvalues(layer, Side::Output, output, scratch)?;
        let damping = (self.damping() + self.l2()).to_f64();
        let below = |(input, output): (&[T], &[T])| {
            products_below(input, output, damping) as f64 / shape.weights() as f64
        };
        Ok(Diagnosis {
            layer,
            shape,
            report,
            input: input.map(Spectrum::of),
            output: output.map(Spectrum::of),
            damping,
            below_damping: input.zip(output).map(below),
        })
    }

    /// Of the factor at `side`, in ascending order; `None` where the map does not keep it.
    fn eigenvalues<'a>(
        &self,
        layer: usize,
        side: Side,
        out: &'a mut [T],
        mut scratch: &mut [T],
    ) -> Result<Option<&'a [T]>, LayerErrorKind> {
        let (sum, weight) = self.moment(layer, side);
        let n = out.len();
        match M::LAYOUT.side(side).moment {
            Moment::None => return Ok(None),
            Moment::Diagonal => {
                let normaliser = normaliser::<T>(weight);
                out.iter_mut().zip(sum).for_each(|(d, &sum)| *d = sum * normaliser);
                // Diagonals are finite, so their order is total.
                out.sort_unstable_by(|x, y| x.partial_cmp(y).unwrap_or(core::cmp::Ordering::Equal));
            }
            Moment::Full => {
                let (factor, basis) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?);
                let (a, q) = (write_factor(sum, weight, n, factor)?, MatMut::row_major(basis, n, n)?);
                Qr.cold(self.kernel, a, q, out, scratch)
                    .map_err(|error| LayerErrorKind::Apply(MapError::Eigh { side, error }))?;
            }
        }
        Ok(Some(out))
    }
}

/// How many products of one number of each are smaller than `bound`; both ascend.
fn products_below<T: Scalar>(x: &[T], y: &[T], bound: f64) -> usize {
    // Rounding leaves eigenvalues below 0, which are 0: the products stay monotonous.
    let number = |value: T| value.to_f64().max(0.0);
    let mut below = y.len();
    let mut count = 0;
    for &x in x {
        while below > 0 && number(x) * number(y[below - 1]) >= bound {
            below -= 1;
        }
        count += below;
    }
    count
}
