// RMSNorm of groups of channels, plain or gated (arXiv 1910.07467, equation 4; arXiv 2405.21060, section 6.4). A team takes one
// group of one row and keeps it in registers, `held` items a thread, from the sum of squares to the product; what a group has
// beyond that is read twice.

#include grid
#include items
#include workgroup-sum
#if HAS_z
#include gate
#endif

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

// What is normalised: x, or x silu(z).
fn value_at(row: u32, column: u32) -> item {
  let x = $x[u.x_at + row * u.x_pitch + column];
#if gate_first
  return x * silu($z[u.z_at + row * u.z_pitch + column]);
#else
  return x;
#endif
}

fn store(row: u32, column: u32, normalised: item) {
  var y = normalised * $weight[u.weight_at + column];
#if gate_last
  y *= silu($z[u.z_at + row * u.z_pitch + column]);
#endif
  $y[u.y_at + row * u.y_pitch + column] = y;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups) * (256u / team) + lane / team;
  let inside = unit < u.units;
  let row = min(unit, u.units - 1u) / u.parts;
  let column = (min(unit, u.units - 1u) - row * u.parts) * u.items;
  let first = lane % team;

  // Loads are unconditional, so that all of them are under way at once.
  var values: array<item, held>;
  var squares = item(0.0);
#repeat k held
  values[@k] = value_at(row, column + min(first + @k * team, u.items - 1u));
#endrepeat
#repeat k held
  values[@k] = select(item(0.0), values[@k], first + @k * team < u.items);
  squares += values[@k] * values[@k];
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    let value = value_at(row, column + i);
    squares += value * value;
  }
  let rstd = inverseSqrt(join_team(total(squares), lane) / u.channels + u.eps);
  if (!inside) {
    return;
  }
#repeat k held
  if (first + @k * team < u.items) {
    store(row, column + first + @k * team, values[@k] * rstd);
  }
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    store(row, column + i, value_at(row, column + i) * rstd);
  }
  if (first == 0u) {
    $rstd[u.rstd_at + unit] = rstd;
  }
}
