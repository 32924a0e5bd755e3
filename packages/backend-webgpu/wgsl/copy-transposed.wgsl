// Copies words where the innermost axis of the output is not that of the input: tiles of 32 by 32 go through workgroup memory, so that
// both are read and written along their own rows. x, y: the axes of size u.across, side by side in the input, and u.down, side by
// side in the output; other axes by number.

#include grid
#include axes(outer)

var<workgroup> tile: array<array<i32, 33>, 32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let outer = id / (u.tiles_across * u.tiles_down);
  let inside = outer < u.outers;
  let in_matrix = id % (u.tiles_across * u.tiles_down);
  let column0 = in_matrix % u.tiles_across * 32u;
  let row0 = in_matrix / u.tiles_across * 32u;
  let places = outer_places(outer);
  let column = lane % 32u;
  let row = lane / 32u;
  for (var k = 0u; k < 32u; k += 8u) {
    if (inside && column0 + column < u.across && row0 + row + k < u.down) {
      tile[row + k][column] = $a[u.a_at + places.y + (row0 + row + k) * u.a_pitch + column0 + column];
    }
  }
  workgroupBarrier();
  for (var k = 0u; k < 32u; k += 8u) {
    if (inside && row0 + column < u.down && column0 + row + k < u.across) {
      $out[u.out_at + places.x + (column0 + row + k) * u.out_pitch + row0 + column] = tile[column][row + k];
    }
  }
}
