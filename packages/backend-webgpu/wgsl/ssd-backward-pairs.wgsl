// The gradient of the Mamba-2 scan inside a piece of time, over pairs of tokens, for some heads of a group: W_ij = (g_i . dt_j x_j)
// e^{a_i - a_j}, added up over the heads; and for each head the part of d(dt_t A) that stays in the piece, which is the sum of
// W_ij (C_i . B_j) over i >= t > j: of terms that all count, not of a difference of sums.

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-places
#include ssd-tile
#include ssd-rows(x)
#include ssd-rows(g)

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let number = id / (u.groups * u.blocks);
  if (number >= u.batch * u.pieces) {
    return;
  }
  let in_piece = id - number * u.groups * u.blocks;
  let state_group = in_piece / u.blocks;
  let block = in_piece - state_group * u.blocks;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  let four = lane / 4u;
  let matrix = number * u.groups + state_group;
  var all = Sums();
  let end = min((block + 1u) * u.block_heads, u.group_heads);
  for (var h = block * u.block_heads; h < end; h++) {
    let head = state_group * u.group_heads + h;
    let unit = number * u.heads + head;
    let count = count_of(unit);
    var sums = Sums();
    for (var k = 0u; k < u.head_size; k += depth) {
      let column = head * u.head_size + k + 4u * (lane % 4u);
      let column_end = (head + 1u) * u.head_size;
      var g = array<vec4f, 4>();
      var x = array<vec4f, 4>();
#repeat r 4
        if (4u * four + @r < count) {
          g[@r] = g_four(token0 + 4u * four + @r, column, column_end);
          x[@r] = x_four(token0 + 4u * four + @r, column, column_end);
        }
#endrepeat
      workgroupBarrier();
      put_left(lane, g[0], g[1], g[2], g[3]);
      put_right(lane, x[0], x[1], x[2], x[3]);
      workgroupBarrier();
      multiply(&sums, row_slot, column_slot);
    }

    // Sums of squares of four by four: `left` gets those of rows, right those of columns up to before each.
    workgroupBarrier();
#repeat half 2
      let columns = slot_of(column_slot, @half);
      let a_columns = sums_at(unit, columns);
      let steps = steps_at(unit, columns);
#repeat upper 2
        let rows = row_slot + 8u * @upper;
        let a_rows = sums_at(unit, rows);
        let sights = sight_at(unit, rows);
        var of_rows = vec4f();
        var of_columns = vec4f();
#repeat r 4
          let at = 2u * (4u * @upper + @r) + @half;
          let i = 4u * rows + @r;
          let w = seen(sums[at] * steps * exp(vec4f(a_rows[@r]) - a_columns), i, sights[@r], columns);
          all[at] += w;
          let product = seen(w * products_at(matrix, i, columns), i, sights[@r], columns);
          if (rows == columns) {
            // Of pairs in one square each token takes its own: rows from it on, columns before it.
            let before = vec4f(0.0, product.x, product.x + product.y, product.x + product.y + product.z);
            of_rows += select(vec4f(), before, vec4u(0u, 1u, 2u, 3u) <= vec4u(@r));
          } else {
            of_rows[@r] = (product.x + product.y) + (product.z + product.w);
            of_columns += product;
          }
#endrepeat
        left[columns][rows] = of_rows;
        right[columns][rows] =
          vec4f(0.0, of_columns.x, of_columns.x + of_columns.y, of_columns.x + of_columns.y + of_columns.z);
#endrepeat
#endrepeat
    workgroupBarrier();
    // Token t: squares of later rows and earlier columns whole, its own row's from it on, its own column's up to it.
    let own = lane / 4u;
    let within = lane % 4u;
    let later = vec4f(vec4u(0u, 1u, 2u, 3u) >= vec4u(within));
    var sum = left[own][own][within];
    for (var columns = 0u; columns < own; columns++) {
      sum += dot(left[columns][own], later);
      for (var rows = own + 1u; rows < 16u; rows++) {
        let of_rows = left[columns][rows];
        sum += (of_rows.x + of_rows.y) + (of_rows.z + of_rows.w);
      }
    }
    for (var rows = own + 1u; rows < 16u; rows++) {
      sum += right[own][rows][within];
    }
    $sums[sum_at(0u, unit, lane)] = sum;
    workgroupBarrier();
  }
#repeat r 8
    let at = u.weights_at + id * 1024u + row_of(row_slot, @r) * 16u;
    $weights[at + slot_of(column_slot, 0u)] = all[2u * @r];
    $weights[at + slot_of(column_slot, 1u)] = all[2u * @r + 1u];
#endrepeat
}
