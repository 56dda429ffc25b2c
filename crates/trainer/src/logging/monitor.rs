//! What is measured beside the loss: speed, utilisation, memory, time left. Pure arithmetic, fed by
//! the training loop.

use std::collections::VecDeque;

use super::Metric;
use crate::config::Precision;

/// Speed over a window of batches: samples, tokens and floating-point operations per second.
///
/// ```
/// use trainer::logging::monitor::SpeedMonitor;
///
/// let mut speed = SpeedMonitor::new(2, 6.0e9, None);
/// assert!(speed.step_done(1.0, 8, 1024).is_none());
/// assert!(speed.step_done(2.0, 8, 1024).is_none());
/// let measured = speed.step_done(3.0, 8, 1024).unwrap();
/// assert_eq!(measured.tokens_per_sec, 1024.0);
/// assert_eq!(measured.flops_per_sec, 8.0 * 6.0e9);
/// assert_eq!(measured.mfu, None);
/// ```
#[derive(Clone, Debug)]
pub struct SpeedMonitor {
    window: usize,
    flops_per_sample: f64,
    peak_flops: Option<f64>,
    /// Per finished step: training seconds so far, and what it consumed.
    steps: VecDeque<(f64, u64, u64)>,
}

/// What [`SpeedMonitor`] measured over its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Optimizer steps per second.
    pub batches_per_sec: f64,
    /// Rows per second.
    pub samples_per_sec: f64,
    /// Tokens per second.
    pub tokens_per_sec: f64,
    /// The model's floating-point operations per second.
    pub flops_per_sec: f64,
    /// The share of the device's peak, where that is known.
    pub mfu: Option<f64>,
}

impl SpeedMonitor {
    /// Averages over `window` steps. `flops_per_sample` is
    /// [`ModelConfig::train_flops_per_sequence`](crate::config::ModelConfig::train_flops_per_sequence);
    /// `peak_flops` is the device's peak (see [`peak_flops`]).
    pub fn new(window: usize, flops_per_sample: f64, peak_flops: Option<f64>) -> Self {
        Self { window, flops_per_sample, peak_flops, steps: VecDeque::new() }
    }

    /// Counts a step; `train_seconds` is the time spent training so far, evaluation left out. The
    /// answer comes once the window is full.
    pub fn step_done(&mut self, train_seconds: f64, samples: u64, tokens: u64) -> Option<Speed> {
        self.steps.push_back((train_seconds, samples, tokens));
        if self.steps.len() <= self.window {
            return None;
        }
        // The oldest step only marks the start of the window: what it consumed came before.
        let (since, ..) = self.steps.pop_front()?;
        let seconds = train_seconds - since;
        if seconds <= 0.0 {
            return None;
        }
        let sum = |count: fn(&(f64, u64, u64)) -> u64| {
            self.steps.iter().map(count).sum::<u64>() as f64 / seconds
        };
        let samples_per_sec = sum(|step| step.1);
        let flops_per_sec = samples_per_sec * self.flops_per_sample;
        Some(Speed {
            batches_per_sec: self.steps.len() as f64 / seconds,
            samples_per_sec,
            tokens_per_sec: sum(|step| step.2),
            flops_per_sec,
            mfu: self.peak_flops.map(|peak| flops_per_sec / peak),
        })
    }
}

impl Speed {
    /// Under the names of the reference: `throughput/tokens_per_sec` and its like, and for each of `devices` under
    /// `throughput/device/`.
    pub fn metrics(&self, devices: usize) -> Vec<Metric<'static>> {
        let per_device = 1.0 / devices as f64;
        let mut metrics = vec![
            ("throughput/batches_per_sec", self.batches_per_sec.into()),
            ("throughput/samples_per_sec", self.samples_per_sec.into()),
            ("throughput/tokens_per_sec", self.tokens_per_sec.into()),
            ("throughput/flops_per_sec", self.flops_per_sec.into()),
            ("throughput/device/batches_per_sec", (self.batches_per_sec * per_device).into()),
            ("throughput/device/samples_per_sec", (self.samples_per_sec * per_device).into()),
            ("throughput/device/tokens_per_sec", (self.tokens_per_sec * per_device).into()),
            ("throughput/device/flops_per_sec", (self.flops_per_sec * per_device).into()),
        ];
        if let Some(mfu) = self.mfu {
            metrics.push(("throughput/device/mfu", mfu.into()));
        }
        metrics
    }
}

