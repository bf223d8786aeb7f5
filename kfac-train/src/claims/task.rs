//! What is trained: a network, where its batches come from, and how it is judged.

use crate::data::Source;
use crate::model::Network;
use kfac_linalg::Fast;

/// The network of every claim: single precision, fastest kernel.
pub(super) type Net = Network<f32, Fast>;

/// A training problem. Both contenders of a row get the same initial weights and the same batches for a seed.
pub(super) trait Task: Sync {
    /// Task, network and batch size in words.
    fn description(&self) -> String;
    /// What the metric is.
    fn metric_name(&self) -> String;
    /// A new network.
    fn network(&self) -> Net;
    /// Initial weights.
    fn initial_weights(&self, network: &Net, seed: u64) -> Vec<f32>;
    /// Batches in the order of a seed.
    fn source(&self, seed: u64) -> Box<dyn Source<f32> + '_>;
    /// Cases in a batch.
    fn batch(&self) -> usize;
    /// The metric at given weights: smaller is better.
    fn metric(&self, network: &mut Net, weights: &[f32]) -> f64;
}
