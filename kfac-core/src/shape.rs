//! Shapes of weight blocks, as plain numbers that a `const` can hold.

use core::ops::Range;
use kfac_linalg::Scalar;

/// One weight block `W`: `outputs x inputs`, where `inputs` counts the bias column.
///
/// A network is a slice of these. Groups of a grouped convolution are one shape each; a tied weight is one shape
/// with several positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    outputs: usize,
    inputs: usize,
    bias: bool,
}

impl LayerShape {
    /// A dense layer `s = W [a; 1]`.
    pub const fn dense(inputs: usize, outputs: usize) -> Self {
        Self { outputs, inputs: inputs.saturating_add(1), bias: true }
    }

    /// A shape from its numbers, as a saved state has them.
    pub(crate) const fn from_parts(outputs: usize, inputs: usize, bias: bool) -> Self {
        Self { outputs, inputs, bias }
    }

    /// A recurrent layer `s_t = W [x_t; h_{t-1}; 1]`: input and recurrent weights as one block.
    pub const fn recurrent(inputs: usize, hidden: usize) -> Self {
        Self::dense(inputs.saturating_add(hidden), hidden)
    }

    /// A convolution: columns run channel, kernel row, kernel column, then the bias.
    pub const fn convolution(window: Window, channels_out: usize) -> Self {
        Self::dense(window.patch_len(), channels_out)
    }

    /// An embedding: column `t` of `W` is the vector of `features` numbers that stands for token `t`.
    pub const fn embedding(vocabulary: usize, features: usize) -> Self {
        Self { outputs: features, inputs: vocabulary, bias: false }
    }

    /// Scale and shift of a normalisation, `[γ; β]`: `2 features x 1`, whose only input is the number 1, as
    /// [`Normalised`](crate::evidence::Normalised) hands it in.
    pub const fn normalisation(features: usize) -> Self {
        Self { outputs: features.saturating_mul(2), inputs: 1, bias: false }
    }

    /// The same block without the bias column.
    pub const fn without_bias(self) -> Self {
        Self { outputs: self.outputs, inputs: self.features(), bias: false }
    }

    /// `m`, the rows of `W` and the size of the gradient factor `G`.
    pub const fn outputs(self) -> usize {
        self.outputs
    }

    /// `n`, the columns of `W` with the bias, and the size of the input factor `A`.
    pub const fn inputs(self) -> usize {
        self.inputs
    }

    /// Numbers of one input row as the model sees it: `n` less the bias column.
    pub const fn features(self) -> usize {
        self.inputs.saturating_sub(self.bias as usize)
    }

    /// Does the last column of `W` multiply a constant one?
    pub const fn has_bias(self) -> bool {
        self.bias
    }

    /// `m n`, the number of weights. As every length that follows from shapes, it saturates: storage of that length is
    /// refused, not misjudged.
    pub const fn weights(self) -> usize {
        self.outputs.saturating_mul(self.inputs)
    }

    /// The larger of `m` and `n`.
    pub const fn largest_side(self) -> usize {
        if self.outputs > self.inputs { self.outputs } else { self.inputs }
    }

    /// The smaller of `m` and `n`.
    pub const fn smallest_side(self) -> usize {
        if self.outputs > self.inputs { self.inputs } else { self.outputs }
    }

    /// The side of the smaller factor; the output side where they are equal.
    pub const fn smaller_side(self) -> Side {
        if self.outputs > self.inputs { Side::Input } else { Side::Output }
    }

    /// The size of the factor on `side`.
    pub const fn side(self, side: Side) -> usize {
        match side {
            Side::Input => self.inputs,
            Side::Output => self.outputs,
        }
    }
}

/// The two Kronecker factors of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `A`, the second moment of the layer's input.
    Input,
    /// `G`, the second moment of the gradient at the layer's output.
    Output,
}

impl Side {
    /// Both sides, input first.
    pub const BOTH: [Self; 2] = [Self::Input, Self::Output];

    /// 0 for the input side, 1 for the output side.
    pub const fn index(self) -> usize {
        match self {
            Self::Input => 0,
            Self::Output => 1,
        }
    }
}

/// How a convolution slides over an image. A 1d convolution has image and kernel height 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Input channels.
    pub channels: usize,
    /// Image height and width.
    pub image: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Steps down and across.
    pub stride: [usize; 2],
    /// Distance of neighbouring kernel elements, 1 for a dense kernel.
    pub dilation: [usize; 2],
    /// Zeros around the image: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
}

impl Window {
    /// Stride 1, no dilation, no padding.
    pub const fn new(channels: usize, image: [usize; 2], kernel: [usize; 2]) -> Self {
        Self { channels, image, kernel, stride: [1; 2], dilation: [1; 2], padding: [[0; 2]; 2] }
    }

    /// The same window with other strides.
    pub const fn with_stride(mut self, stride: [usize; 2]) -> Self {
        self.stride = stride;
        self
    }

