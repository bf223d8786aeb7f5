use kfac_core::error::SettingError;
use kfac_linalg::Scalar;

/// Exponentially averaged iterates: `θ̄ <- decay θ̄ + (1 - decay) θ`, normalised so that early averages are means of
/// what has been seen. A switch for every optimizer; the average is evaluated, the training goes on from `θ`.
#[derive(Clone, Debug)]
pub struct IterateAverage<T> {
    decay: f64,
    /// `1 - decay^k`.
    weight: f64,
    sum: Vec<T>,
    mean: Vec<T>,
}

impl<T: Scalar> IterateAverage<T> {
    /// An average that keeps the share `decay` of the old one.
    ///
    /// # Errors
    /// [`SettingError`] unless `decay` lies in `[0, 1)`.
    pub fn new(decay: f64) -> Result<Self, SettingError> {
        SettingError::unless((0.0..1.0).contains(&decay), "decay of the averaged iterates", decay)?;
        Ok(Self { decay, weight: 0.0, sum: Vec::new(), mean: Vec::new() })
    }

    /// Takes in the weights after an update.
    pub fn add(&mut self, weights: &[T]) {
        self.sum.resize(weights.len(), T::ZERO);
        let (keep, take) = (T::from_f64(self.decay), T::from_f64(1.0 - self.decay));
        for (sum, &weight) in self.sum.iter_mut().zip(weights) {
            *sum = keep * *sum + take * weight;
        }
        self.weight = self.decay * self.weight + (1.0 - self.decay);
    }

    /// The average; empty before the first update.
    pub fn mean(&mut self) -> &[T] {
        self.mean.clear();
        let normaliser = T::from_f64(1.0 / self.weight);
        self.mean.extend(self.sum.iter().map(|&sum| sum * normaliser));
        &self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::IterateAverage;

    #[test]
    fn the_average_is_normalised_from_the_first_update_on() {
        let mut average = IterateAverage::new(0.9).unwrap();
        average.add(&[2.0_f64]);
        assert!((average.mean()[0] - 2.0).abs() < 1e-15);
        average.add(&[4.0]);
        let expected = (0.9 * 2.0 + 4.0) / 1.9;
        assert!((average.mean()[0] - expected).abs() < 1e-15);
    }
}
