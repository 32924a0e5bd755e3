// The square root. Some drivers take x / sqrt x for it, which is NaN at 0 and at Infinity.

fn root(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  return select(sqrt(x), x, (bits & 0x7fffffffu) == 0u || bits == 0x7f800000u);
}