/// Time spent so far in hours: `time/train`, `time/val` and `time/total`.
pub fn hours(train_seconds: f64, eval_seconds: f64) -> Vec<Metric<'static>> {
    vec![
        ("time/train", (train_seconds / 3600.0).into()),
        ("time/val", (eval_seconds / 3600.0).into()),
        ("time/total", ((train_seconds + eval_seconds) / 3600.0).into()),
    ]
}

/// The peak of a device in floating-point operations per second (dense), where its name and the
/// precision are known; `None` otherwise, and then no MFU can be given.
///
/// With fp32 the matrix products of these devices run as TF32.
pub fn peak_flops(device_name: &str, precision: Precision) -> Option<f64> {
    let name = device_name.to_lowercase();
    // Whole words: an RTX A1000 is no A100.
    let has = |word: &str| name.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
    // (half precision, TF32)
    let (half, tf32) = if has("h100") && (has("pcie") || has("hbm2e")) {
        (756.5e12, Some(378e12))
    } else if (has("h100") && !has("nvl")) || has("h200") {
        (989.5e12, Some(494.5e12))
    } else if has("a100") {
        (312e12, Some(156e12))
    } else if has("a10") {
        (125e12, Some(62.5e12))
    } else if has("v100") && precision == Precision::AmpFp16 {
        (125e12, None)
    } else if has("t4") && precision == Precision::AmpFp16 {
        (65e12, None)
    } else {
        return None;
    };
    match precision {
        Precision::AmpBf16 | Precision::AmpFp16 => Some(half),
        Precision::Fp32 => tf32,
    }
}

/// The memory of this process: what is resident now, and the most that ever was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Resident now, in GB (10⁹ bytes).
    pub current_gb: f64,
    /// The most so far, in GB.
    pub peak_gb: f64,
}

impl Memory {
    /// Asks the operating system; `None` where it does not say (it does on Linux).
    pub fn of_this_process() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Reads `VmRSS` and `VmHWM`, in kibibytes, from the text of `/proc/PID/status`.
    fn parse(status: &str) -> Option<Self> {
        let gigabytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib: f64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024.0 / 1e9)
        };
        Some(Self { current_gb: gigabytes("VmRSS")?, peak_gb: gigabytes("VmHWM")? })
    }

    /// `memory/current_resident_mem` and `memory/peak_resident_mem`, in GB.
    pub fn metrics(&self) -> Vec<Metric<'static>> {
        vec![
            ("memory/current_resident_mem", self.current_gb.into()),
            ("memory/peak_resident_mem", self.peak_gb.into()),
        ]
    }
}

/// The memory of a GPU: what its pool holds now, and the most at the end of any step so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceMemory {
    peak: [u64; 4],
}

impl DeviceMemory {
    /// The reference's names of what [`see`](Self::see) is given.
    const CURRENT: [&str; 4] = [
        "memory/current_allocated_mem",
        "memory/current_active_mem",
        "memory/current_inactive_mem",
        "memory/current_reserved_mem",
    ];
    const PEAK: [&str; 4] = [
        "memory/peak_allocated_mem",
        "memory/peak_active_mem",
        "memory/peak_inactive_mem",
        "memory/peak_reserved_mem",
    ];

    /// Takes in bytes in use, bytes that pad them, and bytes that the pool has reserved in all; gives the metrics, in GB
    /// (10⁹ bytes). What is in use with its padding is called active, and the rest of the pool inactive.
    pub fn see(&mut self, in_use: u64, padding: u64, reserved: u64) -> Vec<Metric<'static>> {
        let active = in_use + padding;
        let current = [in_use, active, reserved.saturating_sub(active), reserved];
        for (peak, current) in self.peak.iter_mut().zip(current) {
            *peak = current.max(*peak);
        }
        let gigabytes = |bytes: u64| (bytes as f64 / 1e9).into();
        let current = Self::CURRENT.into_iter().zip(current.map(gigabytes));
        current.chain(Self::PEAK.into_iter().zip(self.peak.map(gigabytes))).collect()
    }
}

