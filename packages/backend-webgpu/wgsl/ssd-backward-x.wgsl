// The gradient of x of the Mamba-2 scan, for one head in a piece of time, 64 x 64 numbers of (tokens, P):
// dX_j = e^{a_last - a_j} dS B_j + sum_{i>=j} (C_i . B_j) e^{a_i - a_j} g_i, dx = dt dX + D g, where dS is the gradient of the state
// that leaves; and what it takes part in: q_j and x_j . dX_j of lib/ssd-places.wgsl, and the gradient of D.

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-places
#include ssd-tile
#include ssd-row-sums
#include ssd-rows(x)
#include ssd-rows(B)
#include ssd-rows(dS)
#include ssd-rows(g)
#if HAS_dx
#include ssd-rows(dx)
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
  let tile = id - unit * u.tiles_p;
  let p0 = tile * 64u;
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

  // B dS^T
  for (var k = 0u;; k += depth) {
    let n = k + 4u * (lane % 4u);
    var b = array<vec4f, 4>();
    var s = array<vec4f, 4>();
#repeat r 4
      if (4u * four + @r < count) {
        b[@r] = B_four(token0 + 4u * four + @r, state0 + n, state0 + u.states);
      }
      if (p0 + 4u * four + @r < u.head_size) {
        s[@r] = dS_four(unit * u.head_size + p0 + 4u * four + @r, n, u.states);
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
    put_left(lane, b[0], b[1], b[2], b[3]);
    put_right(lane, s[0], s[1], s[2], s[3]);
    workgroupBarrier();
  }
  var q = array<f32, 8>();
#repeat r 8
    let t = row_of(row_slot, @r);
    let until = until_of(unit, t);
    let step = step_of(unit, t);
#repeat half 2
      sums[2u * @r + @half] = select(until * sums[2u * @r + @half], vec4f(), until == 0.0);
      if (t < count) {
        q[@r] += step * dot(sums[2u * @r + @half], x_four(token0 + t, x_column + 4u * slot_of(column_slot, @half), x_end));
      }
#endrepeat
#endrepeat
  $sums[sum_at(q_kind(tile), unit, lane)] = sum_rows(&q, lane);

  // (C B^T . M)^T g: k counts i.
  let matrix = number * u.groups + state_group;
  for (var k = 0u;; k += depth) {
    var w = array<vec4f, 4>();
    var g = array<vec4f, 4>();
#repeat e 4
      let item = lane + 64u * @e;
      let i = k + item / 16u;
      let quad = item % 16u;
      if (i < count) {
        let sight = sight_of(unit, i);
        let decay = exp(vec4f(sum_of(unit, i)) - sums_at(unit, quad));
        w[@e] = seen(products_at(matrix, i, quad) * decay, i, sight, quad);
        g[@e] = g_four(token0 + i, x_column + 4u * quad, x_end);
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
#repeat e 4
      let item = lane + 64u * @e;
      left[item / 16u][item % 16u] = w[@e];
      right[item / 16u][item % 16u] = g[@e];
#endrepeat
    workgroupBarrier();
  }

  // Over tokens, of the eight rows that this thread has, for D; and over channels.
  var dots = array<f32, 8>();
  var skips = array<vec4f, 2>();
#repeat r 8
    let t = row_of(row_slot, @r);
    if (t < piece.size) {
      let token = token0 + t;
      let step = step_of(unit, t);
#repeat half 2
        let column = x_column + 4u * slot_of(column_slot, @half);
        var x = vec4f();
        var g = vec4f();
        if (t < count) {
          x = x_four(token, column, x_end);
          g = g_four(token, column, x_end);
        }
        let dX = sums[2u * @r + @half];
        dots[@r] += dot(x, dX);
        skips[@half] += x * g;
#if HAS_dx
        var dx = step * dX;
#if HAS_D
        dx += skip_four(head, column, x_end) * g;
#endif
        dx_store(token, column, x_end, dx);
#endif
#endrepeat
    }
#endrepeat
  $sums[sum_at(dot_kind(tile), unit, lane)] = sum_rows(&dots, lane);
  workgroupBarrier();
#repeat half 2
    left[row_slot][slot_of(column_slot, @half)] = skips[@half];
#endrepeat
  workgroupBarrier();
  if (lane < 16u) {
    var sum = vec4f();
    for (var part = 0u; part < 8u; part++) {
      sum += left[part][lane];
    }
    for (var c = 0u; c < 4u; c++) {
      if (p0 + 4u * lane + c < u.head_size) {
        $sums[row_sums_at(number) + x_column + 4u * lane + c] = sum[c];
      }
    }
  }
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
