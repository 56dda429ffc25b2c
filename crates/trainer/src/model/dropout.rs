//! Dropout whose masks come from our own generator.
//!
//! A device's generator cannot be read back or set to a position, so a run that is resumed could not repeat it.
//! Here the masks of a microbatch are a function of the run's seed and the microbatch's place in the run alone:
//! the same on every device, and nothing of it has to be saved. The masks are drawn on the host, which costs time
//! when dropout is on; the configurations of this family train with none.

use burn::tensor::{FloatDType, Tensor, TensorData};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// The source of the dropout masks of one forward. A clone draws the same masks.
#[derive(Clone, Debug)]
pub struct Dropout {
    generator: Option<Pcg64>,
}

impl Dropout {
    /// No dropout: evaluation and generation.
    pub fn off() -> Self {
        Self { generator: None }
    }

    /// The masks of one training microbatch: `batch` counts optimizer steps from 0, `microbatch` the parts of it.
    pub fn training(seed: u64, batch: u64, microbatch: u64) -> Self {
        // State and increment of the generator, 128 bits each. Streams that differ only in the upper half of one are
        // correlated, so what counts is in the lower halves. The increment's lowest bit is always 1.
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&batch.to_le_bytes());
        bytes[8..16].copy_from_slice(&seed.to_le_bytes());
        bytes[16..24].copy_from_slice(&(2 * microbatch).to_le_bytes());
        bytes[24..].copy_from_slice(b"dropout\0");
        Self { generator: Some(Pcg64::from_seed(bytes)) }
    }

    /// Whether masks are drawn at all.
    pub fn is_active(&self) -> bool {
        self.generator.is_some()
    }

    /// Sets each element to 0 with probability `pdrop` and scales the rest by `1 / (1 - pdrop)`.
    ///
    /// # Shapes
    ///
    /// Any shape; the output has the input's.
    pub fn apply<const D: usize>(&mut self, x: Tensor<D>, pdrop: f64) -> Tensor<D> {
        let Some(generator) = self.generator.as_mut().filter(|_| pdrop > 0.0) else { return x };
        // Kept when the upper 53 bits, as a fraction of 1, are at or above pdrop.
        let threshold = (pdrop * (1u64 << 53) as f64) as u64;
        let kept = (1.0 / (1.0 - pdrop)) as f32;
        let shape = x.dims();
        let mask: Vec<f32> = (0..shape.iter().product())
            .map(|_| if generator.next_u64() >> 11 >= threshold { kept } else { 0.0 })
            .collect();
        let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), &x.device());
        let mask = mask.cast(FloatDType::from(x.dtype()));
        x * mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn dropped(mut dropout: Dropout, pdrop: f64) -> Vec<f32> {
        let ones = Tensor::<2>::ones([100, 100], &Device::flex());
        dropout.apply(ones, pdrop).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn drops_the_given_share_and_keeps_the_mean() {
        let values = dropped(Dropout::training(17, 3, 0), 0.25);
        let zeros = values.iter().filter(|&&v| v == 0.0).count();
        assert!((2300..2700).contains(&zeros), "{zeros} of 10000 dropped at pdrop 0.25");
        assert!(values.iter().all(|&v| v == 0.0 || v == 1.0 / 0.75));
    }

    #[test]
    fn masks_depend_on_seed_batch_and_microbatch_only() {
        let mask = |seed, batch, micro| dropped(Dropout::training(seed, batch, micro), 0.5);
        assert_eq!(mask(1, 2, 3), mask(1, 2, 3));
        assert_ne!(mask(1, 2, 3), mask(2, 2, 3));
        assert_ne!(mask(1, 2, 3), mask(1, 3, 3));
        for micro in 0..4 {
            assert_ne!(mask(1, 2, micro), mask(1, 2, micro + 1));
        }
    }

    #[test]
    fn off_and_zero_leave_the_values() {
        assert!(dropped(Dropout::off(), 0.5).iter().all(|&v| v == 1.0));
        assert!(dropped(Dropout::training(1, 1, 1), 0.0).iter().all(|&v| v == 1.0));
    }
}
