// Random numbers by counter: Philox, counter (block, 0, step, 0). A thread makes the four words of a block, or
// with out_u8 the four bytes of a word: 1 where the random word is at least u.threshold.

#include grid
#include packed
#include philox

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = linear_group(group, groups) * 256u + lane;
  if (block >= u.items) {
    return;
  }
  let counter = vec4u(block, 0u, bitcast<u32>($step[u.step_at]), 0u);
  let words = philox(counter, vec2u(u.key_low, u.key_high));
#if out_u8
  let at = u.out_at / 4u + block;
  let bits = 8u * min(u.elements - 4u * block, 4u);
  $out[at] = keep_above(bits, word_of_bytes(select(vec4u(0u), vec4u(1u), words >= vec4u(u.threshold))), $out[at]);
#else
#if out_vec
  $out[u.out_at + block] = bitcast<vec4i>(words);
#else
  for (var k = 0u; k < min(u.elements - 4u * block, 4u); k++) {
    $out[u.out_at + 4u * block + k] = bitcast<i32>(words[k]);
  }
#endif
#endif
}
