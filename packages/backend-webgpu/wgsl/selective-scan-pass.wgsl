// The second pass of a scan: carries states through pieces of time, four states to a thread. On the way each piece's own result in
// `local` gives way to the state that enters the piece. Runs of pieces go by themselves: all of a row, from its initial state (or,
// `reversed`, from its end), or those of a chunk, from the state that was saved for it.

#include grid
#include selective-scan
#include state-rows(local)
#if HAS_source
#include state-rows(source)
#endif
#if HAS_target
#include state-rows(target)
#endif
#if HAS_saved
#include state-rows(saved)
#endif

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups) * 256u + lane;
  let row = id / quads;
  let q = id - row * quads;
  let run = row / u.channels;
  let channel = row - run * u.channels;
  if (run >= u.batch * u.runs) {
    return;
  }
  let b = run / u.runs;
  let index = run - b * u.runs;
  let rates = rates_at(q, channel);
  var state = vec4f();
#if HAS_source
  state = source_quad(row, q);
#endif
  let first = index * u.run_pieces;
  let end = min(first + u.run_pieces, u.pieces);
  for (var k = first; k < end; k++) {
#if reversed
    let piece = end - 1u - (k - first);
#else
    let piece = k;
#endif
    let at = (b * u.pieces + piece) * u.channels + channel;
    let own = local_quad(at, q);
#if HAS_saved
    if (piece % u.per == 0u) {
      saved_store((b * u.chunks + piece / u.per) * u.channels + channel, q, state);
    }
#endif
    local_store(at, q, state);
    state = fma(kept_of(rates, $work[u.work_at + u.sums_from + at]), state, own);
  }
#if HAS_target
  target_store(row, q, state);
#endif
}
