//! Which device trains, chosen at run time from what this build supports and this machine has.

use std::fmt::Write as _;

use burn::tensor::{Device, FloatDType};

use crate::config::{DeviceChoice, Precision};
use crate::error::{Error, Result};

const NOT_COMPILED: &str = "device: cuda was asked for, but this build has no CUDA support; \
                            build with `--features cuda`, or choose the device cpu";
const NOT_FOUND: &str = "device: cuda was asked for, but no CUDA device was found; \
                         check the driver with nvidia-smi, or choose the device cpu";

/// The device that `choice` means here, without autodiff.
///
/// Devices are listed, never guessed: touching an absent CUDA device panics in a worker thread of the runtime.
///
/// # Errors
///
/// CUDA was asked for and is not compiled in or not present.
pub fn select(choice: DeviceChoice) -> Result<Device> {
    let first_cuda = cuda_devices().into_iter().next();
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Auto => Ok(first_cuda.unwrap_or_else(Device::flex)),
        DeviceChoice::Cuda if !cfg!(feature = "cuda") => Err(Error::Device(NOT_COMPILED.into())),
        DeviceChoice::Cuda => first_cuda.ok_or_else(|| Error::Device(NOT_FOUND.into())),
    }
}

/// Whether `device` is the CPU.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// The device's name: `cpu (flex, 2 threads)`, or what the driver calls the card.
pub fn name(device: &Device) -> String {
    if is_cpu(device) {
        return format!("cpu (flex, {} threads)", threads());
    }
    #[cfg(feature = "cuda")]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    format!("{device:?}")
}

/// What matrix products are computed in, where the recipe asks for `precision`: parameters, moments, norms, softmax and
/// loss are fp32 always. A CPU has no half-precision arithmetic that would be quicker, and computes in fp32.
pub fn arithmetic(precision: Precision, device: &Device) -> FloatDType {
    match precision {
        Precision::AmpBf16 | Precision::AmpFp16 if !is_cpu(device) => FloatDType::BF16,
        _ => FloatDType::F32,
    }
}

/// What to say where [`arithmetic`] is not what the recipe asks for.
pub fn other_arithmetic(precision: Precision, device: &Device) -> Option<String> {
    match (precision, is_cpu(device)) {
        (Precision::Fp32, _) | (Precision::AmpBf16, false) => None,
        (_, true) => Some(format!("precision {precision}: the CPU computes in fp32")),
        (Precision::AmpFp16, false) => Some(
            "precision amp_fp16: bf16 is taken, which needs no scaling of the loss; amp_bf16 says so".to_owned(),
        ),
    }
}

/// Whether `problem`, which is what a device says of a failure, is that its memory is used up; there is no type for it
/// that reaches this far.
pub fn is_out_of_memory(problem: &str) -> bool {
    let problem = problem.to_lowercase();
    ["out of memory", "out-of-memory", "out of device memory", "outofmemory", "buffertoobig"]
        .iter()
        .any(|words| problem.contains(words))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What was compiled in and what was found, for `train --devices`.
pub fn report() -> String {
    let mut report = format!("cpu: compiled in (flex), {} threads\n", threads());
    let cuda = cuda_devices();
    let _ = match (cfg!(feature = "cuda"), cuda.len()) {
        (false, _) => writeln!(report, "cuda: not compiled in (build with --features cuda)"),
        (true, 0) => writeln!(report, "cuda: compiled in, no device found"),
        (true, n) => writeln!(report, "cuda: compiled in, {n} found: {cuda:?}"),
    };
    let chosen = if cuda.is_empty() { "cpu" } else { "cuda" };
    let _ = writeln!(report, "device: auto means {chosen} here");
    report
}

/// Has glibc keep freed blocks; for the first line of `main`. As a rule it hands large ones back to the system, which
/// maps and clears their pages anew at every step (measured in LOG.md). With another C library nothing is done.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST_KEPT: libc::c_int = 1 << 30;
        // SAFETY: mallopt takes two numbers and locks the allocator while it stores them. A refusal costs speed only.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Vec<Device> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn asking_for_cuda_without_it_is_one_clear_sentence() {
        assert_eq!(
            select(DeviceChoice::Cuda).unwrap_err().to_string(),
            "device: cuda was asked for, but this build has no CUDA support; \
             build with `--features cuda`, or choose the device cpu"
        );
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert!(is_cpu(&select(DeviceChoice::Cpu).unwrap()));
        assert!(report().starts_with("cpu: compiled in (flex), "));
    }
}
