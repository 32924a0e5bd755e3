// One AdamW step of up to three parameters, an item to each thread; u.b_from and u.c_from: the first workgroup of the second and third.

#include grid
#include items
#include adamw-update(a)
#if HAS_b_p
#include adamw-update(b)
#endif
#if HAS_c_p
#include adamw-update(c)
#endif

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
#if HAS_c_p
  if (id >= u.c_from) {
    update_c((id - u.c_from) * 256u + lane);
    return;
  }
#endif
#if HAS_b_p
  if (id >= u.b_from) {
    update_b((id - u.b_from) * 256u + lane);
    return;
  }
#endif
  update_a(id * 256u + lane);
}
