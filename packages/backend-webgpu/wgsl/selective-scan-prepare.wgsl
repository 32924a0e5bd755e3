// Makes what the passes of a selective scan read again and again: the table and the marks of lib/selective-scan.wgsl; and copies the
// states that they begin from, zeros where there is none.

#include grid

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = linear_group(group, groups) * 256u + lane;
  if (i < u.channels * (4u * quads + 2u)) {
    let entry = i / u.channels;
    let channel = i - entry * u.channels;
    var value = 0.0;
    if (entry < u.states) {
      value = $A[u.A_at + channel * u.states + entry] * 1.44269504f;
    }
#if HAS_D
    if (entry == 4u * quads) {
      value = $D[u.D_at + channel];
    }
#endif
#if HAS_deltaBias
    if (entry == 4u * quads + 1u) {
      value = $deltaBias[u.deltaBias_at + channel];
    }
#endif
    $work[u.work_at + i] = value;
  }
#if marked
  if (i < u.batch * u.length) {
    let b = i / u.length;
    let t = i - b * u.length;
    var mark = 1.0;
#if HAS_seqIdx
    let at = u.seqIdx_at + i;
    if (t > 0u && $seqIdx[at] != $seqIdx[at - min(t, 1u)]) {
      mark = 2.0;
    }
#endif
#if HAS_lengths
    if (i32(t) >= $lengths[u.lengths_at + b]) {
      mark = 0.0;
    }
#endif
    $work[u.work_at + u.marks_from + i] = mark;
  }
#endif
#if HAS_target
  if (i < u.copied) {
#if HAS_source
    $target[u.target_at + u.target_from + i] = $source[u.source_at + i];
#else
    $target[u.target_at + u.target_from + i] = 0.0;
#endif
  }
#endif
}
