//! Shards in the order in which they were last needed.

/// Slots that are summed together, so that a sum over many touches few numbers.
const BLOCK: usize = 128;

/// A queue of shards with their bytes: pushed at the new end, taken out anywhere. Pushing and
/// taking out cost a constant time, summing a fraction of the shards.
#[derive(Debug)]
pub(super) struct Recency {
    /// The shard in each slot, from the oldest.
    slots: Vec<Option<u32>>,
    /// Bytes in each slot, and in each block of slots.
    bytes: Vec<u64>,
    blocks: Vec<u64>,
    /// Where each shard is.
    slot_of: Vec<Option<u32>>,
    /// No shard is in a slot before this one; the next shard comes into slot `end`.
    start: usize,
    end: usize,
}

impl Recency {
    /// An empty queue for shards numbered from 0 to `shards`.
    pub(super) fn new(shards: usize) -> Self {
        // With twice the room, each slot moves at most once per push on average.
        let room = (2 * shards).max(BLOCK);
        Self {
            slots: vec![None; room],
            bytes: vec![0; room],
            blocks: vec![0; room.div_ceil(BLOCK)],
            slot_of: vec![None; shards],
            start: 0,
            end: 0,
        }
    }

    /// Adds a shard that is not in the queue as the one needed last.
    pub(super) fn push(&mut self, shard: u32, bytes: u64) {
        if self.end == self.slots.len() {
            self.close_gaps();
        }
        self.slots[self.end] = Some(shard);
        self.bytes[self.end] = bytes;
        self.blocks[self.end / BLOCK] += bytes;
        self.slot_of[shard as usize] = Some(self.end as u32);
        self.end += 1;
    }

    /// Takes a shard out, if it is there.
    pub(super) fn remove(&mut self, shard: u32) {
        let Some(slot) = self.slot_of[shard as usize].take() else { return };
        let slot = slot as usize;
        self.blocks[slot / BLOCK] -= self.bytes[slot];
        self.bytes[slot] = 0;
        self.slots[slot] = None;
    }

    /// Takes out the shard whose need lies furthest back.
    pub(super) fn pop_oldest(&mut self) -> Option<u32> {
        while self.start < self.end {
            if let Some(shard) = self.slots[self.start] {
                self.remove(shard);
                return Some(shard);
            }
            self.start += 1;
        }
        None
    }

    /// Where a shard stands: the smaller, the longer ago it was needed.
    pub(super) fn slot(&self, shard: u32) -> Option<u32> {
        self.slot_of[shard as usize]
    }

    /// Bytes of the shard in `slot` and of all that were needed after it.
    pub(super) fn bytes_from(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let next_block = (slot / BLOCK + 1) * BLOCK;
        let near: u64 = self.bytes[slot..next_block.min(self.end)].iter().sum();
        let far = self.blocks.get(next_block / BLOCK..self.end.div_ceil(BLOCK));
        near + far.map_or(0, |blocks| blocks.iter().sum())
    }

    fn close_gaps(&mut self) {
        let mut to = 0;
        for from in self.start..self.end {
            let Some(shard) = self.slots[from].take() else { continue };
            self.slots[to] = Some(shard);
            self.bytes[to] = std::mem::take(&mut self.bytes[from]);
            self.slot_of[shard as usize] = Some(to as u32);
            to += 1;
        }
        (self.start, self.end) = (0, to);
        for (block, bytes) in self.blocks.iter_mut().zip(self.bytes.chunks(BLOCK)) {
            *block = bytes.iter().sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_a_plain_list_does() {
        let mut recency = Recency::new(300);
        let mut list: Vec<(u32, u64)> = Vec::new();
        let mut random = 7_u32;
        for round in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let shard = (random >> 8) % 300;
            let bytes = u64::from(random >> 20) + 1;
            let place = list.iter().position(|entry| entry.0 == shard);
            match recency.slot(shard) {
                Some(slot) => {
                    let from = place.unwrap();
                    let sum: u64 = list[from..].iter().map(|entry| entry.1).sum();
                    assert_eq!(recency.bytes_from(slot), sum, "round {round}");
                    list.remove(from);
                    recency.remove(shard);
                }
                None => {
                    assert_eq!(place, None);
                    list.push((shard, bytes));
                    recency.push(shard, bytes);
                }
            }
            if round % 31 == 0 {
                let oldest = (!list.is_empty()).then(|| list.remove(0).0);
                assert_eq!(recency.pop_oldest(), oldest);
            }
        }
        recency.remove(300 - 1);
        while recency.pop_oldest().is_some() {}
        assert_eq!(recency.pop_oldest(), None);
    }
}
