// The number of a workgroup in a grid that is a line, or a plane where a line would be longer than a device allows.

fn linear_group(group: vec3u, groups: vec3u) -> u32 {
  return group.y * groups.x + group.x;
}
