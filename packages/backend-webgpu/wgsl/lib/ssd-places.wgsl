// Where the passes of the gradient of the Mamba-2 scan leave their sums, in `sums`: 64 numbers a unit and kind, one a token.
//   kind 0: sum over i >= t > j of (g_i . X_j) (C_i . B_j) e^{a_i - a_j}, the part of d(dt_t A) that stays in the piece;
//   then, once for each tile of P: q_j = e^{a_last - a_j} X_j . (dS B_j), and x_j . dX_j;
//   then, once for each tile of N: r_i = e^{a_i} g_i . (S C_i).
// Behind them, for each piece, a row of sums over its tokens: D's gradient (H, P), A's (H,) and the bias' (H,).

fn q_kind(tile: u32) -> u32 { return 1u + 2u * tile; }
fn dot_kind(tile: u32) -> u32 { return 2u + 2u * tile; }
fn r_kind(tile: u32) -> u32 { return 1u + 2u * u.tiles_p + tile; }

fn sum_at(kind: u32, unit: u32, t: u32) -> u32 {
  return u.sums_at + (kind * u.units + unit) * 64u + t;
}

// Where the row of a piece begins.
fn row_sums_at(number: u32) -> u32 {
  return u.sums_at + (1u + 2u * u.tiles_p + u.tiles_n) * u.units * 64u + number * (u.heads * u.head_size + 2u * u.heads);
}
