// The frame of the elementwise kernels. One thread makes one element, by `one`; or (with `fours`) four neighbours, by `four`, to be
// stored as a vec4 or as packed words; or (with `across`) four neighbours that need not lie in one row, each by `one`.
// Both functions are given where the operands' elements lie: x is the output, y to w the inputs.

#include grid
#include packed
#include axes(item)

#if out_f32
alias out_type = f32;
#endif
#if out_i32
alias out_type = i32;
#endif
#if out_u8
alias out_type = u32;
#endif
#if out_half
alias out_type = u32;
#endif

// Elements 4 item to 4 item + 3 of an output without gaps; what lies behind its end stays as it is.
#if out_u8
fn store_four(item: u32, place: u32, value: vec4u) {
  let at = u.out_at / 4u + item;
  let bits = 8u * min(u.elements - 4u * item, 4u);
  var word = word_of_bytes(value);
  if (bits < 32u) {
    word = keep_above(bits, word, $out[at]);
  }
  $out[at] = word;
}
#endif
#if out_half
fn store_four(item: u32, place: u32, value: vec4u) {
  let at = u.out_at / 2u + 2u * item;
  let left = min(u.elements - 4u * item, 4u);
  let low = word_of_halves(value.x, value.y);
  let high = word_of_halves(value.z, value.w);
  $out[at] = keep_above(16u * min(left, 2u), low, $out[at]);
  if (left > 2u) {
    $out[at + 1u] = keep_above(16u * (left - 2u), high, $out[at + 1u]);
  }
}
#endif
#if out_vec
fn store_four(item: u32, place: u32, value: vec4<out_type>) {
  $out[u.out_at + place] = value;
}
#endif

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  // Two items a thread, both read before either is written: so many reads must be under way at once to fill the memory's bandwidth.
  let first = linear_group(group, groups) * 512u + lane;
  if (first >= u.items) {
    return;
  }
  let second = first + 256u;
  let last = u.items - 1u;
#if fours
  let first_at = item_places(first);
  let second_at = item_places(min(second, last));
  let first_value = four(first_at);
  let second_value = four(second_at);
  store_four(first, first_at.x, first_value);
  if (second <= last) {
    store_four(second, second_at.x, second_value);
  }
#else
#if across
  store_four(first, 0u, four_across(first));
  if (second <= last) {
    store_four(second, 0u, four_across(second));
  }
#else
  let first_at = item_places(first);
  let second_at = item_places(min(second, last));
  let first_value = one(first_at);
  let second_value = one(second_at);
  $out[u.out_at + first_at.x] = first_value;
  if (second <= last) {
    $out[u.out_at + second_at.x] = second_value;
  }
#endif
#endif
}

#if across
fn four_across(item: u32) -> vec4<out_type> {
  let i = 4u * item;
  return vec4<out_type>(
    one(item_places(i)), one(item_places(i + 1u)), one(item_places(i + 2u)), one(item_places(i + 3u)));
}
#endif
