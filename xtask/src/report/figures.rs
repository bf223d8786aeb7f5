//! A [`Figure`] as an SVG picture and a legend.
//!
//! The picture holds axes and curves only. Caption and legend are text of the page, which escapes, wraps and
//! scales better than text in a picture. Axes are a type of our own instead of plotters' ranges: log axes get
//! ticks at 1, 2, 5, and no value, however large, can make the tick search loop.

use super::text::{count, number};
use kfac_train::claims::{AxisScale, Curve, Figure};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use std::ops::Range;

/// Pixels; shown at half this size, because plotters rounds to whole pixels.
const SIZE: (u32, u32) = (1440, 800);

/// Magnitudes beyond these are not drawn: differences and squares of them must stay finite.
const DRAWABLE: Range<f64> = 1e-100..1e100;

/// Colours that stay apart for colour-blind readers, on white.
///
/// # Source
/// Okabe and Ito 2008, "Color Universal Design"; yellow left out.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];

/// A figure ready for the page.
pub(crate) struct Drawing {
    /// The picture; `None` when no point can be drawn.
    pub(crate) svg: Option<String>,
    /// One entry per label, in the order of first appearance.
    pub(crate) legend: Vec<Entry>,
    /// Points that are not in the picture.
    pub(crate) left_out: LeftOut,
}

/// One line of the legend.
pub(crate) struct Entry {
    pub(crate) label: String,
    /// `#rrggbb`.
    pub(crate) colour: String,
    pub(crate) dashed: bool,
    /// Number of curves with this label.
    pub(crate) curves: usize,
}

/// Points that could not be drawn, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) not_finite: usize,
    /// Zero or negative on a logarithmic axis.
    pub(crate) not_positive: usize,
    /// Finite, but outside [`DRAWABLE`].
    pub(crate) out_of_range: usize,
    pub(crate) of: usize,
}

impl LeftOut {
    /// A sentence for the caption; `None` when everything was drawn.
    pub(crate) fn sentence(&self) -> Option<String> {
        let reasons = [
            (self.not_finite, "not finite"),
            (self.not_positive, "zero or negative, which a logarithmic axis cannot show"),
            (self.out_of_range, "too large or too small to draw"),
        ];
        let counted: Vec<String> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
        let total = self.not_finite + self.not_positive + self.out_of_range;
        (total > 0).then(|| format!("Left out: {total} of {} points ({}).", self.of, counted.join("; ")))
    }

    /// Can this point be drawn? Counts it when it cannot.
    fn admits(&mut self, (x, y): (f64, f64), figure: &Figure) -> bool {
        self.of += 1;
        let places = [(x, figure.x_scale), (y, figure.y_scale)];
        let any = |test: &dyn Fn(f64, bool) -> bool| {
            places.iter().any(|&(value, scale)| test(value, scale == AxisScale::Logarithmic))
        };
        let reason = if any(&|value, _| !value.is_finite()) {
            &mut self.not_finite
        } else if any(&|value, logarithmic| logarithmic && value <= 0.0) {
            &mut self.not_positive
        } else if any(&|value, logarithmic| {
            value.abs() >= DRAWABLE.end || (logarithmic && value < DRAWABLE.start)
        }) {
            &mut self.out_of_range
        } else {
            return true;
        };
        *reason += 1;
        false
    }
}

/// A piece of a curve between points that are left out.
struct Piece {
    /// Index into the legend.
    contender: usize,
    points: Vec<(f64, f64)>,
}

/// Draws the figure. Never fails: what cannot be drawn is left out and counted.
pub(crate) fn draw(figure: &Figure) -> Drawing {
    let mut left_out = LeftOut::default();
    let legend = legend(&figure.curves);
    let mut pieces = Vec::new();
    for curve in &figure.curves {
        let contender = legend.iter().position(|entry| entry.label == curve.label).unwrap_or(0);
        for points in curve.points.split(|point| !left_out.admits(*point, figure)) {
            if !points.is_empty() {
                pieces.push(Piece { contender, points: points.to_vec() });
            }
        }
    }
    let svg = picture(figure, &pieces).filter(|_| !pieces.is_empty());
    Drawing { svg, legend, left_out }
}

