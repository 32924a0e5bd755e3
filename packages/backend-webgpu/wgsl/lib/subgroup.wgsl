// Joins one value of each of `width` neighbouring lanes, at most `run` of them, with the shader's function `join` on its type
// `summand`, as a butterfly: every lane gets the result. `run` and `width` are powers of 2; no subgroup of the device is smaller
// than `run`, and lanes that follow one another share a subgroup. To be called by the whole workgroup.

fn join_near(value: summand, width: u32) -> summand {
  var all = value;
  for (var apart = 1u; apart < min(width, run); apart *= 2u) {
    all = join(all, subgroupShuffleXor(all, apart));
  }
  return all;
}
