// A residual sum and its RMSNorm (arXiv 1910.07467, equation 4): sum = x + y, rounded to the type that it is stored in, and
// normed = weight sum rstd. A team takes one row and keeps it in registers, `held` items a thread; what a row has beyond that is read
// and added twice.

#include grid
#include items
#include workgroup-sum
#include halves

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

#if sum_bf16
fn rounded(x: f32) -> f32 { return f32_of_bf16(bf16_of_f32(x)); }
#else
#if sum_f16
fn rounded(x: f32) -> f32 { return f32_of_f16(f16_of_f32(x)); }
#else
fn rounded(x: f32) -> f32 { return x; }
#endif
#endif

#if fours
fn rounded_item(x: item) -> item { return vec4f(rounded(x.x), rounded(x.y), rounded(x.z), rounded(x.w)); }
#else
fn rounded_item(x: item) -> item { return rounded(x); }
#endif

fn sum_at(row: u32, i: u32) -> item {
  let x = $x[u.x_at + row * u.x_pitch + i];
#if HAS_y
  return rounded_item(x + $y[u.y_at + row * u.y_pitch + i]);
#else
  return x;
#endif
}

fn store(row: u32, i: u32, sum: item, rstd: f32) {
#if HAS_sum
  $sum[u.sum_at + row * u.sum_pitch + i] = sum;
#endif
  $normed[u.normed_at + row * u.normed_pitch + i] = sum * rstd * $weight[u.weight_at + i];
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
  let first = lane % team;

  // Loads are unconditional, so that all of them are under way at once.
  var values: array<item, held>;
  var squares = item(0.0);
#repeat k held
  values[@k] = sum_at(row, min(first + @k * team, u.items - 1u));
#endrepeat
#repeat k held
  squares += select(item(0.0), values[@k] * values[@k], first + @k * team < u.items);
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    let value = sum_at(row, i);
    squares += value * value;
  }
  let rstd = inverseSqrt(join_team(total(squares), lane) / u.channels + u.eps);
  if (!inside) {
    return;
  }
#repeat k held
  if (first + @k * team < u.items) {
    store(row, first + @k * team, values[@k], rstd);
  }
#endrepeat
  for (var i = first + held * team; i < u.items; i += team) {
    store(row, i, sum_at(row, i), rstd);
  }
  if (first == 0u) {
    $rstd[u.rstd_at + row] = rstd;
  }
}
