use crate::error::SettingError;
use kfac_linalg::Scalar;

/// The course of a scalar over the steps of a run: a learning rate, a damping, a clip, a momentum, a decay.
///
/// A value without state: [`at`](Self::at) takes the number of the step, counted from 0, so that a resumed run goes on where
/// it was.
///
#[cfg_attr(feature = "alloc", doc = "```")]
#[cfg_attr(not(feature = "alloc"), doc = "```ignore")]
/// use kfac_core::linalg::Reproducible;
/// use kfac_core::schedule::Course;
/// use kfac_core::{LayerShape, Preconditioner, map::Factored};
///
/// let mut kfac = Preconditioner::on_heap(&[LayerShape::dense(3, 2)], Factored, Reproducible)?;
/// let rate = Course::cosine(0.3_f32, 0.0, 1_000)?.with_warm_up(100);
/// let damping = Course::exponential(0.1_f32, 0.001, 1_000)?;
/// for step in 0..1_000 {
///     kfac.set_damping(damping.at(step))?;
///     let rate = rate.at(step);
///     // observe, refresh, precondition, and a step of this rate
/// }
/// assert_eq!((rate.at(0), damping.at(1_000)), (0.003, 0.001));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course<T> {
    shape: Shape,
    from: T,
    to: T,
    /// Steps from the one value to the other.
    steps: u64,
    warm_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Linear,
    Exponential,
    Cosine,
    Step,
}

impl<T: Scalar> Course<T> {
    /// The same value at every step.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite.
    pub fn constant(value: T) -> Result<Self, SettingError> {
        Self::new(Shape::Step, value, value, 0)
    }

    /// `from + (to - from) k / steps`, `to` from step `steps` on.
    ///
    /// # Errors
    /// [`SettingError`] unless both values are finite.
    pub fn linear(from: T, to: T, steps: u64) -> Result<Self, SettingError> {
        Self::new(Shape::Linear, from, to, steps)
    }

    /// `from (to / from)^(k / steps)`, `to` from step `steps` on.
    ///
    /// # Errors
    /// [`SettingError`] unless both values are positive and finite.
    pub fn exponential(from: T, to: T, steps: u64) -> Result<Self, SettingError> {
        SettingError::unless(from > T::ZERO, "from", from)?;
        SettingError::unless(to > T::ZERO, "to", to)?;
        Self::new(Shape::Exponential, from, to, steps)
    }

    /// `to + (from - to) (1 + cos(π k / steps)) / 2`, `to` from step `steps` on.
    ///
    /// # Errors
    /// [`SettingError`] unless both values are finite.
    ///
    /// # Source
    /// Loshchilov and Hutter 2016, arXiv:1608.03983, section 3, without restarts.
    pub fn cosine(from: T, to: T, steps: u64) -> Result<Self, SettingError> {
        Self::new(Shape::Cosine, from, to, steps)
    }

    /// `from` before step `steps`, `to` from it on.
    ///
    /// # Errors
    /// [`SettingError`] unless both values are finite.
    pub fn step(from: T, to: T, steps: u64) -> Result<Self, SettingError> {
        Self::new(Shape::Step, from, to, steps)
    }

    fn new(shape: Shape, from: T, to: T, steps: u64) -> Result<Self, SettingError> {
        SettingError::unless(from.is_finite(), "from", from)?;
        SettingError::unless(to.is_finite(), "to", to)?;
        Ok(Self { shape, from, to, steps, warm_up: 0 })
    }

    /// Multiplied by `(k + 1) / steps` over the first `steps` steps; the course itself begins at step 0 all the same.
    #[must_use]
    pub fn with_warm_up(self, steps: u64) -> Self {
        Self { warm_up: steps, ..self }
    }

    /// The value at step `step`, counted from 0.
    pub fn at(&self, step: u64) -> T {
        let value = match step {
            _ if step >= self.steps => self.to,
            0 => self.from,
            _ => self.on_the_way(step),
        };
        if step.saturating_add(1) >= self.warm_up {
            return value;
        }
        value * Self::share(step + 1, self.warm_up)
    }

