// The first pass of the selective scan (arXiv 2312.00752, equations 2a and 2b): what each piece of time makes of a state of zeros, and
// its sum of Delta, from which the next pass knows how much of a state comes through it.

#include grid
#include selective-scan
#include selective-scan-tokens
#include state-rows(local)
#include shared-states(B)

alias States = array<vec4f, quads>;

var<workgroup> staged_B: array<vec4f, staged * quads>;

struct Run { h: States, sum: f32 }

fn take_token(run: ptr<function, Run>, rates: ptr<function, States>, token: u32, row: u32, raw: f32, input: f32) {
  let mark = mark_of(token);
  let delta = select(step_of(raw), 0.0, mark == padding);
  let scaled = select(delta * input, 0.0, mark == padding);
  let kept = mark != starting;
  (*run).sum = select(restarted, (*run).sum + delta, kept && (*run).sum < restarted);
#repeat q quads
    let before = select(vec4f(), exp2((*rates)[@q] * delta) * (*run).h[@q], kept);
    (*run).h[@q] = fma(vec4f(scaled), staged_B[row * quads + @q], before);
#endrepeat
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
  for (var base = 0u; base < size; base += staged) {
    workgroupBarrier();
    for (var i = lane; i < staged * quads; i += threads) {
      staged_B[i] = B_four(place.token + min(base + i / quads, size - 1u), place.group, i % quads);
    }
    workgroupBarrier();
    let left = min(size - base, u32(staged));
    for (var t = 0u; t < left; t += 4u) {
      // Four tokens are read before the first is used.
      let first = place.token + base + t;
      let last = place.token + size - 1u;
      var raw = array<f32, 4>();
      var input = array<f32, 4>();
#repeat k 4
        let token = min(first + @k, last);
        raw[@k] = $delta[u.delta_at + token * u.delta_pitch + channel.index] + bias;
        input[@k] = $u[u.u_at + token * u.u_pitch + channel.index];
#endrepeat
#repeat k 4
        if (t + @k < left) {
          take_token(&run, &rates, first + @k, t + @k, raw[@k], input[@k]);
        }
#endrepeat
    }
  }
  if (channel.inside) {
    let row = place.piece.number * u.channels + channel.index;
#repeat q quads
      local_store(row, @q, run.h[@q]);
#endrepeat
    $work[u.work_at + u.sums_from + row] = run.sum;
  }
}
