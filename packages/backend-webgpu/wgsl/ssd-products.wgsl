// C_i . B_j of all tokens of a piece of time, for one group of heads: a matrix of 64 x 64, which all of them share.

#include grid
#include scan-pieces
#include ssd-tile
#include ssd-rows(B)
#include ssd-rows(C)

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  if (id >= u.batch * u.pieces * u.groups) {
    return;
  }
  let number = id / u.groups;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  let state0 = (id - number * u.groups) * u.states;
  let end = state0 + u.states;
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  var sums = Sums();
  for (var k = 0u; k < u.states; k += depth) {
    let column = state0 + k + 4u * (lane % 4u);
    var b = array<vec4f, 4>();
    var c = array<vec4f, 4>();
#repeat r 4
      let token = token0 + min(lane / 4u * 4u + @r, piece.size - 1u);
      b[@r] = B_four(token, column, end);
      c[@r] = C_four(token, column, end);
#endrepeat
    workgroupBarrier();
    put_left(lane, c[0], c[1], c[2], c[3]);
    put_right(lane, b[0], b[1], b[2], b[3]);
    workgroupBarrier();
    multiply(&sums, row_slot, column_slot);
  }
#repeat r 8
    let at = u.pairs_at + u.products_from + id * 1024u + row_of(row_slot, @r) * 16u;
    $pairs[at + slot_of(column_slot, 0u)] = sums[2u * @r];
    $pairs[at + slot_of(column_slot, 1u)] = sums[2u * @r + 1u];
#endrepeat
}
