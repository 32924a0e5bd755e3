// Adds up one number of each row of a tile of lib/ssd-tile.wgsl over the threads that share the row; thread i gets row i.
// To be called by the whole workgroup.

var<workgroup> row_parts: array<f32, 576>;

fn sum_rows(values: ptr<function, array<f32, 8>>, lane: u32) -> f32 {
  let row_slot = row_slot_of(lane);
  let column_slot = column_slot_of(lane);
  workgroupBarrier();
#repeat r 8
    row_parts[row_of(row_slot, @r) * 9u + column_slot] = (*values)[@r];
#endrepeat
  workgroupBarrier();
  var sum = 0.0;
  for (var part = 0u; part < 8u; part++) {
    sum += row_parts[lane * 9u + part];
  }
  return sum;
}
