use crate::damping::adapt::{LevenbergMarquardt, Progress, Ratio, Verdict, reduction_ratio};
use crate::error::SettingError;
use crate::step::{FisherProducts, ModelError, Proposal, QuadraticModel, Slopes, StepBound};
use core::fmt;
use kfac_linalg::Scalar;

/// Step size and momentum from the exact quadratic model, damping by Levenberg-Marquardt, and (for noisy batches) a
/// bound on how far one step moves the outputs.
///
/// Per step: hand [`lambda`](Self::lambda) to the preconditioner, precondition, [`propose`](Self::propose), add
/// `α Δ + μ δ₀` to the weights (keep a copy), [`judge`](Self::judge). After a rejected step put the copy back and forget
/// `δ₀`. With an adaptive bound, call [`next_batch`](Self::next_batch) before the next proposal, with the loss of the new
/// batch at the copy and at the weights.
///
/// All scales are those of the mean loss: the gradient `V` and the Fisher products are means over the same batch.
///
#[cfg_attr(feature = "alloc", doc = "```")]
#[cfg_attr(not(feature = "alloc"), doc = "```ignore")]
/// use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
/// use kfac_core::evidence::{OutputGradients, Rows};
/// use kfac_core::linalg::{MatMut, MatRef, Reproducible};
/// use kfac_core::losses::{Loss, Target};
/// use kfac_core::map::Eigenbasis;
/// use kfac_core::recipe::AdaptiveStep;
/// use kfac_core::step::{FisherProducts, Slopes};
/// use kfac_core::{LayerGradient, LayerShape, Preconditioner};
///
/// // Logistic regression, three outputs for two inputs and a bias: f = W [x; 1].
/// let (x, classes) = ([0.2, 1.0, 0.9, -0.4, -0.9, 0.3, 0.5, 0.6], [0, 1, 2, 1]);
/// let apply = |w: &[f64], case: usize| -> [f64; 3] {
///     core::array::from_fn(|i| w[3 * i] * x[2 * case] + w[3 * i + 1] * x[2 * case + 1] + w[3 * i + 2])
/// };
/// let mean_loss = |w: &[f64]| -> f64 {
///     let loss = |case| Loss::Softmax.value(&apply(w, case), Target::Class(classes[case])).unwrap();
///     (0..4).map(loss).sum::<f64>() / 4.0
/// };
/// let net = [LayerShape::dense(2, 3)];
/// let mut kfac = Preconditioner::on_heap(&net, Eigenbasis::full(), Reproducible)?;
/// let mut scratch = vec![0.0; kfac.scratch_len()];
/// let mut recipe = AdaptiveStep::new(LevenbergMarquardt::new(0.05, AdaptationRule::feed_forward())?);
/// let (mut w, mut delta, mut previous) = ([0.0; 9], [0.0; 9], [0.0; 9]);
/// for step in 0..10u32 {
///     let (mut v, mut sampled) = ([0.0; 9], [0.0; 12]);
///     for case in 0..4 {
///         let (f, mut g) = (apply(&w, case), [0.0; 3]);
///         // Any generator will do; a target drawn from the model makes this the true Fisher.
///         let bits = [(4 * step + case as u32).wrapping_mul(2_654_435_769)];
///         Loss::Softmax.sampled_gradient(&f, &bits, &mut sampled[3 * case..][..3])?;
///         Loss::Softmax.gradient(&f, Target::Class(classes[case]), &mut g)?;
///         for (i, g) in g.iter().enumerate() {
///             for (j, a) in [x[2 * case], x[2 * case + 1], 1.0].iter().enumerate() {
///                 v[3 * i + j] += g * a / 4.0;
///             }
///         }
///     }
///     let g = OutputGradients::per_case(MatRef::row_major(&sampled, 4, 3)?);
///     kfac.observe(4).add(0, &Rows(MatRef::row_major(&x, 4, 2)?), g, &mut scratch)?;
///     kfac.set_damping(recipe.lambda())?;
///     kfac.refresh(&mut scratch)?;
///     delta = v;
///     kfac.precondition(&mut [LayerGradient::joint(0, MatMut::row_major(&mut delta, 3, 3)?)], &mut scratch)?;
///     delta.iter_mut().for_each(|delta| *delta = -*delta); // Δ = -U
///
///     let mut slopes = Slopes::default();
///     slopes.add(&v, &delta, &previous)?;
///     let mut fisher = FisherProducts::default();
///     for case in 0..4 {
///         // The model is linear in W, so its forward-mode derivative is the model itself.
///         let (f, jd, jp) = (apply(&w, case), apply(&delta, case), apply(&previous, case));
///         fisher.delta_delta += Loss::Softmax.fisher_product(&f, &jd, &jd)? / 4.0;
///         fisher.delta_previous += Loss::Softmax.fisher_product(&f, &jd, &jp)? / 4.0;
///         fisher.previous_previous += Loss::Softmax.fisher_product(&f, &jp, &jp)? / 4.0;
///     }
///     let (copy, before) = (w, mean_loss(&w));
///     let step = recipe.propose(slopes, fisher)?;
///     for i in 0..9 {
///         previous[i] = step.alpha * delta[i] + step.mu * previous[i];
///         w[i] += previous[i];
///     }
///     if recipe.judge(before, mean_loss(&w)) == Verdict::Rejected {
///         (w, previous) = (copy, [0.0; 9]);
///     }
/// }
/// assert!(mean_loss(&w) < 0.2, "{}", mean_loss(&w)); // from ln 3 = 1.1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveStep<T> {
    /// Adapts the damping.
    pub damping: LevenbergMarquardt<T>,
    /// Bounds the step; `None` for batches so large that they need none.
    pub bound: Option<StepBound<T>>,
    l2: T,
    /// Which predicted change the reduction ratio is taken of.
    pub predicted_change: PredictedChange,
    predicted: T,
}

