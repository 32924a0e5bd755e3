// What a convolution reads, for `column`: a channel, or four. Weights are (C, W) and states (B, C, W), read one by one.

#include items

#if fours
fn weight_of(column: u32, tap: u32) -> item {
  let at = u.weight_at + 4u * column * width + tap;
  return vec4f($weight[at], $weight[at + width], $weight[at + 2u * width], $weight[at + 3u * width]);
}
#else
fn weight_of(column: u32, tap: u32) -> item {
  return $weight[u.weight_at + column * width + tap];
}
#endif

fn weights_of(column: u32) -> array<item, width> {
  var weights: array<item, width>;
#repeat k width
  weights[@k] = weight_of(column, @k);
#endrepeat
  return weights;
}

fn bias_of(column: u32) -> item {
#if HAS_bias
  return $bias[u.bias_at + column];
#else
  return item(0.0);
#endif
}

// The input of token t; of the row's last one where the row is shorter.
fn input_of(b: u32, column: u32, t: u32) -> item {
  return $x[u.x_at + (b * u.length + min(t, u.length - 1u)) * u.x_pitch + column];
}

// The same, or for t < 0 what came before the row's first token.
fn input_at(b: u32, column: u32, t: i32) -> item {
  if (t >= 0) {
    return input_of(b, column, u32(t));
  }
#if HAS_initialState
  let slot = u32(i32(width) + t);
#if fours
  let at = u.initialState_at + (b * u.columns + column) * 4u * width + slot;
  return vec4f(
    $initialState[at], $initialState[at + width], $initialState[at + 2u * width], $initialState[at + 3u * width]);
#else
  return $initialState[u.initialState_at + (b * u.columns + column) * width + slot];
#endif
#else
  return item(0.0);
#endif
}
