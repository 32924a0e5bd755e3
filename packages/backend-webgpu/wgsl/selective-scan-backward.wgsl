// The last pass of the selective scan's gradient. Threads side by side take the states of a channel, four each, `team` to a channel,
// through a piece of time: forward once, keeping the state at every eighth token; then, eight tokens at a time from the end, forward
// again and backwards, with g what comes from later tokens:
//   g_t = C_t dy_t + e^{Delta_{t+1} A} g_{t+1},  dC_t = dy_t h_t,  dB_t = g_t Delta_t u_t,  du_t = D dy_t + sum_n g_t Delta_t B_t,
//   dDelta_t = sum_n g_t (B_t u_t + A e^{Delta_t A} h_{t-1}),  dA = sum_t g_t Delta_t e^{Delta_t A} h_{t-1}.
// The gradients of B and C are sums over channels: eight channels share them out as they add them up, and the workgroup adds up what
// all of its eights have; what it has goes to `partial`, beside its sums over time.

#include grid
#include selective-scan
#include scan-pieces
#include shared-states(B)
#include shared-states(C)
#include swap(vec4f)
#include swap(vec2f)
#include swap(f32)

const threads = 256u;
const eight = 8u;
const ln2 = 0.693147181f;

// Of eight tokens, of each eight channels.
var<workgroup> shares: array<f32, 8 * 256>;

struct Token { delta: f32, input: f32, dy: f32, mark: u32 }

// Past the piece, tokens change nothing.
fn token_at(piece: Piece, t: u32, channel: u32, inside: bool) -> Token {
  let token = piece.b * u.length + piece.first + min(t, piece.size - 1u);
  let at = u.work_at + token * u.channels + channel;
  let mark = select(padding, mark_of(token), inside && t < piece.size);
  let input = $u[u.u_at + token * u.u_pitch + channel];
  return Token(
    select($work[at + u.deltas_from], 0.0, mark == padding),
    select(input, 0.0, mark == padding),
    select($work[at + u.upstream_from], 0.0, mark == padding),
    mark);
}

fn state_at(begin: u32, row: u32, q: u32) -> vec4f {
  let at = u.work_at + begin + row * u.states + 4u * q;
  var four = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * q + c < u.states) {
      four[c] = $work[at + c];
    }
  }
  return four;
}

