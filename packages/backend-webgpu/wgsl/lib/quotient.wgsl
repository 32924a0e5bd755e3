// a / b. WGSL promises nothing where |b| is above 2^126, whose reciprocal some devices take for 0.

fn quotient(a: f32, b: f32) -> f32 {
  let scale = select(1.0, 0.25, abs(b) > 8.5e37);
  return (a * scale) / (b * scale);
}
