// The last pass of the selective scan: goes through each piece of time from the state that enters it, and makes the output,
// y_t = (C_t h_t + D u_t) silu(z_t). With `whole` a row is a single piece, and its state is left where it was found.

#include grid
#include selective-scan
#include selective-scan-tokens
#include state-rows(entering)
#include shared-states(B)
#include shared-states(C)

alias States = array<vec4f, quads>;

var<workgroup> staged_B: array<vec4f, staged * quads>;
var<workgroup> staged_C: array<vec4f, staged * quads>;

struct Token { raw: f32, input: f32, gate: f32 }

fn take_token(h: ptr<function, States>, rates: ptr<function, States>, channel: Channel, token: u32, row: u32, given: Token, skip: f32) {
  let mark = mark_of(token);
  let delta = select(step_of(given.raw), 0.0, mark == padding);
  let scaled = select(delta * given.input, 0.0, mark == padding);
  var parts = vec4f();
#repeat q quads
    let before = select(exp2((*rates)[@q] * delta) * (*h)[@q], vec4f(), mark == starting);
    let after = fma(vec4f(scaled), staged_B[row * quads + @q], before);
    (*h)[@q] = after;
    parts = fma(staged_C[row * quads + @q], after, parts);
#endrepeat
  var y = fma(skip, given.input, (parts.x + parts.y) + (parts.z + parts.w));
#if HAS_z
  y *= silu(given.gate);
#endif
  if (channel.inside) {
    $y[u.y_at + token * u.y_pitch + channel.index] = select(y, 0.0, mark == padding);
  }
}

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
  let place = place_of(id);
  let channel = channel_of(place, lane);
  let size = place.piece.size;
  let bias = bias_of(channel.index);
  let skip = skip_of(channel.index);
  let state_row = place.piece.number * u.channels + channel.index;
  var rates = States();
  var h = States();
#repeat q quads
    rates[@q] = rates_at(@q, channel.index);
    h[@q] = entering_quad(state_row, @q);
#endrepeat
  for (var base = 0u; base < size; base += staged) {
    workgroupBarrier();
    for (var i = lane; i < staged * quads; i += threads) {
      let token = place.token + min(base + i / quads, size - 1u);
      staged_B[i] = B_four(token, place.group, i % quads);
      staged_C[i] = C_four(token, place.group, i % quads);
    }
    workgroupBarrier();
    let left = min(size - base, u32(staged));
    for (var t = 0u; t < left; t += 4u) {
      // Four tokens are read before the first is used.
      let first = place.token + base + t;
      let last = place.token + size - 1u;
      var given = array<Token, 4>();
#repeat k 4
        let token = min(first + @k, last);
        given[@k].raw = $delta[u.delta_at + token * u.delta_pitch + channel.index] + bias;
        given[@k].input = $u[u.u_at + token * u.u_pitch + channel.index];
#if HAS_z
        given[@k].gate = $z[u.z_at + token * u.z_pitch + channel.index];
#endif
#endrepeat
#repeat k 4
        if (t + @k < left) {
          take_token(&h, &rates, channel, first + @k, t + @k, given[@k], skip);
        }
#endrepeat
    }
  }
#if whole
  if (channel.inside) {
#repeat q quads
      entering_store(state_row, @q, h[@q]);
#endrepeat
  }
#endif
}
