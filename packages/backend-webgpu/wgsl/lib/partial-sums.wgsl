// Sums over the rows of a workgroup of `threads`, column by column: each thread of a team holds sums of its own columns over its
// team's rows.
// To be called by the whole workgroup.

var<workgroup> team_sums: array<item, threads>;

// The sum over the teams; the first team gets it.
fn sum_teams(value: item, lane: u32) -> item {
  workgroupBarrier();
  team_sums[lane] = value;
  workgroupBarrier();
  var sum = team_sums[lane % team];
  for (var other = lane % team + team; other < threads; other += team) {
    sum += team_sums[other];
  }
  return sum;
}