fn legend(curves: &[Curve]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for curve in curves {
        if let Some(entry) = entries.iter_mut().find(|entry| entry.label == curve.label) {
            entry.curves += 1;
        } else {
            let (colour, dashed) = style(entries.len());
            let RGBColor(red, green, blue) = colour;
            let colour = format!("#{red:02x}{green:02x}{blue:02x}");
            entries.push(Entry { label: curve.label.clone(), colour, dashed, curves: 1 });
        }
    }
    entries
}

/// Colour of a contender; dashed once the palette has been used up.
fn style(contender: usize) -> (RGBColor, bool) {
    (PALETTE[contender % PALETTE.len()], contender / PALETTE.len() % 2 == 1)
}

/// The picture; `None` only when plotters cannot write to memory.
fn picture(figure: &Figure, pieces: &[Piece]) -> Option<String> {
    let points = || pieces.iter().flat_map(|piece| &piece.points);
    let target = figure.target.filter(|y| LeftOut::default().admits((1.0, *y), figure));
    let x_axis = Axis::new(figure.x_scale, points().map(|point| point.0), 6);
    let y_axis = Axis::new(figure.y_scale, points().map(|point| point.1).chain(target), 7);
    let across = [x_axis.range.start, x_axis.range.end];

    let mut svg = String::new();
    {
        let [x_labels, y_labels] = [x_axis.labels(), y_axis.labels()];
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = |size: i32| ("sans-serif", size).into_font().color(&RGBColor(40, 40, 40));
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .margin_right(40)
            .x_label_area_size(112)
            .y_label_area_size(170)
            .build_cartesian_2d(x_axis, y_axis)
            .ok()?;
        chart
            .configure_mesh()
            .x_desc(printable(&figure.x_label))
            .y_desc(printable(&figure.y_label))
            .x_label_formatter(&x_labels)
            .y_label_formatter(&y_labels)
            .label_style(text(38))
            .axis_desc_style(text(40))
            .bold_line_style(RGBColor(225, 225, 225).stroke_width(2))
            .axis_style(RGBColor(120, 120, 120).stroke_width(2))
            .draw()
            .ok()?;
        for Piece { contender, points } in pieces {
            let (colour, dashed) = style(*contender);
            let line = colour.mix(0.85).stroke_width(4);
            if let [only] = points[..] {
                chart.draw_series([Circle::new(only, 6, colour.filled())]).ok()?;
            } else if dashed {
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), 14, 8, line)).ok()?;
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), line)).ok()?;
            }
        }
        if let Some(y) = target {
            let ends = across.map(|x| (x, y));
            let line = BLACK.mix(0.7).stroke_width(3);
            chart.draw_series(DashedLineSeries::new(ends, 10, 10, line)).ok()?;
        }
        area.present().ok()?;
    }
    Some(svg)
}

