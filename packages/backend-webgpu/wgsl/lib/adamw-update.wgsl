// The AdamW step of item i of parameter @@ (arXiv 1711.05101, algorithm 2); `rates` is what adamw-rates.wgsl makes. With a copy
// the new value is stored there too, as @@_bf16 or @@_f16: in whole words, or by whole-number atomics where items are single elements.

#if HAS_@@_copy
#include packed
#include halves
#if @@_bf16
fn half_@@(x: f32) -> u32 { return bf16_of_f32(x); }
#endif
#if @@_f16
fn half_@@(x: f32) -> u32 { return f16_of_f32(x); }
#endif
#endif

fn update_@@(i: u32) {
  if (i >= u.@@_items) {
    return;
  }
  let at = u.rates_at;
  // Everything is under way before the rates are looked at.
  let value = $@@_p[u.@@_p_at + i];
  let raw = $@@_g[u.@@_g_at + i];
  let first_before = $@@_m[u.@@_m_at + i];
  let second_before = $@@_v[u.@@_v_at + i];
  // The norm was not finite: nothing changes.
  if ($rates[at] == 0.0) {
    return;
  }
  let gradient = $rates[at + 1u] * raw;
  let first = u.beta1 * first_before + u.other1 * gradient;
  let second = u.beta2 * second_before + u.other2 * gradient * gradient;
  // Some drivers take v / sqrt v for the root, which is NaN at 0.
  let root = select(sqrt(second), item(0.0), second == item(0.0));
  let decay = $rates[at + 4u] * u.@@_decay;
  $@@_m[u.@@_m_at + i] = first;
  $@@_v[u.@@_v_at + i] = second;
  let updated = value - (decay * value + $rates[at + 2u] * first / (root * $rates[at + 3u] + item(u.eps)));
  $@@_p[u.@@_p_at + i] = updated;
#if HAS_@@_copy
#if fours
  let copy_at = u.@@_copy_at / 2u + 2u * i;
  $@@_copy[copy_at] = word_of_halves(half_@@(updated.x), half_@@(updated.y));
  $@@_copy[copy_at + 1u] = word_of_halves(half_@@(updated.z), half_@@(updated.w));
#else
  let copy_at = u.@@_copy_at + i;
  let shift = 16u * (copy_at & 1u);
  atomicAnd(&$@@_copy[copy_at / 2u], ~(0xffffu << shift));
  atomicOr(&$@@_copy[copy_at / 2u], half_@@(updated) << shift);
#endif
#endif
}
