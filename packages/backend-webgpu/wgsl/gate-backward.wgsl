// The gradient through a gate, y silu(z), row by row, once y is known: `dz` holds y, and then the gradient of z, dy y silu'(z); and
// `inner` gets that of y, dy silu(z).

#include grid
#include items
#include gate

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = linear_group(group, groups) * 256u + lane;
  let row = i / u.columns;
  let column = i - row * u.columns;
  if (row >= u.rows) {
    return;
  }
  let z = $z[u.z_at + row * u.z_pitch + column];
#if HAS_dy
  let dy = $dy[u.dy_at + row * u.dy_pitch + column];
#else
  let dy = item(0.0);
#endif
#if HAS_inner
  $inner[u.inner_at + i] = dy * silu(z);
#endif
#if HAS_dz
  let at = u.dz_at + row * u.dz_pitch + column;
  $dz[at] = $dz[at] * dy * silu_slope(z);
#endif
}