#if softplus_delta
// The slope of softplus where its value is d: 1 - e^-d, by its series where it would cancel.
fn slope_of(d: f32) -> f32 {
  let high = fma(fma(fma(-d, 1.0 / 7.0, 1.0) * d, -1.0 / 6.0, 1.0) * d, -1.0 / 5.0, 1.0);
  let series = d * fma(fma(fma(high * d, -1.0 / 4.0, 1.0) * d, -1.0 / 3.0, 1.0) * d, -0.5, 1.0);
  return select(series, 1.0 - exp(-d), d > 0.5);
}
#endif

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  if (id >= u.places) {
    return;
  }
  let number = id / (u.groups * u.stretches);
  let in_piece = id - number * u.groups * u.stretches;
  let state_group = in_piece / u.stretches;
  let stretch = in_piece - state_group * u.stretches;
  let piece = piece_of(number);
  let q = lane % team;
  let column = stretch * (threads / team) + lane / team;
  let inside = column < u.group_size;
  let channel = state_group * u.group_size + min(column, u.group_size - 1u);
  let token0 = piece.b * u.length + piece.first;
  let row = number * u.channels + channel;
  // A team may have more threads than there are fours of states.
  let some = q < quads;
  let entry = min(q, u32(quads) - 1u);
  let rates = select(vec4f(), rates_at(entry, channel), some);
  let skip = skip_of(channel);
  let bits = lane / team;

  var h = select(vec4f(), state_at(u.entering_from, row, q), some && inside);
  var kept: array<vec4f, 8>;
  let eighths = (piece.size + 7u) / 8u;
  for (var e = 0u; e < eighths; e++) {
    kept[e] = h;
    for (var k = 0u; k < eight; k++) {
      let given = token_at(piece, eight * e + k, channel, inside);
      let b_four = B_four(token0 + min(eight * e + k, piece.size - 1u), state_group, q);
      let before = select(exp2(rates * given.delta) * h, vec4f(), given.mark == starting);
      h = fma(vec4f(given.delta * given.input), b_four, before);
    }
  }

  var carry = select(vec4f(), state_at(u.incoming_from, row, q), some && inside);
  var dA = vec4f();
  var dD = 0.0;
  var dbias = 0.0;
  for (var left = eighths; left > 0u; left--) {
    let first = eight * (left - 1u);
    h = kept[left - 1u];
    var tokens_of: array<Token, 8>;
    var decayed: array<vec4f, 8>;
    var kept_part: array<vec4f, 8>;
    for (var k = 0u; k < eight; k++) {
      let given = token_at(piece, first + k, channel, inside);
      tokens_of[k] = given;
      let b_four = B_four(token0 + min(first + k, piece.size - 1u), state_group, q);
      kept_part[k] = select(exp2(rates * given.delta), vec4f(), given.mark == starting);
      decayed[k] = select(kept_part[k] * h, vec4f(), given.mark == starting);
      h = fma(vec4f(given.delta * given.input), b_four, decayed[k]);
    }
    for (var back = 0u; back < eight; back++) {
      let k = eight - 1u - back;
      let given = tokens_of[k];
      let token = token0 + min(first + k, piece.size - 1u);
      let b_four = B_four(token, state_group, q);
      let c_four = C_four(token, state_group, q);
      let scaled = given.delta * given.input;
      let after = fma(vec4f(scaled), b_four, decayed[k]);
      let g = fma(vec4f(given.dy), c_four, carry);
      let through = g * decayed[k];
      carry = kept_part[k] * g;
      dA = fma(vec4f(given.delta), through, dA);

      // Over the states of the channel.
      var sums = vec2f(dot(g, b_four), dot(rates, through) * ln2);
      for (var apart = 1u; apart < team; apart *= 2u) {
        sums += swap_vec2f(sums, apart, lane);
      }
#if HAS_dz
      var y = dot(c_four, after);
      for (var apart = 1u; apart < team; apart *= 2u) {
        y += swap_f32(y, apart, lane);
      }
#endif
      var ddelta = fma(sums.x, given.input, sums.y);
#if softplus_delta
      ddelta *= slope_of(given.delta);
#endif
      dD = fma(given.dy, given.input, dD);
      dbias += ddelta;
      if (inside && q == 0u && first + k < piece.size) {
#if HAS_du
        $du[u.du_at + token * u.du_pitch + channel] = fma(sums.x, given.delta, skip * given.dy);
#endif
#if HAS_ddelta
        $ddelta[u.ddelta_at + token * u.ddelta_pitch + channel] = ddelta;
#endif
#if HAS_dz
        // Before the gate; the pass that follows makes the gradient of the gate of it.
        $dz[u.dz_at + token * u.dz_pitch + channel] = fma(skip, given.input, y);
#endif
      }

      // Over eight channels: each thread ends with one of the eight numbers, summed.
      let dB = g * scaled;
      let dC = given.dy * after;
      let upper = (bits & 4u) != 0u;
      let four = select(dB, dC, upper) + swap_vec4f(select(dC, dB, upper), 4u * team, lane);
      let middle = (bits & 2u) != 0u;
      let two = select(four.xy, four.zw, middle) + swap_vec2f(select(four.zw, four.xy, middle), 2u * team, lane);
      let lower = (bits & 1u) != 0u;
      let one = select(two.x, two.y, lower) + swap_f32(select(two.y, two.x, lower), team, lane);
      shares[k * threads + lane] = one;
    }
    workgroupBarrier();
    for (var i = lane; i < 64u * team; i += threads) {
      let k = i / (eight * team);
      let place = i - k * eight * team;
      var sum = 0.0;
      for (var other = place; other < threads; other += eight * team) {
        sum += shares[k * threads + other];
      }
      let channel_bits = place / team;
      let n = 4u * (place % team) + (channel_bits & 3u);
      if (n < u.states && first + k < piece.size) {
        let kind = (channel_bits >> 2u) * u.stretches + stretch;
        let to = (kind * u.batch * u.length + token0 + first + k) * u.groups + state_group;
        $partial[u.partial_at + u.shared_from + to * u.states + n] = sum;
      }
    }
    workgroupBarrier();
  }

  if (inside) {
    let at = u.partial_at + number * u.partial_pitch;
    for (var c = 0u; c < 4u; c++) {
      if (4u * q + c < u.states) {
        $partial[at + channel * u.states + 4u * q + c] = dA[c];
      }
    }
    if (q == 0u) {
      $partial[at + u.channels * u.states + channel] = dD;
      $partial[at + u.channels * (u.states + 1u) + channel] = dbias;
    }
  }
}
