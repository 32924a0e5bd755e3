// What all parameters of one AdamW step share (arXiv 1711.05101, algorithm 2), from device-held numbers, and the step's count.
// out: 1 or, where the norm is not finite, 0; the gradients' factor; lr / (1 - beta1^t); 1 / sqrt(1 - beta2^t); lr.

#include exponential

// e^x - 1 for x <= 0, with nothing lost near 0: there by the power series, whose tenth term is below 10^-9.
fn less_one(x: f32) -> f32 {
  if (x < -0.5) {
    return exact_exp(x) - 1.0;
  }
  var sum = 1.0;
  for (var n = 9.0; n >= 2.0; n -= 1.0) {
    sum = fma(sum, x / n, 1.0);
  }
  return x * sum;
}

@compute @workgroup_size(1)
fn main() {
  let finite = (bitcast<u32>($norm[u.norm_at]) & 0x7f800000u) != 0x7f800000u;
  $out[u.out_at] = f32(finite);
  if (!finite) {
    return;
  }
  let t = $step[u.step_at] + 1;
  $step[u.step_at] = t;
  let lr = $lr[u.lr_at];
  $out[u.out_at + 1u] = $scale[u.scale_at];
  $out[u.out_at + 2u] = lr / -less_one(f32(t) * u.log_beta1);
  $out[u.out_at + 3u] = 1.0 / sqrt(-less_one(f32(t) * u.log_beta2));
  $out[u.out_at + 4u] = lr;
}
