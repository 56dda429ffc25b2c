//! The loss curve: training and evaluation loss over tokens, and the speed below, as an SVG picture.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde_json::Value as Json;

use crate::error::{Error, Result};

const TRAIN_LOSS: &str = "loss/train/total";
const TOKENS_PER_SEC: &str = "throughput/tokens_per_sec";

const SIZE: (u32, u32) = (960, 720);
/// Of which the loss takes this, where there is a speed to show.
const LOSS_HEIGHT: u32 = 500;
/// More points than this are averaged in groups: nobody sees more, and the file stays small.
const MAX_POINTS: usize = 1200;

const TRAIN: RGBColor = RGBColor(31, 119, 180);
/// Of the evaluation splits, one after the other.
const EVAL: [RGBColor; 4] =
    [RGBColor(214, 90, 24), RGBColor(44, 140, 70), RGBColor(140, 80, 170), RGBColor(150, 110, 20)];
const SPEED: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(224, 224, 224);
const INK: RGBColor = RGBColor(64, 64, 64);

type Points = Vec<(f64, f64)>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn<'a> =
    std::result::Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// The points of the picture, over the tokens seen.
#[derive(Debug, Default)]
pub(super) struct LossCurve {
    /// Nats per token.
    train: Points,
    /// The same of each evaluation split, by its label.
    eval: BTreeMap<String, Points>,
    /// Tokens per second.
    speed: Points,
}

impl LossCurve {
    /// The points among records of `metrics.jsonl`.
    pub(super) fn from_records(records: &[Json]) -> Self {
        let mut curve = Self::default();
        for record in records.iter().filter_map(Json::as_object) {
            let Some(tokens) = record.get("token").and_then(Json::as_u64) else { continue };
            for (name, value) in record {
                value.as_f64().into_iter().for_each(|value| curve.add(tokens, name, value));
            }
        }
        curve
    }

    /// Takes a metric in, if it is one of those shown.
    pub(super) fn add(&mut self, tokens: u64, name: &str, value: f64) {
        let label = name.strip_prefix("metrics/").and_then(|name| {
            name.strip_suffix("/LanguageCrossEntropy").filter(|label| *label != "train")
        });
        let points = match (name, label) {
            (TRAIN_LOSS, _) => &mut self.train,
            (TOKENS_PER_SEC, _) => &mut self.speed,
            (_, Some(label)) => self.eval.entry(label.to_owned()).or_default(),
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
        self.draw_charts(&area, title).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())
    }

    fn draw_charts<'a>(&self, area: &Area<'a>, title: &str) -> Drawn<'a> {
        area.fill(&WHITE)?;
        if self.speed.is_empty() {
            return self.draw_losses(area, title);
        }
        let (losses, speed) = area.split_vertically(LOSS_HEIGHT);
        self.draw_losses(&losses, title)?;
        self.draw_speed(&speed)
    }

    fn draw_losses<'a>(&self, area: &Area<'a>, title: &str) -> Drawn<'a> {
        let mut chart = chart_on(area)
            .caption(title, ("sans-serif", 22).into_font().color(&INK))
            .build_cartesian_2d(0.0..self.tokens(), self.losses())?;
        draw_axes(&mut chart, "loss (nats per token)", 8, &|loss| format!("{loss:.1}"))?;

        let train = thinned(&self.train);
        chart
            .draw_series(LineSeries::new(train.iter().copied(), TRAIN.mix(0.4)))?
            .label("training")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], TRAIN.mix(0.4)));
        chart
            .draw_series(LineSeries::new(smoothed(&train), TRAIN.stroke_width(2)))?
            .label("training, smoothed")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], TRAIN.stroke_width(2)));
        for ((label, points), colour) in self.eval.iter().zip(EVAL.into_iter().cycle()) {
            let name = if label == "eval" { "evaluation".to_owned() } else { label.clone() };
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?
                .label(name)
                .legend(move |(x, y)| Circle::new((x + 11, y), 4, colour.filled()));
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

    fn draw_speed<'a>(&self, area: &Area<'a>) -> Drawn<'a> {
        let highest = self.speed.iter().map(|point| point.1).fold(1.0, f64::max);
        let mut chart =
            chart_on(area).build_cartesian_2d(0.0..self.tokens(), 0.0..highest * 1.1)?;
        draw_axes(&mut chart, "tokens per second", 4, &|speed| with_prefix(*speed))?;
        let speed = thinned(&self.speed);
        chart.draw_series(LineSeries::new(speed, SPEED.stroke_width(2)))?;
        Ok(())
    }

    /// The last token of all.
    fn tokens(&self) -> f64 {
        let points = self.train.iter().chain(self.eval.values().flatten()).chain(&self.speed);
        points.map(|point| point.0).fold(1.0, f64::max)
    }

    /// All losses, with a little room.
    fn losses(&self) -> Range<f64> {
        let losses = || self.train.iter().chain(self.eval.values().flatten()).map(|point| point.1);
        let (low, high) =
            (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
        let room = ((high - low) * 0.06).max(0.05);
        low - room..high + room
    }
}

fn chart_on<'a, 'b>(area: &'b Area<'a>) -> ChartBuilder<'b, 'b, SVGBackend<'a>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(18).margin_right(30).x_label_area_size(52).y_label_area_size(64);
    chart
}

fn draw_axes<'a>(
    chart: &mut Chart<'_, 'a>,
    what: &str,
    labels: usize,
    format: &dyn Fn(&f64) -> String,
) -> Drawn<'a> {
    chart
        .configure_mesh()
        .x_desc("tokens trained on")
        .y_desc(what)
        .x_labels(8)
        .y_labels(labels)
        .x_label_formatter(&|tokens| with_prefix(*tokens))
        .y_label_formatter(format)
        .axis_desc_style(("sans-serif", 16).into_font().color(&INK))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()
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
        curve.add(2_000_000, "metrics/pile/LanguageCrossEntropy", 5.5);
        curve.add(2_000_000, TOKENS_PER_SEC, 12_500.0);
        assert_eq!((curve.train.len(), curve.eval["eval"].len(), curve.eval.len()), (4999, 1, 2));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss_curve.svg");
        curve.write(&path, "run & <one>").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.trim_end().ends_with("</svg>"));
        for text in [
            "tokens trained on",
            "loss (nats per token)",
            "evaluation",
            "pile",
            "training",
            "2M",
            "tokens per second",
        ] {
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
