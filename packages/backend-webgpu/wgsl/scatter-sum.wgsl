// The second half of scatterAdd: each row of the output is the sum of the rows of `source` that `order` names from starts[row]
// on. An item (an element, or with out_vec four) is the work of one thread, or of `strands`, each with every strands-th row.

#include grid

#if out_vec
alias item_type = vec4f;
#else
alias item_type = f32;
#endif

#if !single
var<workgroup> shared_sums: array<item_type, 256>;
#endif

fn source_item(k: u32, column: u32) -> item_type {
  return $source[u.source_at + u32($order[u.order_at + k]) * u.columns + column];
}

fn four_items(k: u32, column: u32) -> item_type {
  let low = source_item(k, column) + source_item(k + strands, column);
  let high = source_item(k + 2u * strands, column) + source_item(k + 3u * strands, column);
  return low + high;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  const across = 256u / strands;
  let item = linear_group(group, groups) * across + lane % across;
  let inside = item < u.items;
  let row = item / u.columns;
  let column = item - row * u.columns;
  var sum = item_type();
  if (inside) {
    let end = u32($starts[u.starts_at + row + 1u]);
    var k = u32($starts[u.starts_at + row]) + lane / across;
    // Many at once, because each waits for two reads, one after the other.
    for (; k + 7u * strands < end; k += 8u * strands) {
      sum += four_items(k, column) + four_items(k + 4u * strands, column);
    }
    for (; k < end; k += strands) {
      sum += source_item(k, column);
    }
  }
#if !single
  shared_sums[lane] = sum;
  for (var width = 128u; width >= across; width /= 2u) {
    workgroupBarrier();
    if (lane < width) {
      sum += shared_sums[lane + width];
      shared_sums[lane] = sum;
    }
  }
#endif
  if (inside && lane < across) {
    $out[u.out_at + item] = sum;
  }
}
