//! The shuffle of numpy's legacy generator, `numpy.random.RandomState(seed)`, bit for bit.
//!
//! [`mds::order::rng`] has the generator that replaced it. numpy has promised never to change this one:
//! it is the Mersenne Twister, seeded by Knuth's recurrence, and both draw bounded numbers for a
//! shuffle by masked rejection.

use rand_mt::Mt;

/// numpy's `RandomState(seed)`.
///
/// ```
/// use convert::indexed::RandomState;
///
/// let mut items: Vec<_> = (0..10).collect();
/// RandomState::new(1234).shuffle(&mut items);
/// assert_eq!(items, [7, 2, 9, 1, 0, 8, 4, 5, 6, 3]);
/// ```
#[derive(Debug, Clone)]
pub struct RandomState(Mt);

impl RandomState {
    /// The generator of a seed.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// Uniform on `0..=max` by rejection under the smallest mask that covers `max`. Nothing is drawn
    /// for 0, 32 bits where they are enough, else 64, the higher ones first.
    /// Source: `random_interval` of numpy.
    #[inline]
    pub fn interval(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let mut drawn = u64::from(self.0.next_u32());
            if max > u64::from(u32::MAX) {
                drawn = drawn << 32 | u64::from(self.0.next_u32());
            }
            if drawn & mask <= max {
                return drawn & mask;
            }
        }
    }

    /// numpy's `RandomState.shuffle` of an array with one dimension.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.interval(i as u64) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use mds::format::HashAlgorithm;

    use super::*;

    fn shuffled(seed: u32, n: u32) -> Vec<u32> {
        let mut items: Vec<_> = (0..n).collect();
        RandomState::new(seed).shuffle(&mut items);
        items
    }

    #[test]
    fn shuffles_are_those_of_numpy() {
        assert_eq!(shuffled(1234, 10), [7, 2, 9, 1, 0, 8, 4, 5, 6, 3]);
        assert_eq!(shuffled(0, 10), [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]);
        assert_eq!(shuffled(42, 10), [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
        for (seed, sha256) in
            [(1234, "4654e92b166be9fc"), (0, "0170dcea75cad468"), (42, "d32ced5c0422023c")]
        {
            let bytes: Vec<u8> =
                shuffled(seed, 1000).into_iter().flat_map(u32::to_le_bytes).collect();
            assert_eq!(&HashAlgorithm::Sha256.hex(&bytes)[..16], sha256);
        }
    }

    #[test]
    fn small_numbers_take_32_bits_and_large_ones_64() {
        let drawn = |max| RandomState::new(1234).interval(max);
        let words = [822_569_775_u64, 2_137_449_171];
        assert_eq!(drawn(u64::from(u32::MAX)), words[0]);
        assert_eq!(drawn(u64::MAX), words[0] << 32 | words[1]);
        // 33 bits of the two words.
        assert_eq!(drawn((1 << 33) - 1), (words[0] & 1) << 32 | words[1]);
        let mut twice = RandomState::new(1234);
        assert_eq!(twice.interval(0), 0);
        assert_eq!(twice.interval(u64::from(u32::MAX)), words[0]);
    }
}
