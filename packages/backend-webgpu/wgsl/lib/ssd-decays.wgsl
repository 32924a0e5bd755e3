// What the passes of the Mamba-2 scan know of a unit: a head in a piece of time. `pairs` begins with 97 vectors for each unit, which
// hold 64 numbers a token, of as many tokens: dt; a, the sum of dt A from where its sequence or the piece begins up to and with it;
// since, e^a (0 where no state from before the piece is seen); until, e^(a_last - a) (0 where the piece's last token does not see it);
// the first token that it sees (64 for padding and past the end); in backward, the slope of dt by what it was made of. Then: what the piece keeps
// of a state, and how many of its tokens are no padding. Behind them, from u.products_from on, lie matrices of 64 x 64: C_i . B_j.

const unit_vectors = 97u;

// Numbers of tokens 4 quad to 4 quad + 3.
fn decays_at(unit: u32, kind: u32, quad: u32) -> vec4f {
  return $pairs[u.pairs_at + unit * unit_vectors + kind * 16u + quad];
}

fn steps_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 0u, quad); }
fn sums_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 1u, quad); }
fn since_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 2u, quad); }
fn until_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 3u, quad); }
fn sight_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 4u, quad); }
fn slopes_at(unit: u32, quad: u32) -> vec4f { return decays_at(unit, 5u, quad); }

// The number of one token: read alone, as a number picked from a vector by an index may go by way of memory.
fn decay_of(unit: u32, kind: u32, token: u32) -> f32 {
  return $pairs[u.pairs_at + unit * unit_vectors + kind * 16u + token / 4u][token % 4u];
}

fn step_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 0u, token); }
fn sum_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 1u, token); }
fn since_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 2u, token); }
fn until_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 3u, token); }
fn sight_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 4u, token); }
fn slope_of(unit: u32, token: u32) -> f32 { return decay_of(unit, 5u, token); }

fn kept_of(unit: u32) -> f32 {
  return $pairs[u.pairs_at + unit * unit_vectors + 96u].x;
}

// The tokens that are no padding.
fn count_of(unit: u32) -> u32 {
  return u32($pairs[u.pairs_at + unit * unit_vectors + 96u].y);
}

// C_i . B_j of four j.
fn products_at(matrix: u32, i: u32, quad: u32) -> vec4f {
  return $pairs[u.pairs_at + u.products_from + matrix * 1024u + i * 16u + quad];
}

// x, where token i sees tokens 4 quad to 4 quad + 3; elsewhere 0. `sight` is the first token that it sees.
fn seen(x: vec4f, i: u32, sight: f32, quad: u32) -> vec4f {
  let j = vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u);
  return select(vec4f(), x, (j <= vec4u(i)) & (vec4f(j) >= vec4f(sight)));
}