    /// The same window with other dilations.
    pub const fn with_dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// The same window with zeros around the image: `[[top, bottom], [left, right]]`.
    pub const fn with_padding(mut self, padding: [[usize; 2]; 2]) -> Self {
        self.padding = padding;
        self
    }

    /// Height and width of the output:
    /// `(image + padding - dilation (kernel - 1) - 1) / stride + 1`, or 0 where the kernel does not fit or a
    /// stride, dilation or kernel size is 0. Sizes that no memory holds saturate.
    pub const fn output(self) -> [usize; 2] {
        [self.output_along(0), self.output_along(1)]
    }

    const fn output_along(self, axis: usize) -> usize {
        if self.kernel[axis] == 0 || self.stride[axis] == 0 || self.dilation[axis] == 0 {
            return 0;
        }
        let padded =
            self.image[axis].saturating_add(self.padding[axis][0]).saturating_add(self.padding[axis][1]);
        let reach = self.dilation[axis].saturating_mul(self.kernel[axis] - 1).saturating_add(1);
        if padded < reach { 0 } else { (padded - reach) / self.stride[axis] + 1 }
    }

    /// Number of output locations.
    pub const fn locations(self) -> usize {
        let [height, width] = self.output();
        height.saturating_mul(width)
    }

    /// Numbers in one patch: `channels x kernel height x kernel width`.
    pub const fn patch_len(self) -> usize {
        self.channels.saturating_mul(self.kernel[0]).saturating_mul(self.kernel[1])
    }

    /// Numbers in one image.
    pub const fn image_len(self) -> usize {
        self.channels.saturating_mul(self.image[0]).saturating_mul(self.image[1])
    }

    /// Copies the patch of `image` at `location` to `patch`, zeros where it reaches into the padding. A location
    /// beyond the last one lies over nothing.
    ///
    /// # Panics
    /// If `image` is shorter than [`image_len`](Self::image_len) or `patch` than [`patch_len`](Self::patch_len).
    pub fn copy_patch<T: Scalar>(self, image: &[T], location: usize, patch: &mut [T]) {
        patch.fill(T::ZERO);
        self.for_each_run(location, |place, start| {
            let run = &mut patch[place];
            if self.dilation[1] == 1 {
                run.copy_from_slice(&image[start..][..run.len()]);
            } else {
                for (value, &pixel) in run.iter_mut().zip(image[start..].iter().step_by(self.dilation[1])) {
                    *value = pixel;
                }
            }
        });
    }

    /// Adds the patch of `image` at `location` to `patch`.
    ///
    /// # Panics
    /// As [`copy_patch`](Self::copy_patch).
    pub fn add_to_patch<T: Scalar>(self, image: &[T], location: usize, patch: &mut [T]) {
        self.for_each_run(location, |place, start| {
            for (value, &pixel) in
                patch[place].iter_mut().zip(image[start..].iter().step_by(self.dilation[1]))
            {
                *value += pixel;
            }
        });
    }

    /// Adds `patch` to the pixels of `image` that it lies over: the transpose of [`copy_patch`](Self::copy_patch).
    ///
    /// # Panics
    /// As there.
    pub fn add_patch<T: Scalar>(self, patch: &[T], location: usize, image: &mut [T]) {
        self.for_each_run(location, |place, start| {
            for (&value, pixel) in
                patch[place].iter().zip(image[start..].iter_mut().step_by(self.dilation[1]))
            {
                *pixel += value;
            }
        });
    }