/// What an [`AdaptiveStep`] carries from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveProgress<T> {
    /// The damping.
    pub lambda: T,
    /// Counters of its adaptation.
    pub damping: Progress,
    /// `κ` of the bound, if there is one.
    pub kappa: Option<T>,
    /// What the last proposal promised, for [`AdaptiveStep::next_batch`].
    pub predicted: T,
}

/// Saved progress that does not fit an [`AdaptiveStep`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ResumeError {
    /// A number is out of the range that the recipe was built with.
    Setting(SettingError),
    /// The progress is that of a bounded recipe, this one has no bound.
    NoBound {
        /// The saved `κ`.
        kappa: f64,
    },
    /// This recipe has a bound, the progress is that of one without.
    NoKappa {
        /// `κ` of the bound here.
        bound: f64,
    },
    /// The predicted change is not finite.
    Predicted {
        /// That change.
        predicted: f64,
    },
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(error) => error.fmt(f),
            Self::NoBound { kappa } => {
                write!(f, "the saved step was bounded at kappa {kappa:e}, this recipe has no bound")
            }
            Self::NoKappa { bound } => {
                write!(f, "the saved step had no bound, this recipe has one at kappa {bound:e}")
            }
            Self::Predicted { predicted } => write!(f, "the saved predicted change is {predicted:e}"),
        }
    }
}

impl core::error::Error for ResumeError {}

/// Does the damping term count in the predicted change of the loss?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictedChange {
    /// Yes: `ρ` is judged against the minimum of the damped model. Measured to work, and the default.
    WithDamping,
    /// No: for an exactly quadratic loss `ρ` is 1.
    WithoutDamping,
}

impl<T: Scalar> AdaptiveStep<T> {
    /// No bound, no l2, damping counted in the predicted change.
    pub fn new(damping: LevenbergMarquardt<T>) -> Self {
        let predicted_change = PredictedChange::WithDamping;
        Self { damping, bound: None, l2: T::ZERO, predicted_change, predicted: T::ZERO }
    }