/// Hours left, from the share of the run that this process has done and how long that took.
///
/// `start` and `now` are fractions of the whole run in [0, 1]; `None` before any progress.
pub fn remaining_hours(start: f64, now: f64, seconds: f64) -> Option<f64> {
    let done = now - start;
    (done > 0.0).then(|| seconds / done * (1.0 - now).max(0.0) / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_s_memory_is_logged_under_the_reference_s_names() {
        let mut memory = DeviceMemory::default();
        memory.see(3_000_000_000, 0, 8_000_000_000);
        let metrics = memory.see(1_000_000_000, 500_000_000, 4_000_000_000);
        let expected = [
            ("memory/current_allocated_mem", 1.0),
            ("memory/current_active_mem", 1.5),
            ("memory/current_inactive_mem", 2.5),
            ("memory/current_reserved_mem", 4.0),
            ("memory/peak_allocated_mem", 3.0),
            ("memory/peak_active_mem", 3.0),
            ("memory/peak_inactive_mem", 5.0),
            ("memory/peak_reserved_mem", 8.0),
        ];
        assert_eq!(metrics, expected.map(|(name, value)| (name, value.into())));
    }

    #[test]
    fn speed_is_averaged_over_the_window() {
        let mut speed = SpeedMonitor::new(3, 1e9, Some(1e11));
        let mut seen = Vec::new();
        for step in 1..=5_u32 {
            // Each step takes as many seconds as its number.
            let seconds = f64::from(step * (step + 1) / 2);
            seen.push(speed.step_done(seconds, 6, 600).map(|s| s.samples_per_sec));
        }
        assert_eq!(seen, [None, None, None, Some(18.0 / 9.0), Some(18.0 / 12.0)]);
        let last = speed.step_done(16.0, 12, 1200).unwrap();
        assert_eq!(last.samples_per_sec, 24.0 / 10.0);
        assert_eq!(last.tokens_per_sec, 240.0);
        assert_eq!(last.batches_per_sec, 0.3);
        assert_eq!(last.mfu, Some(2.4e9 / 1e11));
        let metrics = last.metrics(4);
        let value = |key: &str| metrics.iter().find(|(name, _)| *name == key).unwrap().1.clone();
        assert_eq!(value("throughput/tokens_per_sec"), 240.0.into());
        assert_eq!(value("throughput/device/tokens_per_sec"), 60.0.into());
        assert_eq!(value("throughput/device/flops_per_sec"), 0.6e9.into());
        assert_eq!(metrics.len(), 9);
    }

    #[test]
    fn time_is_given_in_hours() {
        assert_eq!(
            hours(5400.0, 1800.0),
            [("time/train", 1.5.into()), ("time/val", 0.5.into()), ("time/total", 2.0.into())]
        );
    }

    #[test]
    fn mfu_of_the_published_125m_row() {
        // 142.8k tokens/s on an A100 at 2048 tokens per sequence is published as 44.8 %.
        let flops_per_token = 0.978e9;
        let peak = peak_flops("NVIDIA A100-SXM4-80GB", Precision::AmpBf16).unwrap();
        assert!((142_800.0 * flops_per_token / peak - 0.448).abs() < 1e-3);
    }

    #[test]
    fn peaks_are_those_of_the_data_sheets() {
        for (name, precision, peak) in [
            ("NVIDIA H100 80GB HBM3", Precision::AmpBf16, Some(989.5e12)),
            ("NVIDIA H100 PCIe", Precision::AmpBf16, Some(756.5e12)),
            ("NVIDIA H200", Precision::Fp32, Some(494.5e12)),
            ("NVIDIA A100-SXM4-40GB", Precision::Fp32, Some(156e12)),
            ("NVIDIA H100 NVL", Precision::AmpBf16, None),
            ("NVIDIA RTX A1000", Precision::AmpBf16, None),
            ("NVIDIA A10", Precision::AmpBf16, Some(125e12)),
            ("NVIDIA A10G", Precision::AmpBf16, None),
            ("Tesla T4", Precision::AmpFp16, Some(65e12)),
            ("Tesla T4", Precision::AmpBf16, None),
            ("AMD EPYC", Precision::Fp32, None),
        ] {
            assert_eq!(peak_flops(name, precision), peak, "{name} {precision}");
        }
    }

    #[test]
    fn memory_is_read_from_the_kernel() {
        let text = "Name:\tx\nVmHWM:\t  2000000 kB\nVmRSS:\t 1000000 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.current_gb, memory.peak_gb), (1.024, 2.048));
        assert_eq!(Memory::parse("nothing"), None);
        if cfg!(target_os = "linux") {
            assert!(Memory::of_this_process().unwrap().current_gb > 0.0);
        }
    }

    #[test]
    fn time_left_is_by_this_processs_own_pace() {
        assert_eq!(remaining_hours(0.0, 0.0, 5.0), None);
        assert_eq!(remaining_hours(0.0, 0.25, 3600.0), Some(3.0));
        // Resumed at one half.
        assert_eq!(remaining_hours(0.5, 0.75, 1800.0), Some(0.5));
    }
}
