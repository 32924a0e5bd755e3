// Four numbers that follow one another in a row of @@, from `column` on; those from `end` on are 0.

fn @@_four(row: u32, column: u32, end: u32) -> vec4f {
  var four = vec4f();
#if fours
  if (column < end) {
    four = $@@[u.@@_at + row * u.@@_pitch + column / 4u];
  }
#else
  let at = u.@@_at + row * u.@@_pitch + column;
  for (var c = 0u; c < 4u; c++) {
    if (column + c < end) {
      four[c] = $@@[at + c];
    }
  }
#endif
  return four;
}

#if @@_written
fn @@_store(row: u32, column: u32, end: u32, four: vec4f) {
#if fours
  if (column < end) {
    $@@[u.@@_at + row * u.@@_pitch + column / 4u] = four;
  }
#else
  let at = u.@@_at + row * u.@@_pitch + column;
  for (var c = 0u; c < 4u; c++) {
    if (column + c < end) {
      $@@[at + c] = four[c];
    }
  }
#endif
}
#endif
