// Random numbers by counter: Philox 4x32-10 (Salmon et al. 2011), counter (block, 0, step, 0). A thread makes the four words of a block, or
// with out_u8 the four bytes of a word: 1 where the random word is at least u.threshold.

#include grid
#include packed

// The low and the high word of a product of two words.
fn wide_product(a: u32, b: u32) -> vec2u {
  let a_low = a & 0xffffu;
  let a_high = a >> 16u;
  let b_low = b & 0xffffu;
  let b_high = b >> 16u;
  let low = a_low * b_low;
  let middle = a_high * b_low + (low >> 16u);
  let carry = a_low * b_high + (middle & 0xffffu);
  return vec2u(a * b, a_high * b_high + (middle >> 16u) + (carry >> 16u));
}

fn philox(block: u32, step: u32) -> vec4u {
  var c = vec4u(block, 0u, step, 0u);
  var key = vec2u(u.key_low, u.key_high);
  for (var round = 0u; round < 10u; round++) {
    let first = wide_product(0xd2511f53u, c.x);
    let second = wide_product(0xcd9e8d57u, c.z);
    c = vec4u(second.y ^ c.y ^ key.x, second.x, first.y ^ c.w ^ key.y, first.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

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
  let words = philox(block, bitcast<u32>($step[u.step_at]));
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
