//! The loss curve: training and evaluation loss over tokens, as an SVG picture.

use std::path::Path;

use plotters::prelude::*;
use serde_json::Value as Json;

use crate::error::{Error, Result};

const TRAIN_LOSS: &str = "loss/train/total";
const EVAL_LOSS: &str = "metrics/eval/LanguageCrossEntropy";

const SIZE: (u32, u32) = (960, 560);
/// More points than this are averaged in groups: nobody sees more, and the file stays small.
const MAX_POINTS: usize = 1200;

const TRAIN: RGBColor = RGBColor(31, 119, 180);
const EVAL: RGBColor = RGBColor(214, 90, 24);
const GRID: RGBColor = RGBColor(224, 224, 224);
const INK: RGBColor = RGBColor(64, 64, 64);

/// The points of the picture: tokens seen, loss in nats per token.
#[derive(Debug, Default)]
pub(super) struct LossCurve {
    train: Vec<(f64, f64)>,
    eval: Vec<(f64, f64)>,
}

impl LossCurve {
    /// The points among records of `metrics.jsonl`.
    pub(super) fn from_records(records: &[Json]) -> Self {
        let points = |name: &str| {
            let number = |record: &Json, name: &str| record.get(name).and_then(Json::as_f64);
            let point = |r: &Json| Some((number(r, "token")?, drawn(number(r, name)?)));
            records.iter().filter_map(point).collect()
        };
        Self { train: points(TRAIN_LOSS), eval: points(EVAL_LOSS) }
    }

    /// Takes a metric in, if it is one of the two losses.
    pub(super) fn add(&mut self, tokens: u64, name: &str, value: f64) {
        let points = match name {
            TRAIN_LOSS => &mut self.train,
            EVAL_LOSS => &mut self.eval,
            _ => return,
        };
        if value.is_finite() {
            points.push((tokens as f64, drawn(value)));
        }
    }

    /// Draws the picture into the file at `path`, where there is anything to show.
    pub(super) fn write(&self, path: &Path, title: &str) -> Result<()> {
        if self.train.is_empty() && self.eval.is_empty() {
            return Ok(());
        }
        let mut svg = String::new();
        self.draw(&mut svg, title).map_err(|reason| {
            Error::Training(format!("cannot draw the loss curve {}: {reason}", path.display()))
        })?;
        mds::durable::replace(path, svg.as_bytes()).map_err(Error::io("write", path))
    }

    fn draw(&self, svg: &mut String, title: &str) -> std::result::Result<(), String> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        self.draw_chart(&area, title).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())
    }

    fn draw_chart<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
        title: &str,
    ) -> std::result::Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>
    {
        area.fill(&WHITE)?;
        let (tokens, losses) = self.ranges();
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 22).into_font().color(&INK))
            .margin(18)
            .margin_right(30)
            .x_label_area_size(52)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..tokens, losses)?;
        chart
            .configure_mesh()
            .x_desc("tokens trained on")
            .y_desc("loss (nats per token)")
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|tokens| with_prefix(*tokens))
            .y_label_formatter(&|loss| format!("{loss:.1}"))
            .axis_desc_style(("sans-serif", 16).into_font().color(&INK))
            .label_style(("sans-serif", 14).into_font().color(&INK))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;

        let train = thinned(&self.train);
        chart
            .draw_series(LineSeries::new(train.iter().copied(), TRAIN.mix(0.4)))?
            .label("training")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], TRAIN.mix(0.4)));
        chart
            .draw_series(LineSeries::new(smoothed(&train), TRAIN.stroke_width(2)))?
            .label("training, smoothed")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], TRAIN.stroke_width(2)));
        if !self.eval.is_empty() {
            chart.draw_series(LineSeries::new(self.eval.iter().copied(), EVAL.stroke_width(2)))?;
            chart
                .draw_series(self.eval.iter().map(|point| Circle::new(*point, 4, EVAL.filled())))?
                .label("evaluation")
                .legend(|(x, y)| Circle::new((x + 11, y), 4, EVAL.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(14)
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font(("sans-serif", 15).into_font().color(&INK))
            .draw()
    }

    /// The axes: all tokens, and all losses with a little room.
    fn ranges(&self) -> (f64, std::ops::Range<f64>) {
        let points = || self.train.iter().chain(&self.eval);
        let tokens = points().map(|point| point.0).fold(1.0, f64::max);
        let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let room = ((high - low) * 0.06).max(0.05);
        (tokens, low - room..high + room)
    }
}

/// A loss as precise as it was measured: the same picture from a file as from memory.
fn drawn(loss: f64) -> f64 {
    f64::from(loss as f32)
}

/// Groups of neighbours, averaged, so that at most [`MAX_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(group)
        .map(|chunk| {
            let n = chunk.len() as f64;
            let sum = chunk.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
            (sum.0 / n, sum.1 / n)
        })
        .collect()
}

