// Draws a token from each row of logits, a workgroup to each row. Nothing is sorted: the least logit that stays is found two bits at a
// time, from the highest on, by going through the row and adding up what the logits count (top-k) or weigh (top-p) whose bits have
// each next pair of bits. Sums run in a fixed order.

#include grid
#include numbers
#include exponential
#include logarithm
#include philox
#include scan(f32)

const NOTHING = 0xffffffffu;

var<workgroup> sums: array<vec4f, 256>;
var<workgroup> extremes: array<u32, 256>;

fn sum_of(value: vec4f, lane: u32) -> vec4f {
  workgroupBarrier();
  sums[lane] = value;
  for (var width = 128u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      sums[lane] += sums[lane + width];
    }
  }
  workgroupBarrier();
  return sums[0];
}

fn greatest_of(value: u32, lane: u32) -> u32 {
  workgroupBarrier();
  extremes[lane] = value;
  for (var width = 128u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      extremes[lane] = max(extremes[lane], extremes[lane + width]);
    }
  }
  workgroupBarrier();
  return extremes[0];
}

// Whole numbers in the order of the floats, both zeros being one; NaN is above all or below all.
fn rank_of(x: f32) -> u32 {
  let bits = bitcast<u32>(select(x, 0.0, x == 0.0));
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn float_of(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank & 0x7fffffffu, (rank & 0x80000000u) != 0u));
}

fn logit_at(row: u32, i: u32) -> f32 {
  return $logits[u.logits_at + row * u.classes + i];
}

fn scaled_at(row: u32, i: u32) -> f32 {
  return logit_at(row, i) / u.temperature;
}

// What a logit that stays weighs beside the greatest one.
fn weight_of(z: f32, top: f32) -> f32 {
  return exact_exp(z - top);
}

// The greatest rank at or above which the logits, of rank `least` and more, count or weigh `wanted` together.
fn threshold(row: u32, least: u32, wanted: f32, weighs: bool, top: f32, lane: u32) -> u32 {
  var prefix = 0u;
  var above = 0.0;
  for (var step = 0u; step < 16u; step++) {
    let shift = 30u - 2u * step;
    var parts = vec4f(0.0);
    for (var i = lane; i < u.classes; i += 256u) {
      let z = scaled_at(row, i);
      let rank = rank_of(z);
      // Of the ranks that begin with the bits found so far.
      if (rank >= least && (step == 0u || (rank >> (shift + 2u)) == prefix)) {
        let amount = select(1.0, weight_of(z, top), weighs);
        parts += select(vec4f(0.0), vec4f(amount), vec4u(0u, 1u, 2u, 3u) == vec4u((rank >> shift) & 3u));
      }
    }
    let all = sum_of(parts, lane);
    // From the highest pair on, the first with which enough is there; if rounding leaves none, the lowest that has anything.
    var digit = 0u;
    var found = false;
    var before = above;
    for (var k = 0u; k < 4u && !found; k++) {
      let pair = 3u - k;
      if (all[pair] > 0.0) {
        digit = pair;
        before = above;
        above += all[pair];
        found = above >= wanted;
      }
    }
    above = before;
    prefix = (prefix << 2u) | digit;
  }
  return prefix;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups);
  let row = min(unit, u.rows - 1u);
  var most = 0u;
  var spoilt = 0u;
  for (var i = lane; i < u.classes; i += 256u) {
    let x = logit_at(row, i);
    most = max(most, rank_of(x));
    spoilt |= u32(is_nan(x) || bitcast<u32>(x) == 0x7f800000u);
  }
  let top_rank = greatest_of(most, lane);
  let top = float_of(top_rank);
  let is_spoilt = greatest_of(spoilt, lane) != 0u || top_rank == rank_of(-infinity());

  // The logarithm of the sum of all, by the logits as they are.
  var whole = 0.0;
  for (var i = lane; i < u.classes; i += 256u) {
    whole += weight_of(logit_at(row, i), top);
  }
  let log_sum = top + exact_log(sum_of(vec4f(whole), lane).x);

  var token = 0u;
#if greedy
  var first = NOTHING;
  for (var i = lane; i < u.classes; i += 256u) {
    if (logit_at(row, i) == top) {
      first = min(first, i);
    }
  }
  token = ~greatest_of(~first, lane);
#else
  let top_scaled = top / u.temperature;
  var least = rank_of(-infinity());
#if top_k
  least = threshold(row, least, f32(u.k), false, top_scaled, lane);
#endif
#if top_p
  var kept = 0.0;
  for (var i = lane; i < u.classes; i += 256u) {
    let z = scaled_at(row, i);
    kept += select(0.0, weight_of(z, top_scaled), rank_of(z) >= least);
  }
  least = threshold(row, least, u.p * sum_of(vec4f(kept), lane).x, true, top_scaled, lane);
#endif
#if min_p
  least = max(least, rank_of(top_scaled + u.log_min_p));
#endif
  // A piece of the row to each thread, so that the order of tokens is the order of threads.
  let begin = min(lane * u.piece, u.classes);
  let end = min(begin + u.piece, u.classes);
  var sum = 0.0;
  for (var i = begin; i < end; i++) {
    let z = scaled_at(row, i);
    sum += select(0.0, weight_of(z, top_scaled), rank_of(z) >= least);
  }
  let running = scan_f32(sum, lane);
  let position = bitcast<u32>($positions[u.positions_at + row]);
  let key = vec2u(bitcast<u32>($keys[u.keys_at + 2u * row]), bitcast<u32>($keys[u.keys_at + 2u * row + 1u]));
  let drawn = f32(philox(vec4u(0u, 0u, position, 0u), key).x >> 8u) * 5.9604645e-8;
  let wanted = drawn * running.all;
  var reached = running.before;
  var chosen = NOTHING;
  var last = 0u;
  for (var i = begin; i < end; i++) {
    let z = scaled_at(row, i);
    if (rank_of(z) >= least && z > -infinity()) {
      reached += weight_of(z, top_scaled);
      last = i;
      if (reached > wanted && chosen == NOTHING) {
        chosen = i;
      }
    }
  }
  let earliest = ~greatest_of(~chosen, lane);
  let latest = greatest_of(last, lane);
  token = select(earliest, latest, earliest == NOTHING);
#endif

  if (lane == 0u && unit < u.rows) {
    $tokens[u.tokens_at + row] = select(i32(token), -1, is_spoilt);
    $logprobs[u.logprobs_at + row] = select(logit_at(row, min(token, u.classes - 1u)) - log_sum, nan(), is_spoilt);
  }
}
