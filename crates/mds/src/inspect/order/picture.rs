//! The answer as an SVG picture: downloads and cache over the steps, and which shards are read
//! when.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::report::{NodeReport, PointReport, Report};
use super::timeline::Heat;
use crate::inspect::show::{count, size};

const WIDTH: u32 = 1100;
const TITLE: u32 = 92;
const LINES: u32 = 220;
const MAP: u32 = 260;

/// Nodes that have a line of their own.
const LINES_SHOWN: usize = 8;

const NODES: [RGBColor; LINES_SHOWN] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 90, 24),
    RGBColor(44, 140, 80),
    RGBColor(128, 80, 170),
    RGBColor(190, 60, 90),
    RGBColor(120, 95, 60),
    RGBColor(60, 160, 170),
    RGBColor(110, 110, 110),
];
/// From few samples read to many.
const HEAT: [RGBColor; 6] = [
    RGBColor(222, 235, 247),
    RGBColor(184, 212, 234),
    RGBColor(130, 180, 216),
    RGBColor(78, 144, 196),
    RGBColor(33, 104, 168),
    RGBColor(8, 58, 117),
];
const GRID: RGBColor = RGBColor(228, 228, 228);
const INK: RGBColor = RGBColor(64, 64, 64);
const LIMIT: RGBColor = RGBColor(200, 30, 30);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// The picture as the text of an SVG file. `heats` are of the first nodes.
pub(super) fn draw(report: &Report, heats: &[Heat]) -> Result<String, String> {
    let mut svg = String::new();
    let height = TITLE + 2 * LINES + heats.len() as u32 * MAP + 8;
    let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
    draw_all(report, heats, &area).map_err(|error| error.to_string())?;
    area.present().map_err(|error| error.to_string())?;
    drop(area);
    Ok(svg)
}

fn draw_all<'a>(report: &Report, heats: &[Heat], area: &Area<'a>) -> Outcome<'a> {
    area.fill(&WHITE)?;
    let (title, below) = area.split_vertically(TITLE);
    draw_title(report, &title)?;
    let (downloads, below) = below.split_vertically(LINES);
    let downloaded = |point: &PointReport| point.cumulative_bytes;
    draw_lines(report, "downloaded so far, per node", None, &downloaded, &downloads)?;
    let (cache, mut below) = below.split_vertically(LINES);
    let needed = |point: &PointReport| point.needed_bytes;
    draw_lines(
        report,
        "needed in the cache, per node",
        report.options.cache_limit,
        &needed,
        &cache,
    )?;
    for (node, heat) in heats.iter().enumerate() {
        let (map, rest) = below.split_vertically(MAP);
        draw_map(report, node, heat, &map)?;
        below = rest;
    }
    Ok(())
}

fn draw_title<'a>(report: &Report, area: &Area<'a>) -> Outcome<'a> {
    let (options, epoch) = (&report.options, &report.epoch);
    let title = format!(
        "Epoch {}: {} from {}, {} x {}, batches of {}",
        epoch.epoch,
        count(epoch.served, "sample"),
        count(report.dataset.shards as u64, "shard"),
        count(options.nodes as u64, "node"),
        count(options.ranks_per_node as u64, "rank"),
        options.batch_size,
    );
    let shuffle = if options.shuffle {
        format!("{}, blocks of {}", options.shuffle_algo, options.shuffle_block_size)
    } else {
        "no shuffle".to_owned()
    };
    let subtitle = format!(
        "{shuffle}, {}, {} batching; shuffle quality {:.2} bits; {:.1} shards in a global batch",
        count(options.num_canonical_nodes, "canonical node"),
        options.batching_method,
        report.quality.entropy_bits,
        report.shards_per_global_batch.mean,
    );
    area.draw_text(&title, &("sans-serif", 22).into_font().color(&INK), (24, 16))?;
    area.draw_text(&subtitle, &("sans-serif", 15).into_font().color(&INK), (24, 46))?;
    draw_legend(report, area)
}

/// The colours of all lines, where there is more than one.
fn draw_legend<'a>(report: &Report, area: &Area<'a>) -> Outcome<'a> {
    let mut entries: Vec<(String, RGBColor)> = Vec::new();
    if report.nodes.len() > 1 {
        let nodes = report.nodes.iter().zip(NODES);
        entries.extend(nodes.map(|(node, color)| (format!("node {}", node.node), color)));
        if report.nodes.len() > NODES.len() {
            entries.push((format!("({} more nodes)", report.nodes.len() - NODES.len()), WHITE));
        }
    }
    if let Some(limit) = report.options.cache_limit {
        entries.push((format!("cache_limit {}", size(limit)), LIMIT));
    }
    for ((text, color), x) in entries.iter().zip((24..).step_by(100)) {
        let dash = PathElement::new([(x, 80), (x + 22, 80)], color.stroke_width(3));
        area.draw(&dash)?;
        area.draw_text(text, &("sans-serif", 13).into_font().color(&INK), (x + 28, 73))?;
    }
    Ok(())
}

