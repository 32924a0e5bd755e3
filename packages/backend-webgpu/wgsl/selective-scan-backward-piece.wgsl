// The first pass of the selective scan's gradient: what each piece of time makes of a gradient of zeros that comes from later tokens,
// g_t = C_t dy_t + e^{Delta_{t+1} A} g_{t+1}, up to before its first token; its sum of Delta; and, for the pass that follows, Delta and
// dy silu(z) of each token (0 for padding).

#include grid
#include selective-scan
#include selective-scan-tokens
#include shared-states(C)

alias States = array<vec4f, quads>;

var<workgroup> staged_C: array<vec4f, staged * quads>;

struct Run { carry: States, sum: f32 }

fn take_token(run: ptr<function, Run>, rates: ptr<function, States>, channel: Channel, token: u32, row: u32, raw: f32, upstream: f32) {
  let mark = mark_of(token);
  let delta = select(step_of(raw), 0.0, mark == padding);
  let dy = select(upstream, 0.0, mark == padding);
  let kept = mark != starting;
  (*run).sum = select(restarted, (*run).sum + delta, kept && (*run).sum < restarted);
#repeat q quads
    let own = fma(vec4f(dy), staged_C[row * quads + @q], (*run).carry[@q]);
    (*run).carry[@q] = select(vec4f(), exp2((*rates)[@q] * delta) * own, kept);
#endrepeat
  if (channel.inside) {
    let at = u.work_at + token * u.channels + channel.index;
    $work[at + u.deltas_from] = delta;
    $work[at + u.upstream_from] = dy;
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
  var rates = States();
#repeat q quads
    rates[@q] = rates_at(@q, channel.index);
#endrepeat
  var run = Run();
  // From the last token to the first: `past` of them are done.
  for (var past = 0u; past < size; past += staged) {
    workgroupBarrier();
    for (var i = lane; i < staged * quads; i += threads) {
      let t = size - 1u - min(past + i / quads, size - 1u);
      staged_C[i] = C_four(place.token + t, place.group, i % quads);
    }
    workgroupBarrier();
    let left = min(size - past, u32(staged));
    for (var i = 0u; i < left; i += 4u) {
      // Four tokens are read before the first is used.
      let last = place.token + size - 1u - past - i;
      var raw = array<f32, 4>();
      var upstream = array<f32, 4>();
#repeat k 4
        let token = max(last, place.token + @k) - @k;
        raw[@k] = $delta[u.delta_at + token * u.delta_pitch + channel.index] + bias;
#if HAS_dy
        upstream[@k] = $dy[u.dy_at + token * u.dy_pitch + channel.index];
#if HAS_z
        upstream[@k] *= silu($z[u.z_at + token * u.z_pitch + channel.index]);
#endif
#endif
#endrepeat
#repeat k 4
        if (i + @k < left) {
          take_token(&run, &rates, channel, last - @k, i + @k, raw[@k], upstream[@k]);
        }
#endrepeat
    }
  }
  if (channel.inside) {
    let row = place.piece.number * u.channels + channel.index;
#repeat q quads
      for (var c = 0u; c < 4u; c++) {
        if (4u * @q + c < u.states) {
          $work[u.work_at + u.incoming_from + row * u.states + 4u * @q + c] = run.carry[@q][c];
        }
      }
#endrepeat
    $work[u.work_at + u.sums_from + row] = run.sum;
  }
}
