// Rows of a table by index, of bytes or halves in rows that do not begin on whole words: a thread makes a word of the output.

#include grid
#include operand(table)

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
#if table_u8
  let per_word = 4u;
#else
  let per_word = 2u;
#endif
  let bits = 32u / per_word;
  let first = item * per_word;
  let count = min(per_word, u.elements - first);
  var word = 0u;
  for (var k = 0u; k < count; k++) {
    let row = (first + k) / u.columns;
    let source = bitcast<u32>($index[u.index_at + row]);
    var value = u.missing & (0xffffffffu >> (32u - bits));
    if (source < u.rows) {
      value = table_one(source * u.columns + (first + k - row * u.columns));
    }
    word |= value << (bits * k);
  }
  let at = u.out_at / per_word + item;
  $out[at] = keep_above(bits * count, word, $out[at]);
}
