//! A report that nobody measured, for the tests of this module.

use super::Report;
use super::head::{Head, Machine, Timing, Versions};
use kfac_train::claims::{
    AxisScale, ClaimRecord, Curve, Figure, Optimum, Row, Search, SeedResult, Side, Verdict,
};

/// Two claims, five rows, every verdict.
pub(crate) fn report() -> Report {
    let mut second = claim();
    (second.name, second.title) = ("digits".into(), "Autoencoder and CNN on 8x8 digits".into());
    second.claim = "K-FAC needs several times fewer updates than SGD on small image networks.".into();
    second.rows.truncate(2);
    second.rows[0].task = "autoencoder 64-40-20-8, batch 500".into();
    second.rows[0].verdict = Verdict::DoesNotHold;
    second.rows[0].ratio = Some(0.87);
    second.rows[0].ratio_range = Some([0.71, 1.02]);
    second.rows[0].remark = "SGD with Nesterov momentum arrives first on two of three seeds.".into();
    second.rows[1].task = "CNN 8x8, batch 128".into();
    second.rows[1].verdict = Verdict::Holds;
    Report { head: head(), claims: vec![claim(), second] }
}

pub(crate) fn head() -> Head {
    let timing = |claim: &str, wall_seconds, resumed| Timing { claim: claim.into(), wall_seconds, resumed };
    Head {
        date: "2026-05-01 12:30 UTC".into(),
        command: "cargo xtask reproduce --profile quick --seeds 3".into(),
        profile: "quick".into(),
        seeds: 3,
        threads: 2,
        data: None,
        clock: "made-up time".into(),
        machine: Machine {
            cores: 2,
            cpu: "Made-up CPU at 2.0 GHz".into(),
            system: "An OS 12, x86_64".into(),
        },
        versions: Versions {
            workspace: "0.1.0".into(),
            commit: Some("abc1234-dirty".into()),
            rustc: "rustc 1.95.0".into(),
        },
        wall_seconds: 254.0,
        timings: vec![timing("adding", 200.0, true), timing("digits", 54.0, false)],
    }
}

/// One claim as a researcher would leave it: three rows, two figures, a note.
pub(crate) fn claim() -> ClaimRecord {
    let mut in_part = row();
    in_part.task = "adding problem T = 30, LSTM with 32 units, batch 200".into();
    in_part.verdict = Verdict::HoldsInPart;
    (in_part.ratio, in_part.ratio_range, in_part.time_ratio) = (Some(3.4), Some([2.9, 4.1]), Some(0.9));
    in_part.search.optimum = Optimum::Edge;
    in_part.search.per_seed_oracle = Vec::new();
    in_part.remark =
        "Fewer updates, though not ten times; the search of the baseline ended at the edge.".into();
    let mut unmeasured = row();
    unmeasured.task = "adding problem T = 100, tanh RNN with 50 units, batch 200".into();
    unmeasured.verdict = Verdict::NotMeasured;
    (unmeasured.ratio, unmeasured.ratio_range, unmeasured.time_ratio) = (None, None, None);
    unmeasured.method.seeds[1] = SeedResult {
        updates: None,
        examples: None,
        seconds: None,
        failure: Some("factor A of layer 0 is not positive definite: pivot 17 is -3.1e-9".into()),
        final_value: f64::NAN,
        ..unmeasured.method.seeds[1].clone()
    };
    for result in &mut unmeasured.baseline.seeds {
        (result.updates, result.examples, result.seconds, result.final_value) = (None, None, None, 0.0831);
    }
    unmeasured.search.per_seed_oracle = vec![None, Some(41_200), None];
    unmeasured.remark = "SGD did not arrive on any seed, so there is no ratio.".into();
    ClaimRecord {
        name: "adding".into(),
        title: "Long-range dependencies: the adding problem".into(),
        claim: "K-FAC for recurrent networks needs ten to twenty times fewer updates than SGD.".into(),
        source: "Martens, Ba and Johnson 2018, \"Kronecker-factored Curvature Approximations for Recurrent \
                 Neural Networks\", ICLR; the factor is from the abstract of KFC, arXiv:1602.01407."
            .into(),
        rows: vec![row(), in_part, unmeasured],
        figures: vec![curves(AxisScale::Logarithmic), curves(AxisScale::Linear)],
        notes: vec!["Half of the squared error, averaged over 1,000 fixed validation cases.".into()],
    }
}

