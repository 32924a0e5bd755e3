// Infinity and NaN: WGSL has no names for them, and a compiler may assume that they do not occur; bits are not touched by that.

// Not constants, which may be neither.
var<private> infinity_bits: u32 = 0x7f800000u;
var<private> nan_bits: u32 = 0x7fc00000u;

fn infinity() -> f32 {
  return bitcast<f32>(infinity_bits);
}

fn nan() -> f32 {
  return bitcast<f32>(nan_bits);
}

fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
