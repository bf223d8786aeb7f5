use super::Inputs;
use crate::shape::Window;
use kfac_linalg::{Scalar, ShapeError};

/// Inputs of a convolution: one row per image location, the patch under the kernel, written one by one.
///
/// Output gradients are rows `(case, location)`, locations row by row over the output image.
#[derive(Clone, Copy)]
pub struct Patches<'a, T> {
    images: &'a [T],
    window: Window,
}

impl<'a, T: Scalar> Patches<'a, T> {
    /// `images`: case, channel, row, column.
    ///
    /// # Errors
    /// A [`ShapeError`] when the numbers are not a whole count of images, or the kernel fits nowhere.
    pub fn new(images: &'a [T], window: Window) -> Result<Self, ShapeError> {
        let len = window.image_len();
        if len == 0 || window.locations() == 0 || !images.len().is_multiple_of(len) {
            return Err(ShapeError::new(window.image, [images.len(), len]));
        }
        Ok(Self { images, window })
    }
}

impl<T: Scalar> Inputs<T> for Patches<'_, T> {
    fn cases(&self) -> usize {
        self.images.len() / self.window.image_len()
    }

    fn positions(&self) -> usize {
        self.window.locations()
    }

    fn features(&self) -> usize {
        self.window.patch_len()
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        let len = self.window.image_len();
        self.window.copy_patch(&self.images[case * len..][..len], position, out);
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [T]) {
        let len = self.window.image_len();
        self.window.add_to_patch(&self.images[case * len..][..len], position, out);
    }
}
