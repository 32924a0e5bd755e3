// Four states that follow one another of a token's row of @@, one group of it; those that are missing, and those of
// padding, are 0.

fn @@_four(token: u32, group: u32, q: u32) -> vec4f {
  let at = u.@@_at + token * u.@@_pitch + group * u.states + 4u * q;
  var four = vec4f();
#if marked
  if (mark_of(token) == padding) {
    return four;
  }
#endif
  for (var c = 0u; c < 4u; c++) {
    if (4u * q + c < u.states) {
      four[c] = $@@[at + c];
    }
  }
  return four;
}
