// Joins one value of each thread of a team: `team` threads side by side (a power of 2, at most 256) of a workgroup of 256. Every
// thread gets its team's result. The shader says what a value is (`summand`, a number or a vector of f32) and how two become one
// (`join`). It is the same tree with and without subgroups: first neighbours, then neighbouring pairs, and so on.
// To be called by the whole workgroup.

#if subgroups
#include subgroup

var<workgroup> joined: array<summand, 256>;

fn join_team(value: summand, lane: u32) -> summand {
  var all = join_near(value, team);
  // The results of runs become neighbours, until one run holds them all.
  for (var width = u32(team); width > run; width /= run) {
    let runs = width / run;
    let place = lane / team * runs;
    workgroupBarrier();
    if (lane % run == 0u && lane % team < width) {
      joined[place + lane % team / run] = all;
    }
    workgroupBarrier();
    all = join_near(joined[place + lane % runs], runs);
  }
  return all;
}
#else

var<workgroup> joined: array<summand, 512>;

fn join_team(value: summand, lane: u32) -> summand {
  // Two halves of the memory take turns: one is written while slower threads still read the other.
  var half = 0u;
  var all = value;
  workgroupBarrier();
  for (var apart = 1u; apart < team; apart *= 2u) {
    joined[half + lane] = all;
    workgroupBarrier();
    all = join(all, joined[half + (lane ^ apart)]);
    half = 256u - half;
  }
  return all;
}
#endif
