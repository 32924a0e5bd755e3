// The gradient of the causal convolution. A thread takes one item of channels and a run of tokens, forward in time: it makes each
// sum s_t again, and ds_t = dy_t act'(s_t); adds w_k ds_t to the gradient of each input that token t sees, of which the oldest is
// then complete; and adds ds_t x_{t-W+1+k} to the gradient of w_k, and ds_t to that of the bias. It goes width - 1 tokens beyond its
// run, whose gradients of weights belong to the next. 32 items side by side and 4 runs make a workgroup (few threads, because each
// needs many registers), which leaves one row of `partial`: (C, W) gradients of weights, then (C,) of the bias.

#include grid
#include conv-window
#include partial-sums
#if silu_after
#include gate
#endif

const threads = 128u;

// Tokens whose inputs' gradients a thread completes.
const run = steps - (width - 1u);

struct Piece {
  b: u32,
  column: u32,
  first: u32,
  inside: bool,
}

struct State {
  window: Window,
  // Of the inputs in the window, so far.
  gradients: Window,
  dweights: Window,
  dbias: item,
}

fn take_token(state: ptr<function, State>, piece: Piece, step: u32, x: item, dy: item, weights: Window, bias: item) {
  let t = piece.first + step;
  let reach = reach_of(piece.b, t);
  var window = (*state).window;
  shift(&window, x);
  var gradients = (*state).gradients;
  shift(&gradients, item(0.0));
  let inputs = seen(window, t, reach);
  var slope = dy;
#if silu_after
  slope *= silu_slope(weighted(inputs, weights, bias));
#endif
  slope = select(item(0.0), slope, piece.inside && t < u.length && reach >= 0);
  var parts: Window;
#repeat k width
  parts[@k] = weights[@k] * slope;
#endrepeat
  parts = seen(parts, t, reach);
#repeat k width
  gradients[@k] += parts[@k];
#endrepeat
  if (step < run) {
#repeat k width
    (*state).dweights[@k] += slope * inputs[@k];
#endrepeat
    (*state).dbias += slope;
  }
  (*state).window = window;
  (*state).gradients = gradients;
#if HAS_dx
  let complete = t - (width - 1u);
  if (piece.inside && step >= width - 1u && complete < u.length) {
    $dx[u.dx_at + (piece.b * u.length + complete) * u.dx_pitch + piece.column] = gradients[0];
  }
#endif
}

fn slope_of(piece: Piece, t: u32) -> item {
  return $dy[u.dy_at + (piece.b * u.length + min(t, u.length - 1u)) * u.dy_pitch + piece.column];
}

#if HAS_partial
fn store_partial(block: u32, column: u32, tap: u32, sum: item) {
  let row = u.partial_at + block * u.partial_pitch;
#if fours
  let channel = 4u * column;
  for (var c = 0u; c < 4u; c++) {
    let at = select((channel + c) * width + tap, 4u * u.columns * width + channel + c, tap == width);
    $partial[row + at] = sum[c];
  }
#else
  $partial[row + select(column * width + tap, u.columns * width + column, tap == width)] = sum;
#endif
}
#endif

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let block = id / u.column_tiles;
  let column = (id - block * u.column_tiles) * 32u + lane % 32u;
  let number = block * 4u + lane / 32u;
  let b = min(number / u.pieces, u.batch - 1u);
  let inside = column < u.columns && number < u.batch * u.pieces;
  let piece = Piece(b, min(column, u.columns - 1u), (number % u.pieces) * run, inside);

  let weights = weights_of(piece.column);
  let bias = bias_of(piece.column);
  var state: State;
  state.window = window_before(b, piece.column, piece.first);
  for (var step = 0u; step < steps; step += 4u) {
    // Four tokens are read before the first is used.
    let t = piece.first + step;
    let x0 = input_of(b, piece.column, t);
    let dy0 = slope_of(piece, t);
    let x1 = input_of(b, piece.column, t + 1u);
    let dy1 = slope_of(piece, t + 1u);
    let x2 = input_of(b, piece.column, t + 2u);
    let dy2 = slope_of(piece, t + 2u);
    let x3 = input_of(b, piece.column, t + 3u);
    let dy3 = slope_of(piece, t + 3u);
    take_token(&state, piece, step, x0, dy0, weights, bias);
    take_token(&state, piece, step + 1u, x1, dy1, weights, bias);
    take_token(&state, piece, step + 2u, x2, dy2, weights, bias);
    take_token(&state, piece, step + 3u, x3, dy3, weights, bias);
  }
#if HAS_partial
#repeat k width
  let sum_of_tap = sum_teams(state.dweights[@k], lane);
  if (lane < team && column < u.columns) {
    store_partial(block, column, @k, sum_of_tap);
  }
#endrepeat
  let sum = sum_teams(state.dbias, lane);
  if (lane < team && column < u.columns) {
    store_partial(block, column, width, sum);
  }
#endif
}
