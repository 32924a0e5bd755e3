// Running sums along lines of any stride, f32, a thread to each: for short lines, and for many side by side.

#include grid
#include axes(line)

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = linear_group(group, groups) * 256u + lane;
  if (line >= u.lines) {
    return;
  }
  let at = line_places(line);
  var sum = 0.0;
  for (var i = 0u; i < u.size; i++) {
#if reverse
    let place = u.size - 1u - i;
#else
    let place = i;
#endif
    sum += $x[u.x_at + at.x + place * u.x_step];
    $out[u.out_at + at.y + place * u.out_step] = sum;
  }
}
