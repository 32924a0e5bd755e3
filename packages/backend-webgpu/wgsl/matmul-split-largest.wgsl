// For the split product: the largest finite magnitude of each of `PARTS` parts of an operand, as the bits of an f32, which order as
// integers do.
// x is (batch, lines, vectors), its lines a pitch apart.
#include grid
#include workgroup-sum

alias summand = i32;
const team = 256;
fn join(a: i32, b: i32) -> i32 { return max(a, b); }

const infinity = vec4i(0x7f800000);

fn magnitudes(id: u32) -> vec4i {
  if (id >= u.size) { return vec4i(); }
  let line = id / u.vectors;
  let batch = line / u.lines;
  let at = u.x_at + batch * u.x_batch + (line - batch * u.lines) * u.x_pitch + id - line * u.vectors;
  let bits = bitcast<vec4i>($x[at]) & vec4i(0x7fffffff);
  return select(vec4i(), bits, bits < infinity);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = linear_group(group, groups);
  var most = vec4i();
  // Four reads are under way at once.
  let step = PARTS * 256u;
  for (var id = part * 256u + lane; id < u.size; id += 4u * step) {
    let first = max(magnitudes(id), magnitudes(id + step));
    let second = max(magnitudes(id + 2u * step), magnitudes(id + 3u * step));
    most = max(most, max(first, second));
  }
  let all = join_team(max(max(most.x, most.y), max(most.z, most.w)), lane);
  if (lane == 0u && part < PARTS) {
    $largest[u.largest_at + part] = all;
  }
}
