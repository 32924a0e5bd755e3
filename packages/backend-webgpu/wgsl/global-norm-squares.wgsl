// Sums of squares of stretches of up to six tensors, a stretch to each workgroup; u.b_from and so on: the first stretch of each.

#include grid
#include items
#include workgroup-sum
#include squares(a)
#if HAS_b
#include squares(b)
#endif
#if HAS_c
#include squares(c)
#endif
#if HAS_d
#include squares(d)
#endif
#if HAS_e
#include squares(e)
#endif
#if HAS_f
#include squares(f)
#endif

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

fn squares_of(stretch: u32, lane: u32) -> item {
#if HAS_f
  if (stretch >= u.f_from) {
    return squares_f(stretch - u.f_from, lane);
  }
#endif
#if HAS_e
  if (stretch >= u.e_from) {
    return squares_e(stretch - u.e_from, lane);
  }
#endif
#if HAS_d
  if (stretch >= u.d_from) {
    return squares_d(stretch - u.d_from, lane);
  }
#endif
#if HAS_c
  if (stretch >= u.c_from) {
    return squares_c(stretch - u.c_from, lane);
  }
#endif
#if HAS_b
  if (stretch >= u.b_from) {
    return squares_b(stretch - u.b_from, lane);
  }
#endif
  return squares_a(stretch, lane);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let stretch = linear_group(group, groups);
  var sum = 0.0;
  if (stretch < u.stretches) {
    sum = total(squares_of(stretch, lane));
  }
  let all = join_team(sum, lane);
  if (lane == 0u && stretch < u.stretches) {
    $out[u.out_at + u.first + stretch] = all;
  }
}
