//! A grouped convolution by explicit loops, an activation, and a head.

use super::golden::{Array, Case, list};
use super::net::{Activation, Layer, Model, PositionRows, Sharing};
use kfac_core::evidence::{OutputGradients, Patches, Rows};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::map::FactorMap;
use kfac_core::shape::Window;
use kfac_core::{LayerShape, Observation};

/// What stands behind the convolution.
#[derive(Clone, Copy, PartialEq)]
enum Head {
    /// The activations, flattened (channel, location), through a dense layer.
    Linear,
    /// Their mean over locations.
    Pool,
    /// One loss term per location.
    Locations,
}

/// Each group is a layer on its slice of the channels.
pub struct ConvolutionNet<T> {
    images: Array<T>,
    /// Of one group.
    window: Window,
    groups: Vec<Layer<T>>,
    head: Head,
    linear: Option<Layer<T>>,
    traces: Vec<Trace<T>>,
}

struct Trace<T> {
    /// Group, then location, then channel of the group.
    sums: Vec<Vec<Vec<T>>>,
    /// Channel, location.
    activations: Vec<T>,
    outputs: Vec<T>,
}

impl<T: Scalar> ConvolutionNet<T> {
    pub fn of(case: &Case) -> Self {
        let conv = &case.inputs["conv"];
        let extents = |key: &str| -> Vec<usize> {
            list(&conv[key]).iter().map(|x| x.as_u64().unwrap() as usize).collect()
        };
        let pair = |key: &str| -> [usize; 2] { extents(key).try_into().unwrap() };
        let images = case.input::<T>("x");
        let [_, channels, height, width] = images.shape[..] else { panic!("{}: images", case.label) };
        let [top, bottom, left, right] = extents("pad_top_bottom_left_right")[..] else {
            panic!("{}: padding", case.label)
        };
        let weights: Vec<Array<T>> =
            list(&conv["w_per_group"]).iter().map(|w| Array::read(w).unwrap()).collect();
        let window = Window::new(channels / weights.len(), [height, width], pair("kernel"))
            .with_stride(pair("stride"))
            .with_dilation(pair("dilation"))
            .with_padding([[top, bottom], [left, right]]);
        let (activation, bias) = (Activation::named(&case.inputs["activation"]), conv["bias"].as_bool());
        let groups = weights.iter().map(|w| Layer::new(w, bias.unwrap(), activation)).collect();
        let head = match case.inputs["head"].as_str() {
            // Where only one head is in use, the file does not name it.
            Some("linear") | None => Head::Linear,
            Some("pool") => Head::Pool,
            Some("locations") => Head::Locations,
            Some(other) => panic!("{}: no head {other}", case.label),
        };
        let linear =
            (head == Head::Linear).then(|| Layer::new(&case.input("linear_w"), true, Activation::Identity));
        let mut net = Self { images, window, groups, head, linear, traces: vec![] };
        net.traces = (0..net.images.shape[0]).map(|case| net.forward(net.images.piece(case))).collect();
        net
    }

    pub fn window(&self) -> Window {
        self.window
    }