/// The text without control characters, which are not allowed in XML.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An axis with its ticks.
struct Axis {
    scale: AxisScale,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis that shows all `values`, which are drawable.
    fn new(scale: AxisScale, values: impl Iterator<Item = f64>, max_ticks: usize) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low <= high { (low, high) } else { (1.0, 1.0) };
        match scale {
            AxisScale::Linear => Self::linear(low, high, max_ticks),
            AxisScale::Logarithmic => Self::logarithmic(low, high, max_ticks),
        }
    }

    fn linear(low: f64, high: f64, max_ticks: usize) -> Self {
        // A span that arithmetic cannot resolve is widened to one that it can.
        let magnitude = low.abs().max(high.abs());
        let (low, high) = if high - low > magnitude * 1e-9 {
            (low, high)
        } else {
            let half = if magnitude > 0.0 { magnitude * 0.5 } else { 0.5 };
            (low - half, high + half)
        };
        let step = nice_step((high - low) / max_ticks as f64);
        // An axis of non-negative values that comes near zero starts there.
        let start = if low >= 0.0 && low <= 0.25 * high { 0.0 } else { low - 0.02 * (high - low) };
        let range = start..high + 0.02 * (high - low);
        let first = (range.start / step).ceil();
        let ticks = (0..=2 * max_ticks).map(|index| (first + index as f64) * step);
        let ticks = ticks.take_while(|tick| *tick <= range.end).collect();
        Self { scale: AxisScale::Linear, range, ticks }
    }

    fn logarithmic(low: f64, high: f64, max_ticks: usize) -> Self {
        // At least a factor of 3, so that a 1-2-5 tick falls inside; then a little air.
        let widen = (3.0 / (high / low)).max(1.0).sqrt();
        let (low, high) = (low / widen, high * widen);
        let air = (high / low).powf(0.03);
        let range = low / air..high * air;
        let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
        let n_decades = (range.end / range.start).log10();
        let mantissas: &[f64] = if n_decades < 2.0 {
            &[1.0, 2.0, 5.0]
        } else if n_decades < 3.0 {
            &[1.0, 3.0]
        } else {
            &[1.0]
        };
        let every = (n_decades / max_ticks as f64).ceil().max(1.0) as i32;
        let ticks = decades.filter(|decade| decade.rem_euclid(every) == 0);
        let ticks = ticks.flat_map(|decade| mantissas.iter().map(move |m| m * 10f64.powi(decade)));
        let ticks = ticks.filter(|tick| range.contains(tick)).collect();
        Self { scale: AxisScale::Logarithmic, range, ticks }
    }

    /// How ticks are written: on a linear axis with as many digits as tell neighbours apart.
    fn labels(&self) -> impl Fn(&f64) -> String + use<> {
        let step = match (self.scale, &self.ticks[..]) {
            (AxisScale::Linear, [first, second, ..]) => second - first,
            _ => 0.0,
        };
        let plain = (1e-6..1e6).contains(&step) && self.ticks.iter().all(|tick| tick.abs() < 1e6);
        move |tick| match tick {
            tick if !plain => number(*tick),
            tick if step >= 1.0 && *tick >= 0.0 => count(tick.round() as u64),
            tick => format!("{tick:.*}", -step.log10().floor().min(0.0) as usize),
        }
    }

    /// Where the value lies between the ends, in 0..=1.
    fn position(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.scale {
            AxisScale::Linear => (value - start) / (end - start),
            AxisScale::Logarithmic => (value / start).ln() / (end / start).ln(),
        }
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `at_least`.
fn nice_step(at_least: f64) -> f64 {
    let power = 10f64.powf(at_least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|mantissa| mantissa * power).find(|step| *step >= at_least);
    step.unwrap_or(10.0 * power)
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.position(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Plotters asks twice, for labelled lines and for lines between them; we have none of the latter.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(y_scale: AxisScale, curves: &[(&str, &[(f64, f64)])]) -> Figure {
        let curves =
            curves.iter().map(|(label, points)| Curve { label: (*label).into(), points: points.to_vec() });
        Figure {
            title: "t".into(),
            x_label: "updates".into(),
            y_label: "loss".into(),
            x_scale: AxisScale::Linear,
            y_scale,
            target: Some(0.5),
            curves: curves.collect(),
        }
    }

    #[test]
    fn a_figure_without_points_has_no_picture() {
        for curves in [&[][..], &[("a", &[][..])], &[("a", &[(f64::NAN, 1.0)][..])]] {
            assert!(draw(&figure(AxisScale::Linear, curves)).svg.is_none());
        }
    }

    #[test]
    fn points_that_cannot_be_drawn_are_left_out_and_counted() {
        let points =
            [(0.0, 1.0), (1.0, 0.0), (2.0, -3.0), (3.0, f64::NAN), (4.0, f64::INFINITY), (5.0, 1e300)];
        let drawing = draw(&figure(AxisScale::Logarithmic, &[("a", &points)]));
        let expected = LeftOut { not_finite: 2, not_positive: 2, out_of_range: 1, of: 6 };
        assert_eq!(drawing.left_out, expected);
        assert!(
            drawing.left_out.sentence().unwrap().starts_with("Left out: 5 of 6 points (2 not finite; 2 zero")
        );
        assert!(drawing.svg.unwrap().contains("<circle"), "the one point left is a dot");
        let linear = draw(&figure(AxisScale::Linear, &[("a", &points[..3])]));
        assert_eq!(linear.left_out.sentence(), None, "zero and negative values are fine on a linear axis");
    }

    #[test]
    fn extreme_values_neither_panic_nor_hang() {
        let extremes =
            [0.0, -0.0, 5e-324, 1e-99, 1.0, 1.0 + f64::EPSILON, 1e16, 1e99, -1e99, f64::MAX, f64::MIN];
        for scale in [AxisScale::Linear, AxisScale::Logarithmic] {
            for a in extremes {
                for b in extremes {
                    let mut figure = figure(scale, &[("a", &[(a, b), (b, a)]), ("b", &[(a, a)])]);
                    figure.x_scale = scale;
                    figure.target = Some(b);
                    draw(&figure);
                }
            }
        }
    }

    #[test]
    fn every_axis_has_ticks_inside_its_range() {
        let ends =
            [(0.0, 1.0), (0.9, 1.1), (3.0, 3.0), (1e-9, 1e9), (0.011, 0.012), (1e-99, 1e99), (1.0, 900.0)];
        for (low, high) in ends {
            for scale in [AxisScale::Linear, AxisScale::Logarithmic] {
                if scale == AxisScale::Logarithmic && low <= 0.0 {
                    continue;
                }
                let axis = Axis::new(scale, [low, high].into_iter(), 7);
                assert!(!axis.ticks.is_empty() && axis.ticks.len() <= 15, "{low} {high} {:?}", axis.ticks);
                assert!(
                    axis.ticks.iter().all(|tick| axis.range.contains(tick)),
                    "{low} {high} {:?}",
                    axis.ticks
                );
                for value in [low, high] {
                    assert!((0.0..=1.0).contains(&axis.position(value)), "{low} {high}");
                }
            }
        }
    }

    #[test]
    fn labels_of_neighbouring_ticks_differ() {
        let ends = [
            (0.0, 9000.0),
            (-3.0, 3.0),
            (0.9998, 1.0002),
            (0.0, 5e5),
            (0.0, 4e7),
            (0.0, 1e-9),
            (1e4, 1.01e4),
        ];
        for (low, high) in ends {
            let axis = Axis::new(AxisScale::Linear, [low, high].into_iter(), 7);
            let labels: Vec<String> = axis.ticks.iter().map(axis.labels()).collect();
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
            assert!(labels.iter().all(|label| label.len() <= 8), "{labels:?}");
        }
    }

    #[test]
    fn seeds_of_one_contender_share_a_colour_and_a_line_of_the_legend() {
        let points = [(0.0, 1.0), (1.0, 0.5)];
        let drawing = draw(&figure(AxisScale::Linear, &[("a", &points), ("b", &points), ("a", &points)]));
        let lines: Vec<_> = drawing.legend.iter().map(|entry| (entry.label.as_str(), entry.curves)).collect();
        assert_eq!(lines, [("a", 2), ("b", 1)]);
        assert_ne!(drawing.legend[0].colour, drawing.legend[1].colour);
        let svg = drawing.svg.unwrap();
        let strokes = |colour: &str| svg.matches(&format!("stroke=\"{}\"", colour.to_uppercase())).count();
        assert_eq!((strokes(&drawing.legend[0].colour), strokes(&drawing.legend[1].colour)), (2, 1));
    }

    #[test]
    fn labels_of_axes_are_escaped() {
        let mut figure = figure(AxisScale::Linear, &[("a", &[(0.0, 1.0), (1.0, 2.0)])]);
        figure.x_label = "<script>alert(1)</script> & \u{1}".into();
        let svg = draw(&figure).svg.unwrap();
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;") && !svg.contains('\u{1}'));
    }
}
