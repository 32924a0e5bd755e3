// The sum of the rows of a matrix, for sums over many rows that workgroups have made in part: eight columns to a workgroup, 32
// threads to each, every 32nd row to each thread; they join theirs as a tree.

#include grid

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let column = linear_group(group, groups) * 8u + lane % 8u;
  var sum = 0.0;
  if (column < u.columns) {
    let at = u.x_at + column;
    var row = lane / 8u;
    for (; row + 96u < u.rows; row += 128u) {
      let low = $x[at + row * u.pitch] + $x[at + (row + 32u) * u.pitch];
      let high = $x[at + (row + 64u) * u.pitch] + $x[at + (row + 96u) * u.pitch];
      sum += low + high;
    }
    for (; row < u.rows; row += 32u) {
      sum += $x[at + row * u.pitch];
    }
  }
  sums[lane] = sum;
  for (var width = 128u; width >= 8u; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      sum += sums[lane + width];
      sums[lane] = sum;
    }
  }
  if (lane < 8u && column < u.columns) {
    $out[u.out_at + column] = sum;
  }
}
