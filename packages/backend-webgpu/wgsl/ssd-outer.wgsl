// A sum of outer products over the tokens of a piece of time, for one head, 64 x 64 numbers of (P, N): what the piece adds to a state,
// sum_j e^{a_last - a_j} dt_j x_j B_j^T; or, with `backward`, to the gradient of the state that enters it, sum_i e^{a_i} g_i C_i^T.

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-tile
#include ssd-rows(x)
#include ssd-rows(B)
#include ssd-rows(out)

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let tiles = u.tiles_p * u.tiles_n;
  let unit = id / tiles;
  if (unit >= u.units) {
    return;
  }
  let tile = id - unit * tiles;
  let p0 = tile / u.tiles_n * 64u;
  let n0 = tile % u.tiles_n * 64u;
  let number = unit / u.heads;
  let head = unit - number * u.heads;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  let count = count_of(unit);
  let x_column = head * u.head_size + p0;
  let x_end = (head + 1u) * u.head_size;
  let state0 = head / u.group_heads * u.states;
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  var sums = Sums();
  for (var k = 0u; k < piece.size; k += depth) {
    var x = array<vec4f, 4>();
    var b = array<vec4f, 4>();
#repeat e 4
      let item = lane + 64u * @e;
      let t = k + item / 16u;
      if (t < count) {
#if backward
        let weight = since_of(unit, t);
#else
        let weight = until_of(unit, t) * step_of(unit, t);
#endif
        // Read whatever the weight is, which is under way itself; what a weight of 0 stands before may be no number.
        let own = x_four(token0 + t, x_column + 4u * (item % 16u), x_end);
        let other = B_four(token0 + t, state0 + n0 + 4u * (item % 16u), state0 + u.states);
        x[@e] = select(weight * own, vec4f(), weight == 0.0);
        b[@e] = select(other, vec4f(), weight == 0.0);
      }
#endrepeat
    workgroupBarrier();
#repeat e 4
      let item = lane + 64u * @e;
      left[item / 16u][item % 16u] = x[@e];
      right[item / 16u][item % 16u] = b[@e];
#endrepeat
    workgroupBarrier();
    multiply(&sums, row_slot, column_slot);
  }
#repeat r 8
    let p = p0 + row_of(row_slot, @r);
    if (p < u.head_size) {
      let row = unit * u.head_size + p;
      out_store(row, n0 + 4u * slot_of(column_slot, 0u), u.states, sums[2u * @r]);
      out_store(row, n0 + 4u * slot_of(column_slot, 1u), u.states, sums[2u * @r + 1u]);
    }
#endrepeat
}
