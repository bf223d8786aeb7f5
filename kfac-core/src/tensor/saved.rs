//! The state of tensors as bytes, in the format of [`saved`](crate::saved): head, shapes, step, one record per tensor, the
//! numbers, checksum.

use super::map::GradientMap;
use super::memory::{TensorLayout, TensorSlot, state_len};
use super::preconditioner::TensorPreconditioner;
use super::shape::{MAX_ORDER, TensorShape};
use crate::saved::{CHECKSUM_LEN, HEAD_LEN, Reader, StateError, VerifiedState, Writer, expect_whole};
use kfac_linalg::{Kernel, Scalar};

const SHAPE_LEN: usize = 1 + 4 * (MAX_ORDER + 1);
const SLOT_LEN: usize = 2 * 4 + 3 * 8 + MAX_ORDER * (8 + 1);

/// Bytes that [`save`](TensorPreconditioner::save) writes for tensors under a map's layout, for a `static` buffer.
pub const fn saved_len<T: Scalar>(net: &[TensorShape], layout: TensorLayout) -> usize {
    let numbers = state_len(net, layout).saturating_mul(T::BYTES);
    numbers.saturating_add(HEAD_LEN + net.len() * (SHAPE_LEN + SLOT_LEN) + 8 + CHECKSUM_LEN)
}

impl<T: Scalar, M: GradientMap<T>, K: Kernel<T>> TensorPreconditioner<'_, T, M, K> {
    /// Bytes that [`save`](Self::save) writes.
    pub fn saved_len(&self) -> usize {
        saved_len::<T>(&self.net, self.layout)
    }

    /// Hands the whole state to `write`, piece by piece.
    ///
    /// Settings (schedule, and those of the map) are not part of it: the program that restores brings its own.
    ///
    /// # Errors
    /// The first error of `write`.
    pub fn save<E>(&self, write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Writer::new(write);
        out.head::<T>(M::NAME, self.net.len())?;
        for &shape in self.net.iter() {
            out.bytes(&shape_bytes(shape))?;
        }
        out.bytes(&self.step.to_le_bytes())?;
        for slot in self.slots.iter() {
            out.bytes(&slot.updates.to_le_bytes())?;
            out.bytes(&slot.preconditioned.to_le_bytes())?;
            for weight in slot.weights {
                out.bytes(&weight.to_le_bytes())?;
            }
            for step in slot.refreshed {
                out.bytes(&step.to_le_bytes())?;
            }
            out.bytes(&slot.failures)?;
        }
        for &number in self.numbers.iter() {
            out.number(number)?;
        }
        out.finish()
    }

    /// Checks saved bytes whole, against these shapes, map and number type, and changes nothing yet.
    ///
    /// # Errors
    /// [`StateError`] names the first thing that does not fit.
    pub fn verify<'p, 'b>(&'p mut self, bytes: &'b [u8]) -> Result<VerifiedState<'p, 'b, Self>, StateError> {
        let truncated = StateError::Length { needed: self.saved_len(), found: bytes.len() };
        let mut reader = Reader { bytes };
        reader.head::<T>(M::NAME, self.net.len(), truncated)?;
        for (tensor, &expected) in self.net.iter().enumerate() {
            let found: [u8; SHAPE_LEN] = reader.array().ok_or(truncated)?;
            if found != shape_bytes(expected) {
                return Err(StateError::Tensor { tensor, expected });
            }
        }
        expect_whole(bytes, self.saved_len())?;
        self.verify_values(reader.bytes, truncated)?;
        Ok(VerifiedState { owner: self, content: reader.bytes })
    }

    /// Refuses a body with numbers that no run leaves behind.
    fn verify_values(&self, body: &[u8], truncated: StateError) -> Result<(), StateError> {
        let mut reader = Reader { bytes: body };
        let value = |valid: bool, layer| if valid { Ok(()) } else { Err(StateError::Value { layer }) };
        let step = u64::from_le_bytes(reader.array().ok_or(truncated)?);
        value(step < u64::MAX, None)?;
        for tensor in 0..self.net.len() {
            let slot = read_slot(&mut reader).ok_or(truncated)?;
            let [axes, second, first] = slot.weights;
            let valid = slot.weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
                && (axes > 0.0) == (slot.updates > 0)
                && (second == 0.0 || self.layout.second_moments > 0)
                && (first > 0.0) == (slot.preconditioned > 0 && self.layout.first_moments > 0)
                && slot.refreshed.iter().all(|&refreshed| refreshed <= step);
            value(valid, Some(tensor))?;
        }
        for (tensor, &shape) in self.net.iter().enumerate() {
            let (len, entries) = (self.layout.tensor_len(shape), shape.entries());
            let moments =
                [self.layout.second_moments, self.layout.first_moments].map(|count| count * entries);
            let squares = len - moments[0] - moments[1]..len - moments[1];
            for place in 0..len {
                let number: T = reader.number().ok_or(truncated)?;
                let valid = number.is_finite() && (number >= T::ZERO || !squares.contains(&place));
                value(valid, Some(tensor))?;
            }
        }
        Ok(())
    }

    /// Reads a body that has been checked; the pieces lie where `save` put them.
    fn restore_body(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes: body };
        self.step = u64::from_le_bytes(reader.array()?);
        for slot in self.slots.iter_mut() {
            *slot = TensorSlot { due: slot.due, ..read_slot(&mut reader)? };
        }
        for number in self.numbers.iter_mut() {
            *number = reader.number()?;
        }
        Some(())
    }
}

impl<T: Scalar, M: GradientMap<T>, K: Kernel<T>> VerifiedState<'_, '_, TensorPreconditioner<'_, T, M, K>> {
    /// Overwrites the preconditioner's state. Cannot fail: everything was checked by `verify`.
    pub fn restore(self) {
        // `verify` has compared the length with `saved_len`, so the reader never runs out.
        let complete = self.owner.restore_body(self.content);
        debug_assert!(complete.is_some());
    }
}

/// Order, sides, and the largest side that is preconditioned.
fn shape_bytes(shape: TensorShape) -> [u8; SHAPE_LEN] {
    let mut bytes = [0; SHAPE_LEN];
    bytes[0] = shape.order() as u8;
    let numbers = (0..MAX_ORDER).map(|axis| shape.side(axis)).chain([shape.largest_side()]);
    for (bytes, number) in bytes[1..].chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes
}

/// The record of a tensor; its place in the schedule is not part of it.
fn read_slot(reader: &mut Reader<'_>) -> Option<TensorSlot> {
    let mut slot = TensorSlot::EMPTY;
    slot.updates = u32::from_le_bytes(reader.array()?);
    slot.preconditioned = u32::from_le_bytes(reader.array()?);
    for weight in &mut slot.weights {
        *weight = f64::from_le_bytes(reader.array()?);
    }
    for step in &mut slot.refreshed {
        *step = u64::from_le_bytes(reader.array()?);
    }
    slot.failures = reader.array()?;
    Some(slot)
}
