// e^x and the functions made of it, to a few units in the last place at any x. WGSL's own exp may be off by 3 + 2|x| units,
// its tanh overflows on some drivers, and both may give anything beyond the range of f32.

#include numbers

const LOG2_E = 1.44269504f;
// ln 2 in two parts; a whole number of at most 15 bits times the first is exact.
const LN2_HIGH = 0.693359375f;
const LN2_LOW = -2.12194440e-4f;

// 2^n, for a whole n from -126 to 127.
fn power_of_two(n: f32) -> f32 {
  return bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// 2^n e^r for |r| <= 0.36 and whole n from -252 to 254; Infinity or 0 beyond the range of f32.
fn scaled_exp(r: f32, n: f32) -> f32 {
  // The power series: the ninth term is below 10^-8.
  let tail = fma(fma(fma(fma(r, 1.0 / 5040.0, 1.0 / 720.0), r, 1.0 / 120.0), r, 1.0 / 24.0), r, 1.0 / 6.0);
  let e = fma(fma(fma(tail, r, 0.5), r, 1.0), r, 1.0);
  let half = floor(n * 0.5);
  return e * power_of_two(half) * power_of_two(n - half);
}

fn exact_exp(x: f32) -> f32 {
  if (is_nan(x)) {
    return x;
  }
  let bounded = clamp(x, -105.0, 89.0);
  let n = round(bounded * LOG2_E);
  return scaled_exp(fma(n, -LN2_LOW, fma(n, -LN2_HIGH, bounded)), n);
}

// 1 / (1 + e^-x), with nothing lost where it is almost 0.
fn sigmoid(x: f32) -> f32 {
  let e = exact_exp(-abs(x));
  return select(1.0, e, x < 0.0) / (1.0 + e);
}

// x sigmoid(x); 0 at minus infinity.
fn silu(x: f32) -> f32 {
  return select(x, -88.0, x < -88.0) * sigmoid(x);
}

// log(1 + e^x) = max(x, 0) + 2 artanh(e / (2 + e)) with e = e^-|x|: a series of positive terms, of ratio below 1/9.
fn softplus(x: f32) -> f32 {
  let e = exact_exp(-abs(x));
  let s = e / (2.0 + e);
  let z = s * s;
  let high = fma(fma(fma(z, 1.0 / 15.0, 1.0 / 13.0), z, 1.0 / 11.0), z, 1.0 / 9.0);
  let series = fma(fma(fma(fma(high, z, 1.0 / 7.0), z, 1.0 / 5.0), z, 1.0 / 3.0), z, 1.0);
  return select(0.0, x, x > 0.0) + 2.0 * s * series;
}

// Near 0 the continued fraction of Lambert, to its fourth step; elsewhere 1 - 2 / (e^2x + 1).
fn exact_tanh(x: f32) -> f32 {
  if (is_nan(x)) {
    return x;
  }
  let z = x * x;
  if (z < 0.4) {
    return x * fma(z + 105.0, z, 945.0) / fma(fma(z, 15.0, 420.0), z, 945.0);
  }
  let magnitude = 1.0 - 2.0 / (exact_exp(2.0 * min(abs(x), 10.0)) + 1.0);
  return select(magnitude, -magnitude, x < 0.0);
}

// Near 0 the power series (Abramowitz and Stegun 7.1.5); elsewhere their 7.1.26, whose error is below 1.5e-7.
fn erf(x: f32) -> f32 {
  if (is_nan(x)) {
    return x;
  }
  let z = x * x;
  if (z < 1.0) {
    let high = fma(fma(fma(fma(z, -1.0 / 6894720.0, 1.0 / 685440.0), z, -1.0 / 75600.0), z, 1.0 / 9360.0), z, -1.0 / 1320.0);
    let series = fma(fma(fma(fma(fma(high, z, 1.0 / 216.0), z, -1.0 / 42.0), z, 0.1), z, -1.0 / 3.0), z, 1.0);
    return 1.12837917 * x * series;
  }
  let a = min(abs(x), 4.0);
  let t = 1.0 / fma(0.3275911, a, 1.0);
  let sum = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592) * t;
  let magnitude = 1.0 - sum * exact_exp(-a * a);
  return select(magnitude, -magnitude, x < 0.0);
}