    /// Bounds the divergence of every step.
    pub fn with_bound(mut self, bound: StepBound<T>) -> Self {
        self.bound = Some(bound);
        self
    }

    /// l2 weight decay `η`, part of the loss: the same as the preconditioner's
    /// [`with_l2`](crate::Preconditioner::with_l2).
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and not negative.
    pub fn with_l2(mut self, l2: T) -> Result<Self, SettingError> {
        SettingError::unless(l2 >= T::ZERO && l2.is_finite(), "l2", l2)?;
        self.l2 = l2;
        Ok(self)
    }

    /// What changes from step to step, to be saved beside the preconditioner's state.
    pub fn progress(&self) -> AdaptiveProgress<T> {
        AdaptiveProgress {
            lambda: self.damping.lambda(),
            damping: self.damping.progress(),
            kappa: self.bound.map(|bound| bound.kappa()),
            predicted: self.predicted,
        }
    }

    /// Continues from saved progress, to the bit.
    ///
    /// # Errors
    /// [`ResumeError`] where the progress is that of another recipe, or holds what none leaves behind; then nothing is
    /// changed.
    pub fn resume(&mut self, progress: AdaptiveProgress<T>) -> Result<(), ResumeError> {
        let AdaptiveProgress { lambda, damping, kappa, predicted } = progress;
        let mut resumed = *self;
        resumed.damping.resume(lambda, damping).map_err(ResumeError::Setting)?;
        match (&mut resumed.bound, kappa) {
            (Some(bound), Some(kappa)) => bound.resume(kappa).map_err(ResumeError::Setting)?,
            (None, Some(kappa)) => return Err(ResumeError::NoBound { kappa: kappa.to_f64() }),
            (Some(bound), None) => return Err(ResumeError::NoKappa { bound: bound.kappa().to_f64() }),
            (None, None) => {}
        }
        if !predicted.is_finite() {
            return Err(ResumeError::Predicted { predicted: predicted.to_f64() });
        }
        resumed.predicted = predicted;
        *self = resumed;
        Ok(())
    }

    /// The damping that the preconditioner and the quadratic model should use now.
    pub fn lambda(&self) -> T {
        self.damping.lambda()
    }

    /// `α` and `μ` from the quadratic model, scaled down to the bound.
    ///
    /// # Errors
    /// A [`ModelError`]: do not step.
    pub fn propose(
        &mut self,
        slopes: Slopes<T>,
        fisher: FisherProducts<T>,
    ) -> Result<Proposal<T>, ModelError> {
        let model = QuadraticModel { lambda: self.lambda(), l2: self.l2 };
        let mut proposal = model.minimise(slopes, fisher)?;
        if let Some(bound) = &self.bound {
            let scale = bound.factor(&proposal);
            proposal = model.propose(scale * proposal.alpha, scale * proposal.mu, slopes, fisher);
        }
        self.predicted = match self.predicted_change {
            PredictedChange::WithDamping => proposal.predicted,
            PredictedChange::WithoutDamping => proposal.predicted_without_damping,
        };
        Ok(proposal)
    }

    /// Judges the proposed step by the loss before and after it on the same batch, and adapts the damping.
    pub fn judge(&mut self, before: T, after: T) -> Verdict<T> {
        self.damping.judge(self.predicted, before, after)
    }

    /// Adapts the bound by what the last step did on the next batch: `before` at the weights it started from,
    /// `after` at those it led to. Costs the caller one forward pass; leave it out for a fixed bound.
    pub fn next_batch(&mut self, before: T, after: T) {
        if let Some(bound) = &mut self.bound {
            match reduction_ratio(self.predicted, before, after) {
                Ratio::Is(rho) => bound.adapt(rho),
                Ratio::NotFinite => bound.adapt(-T::ONE / T::ZERO),
                Ratio::Negligible => {}
            }
        }
    }
}