    /// The channels of one group.
    fn slice<'i>(&self, image: &'i [T], group: usize) -> &'i [T] {
        &image[group * self.window.image_len()..][..self.window.image_len()]
    }

    /// Patches of one group, location by location, from the definition of a convolution.
    fn patches(&self, image: &[T]) -> Vec<Vec<T>> {
        let [height, width] = self.window.output();
        (0..height * width).map(|at| self.patch(image, [at / width, at % width])).collect()
    }

    fn patch(&self, image: &[T], [row, column]: [usize; 2]) -> Vec<T> {
        let Window { channels, image: [height, width], kernel, stride, dilation, padding } = self.window;
        let mut patch = vec![];
        for channel in 0..channels {
            for kernel_row in 0..kernel[0] {
                for kernel_column in 0..kernel[1] {
                    let y = (row * stride[0] + kernel_row * dilation[0]).checked_sub(padding[0][0]);
                    let x = (column * stride[1] + kernel_column * dilation[1]).checked_sub(padding[1][0]);
                    patch.push(match (y, x) {
                        (Some(y), Some(x)) if y < height && x < width => {
                            image[(channel * height + y) * width + x]
                        }
                        _ => T::ZERO,
                    });
                }
            }
        }
        patch
    }

    fn forward(&self, image: &[T]) -> Trace<T> {
        let of_group = |(group, layer): (usize, &Layer<T>)| -> Vec<Vec<T>> {
            self.patches(self.slice(image, group)).iter().map(|patch| layer.sums(patch)).collect()
        };
        let sums: Vec<Vec<Vec<T>>> = self.groups.iter().enumerate().map(of_group).collect();
        let mut activations = vec![];
        for (layer, sums) in self.groups.iter().zip(&sums) {
            for channel in 0..layer.shape.outputs() {
                activations.extend(sums.iter().map(|at| layer.activation.value(at[channel])));
            }
        }
        let locations = self.window.locations();
        let channels = || activations.chunks(locations);
        let mean = |channel: &[T]| channel.iter().fold(T::ZERO, |sum, &x| sum + x) / T::from_usize(locations);
        let outputs = match &self.linear {
            Some(linear) => linear.sums(&activations),
            None if self.head == Head::Pool => channels().map(mean).collect(),
            None => (0..locations).flat_map(|at| channels().map(move |channel| channel[at])).collect(),
        };
        Trace { sums, activations, outputs }
    }

    /// `dl/d(activation)`, channel by location, from `dl/df`.
    fn through_head(&self, gradient: &[T]) -> Vec<T> {
        let locations = self.window.locations();
        let channels: usize = self.groups.iter().map(|layer| layer.shape.outputs()).sum();
        match &self.linear {
            Some(linear) => linear.backward(gradient),
            None if self.head == Head::Pool => (0..channels * locations)
                .map(|at| gradient[at / locations] / T::from_usize(locations))
                .collect(),
            None => {
                let at_location = |at: usize| gradient[at % locations * channels + at / locations];
                (0..channels * locations).map(at_location).collect()
            }
        }
    }
}

impl<T: Scalar> Model<T> for ConvolutionNet<T> {
    fn shapes(&self) -> Vec<LayerShape> {
        self.groups.iter().chain(&self.linear).map(|layer| layer.shape).collect()
    }

    fn cases(&self) -> usize {
        self.traces.len()
    }

    fn outputs(&self, case: usize) -> &[T] {
        &self.traces[case].outputs
    }

    fn term_len(&self) -> usize {
        let terms = if self.head == Head::Locations { self.window.locations() } else { 1 };
        self.traces[0].outputs.len() / terms
    }

    fn rows(&self, case: usize, gradient: &[T]) -> Vec<PositionRows<T>> {
        let (trace, image) = (&self.traces[case], self.images.piece(case));
        let back = self.through_head(gradient);
        let mut back = back.chunks(self.window.locations());
        let mut rows = vec![];
        for (group, layer) in self.groups.iter().enumerate() {
            let channels: Vec<&[T]> = back.by_ref().take(layer.shape.outputs()).collect();
            let at_location = |(location, sums): (usize, &Vec<T>)| -> Vec<T> {
                let pairs = channels.iter().zip(sums);
                pairs.map(|(back, &s)| back[location] * layer.activation.derivative(s)).collect()
            };
            rows.push(PositionRows {
                inputs: self.patches(self.slice(image, group)),
                gradients: trace.sums[group].iter().enumerate().map(at_location).collect(),
            });
        }
        rows.extend(self.linear.iter().map(|_| PositionRows {
            inputs: vec![trace.activations.clone()],
            gradients: vec![gradient.to_vec()],
        }));
        rows
    }

    /// The whole batch at once, the convolution as [`Patches`].
    fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        observation: &mut Observation<'_, '_, T, M, K>,
        gradients: &[Vec<T>],
        (weight, sharing): (T, Sharing),
        scratch: &mut [T],
    ) {
        let rows: Vec<_> = gradients.iter().enumerate().map(|(case, g)| self.rows(case, g)).collect();
        for (layer, shape) in self.shapes().into_iter().enumerate() {
            let g: Vec<T> = rows.iter().flat_map(|rows| rows[layer].gradients.concat()).collect();
            let g = MatRef::row_major(&g, g.len() / shape.outputs(), shape.outputs()).unwrap();
            let g = OutputGradients::of_weighted_nll(g, weight);
            if layer < self.groups.len() {
                let image = |case| self.slice(self.images.piece(case), layer).to_vec();
                let images: Vec<T> = (0..self.cases()).flat_map(image).collect();
                sharing.add(observation, layer, &Patches::new(&images, self.window).unwrap(), g, scratch);
            } else {
                let a: Vec<T> = rows.iter().flat_map(|rows| rows[layer].inputs.concat()).collect();
                let a = MatRef::row_major(&a, self.cases(), shape.features()).unwrap();
                observation.add(layer, &Rows(a), g, scratch).unwrap();
            }
        }
    }
}
