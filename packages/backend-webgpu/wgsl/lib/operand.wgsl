// Reads operand @@ of a kernel: one element, or four that follow one another along the innermost axis. Its elements are f32
// (@@_f32), i32 (@@_i32), or packed (@@_u8, @@_half) and then seen as u32. Four at once are: one vec4 (@@_vec), the four bytes
// of a word (@@_word), one element four times (@@_same), or four elements u.@@_step apart.

#include packed

#if @@_f32
alias @@_type = f32;
#endif
#if @@_i32
alias @@_type = i32;
#endif
#if @@_u8
alias @@_type = u32;
#endif
#if @@_half
alias @@_type = u32;
#endif

#if @@_vec
fn @@_four(place: u32) -> vec4<@@_type> {
  return $@@[u.@@_at + place];
}
#else

fn @@_one(place: u32) -> @@_type {
  let at = u.@@_at + place;
#if @@_u8
  return byte_of($@@[at / 4u], at);
#else
#if @@_half
  return half_of($@@[at / 2u], at);
#else
  return $@@[at];
#endif
#endif
}

fn @@_four(place: u32) -> vec4<@@_type> {
#if @@_word
  return bytes_of($@@[u.@@_at / 4u + place]);
#else
#if @@_same
  return vec4<@@_type>(@@_one(place));
#else
  let step = u.@@_step;
  return vec4<@@_type>(@@_one(place), @@_one(place + step), @@_one(place + 2u * step), @@_one(place + 3u * step));
#endif
#endif
}
#endif
