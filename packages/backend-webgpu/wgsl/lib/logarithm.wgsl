// log x and a^b. WGSL's own log is bad near 1, and its pow knows no negative base.

#include numbers
#include exponential

const SQRT_HALF_BITS = 0x3f3504f3u;

// x > 0, finite, as 2^exponent m with m from sqrt(1/2) to sqrt 2; and log m.
struct Logarithm { exponent: f32, log_m: f32 }

fn logarithm(x: f32) -> Logarithm {
  let bits = bitcast<u32>(x);
  // Below 2^-126 the bits count multiples of 2^-149.
  let tiny = bits < 0x00800000u;
  let normal = select(bits, bitcast<u32>(f32(bits)), tiny);
  let exponent = bitcast<i32>(normal - SQRT_HALF_BITS) >> 23u;
  let m = bitcast<f32>(normal - (bitcast<u32>(exponent) << 23u));
  // log m = 2 artanh((m - 1) / (m + 1)); the ratio is at most 0.172.
  let s = (m - 1.0) / (m + 1.0);
  let z = s * s;
  let series = fma(fma(fma(fma(z, 1.0 / 9.0, 1.0 / 7.0), z, 1.0 / 5.0), z, 1.0 / 3.0) * z, s, s);
  return Logarithm(f32(exponent - select(0, 149, tiny)), 2.0 * series);
}

fn exact_log(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) == 0u) {
    return -infinity();
  }
  if (bits > 0x80000000u) {
    return nan();
  }
  if (bits >= 0x7f800000u) {
    return x;
  }
  let parts = logarithm(x);
  return fma(parts.exponent, LN2_HIGH, fma(parts.exponent, LN2_LOW, parts.log_m));
}

// a^b as JavaScript defines it: NaN for a negative base and a fraction, for 1 or -1 and an infinite exponent, and for NaN.
fn exact_pow(a: f32, b: f32) -> f32 {
  if (b == 0.0) {
    return 1.0;
  }
  if (is_nan(a) || is_nan(b)) {
    return nan();
  }
  let base = abs(a);
  let whole = b == trunc(b);
  let odd = whole && abs(b) < 16777216.0 && (i32(b) & 1) != 0;
  let sign = select(1.0, -1.0, odd && bitcast<i32>(a) < 0);
  if (base == 0.0 || bitcast<u32>(base) == 0x7f800000u) {
    return sign * select(infinity(), 0.0, (b > 0.0) == (base == 0.0));
  }
  if (a < 0.0 && !whole) {
    return nan();
  }
  let parts = logarithm(base);
  let power = b * fma(parts.log_m, LOG2_E, parts.exponent);
  if (is_nan(power)) {
    return power;
  }
  // 2^n e^r, where the product of b with the exponent of a is exact.
  let n = round(clamp(power, -160.0, 160.0));
  if (abs(power) > 160.0) {
    return sign * scaled_exp(0.0, n);
  }
  return sign * scaled_exp(fma(fma(b, parts.exponent, -n), LN2_HIGH + LN2_LOW, b * parts.log_m), n);
}
