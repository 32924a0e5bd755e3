// The gradient of a convolution's initial state, one thread to each channel of a row: from the row's first tokens, as far as they see
// the state, and from the part of the state that the final state still holds.

#include grid
#include conv-reach
#include conv-inputs
#if silu_after
#include gate
#endif

// dL / d(sum of token t), whose sequence begins with the row.
fn slope_at(b: u32, channel: u32, t: i32) -> f32 {
#if HAS_dy
  let dy = $dy[u.dy_at + (b * u.length + u32(t)) * u.dy_pitch + channel];
#if silu_after
  var sum = bias_of(channel);
  for (var k = 0u; k < width; k++) {
    sum += weight_of(channel, k) * input_at(b, channel, t - i32(width - 1u - k));
  }
  return dy * silu_slope(sum);
#else
  return dy;
#endif
#else
  return 0.0;
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let place = linear_group(group, groups) * 256u + lane;
  if (place >= u.batch * u.columns) {
    return;
  }
  let b = place / u.columns;
  let channel = place - b * u.columns;
  let end = end_of(b);
  var gradients: array<f32, width>;
#if HAS_dfinalState
  // What lies before the first token, where the last sequence, being the first too, is shorter than the state.
  var is_first = true;
  if (end > 0u) {
    is_first = reach_of(b, end - 1u) == i32(end) - 1;
  }
  if (is_first) {
    for (var slot = 0u; slot + end < width; slot++) {
      gradients[slot + end] = $dfinalState[u.dfinalState_at + place * width + slot];
    }
  }
#endif
  for (var t = 0u; t < min(end, width - 1u); t++) {
    if (reach_of(b, t) == i32(t)) {
      let slope = slope_at(b, channel, i32(t));
      for (var k = 0u; k + t < width - 1u; k++) {
        gradients[k + t + 1u] += weight_of(channel, k) * slope;
      }
    }
  }
  for (var slot = 0u; slot < width; slot++) {
    $dinitialState[u.dinitialState_at + place * width + slot] = gradients[slot];
  }
}
