// What the passes of the selective scan share. `work` begins with a table of `entries` numbers for each channel, the same number of
// all channels side by side: A log2 e of each state (0 for those that fill up the last four), D, and the bias of Delta; then, at
// u.marks_from, a mark for each token, if anything is packed or padded.

const entries = 4u * quads + 2u;
const padding = 0u;
const starting = 2u;

// Of a piece's sum of Delta: a sequence begins in it, so that nothing of the state before comes through.
const restarted = 3.0e38f;

fn table_at(entry: u32, channel: u32) -> f32 {
  return $work[u.work_at + entry * u.channels + channel];
}

fn rates_at(q: u32, channel: u32) -> vec4f {
  let entry = 4u * q;
  return vec4f(
    table_at(entry, channel), table_at(entry + 1u, channel), table_at(entry + 2u, channel), table_at(entry + 3u, channel));
}

fn skip_of(channel: u32) -> f32 {
  return table_at(4u * quads, channel);
}

fn bias_of(channel: u32) -> f32 {
  return table_at(4u * quads + 1u, channel);
}

// Of a token, counted through all rows: `padding`, `starting` where it begins a later sequence of its row, or 1.
fn mark_of(token: u32) -> u32 {
#if marked
  return u32($work[u.work_at + u.marks_from + token]);
#else
  return 1u;
#endif
}

#include exponential

#if softplus_delta
fn step_of(raw: f32) -> f32 { return softplus(raw); }
#else
fn step_of(raw: f32) -> f32 { return raw; }
#endif

// What a piece's sum of Delta leaves of a state.
fn kept_of(rates: vec4f, sum: f32) -> vec4f {
  return select(exp2(rates * sum), vec4f(), sum >= restarted);
}
