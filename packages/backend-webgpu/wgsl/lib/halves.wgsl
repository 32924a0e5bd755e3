// Half precision, bf16 and f16, from and to f32, rounded to nearest, ties to even: in whole numbers, because what a device's own
// conversion does to a tie, a subnormal number or a NaN is left open.

#include numbers

fn f32_of_bf16(bits: u32) -> f32 {
  return bitcast<f32>(bits << 16u);
}

fn bf16_of_f32(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if (is_nan(x)) {
    return (bits >> 16u) | 0x40u;
  }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

fn f32_of_f16(bits: u32) -> f32 {
  let sign = (bits & 0x8000u) << 16u;
  let magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return bitcast<f32>(sign | 0x7f800000u | (magnitude << 13u));
  }
  if (magnitude < 0x400u) {
    // Multiples of 2^-24.
    return bitcast<f32>(bitcast<u32>(f32(magnitude) * 5.9604645e-8) | sign);
  }
  return bitcast<f32>(sign | ((magnitude << 13u) + 0x38000000u));
}

fn f16_of_f32(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u;
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude < 0x38800000u) {
    // Below 2^-14: multiples of 2^-24, of which the bits that do not fit are rounded away.
    if (magnitude < 0x33000000u) {
      return sign;
    }
    let shift = 126u - (magnitude >> 23u);
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let floor_part = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    return sign | (floor_part + u32(rest > tie || (rest == tie && (floor_part & 1u) == 1u)));
  }
  return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u);
}
