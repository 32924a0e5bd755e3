// The causal depthwise convolution (arXiv 2312.00752, section 3.4): y_t = act(bias + sum_k w_k x_{t-W+1+k}). A thread takes one item
// of channels and `tokens` tokens that follow one another, four at a time; 32 items side by side and 4 such pieces of time make a
// workgroup: few threads, because each needs many registers. The thread with a row's last token also writes the row's final state.

#include grid
#include conv-window
#if silu_after
#include gate
#endif

fn store_output(b: u32, column: u32, t: u32, window: Window, weights: Window, bias: item) {
  let reach = reach_of(b, t);
  var sum = weighted(seen(window, t, reach), weights, bias);
#if silu_after
  sum = silu(sum);
#endif
  if (t < u.length) {
    $y[u.y_at + (b * u.length + t) * u.y_pitch + column] = select(sum, item(0.0), reach < 0);
  }
}

fn store_state(b: u32, column: u32, slot: u32, value: item) {
#if fours
  let at = u.finalState_at + (b * u.columns + column) * 4u * width + slot;
  $finalState[at] = value.x;
  $finalState[at + width] = value.y;
  $finalState[at + 2u * width] = value.z;
  $finalState[at + 3u * width] = value.w;
#else
  $finalState[u.finalState_at + (b * u.columns + column) * width + slot] = value;
#endif
}

// The last `width` inputs of the row's last sequence, and what came before the row where it is shorter.
fn store_states(b: u32, column: u32, end: u32) {
  let last = i32(end) - 1;
  var reach = -1;
  if (end > 0u) {
    reach = reach_of(b, end - 1u);
  }
  for (var slot = 0u; slot < width; slot++) {
    let back = i32(width - 1u - slot);
    var value = item(0.0);
    if (sees(last, reach, back)) {
      value = input_at(b, column, last - back);
    }
    store_state(b, column, slot, value);
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let block = id / u.column_tiles;
  let column = (id - block * u.column_tiles) * 32u + lane % 32u;
  let piece = block * 4u + lane / 32u;
  let b = piece / u.pieces;
  if (column >= u.columns || b >= u.batch) {
    return;
  }
  let first = (piece - b * u.pieces) * tokens;

  let weights = weights_of(column);
  let bias = bias_of(column);
  var window = window_before(b, column, first);
  for (var t = first; t < first + tokens; t += 4u) {
    // Four tokens are read before the first is used.
    let x0 = input_of(b, column, t);
    let x1 = input_of(b, column, t + 1u);
    let x2 = input_of(b, column, t + 2u);
    let x3 = input_of(b, column, t + 3u);
    shift(&window, x0);
    store_output(b, column, t, window, weights, bias);
    shift(&window, x1);
    store_output(b, column, t + 1u, window, weights, bias);
    shift(&window, x2);
    store_output(b, column, t + 2u, window, weights, bias);
    shift(&window, x3);
    store_output(b, column, t + 3u, window, weights, bias);
  }

  let end = end_of(b);
  let last = max(end, 1u) - 1u;
  if (last >= first && last < first + tokens) {
    store_states(b, column, end);
  }
}
