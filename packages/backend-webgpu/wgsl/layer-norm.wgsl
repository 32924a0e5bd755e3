// LayerNorm of rows (arXiv 1607.06450). A team takes one row and keeps it in registers, `held` items a thread; what a row has beyond
// that is read again. The mean is taken off before squares are summed, and then what the mean, a rounded number, was off by: far from
// 0 that is much beside the deviation.

#include grid
#include items
#include workgroup-sum

// Sums of differences from the mean, and of their squares.
alias summand = vec2f;
fn join(a: vec2f, b: vec2f) -> vec2f { return a + b; }

fn store(row: u32, i: u32, normalised: item) {
  var y = normalised * $weight[u.weight_at + i];
#if HAS_bias
  y += $bias[u.bias_at + i];
#endif
  $y[u.y_at + row * u.y_pitch + i] = y;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = linear_group(group, groups) * (256u / team) + lane / team;
  let inside = unit < u.rows;
  let row = min(unit, u.rows - 1u);
  let x_row = u.x_at + row * u.x_pitch;
  let first = lane % team;

  // Loads are unconditional, so that all of them are under way at once.
  var values: array<item, held>;
  var sum = item(0.0);
#repeat k held
  values[@k] = $x[x_row + min(first + @k * team, u.items - 1u)];
#endrepeat
#repeat k held
  sum += select(item(0.0), values[@k], first + @k * team < u.items);
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    sum += $x[x_row + i];
  }
  let mean = join_team(vec2f(total(sum), 0.0), lane).x / u.channels;
  let centre = item(mean);
  var differences = item(0.0);
  var squares = item(0.0);
#repeat k held
  values[@k] -= centre;
  let difference = select(item(0.0), values[@k], first + @k * team < u.items);
  differences += difference;
  squares += difference * difference;
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    let difference = $x[x_row + i] - centre;
    differences += difference;
    squares += difference * difference;
  }
  let moments = join_team(vec2f(total(differences), total(squares)), lane) / u.channels;
  let rest = moments.x;
  let rstd = inverseSqrt(max(moments.y - rest * rest, 0.0) + u.eps);
  if (!inside) {
    return;
  }
#repeat k held
  if (first + @k * team < u.items) {
    store(row, first + @k * team, (values[@k] - item(rest)) * rstd);
  }
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    store(row, i, (($x[x_row + i] - centre) - item(rest)) * rstd);
  }
  if (first == 0u) {
    $mean[u.mean_at + row] = mean + rest;
    $rstd[u.rstd_at + row] = rstd;
  }
}
