use super::{Layer, Moving, fill_with_bias, weight_matrix};
use crate::engine::Engine;
use crate::tape::{Evidence, LayerTape, matrix, resize};
use kfac_core::LayerShape;
use kfac_core::shape::Window;
use kfac_linalg::{Kernel, MatMut, Scalar};

/// A two-dimensional convolution. Images are channel, row, column; so is the output.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    window: Window,
    shape: [LayerShape; 1],
}

impl Convolution {
    /// Patches gathered for one product.
    const PANEL: usize = 128;

    /// Slides `window` over the image, `channels_out` filters.
    pub fn new(window: Window, channels_out: usize) -> Self {
        Self { window, shape: [LayerShape::convolution(window, channels_out)] }
    }

    /// The patches of `images` with indices `first..first + count` (case-major, then location), as rows.
    fn gather<T: Scalar>(&self, images: &[T], first: usize, panel: &mut [T]) {
        let (locations, image_len) = (self.window.locations(), self.window.image_len());
        for (row, patch) in panel.chunks_exact_mut(self.window.patch_len()).enumerate() {
            let (case, location) = ((first + row) / locations, (first + row) % locations);
            self.window.copy_patch(&images[case * image_len..][..image_len], location, patch);
        }
    }

    /// `out = bias + Σ patches(images) Wᵀ` over the terms `(images, W)`, a panel of patches at a time. Terms without
    /// images add nothing.
    fn slide<T: Scalar, K: Kernel<T>>(
        &self,
        bias: &[T],
        terms: &[(&[T], &[T])],
        out: &mut [T],
        engine: &mut Engine<T, K>,
    ) {
        let [shape] = self.shape;
        let (m, width) = (shape.outputs(), self.window.patch_len());
        let rows = out.len() / m;
        let (mut panel, mut s) =
            (std::mem::take(&mut engine.panel), std::mem::take(&mut engine.panel_product));
        for first in (0..rows).step_by(Self::PANEL) {
            let count = Self::PANEL.min(rows - first);
            resize(&mut panel, count * width);
            resize(&mut s, count * m);
            fill_with_bias(bias, shape, s.chunks_exact_mut(m));
            for &(images, block) in terms.iter().filter(|(images, _)| !images.is_empty()) {
                self.gather(images, first, &mut panel);
                engine.add_product(
                    MatMut::row_major(&mut s, count, m).expect("sized above"),
                    matrix(&panel, width),
                    weight_matrix(block, shape).transposed(),
                );
            }
            self.scatter_channels(&s, first, out);
        }
        (engine.panel, engine.panel_product) = (panel, s);
    }

    /// `rows` of `(case, location) x channel`, starting at row `first`, to `out` in channel, location order.
    fn scatter_channels<T: Scalar>(&self, rows: &[T], first: usize, out: &mut [T]) {
        let (locations, channels) = (self.window.locations(), self.shape[0].outputs());
        for (row, values) in rows.chunks_exact(channels).enumerate() {
            let (case, location) = ((first + row) / locations, (first + row) % locations);
            for (channel, &value) in values.iter().enumerate() {
                out[(case * channels + channel) * locations + location] = value;
            }
        }
    }
}

impl<T: Scalar, K: Kernel<T>> Layer<T, K> for Convolution {
    fn input_len(&self) -> usize {
        self.window.image_len()
    }

    fn output_len(&self) -> usize {
        self.shape[0].outputs() * self.window.locations()
    }

    fn blocks(&self) -> &[LayerShape] {
        &self.shape
    }

    fn forward(&self, weights: &[T], input: &[T], tape: &mut LayerTape<T>, engine: &mut Engine<T, K>) {
        let [shape] = self.shape;
        let block = &mut tape.blocks[0];
        block.inputs.clear();
        block.inputs.extend_from_slice(input);
        let m = shape.outputs();
        let rows = input.len() / self.window.image_len() * self.window.locations();
        resize(&mut tape.output, rows * m);
        self.slide(weights, &[(input, weights)], &mut tape.output, engine);
    }

    fn backward(
        &self,
        weights: &[T],
        tape: &mut LayerTape<T>,
        input_gradient: &mut [T],
        engine: &mut Engine<T, K>,
    ) {
        let [shape] = self.shape;
        let (m, width, locations) = (shape.outputs(), self.window.patch_len(), self.window.locations());
        let gradients = &mut tape.blocks[0].gradients;
        resize(gradients, tape.output_gradient.len());
        for (row, g) in gradients.chunks_exact_mut(m).enumerate() {
            let (case, location) = (row / locations, row % locations);
            for (channel, g) in g.iter_mut().enumerate() {
                *g = tape.output_gradient[(case * m + channel) * locations + location];
            }
        }
        if input_gradient.is_empty() {
            return;
        }
        input_gradient.fill(T::ZERO);
        let image_len = self.window.image_len();
        for (part, g) in gradients.chunks(Self::PANEL * m).enumerate() {
            let mut panel = std::mem::take(&mut engine.panel);
            let count = g.len() / m;
            resize(&mut panel, count * width);
            let out = MatMut::row_major(&mut panel, count, width).expect("sized above");
            engine.set_product(out, matrix(g, m), weight_matrix(weights, shape));
            for (row, patch) in panel.chunks_exact(width).enumerate() {
                let (case, location) =
                    ((part * Self::PANEL + row) / locations, (part * Self::PANEL + row) % locations);
                let image = &mut input_gradient[case * image_len..][..image_len];
                self.window.add_patch(patch, location, image);
            }
            engine.panel = panel;
        }
    }

    fn tangent(
        &self,
        moving: Moving<'_, T>,
        input_tangent: &[T],
        tape: &mut LayerTape<T>,
        engine: &mut Engine<T, K>,
    ) {
        let [shape] = self.shape;
        let m = shape.outputs();
        let images = &tape.blocks[0].inputs;
        let rows = images.len() / self.window.image_len() * self.window.locations();
        resize(&mut tape.output_tangent, rows * m);
        let terms = [(images.as_slice(), moving.direction), (input_tangent, moving.weights)];
        self.slide(moving.direction, &terms, &mut tape.output_tangent, engine);
    }

    fn evidence<'t>(&self, block: usize, tape: &'t LayerTape<T>) -> Evidence<'t, T> {
        Evidence::of_images(&tape.blocks[block], self.window)
    }
}
