// The sum of squares of stretch `stretch` of tensor @@: 16 items to each of 256 threads, read in batches of four.

fn squares_@@(stretch: u32, lane: u32) -> item {
  let first = stretch * 4096u + lane;
  var sum = item(0.0);
  for (var i = first; i < min(first + 4096u, u.@@_items); i += 1024u) {
    var values: array<item, 4>;
    for (var k = 0u; k < 4u; k++) {
      let place = i + k * 256u;
      values[k] = select(item(0.0), $@@[u.@@_at + min(place, u.@@_items - 1u)], place < u.@@_items);
    }
    for (var k = 0u; k < 4u; k++) {
      sum += values[k] * values[k];
    }
  }
  return sum;
}
