//! What a program sets.

use super::Preconditioner;
use crate::error::SettingError;
use crate::map::Map;
use crate::schedule::Schedule;
use kfac_linalg::{Kernel, Scalar};

impl<T: Scalar, M: Map<T>, K: Kernel<T>> Preconditioner<'_, T, M, K> {
    /// With these periods of statistics and refreshes, otherwise as [`set_schedule`](Self::set_schedule).
    ///
    /// # Errors
    /// As there.
    pub fn with_schedule(mut self, schedule: Schedule) -> Result<Self, SettingError> {
        self.set_schedule(schedule)?;
        Ok(self)
    }

    /// Sets the periods of statistics and refreshes, and deals the refreshes anew. A unit whose turn moves may wait for up
    /// to two periods once.
    ///
    /// # Errors
    /// [`SettingError`] where a period is 0.
    pub fn set_schedule(&mut self, schedule: Schedule) -> Result<(), SettingError> {
        schedule.check()?;
        schedule.deal(&self.net, self.map.cost(), &mut self.slots);
        self.schedule = schedule;
        Ok(())
    }

    /// With this decay of the statistics' moving average, otherwise as [`set_decay`](Self::set_decay).
    ///
    /// # Errors
    /// As there.
    pub fn with_decay(mut self, decay: T) -> Result<Self, SettingError> {
        self.set_decay(decay)?;
        Ok(self)
    }

    /// Sets the decay of the statistics' moving average, from the next update on.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `[0, 1)`.
    pub fn set_decay(&mut self, decay: T) -> Result<(), SettingError> {
        SettingError::unless(decay >= T::ZERO && decay < T::ONE, "decay", decay)?;
        self.decay = decay;
        Ok(())
    }

    /// With this l2 weight decay, otherwise as [`set_l2`](Self::set_l2).
    ///
    /// # Errors
    /// As there.
    pub fn with_l2(mut self, l2: T) -> Result<Self, SettingError> {
        self.set_l2(l2)?;
        Ok(self)
    }

    /// Sets `η`, the l2 weight decay that is part of the loss: `λ + η` takes the place of `λ` everywhere. The
    /// gradients must already contain `ηθ`.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and not negative.
    pub fn set_l2(&mut self, l2: T) -> Result<(), SettingError> {
        SettingError::unless(l2 >= T::ZERO && (self.damping + l2).is_finite(), "l2", l2)?;
        self.l2 = l2;
        Ok(())
    }

    /// Sets the damping `λ`, in units of an eigenvalue of `A (x) G`. Taken up at once or at the next
    /// refresh, as [`Map::DAMPING`] says of the map.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and positive.
    pub fn set_damping(&mut self, lambda: T) -> Result<(), SettingError> {
        SettingError::unless(lambda > T::ZERO && (lambda + self.l2).is_finite(), "damping", lambda)?;
        self.damping = lambda;
        Ok(())
    }

    /// The periods of statistics and refreshes.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The decay of the statistics' moving average.
    pub fn decay(&self) -> T {
        self.decay
    }

    /// The damping `λ`, without `η`.
    pub fn damping(&self) -> T {
        self.damping
    }

    /// The l2 weight decay `η`.
    pub fn l2(&self) -> T {
        self.l2
    }
}
