//! The state as bytes, in the format of [`saved`](crate::saved): one record, of the network.

use super::Tridiagonal;
use super::layout::{computed_of, state_len, statistics_of};
use crate::memory::LayerSlot;
use crate::saved::{Reader, StateError, VerifiedState, Writer, saved_len_of, verified_body};
use crate::shape::LayerShape;
use kfac_linalg::{Kernel, Scalar};

/// Bytes that [`save`](Tridiagonal::save) writes for a network, for a `static` buffer.
pub const fn saved_len<T: Scalar>(net: &[LayerShape]) -> usize {
    saved_len_of::<T>(net, 1, state_len(net))
}

impl<T: Scalar, K: Kernel<T>> Tridiagonal<'_, T, K> {
    /// Bytes that [`save`](Self::save) writes.
    pub fn saved_len(&self) -> usize {
        saved_len::<T>(&self.net)
    }

    /// Hands the whole state to `write`, piece by piece.
    ///
    /// Settings (schedule, decay, l2) are not part of it: the program that restores brings its own.
    ///
    /// # Errors
    /// The first error of `write`.
    pub fn save<E>(&self, write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut out = Writer::new(write);
        out.network::<T>(Self::NAME, &self.net)?;
        out.bytes(&self.step.to_le_bytes())?;
        out.number(self.damping)?;
        out.slot(self.slot())?;
        self.numbers.iter().try_for_each(|&number| out.number(number))?;
        out.finish()
    }

    /// Checks saved bytes whole, against this network and number type, and changes nothing yet.
    ///
    /// # Errors
    /// [`StateError`] names the first thing that does not fit.
    pub fn verify<'p, 'b>(&'p mut self, bytes: &'b [u8]) -> Result<VerifiedState<'p, 'b, Self>, StateError> {
        let content = verified_body::<T>(bytes, Self::NAME, &self.net, self.saved_len())?;
        let truncated = StateError::Length { needed: self.saved_len(), found: bytes.len() };
        self.verify_values(content).ok_or(truncated)??;
        Ok(VerifiedState { owner: self, content })
    }

    /// Refuses a body with numbers that no run leaves behind; `None` where it is too short.
    fn verify_values(&self, body: &[u8]) -> Option<Result<(), StateError>> {
        let mut reader = Reader { bytes: body };
        let step = u64::from_le_bytes(reader.array()?);
        let damping: T = reader.number()?;
        let possible = step < u64::MAX && damping > T::ZERO && damping.is_finite();
        let slot = reader.slot()?;
        if !(possible && slot.is_possible_at(step) && slot.weights[0] == slot.weights[1]) {
            return Some(Err(StateError::Value { layer: None }));
        }
        for len_of in [statistics_of, computed_of] {
            for layer in 0..self.net.len() {
                for _ in 0..len_of(&self.net, layer) {
                    if !reader.number::<T>()?.is_finite() {
                        return Some(Err(StateError::Value { layer: Some(layer) }));
                    }
                }
            }
        }
        Some(Ok(()))
    }

    /// Reads a body that has been checked; the pieces lie where `save` put them.
    fn restore_body(&mut self, body: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes: body };
        self.step = u64::from_le_bytes(reader.array()?);
        self.damping = reader.number()?;
        self.slots[0] = LayerSlot { due: self.slots[0].due, ..reader.slot()? };
        for number in self.numbers.iter_mut() {
            *number = reader.number()?;
        }
        Some(())
    }
}

impl<T: Scalar, K: Kernel<T>> VerifiedState<'_, '_, Tridiagonal<'_, T, K>> {
    /// Overwrites the preconditioner's state. Cannot fail: everything was checked by `verify`.
    pub fn restore(self) {
        // `verify` has compared the length with `saved_len`, so the reader never runs out.
        let complete = self.owner.restore_body(self.content);
        debug_assert!(complete.is_some());
    }
}
