// How far back each token's sequence goes, as lib/conv-reach.wgsl says it, from sequence indices and lengths of rows.

#include grid

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let place = linear_group(group, groups) * 256u + lane;
  let b = place / (u.length + 1u);
  let t = place - b * (u.length + 1u);
  if (b >= u.batch) {
    return;
  }
#if HAS_lengths
  let end = u32(clamp($lengths[u.lengths_at + b], 0, i32(u.length)));
#else
  let end = u.length;
#endif
  var reach = -1;
  if (t == u.length) {
    reach = i32(end);
  } else if (t < end) {
    reach = i32(min(t, width - 1u));
#if HAS_seqIdx
    let at = u.seqIdx_at + b * u.length + t;
    var same = 0;
    while (same < reach && $seqIdx[at - u32(same) - 1u] == $seqIdx[at]) {
      same++;
    }
    reach = same;
#endif
  }
  $reach[u.reach_at + place] = reach;
}