fn row() -> Row {
    Row {
        task: "adding problem T = 30, tanh RNN with 50 units, batch 200".into(),
        target: "validation half-MSE <= 0.01".into(),
        method: Side {
            name: "K-FAC Factored, quadratic model".into(),
            settings: pairs(&[
                ("damping", "0.1, LM 2/0.9"),
                ("step bound", "0.003 in [1e-3, 0.03]"),
                ("decay", "0.95"),
            ]),
            seeds: [(0, 412), (1, 388), (2, 455)]
                .map(|(seed, updates)| arrived(seed, updates, 4.1e-3))
                .into(),
            milliseconds_per_update: 4.12,
        },
        baseline: Side {
            name: "SGD, Nesterov momentum, clipped".into(),
            settings: pairs(&[("learning rate", "0.03"), ("momentum", "0.95"), ("clip", "0.3")]),
            seeds: [(0, 5110), (1, 4820), (2, 6030)]
                .map(|(seed, updates)| arrived(seed, updates, 1.2e-3))
                .into(),
            milliseconds_per_update: 1.18,
        },
        search: Search {
            grid: "learning rate {0.01, 0.03, 0.1} x momentum {0.9, 0.95, 0.99} x clip {0.03, 0.1, 0.3, 1}"
                .into(),
            runs: 108,
            optimum: Optimum::Interior,
            leaders: vec![
                ("learning rate 0.03, momentum 0.95, clip 0.3".into(), 5110.0),
                ("learning rate 0.03, momentum 0.95, clip 0.1".into(), 5640.0),
                ("learning rate 0.1, momentum 0.9, clip 0.3".into(), 6020.0),
            ],
            per_seed_oracle: vec![Some(4730), Some(4820), Some(5210)],
        },
        ratio: Some(12.4),
        ratio_range: Some([11.2, 13.3]),
        time_ratio: Some(3.55),
        bar: ">= 10".into(),
        verdict: Verdict::Holds,
        remark: "Every seed meets the bar.".into(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn arrived(seed: u64, updates: u64, seconds_each: f64) -> SeedResult {
    SeedResult {
        seed,
        updates: Some(updates),
        examples: Some(updates * 200),
        seconds: Some(updates as f64 * seconds_each),
        budget: 20_000,
        final_value: 0.0098,
        failure: None,
    }
}

/// Two contenders with three seeds each; one run breaks, one touches zero.
fn curves(y_scale: AxisScale) -> Figure {
    let mut curves = Vec::new();
    for (label, rate) in
        [("SGD, Nesterov momentum, clipped", 0.0008), ("K-FAC Factored, quadratic model", 0.009)]
    {
        for seed in 0..3_u32 {
            let points = (0..120).map(|step| {
                let x = f64::from(step) * 50.0;
                let noise = 1.0 + 0.12 * (f64::from(step * 7 + seed * 31) * 0.9).sin();
                (x, (0.17 * (-rate * x * (1.0 + 0.1 * f64::from(seed))).exp() + 0.0021) * noise)
            });
            curves.push(Curve { label: label.into(), points: points.collect() });
        }
    }
    curves[0].points[60].1 = f64::NAN;
    curves[5].points[100].1 = 0.0;
    Figure {
        title: "Adding problem, T = 30".into(),
        x_label: "updates".into(),
        y_label: "validation half-MSE".into(),
        x_scale: AxisScale::Linear,
        y_scale,
        target: Some(0.01),
        curves,
    }
}

/// Text that would break a careless report, numbers that are none.
pub(crate) fn hostile() -> ClaimRecord {
    let text = || {
        String::from(
            "<script>alert(1)</script> \" onerror=\" | `code` ``` **b** <img src=x>\n- [x](y) \0 & '",
        )
    };
    let mut claim = claim();
    for field in [&mut claim.name, &mut claim.title, &mut claim.claim, &mut claim.source] {
        *field = text();
    }
    claim.notes = vec![text(), format!("\n# heading\n{}", text())];
    for row in &mut claim.rows {
        for field in [&mut row.task, &mut row.target, &mut row.bar, &mut row.remark, &mut row.search.grid] {
            *field = text();
        }
        for side in [&mut row.method, &mut row.baseline] {
            (side.name, side.settings) = (text(), vec![(text(), text())]);
            side.milliseconds_per_update = f64::NAN;
            for result in &mut side.seeds {
                (result.failure, result.final_value) = (Some(text()), f64::INFINITY);
                (result.updates, result.seconds) = (None, Some(f64::NAN));
            }
        }
        row.baseline.seeds.truncate(1);
        row.search.leaders = vec![(text(), f64::NEG_INFINITY)];
        (row.ratio, row.ratio_range, row.time_ratio) =
            (Some(f64::NAN), Some([f64::NEG_INFINITY, f64::INFINITY]), Some(f64::INFINITY));
    }
    for figure in &mut claim.figures {
        for field in [&mut figure.title, &mut figure.x_label, &mut figure.y_label] {
            *field = text();
        }
        for curve in &mut figure.curves {
            curve.label = text();
            curve.points[3] = (f64::NAN, f64::NEG_INFINITY);
        }
        figure.target = Some(f64::NAN);
    }
    claim
}

/// A claim without rows, with a figure without curves and one whose curve is empty.
pub(crate) fn empty() -> ClaimRecord {
    let mut none = curves(AxisScale::Logarithmic);
    none.curves.clear();
    let mut hollow = curves(AxisScale::Linear);
    hollow.curves.truncate(1);
    hollow.curves[0].points.clear();
    ClaimRecord { rows: Vec::new(), figures: vec![none, hollow], notes: Vec::new(), ..claim() }
}
