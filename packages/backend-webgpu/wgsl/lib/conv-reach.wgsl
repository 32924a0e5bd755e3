// How far back the taps of a convolution reach. With `reach` (B, L + 1): the number of earlier tokens, at most width - 1, that belong
// to token t's sequence, or -1 for padding; at the end of each row its number of tokens. Without: one sequence, no padding.

// Of token t or, where the row is shorter, of its last one.
fn reach_of(b: u32, t: u32) -> i32 {
#if HAS_reach
  return $reach[u.reach_at + b * (u.length + 1u) + min(t, u.length - 1u)];
#else
  return i32(min(t, width - 1u));
#endif
}

fn end_of(b: u32) -> u32 {
#if HAS_reach
  return u32($reach[u.reach_at + b * (u.length + 1u) + u.length]);
#else
  return u.length;
#endif
}

// Whether the sequence of token t, of that reach, sees what lies `back` tokens before it; before a row's first token lies its
// initial state (or zeros), if the sequence goes back so far.
fn sees(t: i32, reach: i32, back: i32) -> bool {
  return back <= reach || (back > t && reach == t);
}
