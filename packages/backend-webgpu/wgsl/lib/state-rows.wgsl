// Four states that follow one another of a row of @@: u.states numbers, without gaps between rows. States that are missing are 0,
// and are not written.

fn @@_quad(row: u32, q: u32) -> vec4f {
#if fours
  return $@@[u.@@_at + row * quads + q];
#else
  let at = u.@@_at + row * u.states + 4u * q;
  var four = vec4f();
  for (var c = 0u; c < 4u; c++) {
    if (4u * q + c < u.states) {
      four[c] = $@@[at + c];
    }
  }
  return four;
#endif
}

#if @@_written
fn @@_store(row: u32, q: u32, four: vec4f) {
#if fours
  $@@[u.@@_at + row * quads + q] = four;
#else
  let at = u.@@_at + row * u.states + 4u * q;
  for (var c = 0u; c < 4u; c++) {
    if (4u * q + c < u.states) {
      $@@[at + c] = four[c];
    }
  }
#endif
}
#endif
