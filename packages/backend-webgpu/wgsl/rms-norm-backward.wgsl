// The gradient of RMSNorm, from the saved rstd. A workgroup takes one group of channels of many rows, a team one row at a time;
// what it needs of a row stays in registers, `held` items a thread. With v what is normalised and g = w dL/d(v rstd w):
// dv = rstd g - v rstd^3 mean(g v). The sums over rows for dw stay in registers too, and leave as one row of `partial` for each
// workgroup; where a group is wider than a team can hold, they wait in that row. With dsum, what reaches x beside the norm is added.

#include grid
#include items
#include workgroup-sum
#include partial-sums
#if HAS_z
#include gate
#endif

const threads = 256u;

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

struct Inputs { x: item, z: item, dy: item }

fn inputs_at(row: u32, column: u32) -> Inputs {
  let x = $x[u.x_at + row * u.x_pitch + column];
  let dy = $dy[u.dy_at + row * u.dy_pitch + column];
#if HAS_z
  return Inputs(x, $z[u.z_at + row * u.z_pitch + column], dy);
#else
  return Inputs(x, item(0.0), dy);
#endif
}

// What is normalised.
fn value_of(inputs: Inputs) -> item {
#if gate_first
  return inputs.x * silu(inputs.z);
#else
  return inputs.x;
#endif
}

// The gradient of what is normalised times the weight.
fn upstream_of(inputs: Inputs) -> item {
#if gate_last
  return inputs.dy * silu(inputs.z);
#else
  return inputs.dy;
#endif
}

// `mean`: rstd^3 mean(g v)
fn store(row: u32, column: u32, inputs: Inputs, rstd: f32, mean: f32) {
  let weight = $weight[u.weight_at + column];
  let value = value_of(inputs);
  let dvalue = rstd * weight * upstream_of(inputs) - value * mean;
#if HAS_dx
#if gate_first
  $dx[u.dx_at + row * u.dx_pitch + column] = dvalue * silu(inputs.z);
#else
#if HAS_dsum
  $dx[u.dx_at + row * u.dx_pitch + column] = $dsum[u.dsum_at + row * u.dsum_pitch + column] + dvalue;
#else
  $dx[u.dx_at + row * u.dx_pitch + column] = dvalue;
#endif
#endif
#endif
#if HAS_dz
#if gate_first
  $dz[u.dz_at + row * u.dz_pitch + column] = dvalue * inputs.x * silu_slope(inputs.z);
#else
  $dz[u.dz_at + row * u.dz_pitch + column] = inputs.dy * weight * value * rstd * silu_slope(inputs.z);
#endif
#endif
}

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let block = id / u.parts;
  let part = id - block * u.parts;
  let column = part * u.items;
  let first = lane % team;
  let teams = threads / team;

  var dweight: array<item, held>;
  for (var start = block * teams; start < u.rows; start += u.blocks * teams) {
    let inside = start + lane / team < u.rows;
    let row = min(start + lane / team, u.rows - 1u);
    let rstd = $rstd[u.rstd_at + row * u.parts + part];
    var kept: array<Inputs, held>;
#repeat k held
    kept[@k] = inputs_at(row, column + min(first + @k * team, u.items - 1u));
#endrepeat
    var products = item(0.0);
#repeat k held
    let i = min(first + @k * team, u.items - 1u);
    let counts = inside && first + @k * team < u.items;
    let product = select(item(0.0), upstream_of(kept[@k]) * value_of(kept[@k]), counts);
    dweight[@k] += product * rstd;
    products += product * $weight[u.weight_at + column + i];
#endrepeat
    for (var i = first + held * team; i < u.items; i += team) {
      let inputs = inputs_at(row, column + i);
      let product = upstream_of(inputs) * value_of(inputs);
      products += product * $weight[u.weight_at + column + i];
#if HAS_partial
      let place = u.partial_at + block * u.row_items + column + i;
      $partial[place] = select($partial[place], item(0.0), start == block * teams) + product * rstd;
#endif
    }
    let mean = rstd * rstd * rstd * join_team(total(products), lane) / u.channels;
    if (inside) {
#repeat k held
      if (first + @k * team < u.items) {
        store(row, column + first + @k * team, kept[@k], rstd, mean);
      }
#endrepeat
      for (var i = first + held * team; i < u.items; i += team) {
        store(row, column + i, inputs_at(row, column + i), rstd, mean);
      }
    }
  }
#if HAS_partial
#repeat k held
  let sum = sum_teams(dweight[@k], lane);
  if (lane < team && lane + @k * team < u.items) {
    $partial[u.partial_at + block * u.row_items + column + lane + @k * team] = sum;
  }
#endrepeat
#endif
}
