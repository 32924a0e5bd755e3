// Carries the states of the Mamba-2 scan through pieces of time, an item of a head's state to a thread. On the way each piece's own part
// in `local` gives way to the state that enters the piece. Runs of pieces go by themselves: all of a row, from its initial state
// (or, `reversed`, from its end), or those of a chunk, from the state that was saved for it.

#include grid
#include items
#include ssd-decays

// The piece that comes as number k of the run from `first` to `end`.
fn piece_at(first: u32, k: u32, end: u32) -> u32 {
#if reversed
  return end - 1u - (k - first);
#else
  return k;
#endif
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups) * 256u + lane;
  let row = id / u.items;
  let i = id - row * u.items;
  let run = row / u.heads;
  let head = row - run * u.heads;
  if (run >= u.batch * u.runs) {
    return;
  }
  let b = run / u.runs;
  let index = run - b * u.runs;
  var state = item();
#if HAS_source
  state = $source[u.source_at + row * u.items + i];
#endif
  let first = index * u.run_pieces;
  let end = min(first + u.run_pieces, u.pieces);
  for (var k = first; k < end; k += 8u) {
    // Eight pieces are read before the first is written: so many reads must be under way at once to fill the memory's bandwidth.
    var own = array<item, 8>();
    var kept = array<f32, 8>();
#repeat ahead 8
    let unit = (b * u.pieces + piece_at(first, min(k + @ahead, end - 1u), end)) * u.heads + head;
    own[@ahead] = $local[u.local_at + unit * u.items + i];
    kept[@ahead] = kept_of(unit);
#endrepeat
#repeat ahead 8
    if (k + @ahead < end) {
      let piece = piece_at(first, k + @ahead, end);
#if HAS_saved
      if (piece % u.per == 0u) {
        $saved[u.saved_at + ((b * u.chunks + piece / u.per) * u.heads + head) * u.items + i] = state;
      }
#endif
      $local[u.local_at + ((b * u.pieces + piece) * u.heads + head) * u.items + i] = state;
      state = own[@ahead] + select(kept[@ahead] * state, item(), kept[@ahead] == 0.0);
    }
#endrepeat
  }
#if HAS_target
  $target[u.target_at + row * u.items + i] = state;
#endif
}