    /// Visits the parts of a patch that lie inside the image, a kernel row at a time: the range within the patch,
    /// and the image index of its first element. One place holds the geometry.
    fn for_each_run(self, location: usize, mut visit: impl FnMut(Range<usize>, usize)) {
        let [height_out, width_out] = self.output();
        if location >= height_out.saturating_mul(width_out) {
            return;
        }
        // From here on stride, dilation and kernel are at least 1, and the patch fits into the padded image, unless
        // that is larger than any number: what lies beyond all numbers lies outside.
        let [height, width] = self.image;
        let corner = [location / width_out * self.stride[0], location % width_out * self.stride[1]];
        // Kernel columns whose pixel `corner + k dilation - padding` lies in `0..width`.
        let (left, step) = (self.padding[1][0], self.dilation[1]);
        let first = left.saturating_sub(corner[1]).div_ceil(step).min(self.kernel[1]);
        let end =
            width.saturating_add(left).saturating_sub(corner[1]).div_ceil(step).clamp(first, self.kernel[1]);
        if first == end {
            return;
        }
        let pixel = |axis: usize, kernel: usize| {
            let padded = kernel.checked_mul(self.dilation[axis])?.checked_add(corner[axis])?;
            padded.checked_sub(self.padding[axis][0])
        };
        let Some(column) = pixel(1, first) else { return };
        for channel in 0..self.channels {
            for kernel_row in 0..self.kernel[0] {
                let Some(row) = pixel(0, kernel_row).filter(|&row| row < height) else { continue };
                let place = (channel * self.kernel[0] + kernel_row) * self.kernel[1];
                visit(place + first..place + end, (channel * height + row) * width + column);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_size_follows_the_formula_on_unequal_numbers() {
        let window = Window::new(2, [5, 4], [3, 3]).with_stride([2, 2]).with_padding([[0, 1], [1, 1]]);
        assert_eq!(window.output(), [2, 2]);
        let dilated = Window::new(1, [7, 9], [2, 3]).with_dilation([3, 2]);
        assert_eq!(dilated.output(), [4, 5]);
        assert_eq!(Window::new(1, [2, 2], [3, 1]).output(), [0, 2]);
        assert_eq!(Window::new(1, [2, 2], [1, 1]).with_stride([0, 1]).locations(), 0);
    }

    #[test]
    fn patches_read_channel_then_kernel_row_then_kernel_column() {
        let window = Window::new(2, [2, 3], [2, 2]).with_padding([[1, 0], [0, 0]]);
        assert_eq!(window.output(), [2, 2]);
        let image: [f64; 12] = core::array::from_fn(|i| i as f64 + 1.0);
        let mut patch = [f64::NAN; 8];
        window.copy_patch(&image, 0, &mut patch);
        assert_eq!(patch, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 7.0, 8.0]);
        window.copy_patch(&image, 3, &mut patch);
        assert_eq!(patch, [2.0, 3.0, 5.0, 6.0, 8.0, 9.0, 11.0, 12.0]);
    }

    #[test]
    fn patches_are_those_of_the_pixel_by_pixel_definition_and_adding_is_their_transpose() {
        for (stride, dilation, padding) in [
            ([1, 1], [1, 1], [[0, 0], [0, 0]]),
            ([2, 1], [1, 3], [[2, 0], [1, 4]]),
            ([1, 3], [2, 2], [[0, 3], [3, 1]]),
        ] {
            let window = Window::new(2, [4, 5], [3, 2])
                .with_stride(stride)
                .with_dilation(dilation)
                .with_padding(padding);
            let image: [f64; 40] = core::array::from_fn(|i| (i * i % 17) as f64 + 1.0);
            for location in 0..window.locations() {
                let mut patch = [0.0; 12];
                window.copy_patch(&image, location, &mut patch);
                let place = [location / window.output()[1], location % window.output()[1]];
                let mut counts = [0.0; 40];
                window.add_patch(&[1.0; 12], location, &mut counts);
                let mut expected_counts = [0.0; 40];
                for (index, &value) in patch.iter().enumerate() {
                    let (channel, kernel) = (index / 6, [index % 6 / 2, index % 2]);
                    let pixel: [isize; 2] = core::array::from_fn(|axis| {
                        (place[axis] * stride[axis] + kernel[axis] * dilation[axis]) as isize
                            - padding[axis][0] as isize
                    });
                    let inside = (0..4).contains(&pixel[0]) && (0..5).contains(&pixel[1]);
                    let flat = (channel as isize * 20 + pixel[0] * 5 + pixel[1]) as usize;
                    assert_eq!(
                        value,
                        if inside { image[flat] } else { 0.0 },
                        "{window:?} {location} {index}"
                    );
                    if inside {
                        expected_counts[flat] += 1.0;
                    }
                }
                assert_eq!(counts, expected_counts, "{window:?} {location}");
            }
        }
    }

    #[test]
    fn a_location_or_window_that_is_nowhere_lies_over_nothing() {
        let window = Window::new(1, [3, 3], [2, 2]);
        let image = [1.0_f64; 9];
        for (window, location) in [
            (window, window.locations()),
            (window, usize::MAX),
            (window.with_dilation([1, 0]), 0),
            (window.with_stride([0, 1]), 0),
            (window.with_padding([[0, 0], [usize::MAX, 0]]), usize::MAX),
        ] {
            let (mut patch, mut sum) = ([f64::NAN; 4], [0.0; 9]);
            window.copy_patch(&image, location, &mut patch);
            window.add_patch(&[1.0; 4], location, &mut sum);
            assert_eq!((patch, sum), ([0.0; 4], [0.0; 9]), "{window:?} at {location}");
        }
        // The last kernel row lies beyond all numbers.
        let window = Window::new(1, [3, 3], [3, 1]).with_dilation([usize::MAX / 2 + 1, 1]);
        let window = window.with_padding([[usize::MAX, 0], [0, 0]]);
        let (mut patch, mut sum) = ([f64::NAN; 3], [0.0; 9]);
        assert_eq!(window.output(), [1, 3]);
        window.copy_patch(&image, 0, &mut patch);
        window.add_patch(&[1.0; 3], 0, &mut sum);
        assert_eq!((patch, sum), ([0.0; 3], [0.0; 9]));
    }

    #[test]
    fn shapes_count_the_bias_column() {
        let shape = LayerShape::dense(3, 2);
        assert_eq!((shape.outputs(), shape.inputs(), shape.features(), shape.weights()), (2, 4, 3, 8));
        let bare = shape.without_bias();
        assert_eq!((bare.inputs(), bare.features(), bare.has_bias()), (3, 3, false));
        assert_eq!(bare.without_bias(), bare);
    }
}
