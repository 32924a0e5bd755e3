// The output of the Mamba-2 scan for one head in a piece of time, 64 x 64 numbers of (tokens, P) (arXiv 2405.21060, section 6):
// Y_i = e^{a_i} S C_i + sum_{j<=i} (C_i . B_j) e^{a_i - a_j} dt_j x_j + D x_i, times silu(z_i), where S is the state that enters.

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-tile
#include ssd-rows(x)
#include ssd-rows(C)
#include ssd-rows(S)
#include ssd-rows(y)
#if HAS_z
#include gate
#include ssd-rows(z)
#endif

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let unit = id / u.tiles_p;
  if (unit >= u.units) {
    return;
  }
  let p0 = (id - unit * u.tiles_p) * 64u;
  let number = unit / u.heads;
  let head = unit - number * u.heads;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  let count = count_of(unit);
  let state_group = head / u.group_heads;
  let state0 = state_group * u.states;
  let x_column = head * u.head_size + p0;
  let x_end = (head + 1u) * u.head_size;
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  let four = lane / 4u;
  var sums = Sums();

  // C S^T
  for (var k = 0u;; k += depth) {
    let n = k + 4u * (lane % 4u);
    var c = array<vec4f, 4>();
    var s = array<vec4f, 4>();
#repeat r 4
      if (4u * four + @r < count) {
        c[@r] = C_four(token0 + 4u * four + @r, state0 + n, state0 + u.states);
      }
      if (p0 + 4u * four + @r < u.head_size) {
        s[@r] = S_four(unit * u.head_size + p0 + 4u * four + @r, n, u.states);
      }
#endrepeat
    // The reads are under way while the step before is multiplied.
    if (k > 0u) {
      multiply(&sums, row_slot, column_slot);
    }
    if (k >= u.states) {
      break;
    }
    workgroupBarrier();
    put_left(lane, c[0], c[1], c[2], c[3]);
    put_right(lane, s[0], s[1], s[2], s[3]);
    workgroupBarrier();
  }
#repeat r 8
    let since = since_at(unit, row_slot + 8u * (@r / 4u))[@r % 4u];
    sums[2u * @r] = select(since * sums[2u * @r], vec4f(), since == 0.0);
    sums[2u * @r + 1u] = select(since * sums[2u * @r + 1u], vec4f(), since == 0.0);
#endrepeat

  // (C B^T . M) X
  let matrix = number * u.groups + state_group;
  let a_rows = sums_at(unit, four);
  let sights = sight_at(unit, four);
  for (var k = 0u;; k += depth) {
    let quad = k / 4u + lane % 4u;
    let a_columns = sums_at(unit, quad);
    var w = array<vec4f, 4>();
    var x = array<vec4f, 4>();
#repeat r 4
      let i = 4u * four + @r;
      if (k < piece.size) {
        w[@r] = seen(products_at(matrix, i, quad) * exp(vec4f(a_rows[@r]) - a_columns), i, sights[@r], quad);
      }
#endrepeat
#repeat e 4
      let item = lane + 64u * @e;
      let t = k + item / 16u;
      if (t < count) {
        x[@e] = step_of(unit, t) * x_four(token0 + t, x_column + 4u * (item % 16u), x_end);
      }
#endrepeat
    // The reads are under way while the step before is multiplied.
    if (k > 0u) {
      multiply(&sums, row_slot, column_slot);
    }
    if (k >= piece.size) {
      break;
    }
    workgroupBarrier();
    put_left(lane, w[0], w[1], w[2], w[3]);
#repeat e 4
      let item = lane + 64u * @e;
      right[item / 16u][item % 16u] = x[@e];
#endrepeat
    workgroupBarrier();
  }
#repeat r 8
    let t = row_of(row_slot, @r);
    if (t < piece.size) {
      let token = token0 + t;
#repeat half 2
        let column = x_column + 4u * slot_of(column_slot, @half);
        var y = sums[2u * @r + @half];
#if HAS_D
        y += skip_four(head, column, x_end) * x_four(token, column, x_end);
#endif
#if HAS_z
        let z = z_four(token, column, x_end);
#if fours
        y *= silu(z);
#else
        y *= vec4f(silu(z.x), silu(z.y), silu(z.z), silu(z.w));
#endif
#endif
        y_store(token, column, x_end, select(y, vec4f(), t >= count));
#endrepeat
    }
#endrepeat
}

#if HAS_D
// D of four channels, or that of the head.
fn skip_four(head: u32, column: u32, end: u32) -> vec4f {
#if channel_skip
  var four = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (column + c < end) {
      four[c] = $D[u.D_at + column + c];
    }
  }
  return four;
#else
  return vec4f($D[u.D_at + head]);
#endif
}
#endif