/// A line over the steps for each node.
fn draw_lines<'a>(
    report: &Report,
    title: &str,
    limit: Option<u64>,
    value: &dyn Fn(&PointReport) -> u64,
    area: &Area<'a>,
) -> Outcome<'a> {
    let values = report.nodes.iter().flat_map(|node| node.timeline.iter().map(value));
    let most = values.chain(limit).max().unwrap_or(0).max(1) as f64;
    let last = report.epoch.steps.max(1) as f64;
    let mut chart = panel(area, title).build_cartesian_2d(0.0..last, 0.0..most * 1.06)?;
    let mut mesh = chart.configure_mesh();
    style(&mut mesh);
    mesh.y_labels(5).y_label_formatter(&|bytes| size(*bytes as u64)).draw()?;
    for (node, color) in report.nodes.iter().zip(NODES) {
        let corners = steps_of(node, report.epoch.steps, value);
        chart.draw_series(LineSeries::new(corners, color.stroke_width(2)))?;
    }
    if let Some(limit) = limit {
        let ends = [(0.0, limit as f64), (last, limit as f64)];
        chart.draw_series(LineSeries::new(ends, LIMIT.stroke_width(2)))?;
    }
    Ok(())
}

/// The corners of a staircase: each point holds from its first step to the next point's.
fn steps_of(
    node: &NodeReport,
    steps: u64,
    value: &dyn Fn(&PointReport) -> u64,
) -> impl Iterator<Item = (f64, f64)> {
    let corners = node.timeline.iter().map(|point| {
        let end = (point.first_step + node.steps_per_point).min(steps);
        [point.first_step, end].map(|step| (step as f64, value(point) as f64))
    });
    corners.collect::<Vec<_>>().into_iter().flatten()
}

/// Which shards one node reads when.
fn draw_map<'a>(report: &Report, node: usize, heat: &Heat, area: &Area<'a>) -> Outcome<'a> {
    let title = match report.nodes.len() {
        1 => "shard numbers read at each step (darker: more samples)".to_owned(),
        _ => format!("shard numbers read by node {node} at each step (darker: more samples)"),
    };
    let last = report.epoch.steps.max(1) as f64;
    let shards = report.dataset.shards.max(1) as f64;
    let mut chart = panel(area, &title).build_cartesian_2d(0.0..last, 0.0..shards)?;
    let mut mesh = chart.configure_mesh();
    style(&mut mesh);
    mesh.y_labels(5)
        .disable_mesh()
        .x_desc("step")
        .y_label_formatter(&|shard| short(*shard))
        .draw()?;
    let most = heat.counts.iter().flatten().copied().max().unwrap_or(0);
    let mut cells = Vec::new();
    for (row, counts) in heat.counts.iter().enumerate() {
        let (low, high) = (heat.first_shard(row) as f64, heat.first_shard(row + 1) as f64);
        let mut column = 0;
        // Neighbours of one colour are one rectangle, to keep the file small.
        for run in counts.chunk_by(|a, b| level(*a, most) == level(*b, most)) {
            let first = column * heat.width();
            column += run.len() as u64;
            let end = ((column * heat.width()) as f64).min(last);
            if let Some(color) = level(run[0], most).and_then(|level| HEAT.get(level)) {
                cells.push(Rectangle::new([(first as f64, low), (end, high)], color.filled()));
            }
        }
    }
    chart.draw_series(cells)?;
    Ok(())
}

/// The colour of a cell; none where nothing was read.
fn level(count: u32, most: u32) -> Option<usize> {
    if count == 0 {
        return None;
    }
    // By the square root, so that few reads can be told from none.
    let part = (f64::from(count) / f64::from(most)).sqrt();
    Some(((part * HEAT.len() as f64).ceil() as usize).clamp(1, HEAT.len()) - 1)
}

fn panel<'a, 'b>(area: &'b Area<'a>, title: &str) -> ChartBuilder<'b, 'b, SVGBackend<'a>> {
    let mut panel = ChartBuilder::on(area);
    panel
        .caption(title, ("sans-serif", 16).into_font().color(&INK))
        .margin(6)
        .margin_left(16)
        .margin_right(36)
        .x_label_area_size(34)
        .y_label_area_size(84);
    panel
}

fn style(mesh: &mut MeshStyle<'_, '_, RangedCoordf64, RangedCoordf64, SVGBackend<'_>>) {
    mesh.x_labels(9)
        .x_label_formatter(&|step| short(*step))
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT);
}

/// `0`, `250k`, `1.5M`.
fn short(count: f64) -> String {
    let (scaled, prefix) = match count {
        n if n >= 1e9 => (n / 1e9, "G"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e4 => (n / 1e3, "k"),
        n => (n, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{prefix}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_reads_can_be_told_from_none() {
        assert_eq!(level(0, 100), None);
        assert_eq!(level(1, 100), Some(0));
        assert_eq!(level(100, 100), Some(5));
        assert_eq!((level(25, 100), level(26, 100)), (Some(2), Some(3)));
    }

    #[test]
    fn counts_are_written_briefly() {
        let numbers = [0.0, 999.0, 9_500.0, 12_500.0, 1e6, 2.5e9].map(short);
        assert_eq!(numbers, ["0", "999", "9500", "12.5k", "1M", "2.5G"]);
    }
}
