// The first half of scatterAdd: the positions of an index in the order of the rows that they name, and where each row's begin. Stable,
// and without atomics. A workgroup takes 64 rows of the table: it goes through the whole index, counts what belongs to the rows
// before its own and lists in order what belongs to its own; then a thread to each row picks its own of that list.
// All write to `order` and `listed` where the sorted positions of their own rows belong.

#include grid
#include scan(u32)

const ROWS = 64u;

// The rows that item i of the index names: four at once with index_vec, else one. Negative ones are above all rows.
fn rows_at(i: u32) -> vec4u {
#if index_vec
  return bitcast<vec4u>($index[u.index_at + i]);
#else
  return vec4u(bitcast<u32>($index[u.index_at + i]), vec3u(0xffffffffu));
#endif
}

fn position_of(i: u32, k: u32) -> u32 {
#if index_vec
  return 4u * i + k;
#else
  return i;
#endif
}

fn how_many(which: vec4<bool>) -> u32 {
  let ones = vec4u(which);
  return ones.x + ones.y + ones.z + ones.w;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first_row = min(linear_group(group, groups) * ROWS, u.rows);
  let rows = min(u.rows - first_row, ROWS);
  // A piece of the index to each thread, so that the order of positions is the order of threads.
  let first = min(lane * u.piece, u.items);
  let end = min(first + u.piece, u.items);
  var before = 0u;
  var mine = 0u;
  for (var i = first; i < end; i++) {
    let named = rows_at(i);
    before += how_many(named < vec4u(first_row));
    mine += how_many(named - vec4u(first_row) < vec4u(rows));
  }
  let begin = scan_u32(before, lane).all;
  let listed = scan_u32(mine, lane);
  // A listed word is 64 times the position and the row, counted from the first.
  if (mine > 0u) {
    var next = u.listed_at + begin + listed.before;
    for (var i = first; i < end; i++) {
      let row = rows_at(i) - vec4u(first_row);
      for (var k = 0u; k < 4u; k++) {
        if (row[k] < rows) {
          $listed[next] = bitcast<i32>(position_of(i, k) * ROWS + row[k]);
          next++;
        }
      }
    }
  }
  storageBarrier();
  var count = 0u;
  if (lane < ROWS) {
    for (var k = 0u; k < listed.all; k++) {
      count += u32(bitcast<u32>($listed[u.listed_at + begin + k]) % ROWS == lane);
    }
  }
  var next = begin + scan_u32(count, lane).before;
  if (lane < rows) {
    $starts[u.starts_at + first_row + lane] = i32(next);
    if (first_row + lane + 1u == u.rows) {
      $starts[u.starts_at + u.rows] = i32(next + count);
    }
    for (var k = 0u; k < select(0u, listed.all, count > 0u); k++) {
      let word = bitcast<u32>($listed[u.listed_at + begin + k]);
      if (word % ROWS == lane) {
        $order[u.order_at + next] = i32(word / ROWS);
        next++;
      }
    }
  }
}
