// The AdamW step of item i of parameter @@ (arXiv 1711.05101, algorithm 2); `rates` is what adamw-rates.wgsl makes.

fn update_@@(i: u32) {
  if (i >= u.@@_items) {
    return;
  }
  let at = u.rates_at;
  let value = $@@_p[u.@@_p_at + i];
  let gradient = $rates[at + 1u] * $@@_g[u.@@_g_at + i];
  let first = u.beta1 * $@@_m[u.@@_m_at + i] + u.other1 * gradient;
  let second = u.beta2 * $@@_v[u.@@_v_at + i] + u.other2 * gradient * gradient;
  // Some drivers take v / sqrt v for the root, which is NaN at 0.
  let root = select(sqrt(second), item(0.0), second == item(0.0));
  let decay = $rates[at + 4u] * u.@@_decay;
  $@@_m[u.@@_m_at + i] = first;
  $@@_v[u.@@_v_at + i] = second;
  $@@_p[u.@@_p_at + i] = value - (decay * value + $rates[at + 2u] * first / (root * $rates[at + 3u] + item(u.eps)));
}