/// The mean over the neighbours on both sides, a hundredth of all points each, so that the line
/// does not lag behind a falling loss. Near the ends the window shrinks, evenly on both sides.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len().div_ceil(100);
    let mean = |(i, point): (usize, &(f64, f64))| {
        let reach = reach.min(i).min(points.len() - 1 - i);
        let window = &points[i - reach..=i + reach];
        (point.0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// `0`, `250k`, `1.5M`, `2.5B`.
fn with_prefix(count: f64) -> String {
    let (scaled, prefix) = match count {
        n if n >= 1e12 => (n / 1e12, "T"),
        n if n >= 1e9 => (n / 1e9, "B"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    let text = format!("{scaled:.1}");
    format!("{}{prefix}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_picture_has_both_curves_and_is_never_half_written() {
        let mut curve = LossCurve::from_records(&[
            json!({"batch": 1, "token": 512, "loss/train/total": 8.0}),
            json!({"batch": 1, "token": 512, "metrics/eval/LanguageCrossEntropy": 7.9}),
            json!({"batch": 2, "token": 1024, "loss/train/total": "NaN"}),
        ]);
        for step in 2..5000_u64 {
            curve.add(step * 512, TRAIN_LOSS, 8.0 - (step as f64).ln() / 2.0);
        }
        curve.add(9, "trainer/global_step", 3.0);
        curve.add(9, TRAIN_LOSS, f64::NAN);
        assert_eq!((curve.train.len(), curve.eval.len()), (4999, 1));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss_curve.svg");
        curve.write(&path, "run & <one>").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.trim_end().ends_with("</svg>"));
        for text in ["tokens trained on", "loss (nats per token)", "evaluation", "training", "2M"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("run &amp; &lt;one&gt;"));
        assert!(svg.len() < 120_000, "{}", svg.len());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn one_point_or_none_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss_curve.svg");
        let mut curve = LossCurve::default();
        curve.write(&path, "empty").unwrap();
        assert!(!path.exists());
        curve.add(0, TRAIN_LOSS, 5.0);
        curve.write(&path, "one").unwrap();
        assert!(path.exists());
    }

    #[test]
    fn smoothing_does_not_lag_and_thinning_keeps_the_mean() {
        let falling: Vec<_> = (0..500).map(|x| (f64::from(x), 9.0 - 0.01 * f64::from(x))).collect();
        for (smooth, raw) in smoothed(&falling).iter().zip(&falling) {
            assert!(smooth.0 == raw.0 && (smooth.1 - raw.1).abs() < 1e-9);
        }
        let spike: Vec<_> =
            (0..400).map(|x| (f64::from(x), f64::from(u8::from(x == 200)))).collect();
        assert!((smoothed(&spike)[200].1 - 1.0 / 9.0).abs() < 1e-12);
        let line: Vec<_> = (0..3 * MAX_POINTS).map(|x| (x as f64, x as f64)).collect();
        let thin = thinned(&line);
        assert_eq!((thin.len(), thin[0], thin[1]), (MAX_POINTS, (1.0, 1.0), (4.0, 4.0)));
    }

    #[test]
    fn counts_are_written_briefly() {
        let numbers = [0.0, 999.0, 1500.0, 250e3, 1e6, 2.5e9, 1.4e12].map(with_prefix);
        assert_eq!(numbers, ["0", "999", "1.5k", "250k", "1M", "2.5B", "1.4T"]);
    }
}
