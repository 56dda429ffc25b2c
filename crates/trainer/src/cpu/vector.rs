//! Passes over rows of numbers, in the widest instructions that the processor has.
//!
//! The functions are plain loops, which the compiler turns into vector code once for each instruction set; [`vectorized`]
//! takes the best. Sums are kept in [`LANES`] parts, in which order does not matter to the compiler, or to the result.

use rayon::prelude::*;

/// Partial sums.
const LANES: usize = 32;

/// Numbers that one thread works on at a time: a few pages, so that a row of threads share even short tensors.
pub(super) const PIECE: usize = 1 << 14;

/// Runs `loops` compiled for this processor.
#[inline(always)]
pub(super) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

/// How many rows of `columns` numbers a thread takes at a time.
pub(super) fn rows_of_a_piece(columns: usize) -> usize {
    PIECE.div_ceil(columns.max(1)).max(1)
}

/// `Σ f(xᵢ)`
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f(*x);
        }
    }
    sums.into_iter().sum::<f32>() + rest.iter().map(|x| f(*x)).sum::<f32>()
}

/// `Σ f(xᵢ, yᵢ)`
#[inline(always)]
pub(super) fn sum_of_pairs(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((chunks, rest), (others, other_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (chunk, other) in chunks.iter().zip(others) {
        for ((sum, x), y) in sums.iter_mut().zip(chunk).zip(other) {
            *sum += f(*x, *y);
        }
    }
    let rest = rest.iter().zip(other_rest).map(|(x, y)| f(*x, *y));
    sums.into_iter().sum::<f32>() + rest.sum::<f32>()
}

/// The largest number; -∞ of none.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, x) in largest.iter_mut().zip(chunk) {
            *largest = if *x > *largest { *x } else { *largest };
        }
    }
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    rest.iter().fold(largest.iter().fold(f32::NEG_INFINITY, larger), larger)
}

/// Sums of the columns of `[rows, columns]`.
pub(super) fn column_sums(numbers: &[f32], columns: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = numbers
        .par_chunks(rows_of_a_piece(columns).max(16) * columns)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            vectorized(|| rows.chunks_exact(columns).for_each(|row| add(&mut sums, row)));
            sums
        })
        .collect();
    sum_of_parts(parts, columns)
}

/// The sum of vectors of `len` numbers, in their order.
pub(super) fn sum_of_parts(parts: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_else(|| vec![0.0; len]);
    parts.fold(first, |mut sum, part| {
        vectorized(|| add(&mut sum, &part));
        sum
    })
}

/// `sum += x`
#[inline(always)]
pub(super) fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// eˣ, to some 2 units in the last place; 0 below e⁻⁸⁷ and finite above e⁸⁸.
///
/// With x = n·ln 2 + r, eˣ = 2ⁿ·eʳ, and eʳ for |r| ≤ ln 2 / 2 by the first terms of its series.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// 1.5·2²³: what is added to it is rounded to a whole number, which are its last bits then.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let clamped = x.clamp(-87.0, 88.0);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2[0] - n * LN_2[1];
    let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let of_r = polynomial(series, r);
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    if x < -87.0 { 0.0 } else { of_r * f32::from_bits(exponent << 23) }
}

/// The share of a standard normal distribution below x, to 3e-7, and `e^(−x²/2)`, which it needs.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> [f32; 2] {
    // With erfc(z) = P(t)·e^(−z²), t = 1 / (1 + p·z): Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    const P: [f32; 6] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6, 0.0];
    const SMALL_P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp(-0.5 * x * x);
    let outside = 0.5 * polynomial(P, 1.0 / (1.0 + SMALL_P * x.abs())) * bell;
    [if x < 0.0 { outside } else { 1.0 - outside }, bell]
}

/// `cₙ + x·(cₙ₋₁ + x·(…))`, the highest power first.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    coefficients.into_iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units_in_the_last_place() {
        let worst = (-870_000..880_000).map(|i| i as f32 * 1e-4).map(|x| {
            let expected = f64::from(x).exp();
            (f64::from(exp(x)) - expected).abs() / expected
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!([exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert!(exp(1e9).is_finite() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_is_exact_to_3e_7() {
        // The integral of the bell from 0 by its series, which converges everywhere.
        let exact = |x: f64| {
            let mut term = x;
            let terms = (1..300).map(|n| {
                let this = term / f64::from(2 * n - 1);
                term *= -0.5 * x * x / f64::from(n);
                this
            });
            0.5 + terms.sum::<f64>() / std::f64::consts::TAU.sqrt()
        };
        let xs = (-60_000..60_000).map(|i| i as f32 * 1e-4);
        let worst = xs.map(|x| (f64::from(normal_cdf(x)[0]) - exact(x.into())).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 3.5e-7, "{worst}");
        assert_eq!([normal_cdf(20.0), normal_cdf(-20.0)], [[1.0, 0.0], [0.0, 0.0]]);
        assert!(normal_cdf(f32::NAN)[0].is_nan());
    }

    #[test]
    fn sums_and_largest_numbers_take_in_the_rest_of_a_row() {
        let x: Vec<f32> = (0..77).map(|i| i as f32 - 20.0).collect();
        assert_eq!(sum(&x, |x| x), x.iter().sum::<f32>());
        assert_eq!(sum_of_pairs(&x, &x, |x, y| x * y), x.iter().map(|x| x * x).sum::<f32>());
        assert_eq!((max(&x), max(&[])), (56.0, f32::NEG_INFINITY));
        assert_eq!(
            column_sums(&x, 7),
            (0..7).map(|c| (0..11).map(|r| x[r * 7 + c]).sum()).collect::<Vec<f32>>()
        );
    }
}
