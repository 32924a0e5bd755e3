// How scans cut a row of u.length tokens into u.pieces pieces: each chunk of u.chunk_size tokens into u.per of at most u.piece_tokens,
// the last chunk into as many as it fills.

struct Piece {
  // The row of the batch, and the piece's number in all rows.
  b: u32,
  number: u32,
  // Its first token in the row, and how many the row has of it, padding included: at least one.
  first: u32,
  size: u32,
}

fn piece_of(number: u32) -> Piece {
  let b = number / u.pieces;
  let index = number - b * u.pieces;
  let chunk = index / u.per;
  let first = chunk * u.chunk_size + (index - chunk * u.per) * u.piece_tokens;
  let end = min(min(first + u.piece_tokens, (chunk + 1u) * u.chunk_size), u.length);
  return Piece(b, number, first, end - first);
}