    fn on_the_way(&self, step: u64) -> T {
        let (from, to, share) = (self.from, self.to, Self::share(step, self.steps));
        match self.shape {
            Shape::Step => from,
            Shape::Linear => from * (T::ONE - share) + to * share,
            // Either logarithm is finite, their quotient's need not be.
            Shape::Exponential => (from.ln() + (to.ln() - from.ln()) * share).exp(),
            Shape::Cosine => {
                let angle = T::from_f64(core::f64::consts::PI) * share;
                let left = (T::ONE + angle.cos()) * T::from_f64(0.5);
                from * left + to * (T::ONE - left)
            }
        }
    }

    /// `steps / all`, exact for every number of steps that a run has.
    fn share(steps: u64, all: u64) -> T {
        T::from_f64(steps as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_goes_through_the_values_of_its_formula_and_stays_at_the_last() {
        let at = |course: Course<f64>| [0, 1, 3, 4, 1000].map(|step| course.at(step));
        let close = |got: [f64; 5], want: [f64; 5]| {
            got.iter().zip(want).for_each(|(got, want)| assert!((got - want).abs() < 1e-15, "{got} {want}"));
        };
        close(at(Course::constant(2.5).unwrap()), [2.5; 5]);
        close(at(Course::linear(1.0, 0.2, 4).unwrap()), [1.0, 0.8, 0.4, 0.2, 0.2]);
        close(at(Course::step(1.0, 0.2, 4).unwrap()), [1.0, 1.0, 1.0, 0.2, 0.2]);
        let root = Scalar::exp(Scalar::ln(0.01_f64) / 4.0);
        close(at(Course::exponential(1.0, 0.01, 4).unwrap()), [1.0, root, root * root * root, 0.01, 0.01]);
        let half = core::f64::consts::FRAC_1_SQRT_2;
        let cosine = |cos: f64| 0.2 + 0.8 * (1.0 + cos) / 2.0;
        close(at(Course::cosine(1.0, 0.2, 4).unwrap()), [1.0, cosine(half), cosine(-half), 0.2, 0.2]);
    }

    #[test]
    fn a_warm_up_multiplies_the_first_steps_and_nothing_after() {
        let course = Course::linear(1.0, 0.2, 4).unwrap().with_warm_up(3);
        let got = [0, 1, 2, 3, 4].map(|step| course.at(step));
        let want = [1.0 / 3.0, 0.8 * 2.0 / 3.0, 0.6, 0.4, 0.2];
        got.iter().zip(want).for_each(|(got, want)| assert!((got - want).abs() < 1e-15, "{got} {want}"));
        assert_eq!(Course::constant(2.0).unwrap().with_warm_up(0).at(0), 2.0);
        assert_eq!(Course::constant(2.0).unwrap().with_warm_up(u64::MAX).at(u64::MAX), 2.0);
    }

    #[test]
    fn values_that_have_no_course_are_refused() {
        assert_eq!(Course::linear(f64::NAN, 1.0, 3).unwrap_err().setting, "from");
        assert_eq!(Course::cosine(1.0, f64::INFINITY, 3).unwrap_err().setting, "to");
        assert_eq!(Course::exponential(1.0, 0.0, 3).unwrap_err().setting, "to");
        assert_eq!(Course::exponential(-1.0, 1.0, 3).unwrap_err().setting, "from");
        assert!(Course::constant(f32::NAN).is_err());
        // No difference of the two is formed, and the first value is exact.
        assert_eq!(Course::linear(f32::MAX, -f32::MAX, 2).unwrap().at(1), 0.0);
        for course in [Course::cosine(1e-5_f32, 0.01, 1000), Course::exponential(0.003_f32, 0.01, 1000)] {
            let course = course.unwrap();
            assert_eq!(course.at(0), course.from);
        }
        assert_eq!(Course::linear(1.0, 0.5, 0).unwrap().at(0), 0.5);
    }
}
