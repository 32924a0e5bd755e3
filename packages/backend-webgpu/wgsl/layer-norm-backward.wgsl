// The gradient of LayerNorm, from the saved mean and rstd. A workgroup takes many rows, a team one at a time; what it needs of a row
// stays in registers, `held` items a thread. With n = (x - mean) rstd and g = w dy: dx = rstd (g - mean(g) - n mean(g n)).
// The sums over rows, for dw and dbias, stay in registers too, and leave as one row of `partial` (dy n) and of `partial_bias` (dy)
// for each workgroup; where a row is wider than a team can hold, they wait there.

#include grid
#include items
#include workgroup-sum
#include partial-sums

const threads = 256u;

// Sums of g and of g n.
alias summand = vec2f;
fn join(a: vec2f, b: vec2f) -> vec2f { return a + b; }

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = linear_group(group, groups);
  let first = lane % team;
  let teams = threads / team;

  var dweight: array<item, held>;
  var dbias: array<item, held>;
  for (var start = block * teams; start < u.rows; start += u.blocks * teams) {
    let inside = start + lane / team < u.rows;
    let row = min(start + lane / team, u.rows - 1u);
    let x_row = u.x_at + row * u.x_pitch;
    let dy_row = u.dy_at + row * u.dy_pitch;
    let mean = item($mean[u.mean_at + row]);
    let rstd = $rstd[u.rstd_at + row];
    var normalised: array<item, held>;
    var slopes: array<item, held>;
#repeat k held
    let i = min(first + @k * team, u.items - 1u);
    normalised[@k] = $x[x_row + i];
    slopes[@k] = $dy[dy_row + i];
#endrepeat
    var sum = item(0.0);
    var products = item(0.0);
#repeat k held
    let i = min(first + @k * team, u.items - 1u);
    let counts = inside && first + @k * team < u.items;
    let dy = select(item(0.0), slopes[@k], counts);
    normalised[@k] = (normalised[@k] - mean) * rstd;
    slopes[@k] = dy * $weight[u.weight_at + i];
    let product = select(item(0.0), normalised[@k], counts) * dy;
    dweight[@k] += product;
    dbias[@k] += dy;
    sum += slopes[@k];
    products += product * $weight[u.weight_at + i];
#endrepeat
    for (var i = first + held * team; i < u.items; i += team) {
      let dy = $dy[dy_row + i];
      let product = ($x[x_row + i] - mean) * rstd * dy;
      sum += dy * $weight[u.weight_at + i];
      products += product * $weight[u.weight_at + i];
      let old = start != block * teams;
#if HAS_partial
      let place = u.partial_at + block * u.items + i;
      $partial[place] = select(item(0.0), $partial[place], old) + product;
#endif
#if HAS_partial_bias
      let bias_place = u.partial_bias_at + block * u.items + i;
      $partial_bias[bias_place] = select(item(0.0), $partial_bias[bias_place], old) + dy;
#endif
    }
    let means = join_team(vec2f(total(sum), total(products)), lane) / u.channels;
#if HAS_dx
    if (inside) {
      let dx_row = u.dx_at + row * u.dx_pitch;
#repeat k held
      if (first + @k * team < u.items) {
        $dx[dx_row + first + @k * team] = rstd * (slopes[@k] - item(means.x) - normalised[@k] * means.y);
      }
#endrepeat
      for (var i = first + held * team; i < u.items; i += team) {
        let value = ($x[x_row + i] - mean) * rstd;
        let slope = $dy[dy_row + i] * $weight[u.weight_at + i];
        $dx[dx_row + i] = rstd * (slope - item(means.x) - value * means.y);
      }
    }
#endif
  }
#repeat k held
  let i = lane + @k * team;
#if HAS_partial
  let sum = sum_teams(dweight[@k], lane);
  if (lane < team && i < u.items) {
    $partial[u.partial_at + block * u.items + i] = sum;
  }
#endif
#if HAS_partial_bias
  let sum_bias = sum_teams(dbias[@k], lane);
  if (lane < team && i < u.items) {
    $partial_bias[u.partial_bias_at + block * u.items + i] = sum_bias;
  }
#endif
#endrepeat
}
