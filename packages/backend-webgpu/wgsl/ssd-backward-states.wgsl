// The gradients of B and C of the Mamba-2 scan, for some heads of a group in a piece of time, 64 x 64 numbers of (tokens, N), with W of
// ssd-backward-pairs.wgsl:
//   dC_i = sum_j W_ij B_j + sum over heads of e^{a_i} S^T g_i;  or, with `of_B`,
//   dB_j = sum_i W_ij C_i + sum over heads of e^{a_last - a_j} dt_j dS^T x_j.
// On the way to dC also r_i of lib/ssd-places.wgsl. Bound are x for g, dS for S, and C for B with `of_B`.

#include grid
#include scan-pieces
#include ssd-decays
#include ssd-tile
#include ssd-rows(x)
#include ssd-rows(S)
#include ssd-rows(other)
#include ssd-rows(out)
#if !of_B
#include ssd-places
#include ssd-row-sums
#include ssd-rows(C)
#endif

@compute @workgroup_size(threads)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let block_id = id / u.tiles_n;
  let number = block_id / (u.groups * u.blocks);
  if (number >= u.batch * u.pieces) {
    return;
  }
  let tile = id - block_id * u.tiles_n;
  let n0 = tile * 64u;
  let in_piece = block_id - number * u.groups * u.blocks;
  let state_group = in_piece / u.blocks;
  let block = in_piece - state_group * u.blocks;
  let piece = piece_of(number);
  let token0 = piece.b * u.length + piece.first;
  let state0 = state_group * u.states;
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  let four = lane / 4u;
  let count = count_of(number * u.heads);

  var all = Sums();
  for (var k = 0u;; k += depth) {
    var w = array<vec4f, 4>();
    var b = array<vec4f, 4>();
#repeat e 4
      let item = lane + 64u * @e;
      let t = k + item / 16u;
      if (t < count) {
        b[@e] = other_four(token0 + t, state0 + n0 + 4u * (item % 16u), state0 + u.states);
      }
      if (k < piece.size) {
#if of_B
        w[@e] = $weights[u.weights_at + block_id * 1024u + t * 16u + item % 16u];
#else
        w[@e] = $weights[u.weights_at + block_id * 1024u + (4u * four + @e) * 16u + k / 4u + lane % 4u];
#endif
      }
#endrepeat
    // The reads are under way while the step before is multiplied.
    if (k > 0u) {
      multiply(&all, row_slot, column_slot);
    }
    if (k >= piece.size) {
      break;
    }
    workgroupBarrier();
#if !of_B
    put_left(lane, w[0], w[1], w[2], w[3]);
#endif
#repeat e 4
      let item = lane + 64u * @e;
#if of_B
      left[item / 16u][item % 16u] = w[@e];
#endif
      right[item / 16u][item % 16u] = b[@e];
#endrepeat
    workgroupBarrier();
  }

  let end = min((block + 1u) * u.block_heads, u.group_heads);
  for (var h = block * u.block_heads; h < end; h++) {
    let head = state_group * u.group_heads + h;
    let unit = number * u.heads + head;
    var sums = Sums();
    for (var k = 0u;; k += depth) {
      let column = head * u.head_size + k + 4u * (lane % 4u);
      let column_end = (head + 1u) * u.head_size;
      var x = array<vec4f, 4>();
      var s = array<vec4f, 4>();
#repeat r 4
        if (4u * four + @r < count) {
          x[@r] = x_four(token0 + 4u * four + @r, column, column_end);
        }
        let item = lane + 64u * @r;
        let p = k + item / 16u;
        if (p < u.head_size) {
          s[@r] = S_four(unit * u.head_size + p, n0 + 4u * (item % 16u), u.states);
        }
#endrepeat
      // The reads are under way while the step before is multiplied.
      if (k > 0u) {
        multiply(&sums, row_slot, column_slot);
      }
      if (k >= u.head_size) {
        break;
      }
      workgroupBarrier();
      put_left(lane, x[0], x[1], x[2], x[3]);
#repeat r 4
        let item = lane + 64u * @r;
        right[item / 16u][item % 16u] = s[@r];
#endrepeat
      workgroupBarrier();
    }
    var dots = array<f32, 8>();
#repeat r 8
      let t = row_of(row_slot, @r);
#if of_B
      let weight = until_of(unit, t) * step_of(unit, t);
#else
      let weight = since_of(unit, t);
#endif
      if (weight != 0.0) {
#repeat half 2
          let part = weight * sums[2u * @r + @half];
          all[2u * @r + @half] += part;
#if !of_B
          dots[@r] += dot(part, C_four(token0 + t, state0 + n0 + 4u * slot_of(column_slot, @half), state0 + u.states));
#endif
#endrepeat
      }
#endrepeat
#if !of_B
    let r_sum = sum_rows(&dots, lane);
    $sums[sum_at(r_kind(tile), unit, lane)] = r_sum;
#endif
  }
#repeat r 8
    let t = row_of(row_slot, @r);
    if (t < piece.size) {
      let row = block * u.batch * u.length + token0 + t;
#repeat half 2
        out_store(row, state0 + n0 + 4u * slot_of(column_slot, @half), state0 + u.states, all[2u * @r + @half]);
#endrepeat
    }
#endrepeat
}
