// The product from its parts along k: out[b][i][j] = sum over s of parts[b][s][i][j], in the order of s.
#include grid

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = linear_group(group, groups) * 256u + lane;
  let row = id / u.columns;
  if (row >= u.batch * u.rows) { return; }
  let column = id % u.columns;
  let batch = row / u.rows;
  let part = u.rows * u.parts_pitch;
  var at_part = u.parts_at + batch * u.splits * part + row % u.rows * u.parts_pitch + column;
  var sum = $parts[at_part];
  for (var s = 1u; s < u.splits; s++) {
    at_part += part;
    sum += $parts[at_part];
  }
  let at = u.out_at + batch * u.out_batch + row % u.rows * u.out_row + column * u.out_column;
#if ACCUMULATE
  sum += $out[at];
#endif
  $out[at] = sum;
}
