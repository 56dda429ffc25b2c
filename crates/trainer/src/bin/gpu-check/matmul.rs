//! How many operations per second matrix products reach.

use std::time::Instant;

use burn::tensor::{Device, FloatDType, Tensor};
use serde_json::json;
use trainer::device;

#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub(super) struct Args {
    /// Rows of the left matrices: tokens of a microbatch
    #[arg(long, default_value_t = 16_384)]
    tokens: usize,
    /// Seconds for each product
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Columns of the right matrices and what is summed over, in the 125M model: `[tokens, k] · [k, n]`.
const SHAPES: [(&str, usize, usize); 5] = [
    ("c_attn", 2304, 768),
    ("attn.c_proj", 768, 768),
    ("c_fc", 3072, 768),
    ("mlp.c_proj", 768, 3072),
    ("head", 50_304, 768),
];

pub(super) fn measure(args: &Args, device: &Device) -> trainer::Result<()> {
    let types: &[FloatDType] = if device::is_cpu(device) {
        &[FloatDType::F32]
    } else {
        &[FloatDType::BF16, FloatDType::F32]
    };
    for &dtype in types {
        for (name, n, k) in SHAPES {
            let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, device).cast(dtype);
            let (a, b) = (ones([args.tokens, k]), ones([k, n]));
            // Kernels are chosen by trying them at first.
            let product = || a.clone().matmul(b.clone()); // [tokens, n]
            wait(product());
            let mut times = 0;
            let began = Instant::now();
            while began.elapsed().as_secs_f64() < args.seconds {
                (0..9).for_each(|_| drop(product()));
                wait(product());
                times += 10;
            }
            let seconds = began.elapsed().as_secs_f64() / f64::from(times);
            let operations = 2.0 * (args.tokens * n * k) as f64;
            crate::print(&json!({
                "check": "matmul", "name": name, "m": args.tokens, "n": n, "k": k, "dtype": format!("{dtype:?}"),
                "seconds": seconds, "tflops": operations / seconds / 1e12,
            }))?;
        }
    }
    Ok(())
}

/// Until it is computed.
fn wait(x: Tensor<2>) {
    let _ = x.narrow(0, 0, 1).narrow(1, 0, 1).into_data();
}
