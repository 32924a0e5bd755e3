// 0, 1, 2 ...

#include grid

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = linear_group(group, groups) * 256u + lane;
  if (i < u.items) {
    $out[u.out_at + i] = i32(i);
  }
}
