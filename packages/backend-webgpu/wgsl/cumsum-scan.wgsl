// Running sums along lines of any stride, f32, a workgroup to each: every thread adds up a piece of the line, the pieces' sums are
// scanned, and every thread goes through its piece again.

#include grid
#include axes(line)
#include scan(f32)

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = linear_group(group, groups);
  let inside = line < u.lines;
  let at = line_places(line);
  let x_first = u.x_at + at.x;
  let out_first = u.out_at + at.y;
  let first = min(lane * u.piece, u.size);
  let end = select(first, min(first + u.piece, u.size), inside);
  var sum = 0.0;
  for (var i = first; i < end; i++) {
    sum += $x[x_first + place(i) * u.x_step];
  }
  var running = scan_f32(sum, lane).before;
  for (var i = first; i < end; i++) {
    running += $x[x_first + place(i) * u.x_step];
    $out[out_first + place(i) * u.out_step] = running;
  }
}

fn place(i: u32) -> u32 {
#if reverse
  return u.size - 1u - i;
#else
  return i;
#endif
}
