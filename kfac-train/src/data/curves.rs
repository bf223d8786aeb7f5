//! Images of random smooth curves: six numbers behind each image, for autoencoders with a code of six units.
//!
//! A parabola through three points p, q, r at t = 0, 1/2, 1: `b(t) = (1-t)(1-2t) p + 4t(1-t) q + t(2t-1) r`,
//! `0 <= t <= 1`. The points are uniform in the image less a margin; where the curve leaves that square they
//! are drawn again, so no stroke is cut off. A pixel at distance d from the curve gets
//! `min(1, max(0, half_width + 1/2 - d))` in units of the pixel: a brush of width side/10 with an edge one
//! pixel wide.
//!
//! At 14 x 14 the pixels' variances add up to 10.7: the squared error per case of always predicting the mean
//! image.
//!
//! # Source
//! The model is CURVES of Hinton and Salakhutdinov 2006 (doi:10.1126/science.1127647), 28 x 28 images of
//! curves from three random points. Curve and brush are not theirs, so errors here compare with each other,
//! not with the literature.

use rand_chacha::ChaCha8Rng;

use super::{Dataset, Targets};
use crate::random::{Stream, generator, unit};

type Point = [f64; 2];

/// Chords that stand for a curve. They stray from it by at most `|p - 2q + r| / (2 CHORDS²)`, 0.04 pixels at
/// side 28.
const CHORDS: usize = 32;

/// `cases` images of `side x side` pixels as an autoencoding set (targets are the inputs): stream 5 of the
/// seed.
///
/// The first images do not depend on how many follow.
///
/// # Shapes
/// Inputs and targets of `side²` pixels, row by row.
/// # Scale
/// Pixels lie in `[0, 1]`, 0 where there is no curve. Positions are drawn in units of the image
/// less its margin, so one seed gives the same curves at every resolution.
///
/// # Example
/// ```
/// let curves = kfac_train::data::curves::generate(3, 14, 0);
/// assert_eq!((curves.cases(), curves.input_len, curves.target_len), (3, 196, 196));
/// ```
pub fn generate(cases: usize, side: usize, seed: u64) -> Dataset {
    let mut generator = generator(seed, Stream::Curves);
    let mut canvas = Canvas::new(side);
    let mut inputs = Vec::with_capacity(cases * side * side);
    for _ in 0..cases {
        canvas.clear();
        canvas.draw(&curve(&mut generator));
        inputs.extend(canvas.pixels());
    }
    let name = format!("curves {side}x{side}");
    Dataset {
        name,
        input_len: side * side,
        targets: Targets::Values(inputs.clone()),
        inputs,
        target_len: side * side,
    }
}

/// The ends of the chords of a random curve, all of them in the unit square.
fn curve(generator: &mut ChaCha8Rng) -> [Point; CHORDS + 1] {
    loop {
        let [p, q, r]: [Point; 3] = std::array::from_fn(|_| std::array::from_fn(|_| unit(generator)));
        let points = std::array::from_fn(|chord| {
            let t = chord as f64 / CHORDS as f64;
            let s = 1.0 - t;
            std::array::from_fn(|i| s * (s - t) * p[i] + 4.0 * s * t * q[i] + t * (t - s) * r[i])
        });
        if points.as_flattened().iter().all(|x| (0.0..=1.0).contains(x)) {
            return points;
        }
    }
}

/// Squared distance of each pixel's centre from the nearest chord, where that is within `reach`.
struct Canvas {
    side: usize,
    /// Distance at which ink ends: `half_width + 1/2` pixels.
    reach: f64,
    squared_distances: Vec<f64>,
}

impl Canvas {
    fn new(side: usize) -> Self {
        let half_width = side as f64 / 20.0;
        Canvas { side, reach: half_width + 0.5, squared_distances: vec![f64::INFINITY; side * side] }
    }

    fn clear(&mut self) {
        self.squared_distances.fill(f64::INFINITY);
    }

    /// Draws a curve of the unit square into the image less its margin.
    fn draw(&mut self, curve: &[Point]) {
        let side = self.side as f64;
        let margin = self.reach.min(side / 2.0);
        let place = |point: Point| point.map(|x| margin + (side - 2.0 * margin) * x);
        for ends in curve.windows(2) {
            self.chord(place(ends[0]), place(ends[1]));
        }
    }

    /// Lowers the distances around the chord from `a` to `b`. Points are (x, y) = (column, row) in pixels.
    fn chord(&mut self, a: Point, b: Point) {
        // Pixels whose centre may lie within reach; `as` saturates at 0 below.
        let span = |i: usize| {
            let first = (a[i].min(b[i]) - self.reach - 0.5).ceil() as usize;
            let last = (a[i].max(b[i]) + self.reach - 0.5).floor() as usize;
            first..(last + 1).min(self.side)
        };
        let (columns, rows) = (span(0), span(1));
        for row in rows {
            for column in columns.clone() {
                let centre = [column as f64 + 0.5, row as f64 + 0.5];
                let nearest = &mut self.squared_distances[row * self.side + column];
                *nearest = nearest.min(squared_distance(centre, a, b));
            }
        }
    }

    fn pixels(&self) -> impl Iterator<Item = f32> {
        // The square root is correctly rounded on every host; nothing else here rounds differently anywhere.
        self.squared_distances.iter().map(|d| (self.reach - d.sqrt()).clamp(0.0, 1.0) as f32)
    }
}

/// Squared distance of `x` from the chord from `a` to `b`.
fn squared_distance(x: Point, a: Point, b: Point) -> f64 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let from_a = [x[0] - a[0], x[1] - a[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let place = along[0] * from_a[0] + along[1] * from_a[1];
    // A chord of length zero is the point a.
    let t = if length > 0.0 { (place / length).clamp(0.0, 1.0) } else { 0.0 };
    let gap = [from_a[0] - t * along[0], from_a[1] - t * along[1]];
    gap[0] * gap[0] + gap[1] * gap[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_to_a_chord_is_measured_to_its_inside_or_its_ends() {
        let (a, b) = ([1.0, 1.0], [5.0, 1.0]);
        assert_eq!(squared_distance([3.0, 3.0], a, b), 4.0);
        assert_eq!(squared_distance([8.0, 5.0], a, b), 25.0);
        assert_eq!(squared_distance([0.0, 1.0], a, b), 1.0);
        assert_eq!(squared_distance([4.0, 5.0], a, a), 25.0);
    }

    #[test]
    fn a_horizontal_chord_inks_whole_pixels_fully_and_the_edge_in_part() {
        // Side 10: half width 1/2, reach 1. Through the centres of row 4: distances 0 and 1, ink 1 and 0.
        let mut canvas = Canvas::new(10);
        canvas.chord([2.5, 4.5], [7.5, 4.5]);
        let pixels: Vec<f32> = canvas.pixels().collect();
        let row = |row: usize| &pixels[row * 10..][..10];
        assert_eq!(row(4), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        assert!(row(3).iter().chain(row(5)).all(|&ink| ink == 0.0));
        // On the border of rows 3 and 4: both at distance 1/2.
        canvas.clear();
        canvas.chord([2.5, 4.0], [7.5, 4.0]);
        let pixels: Vec<f32> = canvas.pixels().collect();
        assert_eq!((pixels[3 * 10 + 5], pixels[4 * 10 + 5]), (0.5, 0.5));
    }
}
