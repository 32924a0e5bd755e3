// The last pass of the selective scan's gradient. Threads side by side take the states of a channel, four each, `team` to a channel,
// through a piece of time: forward once, keeping the state at every eighth token; then, eight tokens at a time from the end, forward
// again and backwards, with g what comes from later tokens:
//   g_t = C_t dy_t + e^{Delta_{t+1} A} g_{t+1},  dC_t = dy_t h_t,  dB_t = g_t Delta_t u_t,  du_t = D dy_t + sum_n g_t Delta_t B_t,
//   dDelta_t = sum_n g_t (B_t u_t + A e^{Delta_t A} h_{t-1}),  dA = sum_t g_t Delta_t e^{Delta_t A} h_{t-1}.
// The gradients of B and C are sums over channels, which go to `partial`, beside the workgroup's sums over time. Where a subgroup holds
// eight channels (`wide`), they share the sums out as they add up, and those of a workgroup are added up later, of eight tokens at once;
// elsewhere all goes through the workgroup's memory, token by token.

#include grid
#include selective-scan
#include scan-pieces
#include shared-states(B)
#include shared-states(C)

const threads = 256u;
const eight = 8u;
const ln2 = 0.693147181f;

#if wide
// Of eight tokens, of each eight channels.
var<workgroup> shares: array<f32, 8 * 256>;
#else
// Each thread's parts of the gradients of B and C, and of sums over states.
var<workgroup> parts: array<vec4f, 3 * 256>;
#endif

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

// Where a workgroup's sum over channels for a token begins: of the gradient of B (kind 0) or C (1).
fn sum_place(kind: u32, token: u32, state_group: u32, stretch: u32) -> u32 {
  let row = (kind * u.stretches + stretch) * u.batch * u.length + token;
  return u.partial_at + u.shared_from + (row * u.groups + state_group) * u.states;
}

#if wide
// Adds up eight numbers over the eight channels of a subgroup: each of its threads gets one of them, by the channel's number.
fn share_of(dB: vec4f, dC: vec4f, lane: u32) -> f32 {
  let channel = lane / team;
  let upper = (channel & 4u) != 0u;
  let four = select(dB, dC, upper) + subgroupShuffleXor(select(dC, dB, upper), 4u * team);
  let middle = (channel & 2u) != 0u;
  let two = select(four.xy, four.zw, middle) + subgroupShuffleXor(select(four.zw, four.xy, middle), 2u * team);
  let lower = (channel & 1u) != 0u;
  return select(two.x, two.y, lower) + subgroupShuffleXor(select(two.y, two.x, lower), u32(team));
}
#else
// Adds up four numbers over the channels of the workgroup, and stores them: those of dB, then of dC, four to a thread.
fn store_sums(lane: u32, token: u32, state_group: u32, stretch: u32) {
  let kind = lane / team;
  let q = lane % team;
  var sum = vec4f();
  for (var other = q; other < threads; other += team) {
    sum += parts[kind * threads + other];
  }
  for (var c = 0u; c < 4u; c++) {
    if (4u * q + c < u.states) {
      $partial[sum_place(kind, token, state_group, stretch) + 4u * q + c] = sum[c];
    }
  }
}
#endif

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

  var h = select(vec4f(), state_at(u.entering_from, row, q), some && inside);
  var kept = array<vec4f, 8>();
  let eighths = (piece.size + 7u) / 8u;
  for (var e = 0u; e < eighths; e++) {
    kept[e] = h;
#repeat k 8
      let given = token_at(piece, eight * e + @k, channel, inside);
      let b_four = B_four(token0 + min(eight * e + @k, piece.size - 1u), state_group, q);
      let before = select(exp2(rates * given.delta) * h, vec4f(), given.mark == starting);
      h = fma(vec4f(given.delta * given.input), b_four, before);
#endrepeat
  }

  var carry = select(vec4f(), state_at(u.incoming_from, row, q), some && inside);
  var dA = vec4f();
  var dD = 0.0;
  var dbias = 0.0;
  for (var left = eighths; left > 0u; left--) {
    let first = eight * (left - 1u);
    h = kept[left - 1u];
    var tokens_of = array<Token, 8>();
    var decayed = array<vec4f, 8>();
    var kept_part = array<vec4f, 8>();
#repeat k 8
      let given = token_at(piece, first + @k, channel, inside);
      tokens_of[@k] = given;
      let b_four = B_four(token0 + min(first + @k, piece.size - 1u), state_group, q);
      kept_part[@k] = select(exp2(rates * given.delta), vec4f(), given.mark == starting);
      decayed[@k] = select(kept_part[@k] * h, vec4f(), given.mark == starting);
      h = fma(vec4f(given.delta * given.input), b_four, decayed[@k]);
#endrepeat
#repeat back 8
      let k = eight - 1u - @back;
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

      // Over the states of the channel: parts of du and dDelta, and y.
      var sums = vec3f(dot(g, b_four), dot(rates, through) * ln2, dot(c_four, after));
      let dB = g * scaled;
      let dC = given.dy * after;
#if wide
      for (var apart = 1u; apart < team; apart *= 2u) {
        sums += subgroupShuffleXor(sums, apart);
      }
      shares[k * threads + lane] = share_of(dB, dC, lane);
#else
      workgroupBarrier();
      parts[lane] = dB;
      parts[threads + lane] = dC;
      parts[2u * threads + lane] = vec4f(sums, 0.0);
      workgroupBarrier();
      sums = vec3f();
      for (var other = 0u; other < team; other++) {
        sums += parts[2u * threads + lane - q + other].xyz;
      }
      if (first + k < piece.size && lane < 2u * team) {
        store_sums(lane, token, state_group, stretch);
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
        $dz[u.dz_at + token * u.dz_pitch + channel] = fma(skip, given.input, sums.z);
#endif
      }

#endrepeat
#if wide
    workgroupBarrier();
    for (var i = lane; i < 64u * team; i += threads) {
      let k = i / (eight * team);
      let place = i - k * eight * team;
      var sum = 0.0;
      for (var other = place; other < threads; other += eight * team) {
        sum += shares[k * threads + other];
      }
      let part = place / team;
      let n = 4u * (place % team) + (part & 3u);
      if (n < u.states && first + k < piece.size) {
        $partial[sum_place(part >> 2u, token0 + first + k, state_group, stretch) + n] = sum;
      }
    }
    workgroupBarrier();
#endif
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
