//! What happens over the steps of an epoch, in a few hundred points.

use std::ops::Range;

/// Points of a timeline at most.
const POINTS: u64 = 256;

/// What a node did in some consecutive steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Point {
    /// Bytes downloaded in all of these steps, and in the one with the most.
    pub(super) downloaded_bytes: u64,
    pub(super) largest_step_bytes: u64,
    /// The most bytes that the cache needed in one of them.
    pub(super) needed_bytes: u64,
}

/// The points of one node. All cover the same number of steps; the last one may cover fewer.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    /// Steps of each point.
    pub(super) width: u64,
    pub(super) points: Vec<Point>,
}

impl Timeline {
    /// A timeline for an epoch of `steps` steps.
    pub(super) fn new(steps: u64) -> Self {
        let width = steps.div_ceil(POINTS).max(1);
        Self { width, points: vec![Point::default(); steps.div_ceil(width) as usize] }
    }

    pub(super) fn downloaded(&mut self, step: u64, bytes: u64) {
        let point = &mut self.points[(step / self.width) as usize];
        point.downloaded_bytes += bytes;
        point.largest_step_bytes = point.largest_step_bytes.max(bytes);
    }

    pub(super) fn needed(&mut self, steps: Range<u64>, bytes: u64) {
        let points = steps.start / self.width..steps.end.div_ceil(self.width);
        for point in &mut self.points[points.start as usize..points.end as usize] {
            point.needed_bytes = point.needed_bytes.max(bytes);
        }
    }

    /// Forgets the points from step `steps` on: the epoch was that short.
    pub(super) fn end(&mut self, steps: u64) {
        self.points.truncate(steps.div_ceil(self.width) as usize);
    }
}

/// How often each part of the shards was read in each part of the steps.
#[derive(Debug, Clone)]
pub(super) struct Heat {
    /// Samples read, `[row][column]`: shards from the top, steps from the left.
    pub(super) counts: Vec<Vec<u32>>,
    shards: u64,
    width: u64,
}

impl Heat {
    const ROWS: u64 = 100;
    const COLUMNS: u64 = 240;

    pub(super) fn new(shards: u64, steps: u64) -> Self {
        let width = steps.div_ceil(Self::COLUMNS).max(1);
        let columns = steps.div_ceil(width) as usize;
        Self { counts: vec![vec![0; columns]; shards.min(Self::ROWS) as usize], shards, width }
    }

    pub(super) fn read(&mut self, step: u64, shard: u32) {
        let row = u64::from(shard) * self.counts.len() as u64 / self.shards;
        let count = &mut self.counts[row as usize][(step / self.width) as usize];
        *count = count.saturating_add(1);
    }

    /// Shards above the lower edge of each row begin with this one.
    pub(super) fn first_shard(&self, row: usize) -> u64 {
        // The smallest shard whose row this is.
        (row as u64 * self.shards).div_ceil(self.counts.len() as u64)
    }

    /// Steps of each column.
    pub(super) fn width(&self) -> u64 {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_hold_sums_and_peaks() {
        let mut timeline = Timeline::new(1000);
        assert_eq!((timeline.width, timeline.points.len()), (4, 250));
        timeline.downloaded(4, 10);
        timeline.downloaded(7, 30);
        timeline.needed(3..5, 8);
        timeline.needed(5..8, 6);
        assert_eq!(timeline.points[0].needed_bytes, 8);
        let point = Point { downloaded_bytes: 40, largest_step_bytes: 30, needed_bytes: 8 };
        assert_eq!(timeline.points[1], point);
        timeline.end(5);
        assert_eq!(timeline.points.len(), 2);
        assert!(Timeline::new(0).points.is_empty());
    }

    #[test]
    fn rows_hold_neighbouring_shards() {
        let mut heat = Heat::new(250, 10);
        for shard in 0..250 {
            heat.read(9, shard);
        }
        let row = |row: usize| heat.counts[row][9];
        assert_eq!((row(0), row(1), (0..100).map(row).sum::<u32>()), (3, 2, 250));
        assert_eq!((heat.first_shard(1), heat.first_shard(2)), (3, 5));
    }
}
