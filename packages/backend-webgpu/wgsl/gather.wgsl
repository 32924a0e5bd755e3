// Rows of a table by index. An item is a word of a row, or with out_vec four words: bits are moved, whatever they mean.
// A row that the table has not gets words of u.missing: NaN for floats.

#include grid
#include numbers

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = linear_group(group, groups) * 256u + lane;
  if (item >= u.items) {
    return;
  }
  let row = item / u.columns;
  let source = bitcast<u32>($index[u.index_at + row]);
#if out_vec
  var value = vec4i(bitcast<i32>(u.missing));
#else
  var value = bitcast<i32>(u.missing);
#endif
  if (source < u.rows) {
    value = $table[u.table_at + source * u.columns + (item - row * u.columns)];
  }
  $out[u.out_at + item] = value;
}
