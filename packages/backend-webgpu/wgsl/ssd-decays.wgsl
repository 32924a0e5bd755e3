// Makes the numbers of lib/ssd-decays.wgsl: sixteen heads in a piece of time to a workgroup. dt = clamp(softplus(dt + dtBias)).

#include grid
#include scan-pieces
#include exponential

const heads = 16u;
const width = 17u;

var<workgroup> steps: array<f32, 64 * 17>;
var<workgroup> sums: array<f32, 64 * 17>;
#if slopes
var<workgroup> dt_slopes: array<f32, 64 * 17>;
#endif
// Of each token: whether it begins a later sequence, and then the first token that it sees, and whether it sees what lies before.
var<workgroup> begins: array<u32, 64>;
var<workgroup> sight: array<u32, 64>;
var<workgroup> sees: array<u32, 64>;

#if softplus_dt
fn step_of(x: f32) -> f32 { return softplus(x); }
fn slope_of(x: f32) -> f32 { return sigmoid(x); }
#else
fn step_of(x: f32) -> f32 { return x; }
fn slope_of(x: f32) -> f32 { return 1.0; }
#endif

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  if (id >= u.batch * u.pieces * u.head_tiles) {
    return;
  }
  let number = id / u.head_tiles;
  let head0 = (id - number * u.head_tiles) * heads;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  var count = piece.size;
#if HAS_lengths
  let end = u32(clamp($lengths[u.lengths_at + piece.b], 0, i32(u.length)));
  count = clamp(end, piece.first, piece.first + piece.size) - piece.first;
#endif
  if (lane < 64u) {
    var starts = 0u;
#if HAS_seqIdx
    let t = piece.first + lane;
    if (lane < count && t > 0u) {
      let at = u.seqIdx_at + token0 + lane;
      starts = u32($seqIdx[at] != $seqIdx[at - min(t, 1u)]);
    }
#endif
    begins[lane] = starts;
    sight[lane] = 64u;
    sees[lane] = 0u;
  }
  for (var i = lane; i < 64u * heads; i += 256u) {
    let t = i / heads;
    let head = head0 + i % heads;
    let at = t * width + i % heads;
    steps[at] = 0.0;
    sums[at] = 0.0;
#if slopes
    dt_slopes[at] = 0.0;
#endif
    if (t < count && head < u.heads) {
      var value = $dt[u.dt_at + (token0 + t) * u.dt_pitch + head];
#if HAS_dtBias
      value += $dtBias[u.dtBias_at + head];
#endif
      let step = step_of(value);
      // NaN stays, which `max` and `min` may lose.
      steps[at] = select(min(max(step, u.low), u.high), step, is_nan(step));
#if slopes
      if (step >= u.low && step <= u.high) {
        dt_slopes[at] = slope_of(value);
      }
#endif
    }
  }
  workgroupBarrier();
  if (lane < heads && head0 + lane < u.heads) {
    let A = $A[u.A_at + head0 + lane];
    var sum = 0.0;
    for (var t = 0u; t < count; t++) {
      let own = steps[t * width + lane] * A;
      sum = select(sum + own, own, begins[t] == 1u);
      sums[t * width + lane] = sum;
    }
  }
  if (lane == 255u) {
    var first = 0u;
    var before = 1u;
    for (var t = 0u; t < count; t++) {
      if (begins[t] == 1u) {
        first = t;
        before = 0u;
      }
      sight[t] = first;
      sees[t] = before;
    }
  }
  workgroupBarrier();
  let last = max(count, 1u) - 1u;
  for (var i = lane; i < 64u * heads; i += 256u) {
    let t = i % 64u;
    let local = i / 64u;
    let head = head0 + local;
    if (head >= u.heads) {
      continue;
    }
    let at = u.pairs_at + (number * u.heads + head) * 388u + t;
    let sum = sums[t * width + local];
    let inside = t < count;
    $pairs[at] = steps[t * width + local];
    $pairs[at + 64u] = sum;
    $pairs[at + 128u] = select(0.0, exp(sum), sees[t] == 1u);
    $pairs[at + 192u] = select(0.0, exp(sums[last * width + local] - sum), inside && t >= sight[last]);
    $pairs[at + 256u] = f32(sight[t]);
#if slopes
    $pairs[at + 320u] = dt_slopes[t * width + local];
#endif
    if (t == 0u) {
      $pairs[at + 384u] = select(select(0.0, exp(sums[last * width + local]), sees[last] == 1u), 1.0, count == 0u);
      $pairs[at + 385u] = f32(count);
      $pairs[at + 386u] = 0.0;
      $pairs[at + 387u] = 0.0;
    }
  }
}
