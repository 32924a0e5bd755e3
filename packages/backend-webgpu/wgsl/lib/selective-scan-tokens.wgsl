// A stretch of channels, one to a thread with all of its states, through a piece of time.

#include scan-pieces

const threads = 128u;

struct Place {
  piece: Piece,
  // Its first token, counted through all rows.
  token: u32,
  group: u32,
  // Its first channel, among those of the group.
  column: u32,
}

// A thread's channel; one beyond the group's last does as that one does, without writing.
struct Channel { index: u32, inside: bool }

// `id` counts stretches of channels, group by group, and then pieces.
fn place_of(id: u32) -> Place {
  let number = id / (u.groups * u.stretches);
  let stretch = id - number * u.groups * u.stretches;
  let group = stretch / u.stretches;
  let piece = piece_of(number);
  return Place(piece, piece.b * u.length + piece.first, group, (stretch - group * u.stretches) * threads);
}

fn channel_of(place: Place, lane: u32) -> Channel {
  let column = place.column + lane;
  return Channel(place.group * u.group_size + min(column, u.group_size - 1u), column < u.group_size);
}
